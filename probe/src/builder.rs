//! How a service gets a probe.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use taskscope_proto::v1::TaskKind;
use tokio::task::JoinHandle;

use crate::capture::wrapper;
use crate::engine::{self, Engine};
use crate::pool::{PoolSample, UserPool};
use crate::runtimes::{RuntimeEntry, unstable};
use crate::settings::Settings;

/// Settings of the probe before it starts; made by [`Probe::builder`]. The environment (`TASKSCOPE_NAME`,
/// `TASKSCOPE_LISTEN`, `TASKSCOPE_MEMORY`, `TASKSCOPE_DISABLED`) wins over it.
///
/// A process has one probe: the first start decides the settings, a later one adds its runtime to it.
#[derive(Clone, Debug)]
pub struct Builder {
    name: Option<String>,
    slow_poll_threshold: Duration,
    blocking_capacity: u32,
}

/// Threads that Tokio's blocking pool grows to by default.
const TOKIO_BLOCKING_THREADS: usize = 512;

impl Builder {
    /// The service's name, under which `taskscope NAME` finds it. Default: the executable's file name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A poll that runs at least this long is an event, also while it still runs. Default 100 ms; at least 1 ms.
    pub fn slow_poll_threshold(mut self, threshold: Duration) -> Self {
        self.slow_poll_threshold = threshold.max(Duration::from_millis(1));
        self
    }

    /// The limit given to `tokio::runtime::Builder::max_blocking_threads`, which Tokio does not tell. Without it the
    /// limit is learnt when the pool is first seen full.
    pub fn blocking_capacity(mut self, threads: usize) -> Self {
        self.blocking_capacity = u32::try_from(threads).unwrap_or(u32::MAX);
        self
    }

    /// Starts the probe and puts its hooks on the runtime that `runtime` will build.
    ///
    /// Tokio keeps one callback per hook: with `tokio_unstable` this sets `on_task_spawn`, `on_before_task_poll`,
    /// `on_after_task_poll` and `on_task_terminate`; without, it sets `on_thread_park` unless one is set already. It
    /// never fails the service: what goes wrong is said in one line on standard error.
    ///
    /// ```no_run
    /// let mut runtime = tokio::runtime::Builder::new_current_thread();
    /// let probe = taskscope_probe::Probe::builder().name("checkout").install(&mut runtime);
    /// let runtime = runtime.enable_all().build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn install(self, runtime: &mut tokio::runtime::Builder) -> Probe {
        self.install_entry(runtime).0
    }

    fn install_entry(self, runtime: &mut tokio::runtime::Builder) -> (Probe, Option<Arc<RuntimeEntry>>) {
        let capacity = self.blocking_capacity;
        let engine = self.start_engine();
        let entry = engine.map(|engine| engine.add_runtime(unstable::HOOKS, capacity));
        if let (Some(engine), Some(entry)) = (engine, &entry) {
            #[cfg(tokio_unstable)]
            crate::capture::hooks::install(&engine.registry, entry, runtime);
            // The builder shows whether a callback of the application's is set; that one stays.
            #[cfg(not(tokio_unstable))]
            if format!("{runtime:?}").contains("before_park: Some") {
                entry.stays.store(true, Relaxed);
            } else {
                let held = Arc::clone(entry);
                runtime.on_thread_park(move || {
                    if let Some(line) = engine.registry.lines.mine() {
                        line.set_runtime(held.id, crate::runtimes::worker_index());
                        held.offer_metrics();
                    }
                });
            }
        }
        (Probe { engine }, entry)
    }

    /// Starts the probe in a process whose runtime is built already, or by somebody else. Tasks are then seen through
    /// [`crate::spawn`] and labels only.
    pub fn start(self) -> Probe {
        let capacity = self.blocking_capacity;
        let engine = self.start_engine();
        if let Some(engine) = engine
            && engine.runtimes().is_empty()
        {
            let entry = engine.add_runtime(false, capacity);
            entry.stays.store(true, Relaxed);
            if let Ok(handle) = tokio::runtime::Handle::try_current()
                && entry.is_mine(&handle)
            {
                entry.want_metrics();
            }
        }
        Probe { engine }
    }

    fn start_engine(self) -> Option<&'static Engine> {
        engine::start(|| Settings::new(self.name, self.slow_poll_threshold, |name| std::env::var(name).ok()))
    }
}

