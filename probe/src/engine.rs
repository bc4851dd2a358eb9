//! The one engine of a process: the registry that capture writes, the runtimes it knows, the application's pools, and the
//! thread that samples and serves. It is made once and lives as long as the process.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::clock::Clock;
use crate::pool::UserPool;
use crate::registry::Registry;
use crate::registry::lines::Line;
use crate::runtimes::{RuntimeEntry, worker_index};
use crate::settings::Settings;

pub(crate) mod activity;
pub(crate) mod capabilities;
pub(crate) mod frames;
pub(crate) mod history;
pub(crate) mod listen;
pub(crate) mod sampler;
pub(crate) mod server;
pub(crate) mod thread;
pub(crate) mod windows;

static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();

pub(crate) struct Engine {
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    /// Locked by installs and by the probe's thread, never in a hook.
    runtimes: Mutex<Vec<Arc<RuntimeEntry>>>,
    pools: Mutex<Vec<Arc<UserPool>>>,
    /// The first runtime, to which threads belong that no hook assigns.
    first_runtime: OnceLock<Arc<RuntimeEntry>>,
    /// Where it listens, or why it does not; set once by the probe's thread.
    pub(crate) address: OnceLock<Result<String, String>>,
    /// Wall clock when it began, ns since the Unix epoch.
    pub(crate) started_unix_ns: u64,
    /// Identity of this run.
    pub(crate) instance: String,
}

/// The engine, started with `settings` by the first call; `None` where the probe is disabled or no thread can be made.
pub(crate) fn start(settings: impl FnOnce() -> Settings) -> Option<&'static Engine> {
    let mut fresh = false;
    let engine = ENGINE
        .get_or_init(|| {
            let settings = settings();
            if settings.disabled {
                return None;
            }
            fresh = true;
            let clock = Clock::start();
            let registry = Registry::with_budget(
                settings.memory_bytes,
                clock,
                settings.slow_poll_threshold.as_nanos() as u64,
            );
            Some(Engine {
                registry,
                settings,
                runtimes: Mutex::default(),
                pools: Mutex::default(),
                first_runtime: OnceLock::new(),
                address: OnceLock::new(),
                started_unix_ns: thread::unix_ns(),
                instance: random_instance(),
            })
        })
        .as_ref()?;
    if fresh {
        crate::capture::panics::install(&engine.registry);
        thread::spawn(engine);
    }
    Some(engine)
}

/// The running engine.
#[inline]
pub(crate) fn get() -> Option<&'static Engine> {
    ENGINE.get()?.as_ref()
}

#[inline]
pub(crate) fn registry() -> Option<&'static Registry> {
    get().map(|engine| &engine.registry)
}

/// Whether a runtime with our task hooks exists.
#[cfg(tokio_unstable)]
pub(crate) fn hooks_are_installed() -> bool {
    get().and_then(|engine| engine.first_runtime.get()).is_some_and(|runtime| runtime.has_hooks)
}

/// The runtime that a task without hooks is counted to; 0: none.
pub(crate) fn current_runtime_id() -> u32 {
    get().and_then(|engine| engine.first_runtime.get()).map_or(0, |runtime| runtime.id)
}

/// Assigns a thread that no hook has assigned, and leaves the runtime's metrics where they are wanted.
#[inline]
pub(crate) fn adopt_current_runtime(line: &Line) {
    let Some(runtime) = get().and_then(|engine| engine.first_runtime.get()) else { return };
    if line.runtime() == 0 {
        line.set_runtime(runtime.id, worker_index());
    }
    if line.runtime() == runtime.id {
        runtime.offer_metrics();
    }
}

impl Engine {
    /// A new entry for a runtime; `has_hooks` says whether the task hooks are on it.
    pub(crate) fn add_runtime(&self, has_hooks: bool, blocking_capacity: u32) -> Arc<RuntimeEntry> {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        let id = runtimes.iter().map(|runtime| runtime.id).max().unwrap_or(0) + 1;
        let entry = Arc::new(RuntimeEntry::new(id, has_hooks, blocking_capacity));
        runtimes.push(Arc::clone(&entry));
        let _ = self.first_runtime.set(Arc::clone(&entry));
        entry
    }

    pub(crate) fn runtimes(&self) -> Vec<Arc<RuntimeEntry>> {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets runtimes that have ended: nothing but our list holds their entry.
    pub(crate) fn forget_ended_runtimes(&self) {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.retain(|runtime| Arc::strong_count(runtime) > 1);
    }

    pub(crate) fn add_pool(&self, pool: UserPool) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(pool));
    }

    /// Copies, so that no closure of the application runs under the lock.
    pub(crate) fn pools(&self) -> Vec<Arc<UserPool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Eight hexadecimal digits from the standard library's per-process randomness.
fn random_instance() -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{:08x}", hasher.finish() as u32)
}
