//! The one engine of a process: the registry that capture writes, the runtimes it knows, the application's pools, and the
//! thread that samples and serves. It is made once and lives as long as the process.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::clock::Clock;
use crate::pool::UserPool;
use crate::registry::Registry;
use crate::registry::lines::Line;
use crate::runtimes::{RuntimeEntry, worker_index};
use crate::say::say;
use crate::settings::Settings;
use crate::stacks::{self, Stacks};

pub(crate) mod activity;
pub(crate) mod alarm;
pub(crate) mod askers;
pub(crate) mod capabilities;
pub(crate) mod cpu;
pub(crate) mod credit;
pub(crate) mod defects;
pub(crate) mod frames;
pub(crate) mod history;
pub(crate) mod listen;
pub(crate) mod listeners;
pub(crate) mod pauses;
pub(crate) mod sampler;
pub(crate) mod schedule;
pub(crate) mod server;
pub(crate) mod thread;
pub(crate) mod tick;
pub(crate) mod windows;

static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();

pub(crate) struct Engine {
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    /// Locked by installs and by the probe's thread, never in a hook.
    runtimes: Mutex<Vec<Arc<RuntimeEntry>>>,
    pools: Mutex<Vec<Arc<UserPool>>>,
    pub(crate) askers: askers::Askers,
    /// `None`: they were not asked for, or cannot be had on this system.
    pub(crate) stacks: Option<Stacks>,
    /// Which pools of the process cannot be told; `None` before they were looked for.
    pub(crate) missing_pools: Mutex<Option<Vec<&'static str>>>,
    /// The first runtime, to which threads belong that no hook assigns.
    first_runtime: OnceLock<Arc<RuntimeEntry>>,
    next_runtime: AtomicU32,
    has_hooks: AtomicBool,
    /// Where it listens, or why it does not; set once by the probe's thread.
    pub(crate) address: OnceLock<Result<String, String>>,
    /// Wall clock when it began, ns since the Unix epoch.
    pub(crate) started_unix_ns: u64,
    /// Identity of this run.
    pub(crate) instance: String,
    /// The process that the probe's thread is in.
    pid: u32,
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
            let stacks = settings.stacks.filter(|_| stacks::CAN_BE);
            let stacks = stacks.map(|wanted| Stacks::new(wanted, stacks::share_of(settings.memory_bytes)));
            let registry = Registry::with_budget(
                settings.memory_bytes - stacks.as_ref().map_or(0, Stacks::bytes),
                clock,
                settings.slow_poll_threshold.as_nanos() as u64,
            )
            .with_thresholds(&settings.thresholds_of_names, &settings.thresholds_of_classes)
            .with_stacks(stacks.is_some());
            Some(Engine {
                registry,
                settings,
                runtimes: Mutex::default(),
                pools: Mutex::default(),
                askers: askers::Askers::default(),
                stacks,
                missing_pools: Mutex::default(),
                first_runtime: OnceLock::new(),
                next_runtime: AtomicU32::new(1),
                has_hooks: AtomicBool::new(false),
                address: OnceLock::new(),
                started_unix_ns: thread::unix_ns(),
                instance: random_instance(),
                pid: std::process::id(),
            })
        })
        .as_ref()?;
    if !engine.is_of_this_process() {
        static SAID: AtomicBool = AtomicBool::new(false);
        if !SAID.swap(true, Relaxed) {
            say(format_args!(
                "this process was forked from one with a probe and has none; hint: fork before the probe starts, or \
                 execute a program"
            ));
        }
        return None;
    }
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

/// Whether any runtime got our task hooks.
#[cfg(tokio_unstable)]
pub(crate) fn has_hooks() -> bool {
    get().is_some_and(|engine| engine.has_hooks.load(Relaxed))
}

/// The runtime that a task without hooks is counted to; 0: none.
pub(crate) fn current_runtime_id() -> u32 {
    get().and_then(|engine| engine.first_runtime.get()).map_or(0, |runtime| runtime.id)
}

/// Of a thread that works for a runtime without the probe.
const FOREIGN: u32 = u32::MAX >> 1;

/// Assigns a thread that no hook has assigned, and leaves the runtime's metrics where they are wanted.
#[inline]
pub(crate) fn adopt_current_runtime(line: &Line) {
    let Some(runtime) = get().and_then(|engine| engine.first_runtime.get()) else { return };
    let known = line.runtime();
    if known == 0 || known == runtime.id && !line.knows(runtime.id) {
        adopt(line, runtime);
    }
    if line.runtime() == runtime.id {
        runtime.offer_metrics();
    }
}

#[cold]
fn adopt(line: &Line, runtime: &RuntimeEntry) {
    let mine = tokio::runtime::Handle::try_current().is_ok_and(|handle| runtime.is_mine(&handle));
    if mine {
        line.set_runtime(runtime.id, worker_index());
    } else {
        line.set_runtime(FOREIGN, None);
    }
}

impl Engine {
    /// False in a child that was forked: there is no thread of the probe's, and a lock of ours may be held for ever by a
    /// thread that was left behind. Nothing may be locked then. Costs a system call.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Bytes that the probe holds for data.
    pub(crate) fn bytes(&self) -> usize {
        self.registry.bytes() + self.stacks.as_ref().map_or(0, Stacks::bytes)
    }

    /// A new entry for a runtime; `has_hooks` says whether the task hooks are on it. It lives as long as its caller (the
    /// hooks' closures) holds it.
    pub(crate) fn add_runtime(&self, has_hooks: bool, blocking_capacity: u32) -> Arc<RuntimeEntry> {
        self.forget_ended_runtimes();
        let id = self.next_runtime.fetch_add(1, Relaxed);
        let entry = Arc::new(RuntimeEntry::new(id, has_hooks, blocking_capacity));
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&entry));
        let _ = self.first_runtime.set(Arc::clone(&entry));
        self.has_hooks.fetch_or(has_hooks, Relaxed);
        entry
    }

    pub(crate) fn runtimes(&self) -> Vec<Arc<RuntimeEntry>> {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets runtimes that have ended: nothing but our own lists holds their entry.
    pub(crate) fn forget_ended_runtimes(&self) {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.first_runtime.get().map(|first| first.id);
        runtimes.retain(|runtime| {
            let is_first = Some(runtime.id) == first;
            // Without hooks our only callback may have been replaced: one that never fired tells of no end. The first
            // runtime is the one that tasks are counted to all the same.
            let may_live = is_first && !runtime.has_hooks() && !runtime.seen_at_work.load(Relaxed);
            let ours = 1 + usize::from(is_first);
            runtime.stays.load(Relaxed) || may_live || Arc::strong_count(runtime) > ours
        });
    }

    /// Adds a pool in place of an earlier one of the same name.
    pub(crate) fn add_pool(&'static self, pool: UserPool) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let same = pools.iter().position(|known| known.name == pool.name);
        let replaced = same.map(|position| pools.swap_remove(position));
        pools.push(Arc::new(pool));
        drop(pools);
        // What its closure holds is the application's: it is dropped outside the lock.
        drop(replaced);
        self.askers.begin(self);
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