/// The probe of this process. Cheap to clone; dropping it changes nothing.
#[derive(Clone, Copy)]
pub struct Probe {
    /// `None`: disabled.
    engine: Option<&'static Engine>,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("address", &self.engine.and_then(|engine| engine.address.get()))
            .finish()
    }
}

impl Probe {
    pub fn builder() -> Builder {
        Builder { name: None, slow_poll_threshold: Duration::from_millis(100), blocking_capacity: 0 }
    }

    /// The probe that runs in this process, if one does.
    pub fn current() -> Option<Self> {
        engine::get().map(|engine| Self { engine: Some(engine) })
    }

    /// Where it listens, as `taskscope` takes it: `unix:PATH` or `http://HOST:PORT`. `None` while it is starting (some
    /// milliseconds) and where it cannot listen, which it has then said on standard error.
    pub fn address(&self) -> Option<String> {
        self.engine?.address.get()?.as_ref().ok().cloned()
    }

    /// Whether the runtime's task hooks are there; the error says in one sentence why not.
    pub fn hooks(&self) -> Result<(), String> {
        match (self.engine, engine::capabilities::missing_hooks()) {
            (None, _) => Err("the probe is disabled by TASKSCOPE_DISABLED".to_owned()),
            (_, Some(reason)) => Err(reason),
            (_, None) => Ok(()),
        }
    }

    /// As [`crate::spawn`].
    #[track_caller]
    pub fn spawn<F>(&self, name: &str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        wrapper::spawn(name, future)
    }

    /// As [`crate::spawn_blocking`].
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, name: &str, job: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        wrapper::spawn_blocking(name, job)
    }

    /// Shows a pool of the application's: anything with a capacity that work queues for. A pool of the same name is
    /// replaced.
    ///
    /// `sample` is called about once a second, and somewhat more often while somebody watches, on a thread
    /// `taskscope-pools` that the first pool starts. What is wrong with it is counted and said once on standard error, and
    /// the service and its other pools go on: a closure that takes longer than a second shows nothing until it returns,
    /// one that panics is not asked again, and one that says what cannot be is shown as it came.
    ///
    /// [`PoolSample`] has examples for a semaphore and a channel.
    ///
    /// ```
    /// # fn example(probe: taskscope_probe::Probe) {
    /// let connections = std::sync::Arc::new(tokio::sync::Semaphore::new(16));
    /// let pool = std::sync::Arc::clone(&connections);
    /// probe.pool("database", move || taskscope_probe::PoolSample {
    ///     capacity: Some(16),
    ///     busy: Some(16 - pool.available_permits() as u64),
    ///     ..Default::default()
    /// });
    /// # }
    /// ```
    pub fn pool(&self, name: impl Into<String>, sample: impl Fn() -> PoolSample + Send + Sync + 'static) {
        if let Some(engine) = self.engine {
            engine.add_pool(UserPool::new(name.into(), sample));
        }
    }
}

/// What `#[taskscope_probe::main]` does before the runtime is built.
#[doc(hidden)]
pub fn install(runtime: &mut tokio::runtime::Builder) -> Installed {
    let builder = Probe::builder().blocking_capacity(TOKIO_BLOCKING_THREADS);
    Installed { entry: builder.install_entry(runtime).1 }
}

/// The attribute's runtime, whose end the attribute knows: it is kept asked for its metrics until this is dropped.
#[doc(hidden)]
#[derive(Debug)]
pub struct Installed {
    entry: Option<Arc<RuntimeEntry>>,
}

impl Installed {
    pub fn built(&self, handle: &tokio::runtime::Handle) {
        if let Some(entry) = &self.entry {
            entry.pin(handle);
        }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            entry.unpin();
            entry.release_metrics();
        }
    }
}

/// The body of `main` as a row.
#[doc(hidden)]
#[track_caller]
pub fn main_body<F: Future>(body: F) -> impl Future<Output = F::Output> {
    wrapper::instrument("main", TaskKind::Main, body)
}
