//! How a service gets a probe.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use taskscope_proto::v1::{TaskClass, TaskKind};
#[cfg(tokio_unstable)]
use tokio::runtime::TaskMeta;

use crate::callbacks::Callbacks;
use crate::capture::handle::{AbortHandle, JoinHandle};
use crate::capture::reason;
use crate::capture::task::Class;
use crate::capture::wrapper::{self, Said};
use crate::engine::{self, Engine};
use crate::pool::{PoolSample, UserPool};
use crate::runtimes::{RuntimeEntry, unstable};
use crate::say::say;
use crate::settings::Settings;

/// Settings of the probe before it starts; made by [`Probe::builder`]. The environment (`TASKSCOPE_NAME`,
/// `TASKSCOPE_LISTEN`, `TASKSCOPE_MEMORY`, `TASKSCOPE_STACKS`, `TASKSCOPE_STACK_SIGNAL`, `TASKSCOPE_DISABLED`) wins over it.
///
/// A process has one probe: the first start decides the settings, a later one adds its runtime to it.
#[derive(Clone, Debug)]
pub struct Builder {
    name: Option<String>,
    slow_poll_threshold: Duration,
    thresholds_of_names: Vec<(String, u64)>,
    thresholds_of_classes: Vec<(TaskClass, u64)>,
    blocking_capacity: u32,
    stacks: bool,
    stack_signal: Option<i32>,
    callbacks: Callbacks,
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
        self.slow_poll_threshold = at_least_a_millisecond(threshold);
        self
    }

    /// The same for tasks spawned under `name`, whatever their class.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use taskscope_probe::{Class, Probe};
    /// let builder = Probe::builder()
    ///     .slow_poll_threshold_of("report", Duration::from_secs(2))
    ///     .slow_poll_threshold_of_class(Class::Critical, Duration::from_millis(20));
    /// ```
    pub fn slow_poll_threshold_of(mut self, name: impl Into<String>, threshold: Duration) -> Self {
        self.thresholds_of_names.push((name.into(), at_least_a_millisecond(threshold).as_nanos() as u64));
        self
    }

    /// The same for tasks of a class that have no threshold by name.
    pub fn slow_poll_threshold_of_class(mut self, class: Class, threshold: Duration) -> Self {
        let threshold_ns = at_least_a_millisecond(threshold).as_nanos() as u64;
        self.thresholds_of_classes.push((class.into(), threshold_ns));
        self
    }

    /// The limit given to `tokio::runtime::Builder::max_blocking_threads`, which Tokio does not tell. Without it the
    /// limit is learnt when the pool is first seen full.
    pub fn blocking_capacity(mut self, threads: usize) -> Self {
        self.blocking_capacity = u32::try_from(threads).unwrap_or(u32::MAX);
        self
    }

    /// Whether the probe may look where in its code a poll is that runs too long: *the line*. Default: no. `TASKSCOPE_STACKS=on`
    /// (or `off`) wins over it. Linux on x86-64 and aarch64; elsewhere it changes nothing, and viewers are told so.
    ///
    /// A thread whose poll has passed its threshold is sent a real-time signal, at most eight a second over the process; its
    /// handler copies the thread's registers and stack, and everything else happens on a thread of the probe's,
    /// `taskscope-stacks`. The handler is installed with `SA_RESTART`: `read`, `recv`, `accept`, locks and
    /// `std::thread::sleep` go on as if nothing had been. System calls that never restart return `EINTR` where such a poll is
    /// in one: `epoll_wait`, `poll`, `select`, `nanosleep` and `usleep` of C, `msgrcv`, `semop`, and sockets with a timeout of
    /// their own (`SO_RCVTIMEO`). docs/stuck.md has the list, and what it costs.
    ///
    /// Memory: an eighth of the probe's budget, 704 KiB at least and 1 MiB at most. Cost: nothing while no poll is slow; some
    /// microseconds of the thread that is looked at.
    ///
    /// ```no_run
    /// let mut runtime = tokio::runtime::Builder::new_multi_thread();
    /// taskscope_probe::Probe::builder().stacks(true).install(&mut runtime);
    /// # runtime.build().unwrap();
    /// ```
    pub fn stacks(mut self, on: bool) -> Self {
        self.stacks = on;
        self
    }

    /// The number of the signal for [`Builder::stacks`]: a real-time signal that the application does not use
    /// (`SIGRTMIN + 5`, say). `TASKSCOPE_STACK_SIGNAL` wins over it. Default: one whose action is the default one when the
    /// probe starts, looked for from `SIGRTMAX - 3` downwards. One that has an action already is left alone, and no stacks are
    /// taken, which the probe says in one line on standard error.
    ///
    /// ```no_run
    /// let mut runtime = tokio::runtime::Builder::new_multi_thread();
    /// taskscope_probe::Probe::builder().stacks(true).stack_signal(40).install(&mut runtime);
    /// # runtime.build().unwrap();
    /// ```
    pub fn stack_signal(mut self, number: i32) -> Self {
        self.stack_signal = Some(number);
        self
    }

    /// Your own `on_task_spawn`, which is called after the probe's. See [`Builder::on_before_task_poll`].
    #[cfg(tokio_unstable)]
    pub fn on_task_spawn(mut self, callback: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        self.callbacks.spawn = Some(Arc::new(callback));
        self
    }

    /// Your own `on_before_task_poll`, which is called after the probe's, so that what it does counts as part of the poll.
    ///
    /// Tokio keeps one callback per hook. This one and its siblings are what [`Builder::install`] sets together with the
    /// probe's; given to `tokio::runtime::Builder` instead, before it they are lost, and after it they replace the probe's,
    /// which says so and then sees the tasks of that runtime through the wrapper only. A panic in your callback goes where
    /// Tokio lets it go. Without a running probe (`TASKSCOPE_DISABLED`) your callbacks are set alone. A second call
    /// replaces the first.
    ///
    /// Cost: one call through a pointer more at each poll. Without a callback there is none.
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    /// static POLLS: AtomicU64 = AtomicU64::new(0);
    ///
    /// let mut runtime = tokio::runtime::Builder::new_current_thread();
    /// taskscope_probe::Probe::builder()
    ///     .on_before_task_poll(|_| {
    ///         POLLS.fetch_add(1, Relaxed);
    ///     })
    ///     .install(&mut runtime);
    /// let runtime = runtime.build()?;
    /// runtime.block_on(async { tokio::spawn(async {}).await })?;
    /// assert_eq!(POLLS.load(Relaxed), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(tokio_unstable)]
    pub fn on_before_task_poll(mut self, callback: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        self.callbacks.before_poll = Some(Arc::new(callback));
        self
    }

    /// Your own `on_after_task_poll`, which is called before the probe's, so that what it does counts as part of the poll.
    /// See [`Builder::on_before_task_poll`].
    #[cfg(tokio_unstable)]
    pub fn on_after_task_poll(mut self, callback: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        self.callbacks.after_poll = Some(Arc::new(callback));
        self
    }

    /// Your own `on_task_terminate`, which is called before the probe's. See [`Builder::on_before_task_poll`].
    #[cfg(tokio_unstable)]
    pub fn on_task_terminate(mut self, callback: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
        self.callbacks.terminate = Some(Arc::new(callback));
        self
    }

    /// Your own `on_thread_park`. Without `tokio_unstable` the probe uses that hook, and calls yours after its own.
    ///
    /// ```
    /// let mut runtime = tokio::runtime::Builder::new_current_thread();
    /// taskscope_probe::Probe::builder().on_thread_park(|| { /* … */ }).install(&mut runtime);
    /// # runtime.build().unwrap();
    /// ```
    pub fn on_thread_park(mut self, callback: impl Fn() + Send + Sync + 'static) -> Self {
        self.callbacks.park = Some(Arc::new(callback));
        self
    }

    /// Starts the probe and puts its hooks on the runtime that `runtime` will build.
    ///
    /// Tokio keeps one callback per hook: with `tokio_unstable` this sets `on_task_spawn`, `on_before_task_poll`,
    /// `on_after_task_poll` and `on_task_terminate`; without, it sets `on_thread_park` unless one is set already. Give
    /// yours to this builder, which sets both. It never fails the service: what goes wrong is said in one line on standard
    /// error.
    ///
    /// Where the service has switched on Tokio's feature `schedule-latency` and calls `track_task_schedule_latency` on
    /// `runtime`, rows tell how long tasks waited for a worker also where the wrapper does not. The probe switches on neither:
    /// it is Tokio's own measuring that costs.
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

    fn install_entry(mut self, runtime: &mut tokio::runtime::Builder) -> (Probe, Option<Arc<RuntimeEntry>>) {
        let capacity = self.blocking_capacity;
        let callbacks = std::mem::take(&mut self.callbacks);
        let Some(engine) = self.start_engine() else {
            callbacks.set_alone(runtime);
            return (Probe { engine: None }, None);
        };
        let entry = engine.add_runtime(unstable::HOOKS, capacity);
        #[cfg(tokio_unstable)]
        crate::capture::hooks::install(&engine.registry, &entry, runtime, callbacks);
        #[cfg(not(tokio_unstable))]
        install_park(engine, &entry, runtime, callbacks);
        (Probe { engine: Some(engine) }, Some(entry))
    }

    /// Starts the probe in a process whose runtime is built already, or by somebody else. Tasks are then seen through
    /// [`crate::spawn`] and labels only.
    pub fn start(self) -> Probe {
        let capacity = self.blocking_capacity;
        if !self.callbacks.is_empty() {
            say(format_args!(
                "callbacks given to `Probe::builder()` are never called: its runtime is built already; hint: `install` \
                 before it is, or give them to Tokio's builder"
            ));
        }
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
        engine::start(|| Settings {
            thresholds_of_names: self.thresholds_of_names,
            thresholds_of_classes: self.thresholds_of_classes,
            ..Settings::new(self.name, self.slow_poll_threshold, (self.stacks, self.stack_signal), |name| {
                std::env::var(name).ok()
            })
        })
    }
}

/// On stable Tokio: the park hook tells which threads are the runtime's.
#[cfg(not(tokio_unstable))]
fn install_park(
    engine: &'static Engine,
    entry: &Arc<RuntimeEntry>,
    runtime: &mut tokio::runtime::Builder,
    callbacks: Callbacks,
) {
    // The builder shows whether a callback of the application's is set; that one stays, unless this builder was given one,
    // which would replace it without us, too.
    if callbacks.park.is_none() && format!("{runtime:?}").contains("before_park: Some") {
        entry.stays.store(true, Relaxed);
        return;
    }
    let held = Arc::clone(entry);
    let parks = move || {
        if !held.seen_at_work.load(Relaxed) {
            held.seen_at_work.store(true, Relaxed);
        }
        if let Some(line) = engine.registry.my_line() {
            line.set_runtime(held.id, crate::runtimes::worker_index());
            held.offer_metrics();
        }
    };
    match callbacks.park {
        None => runtime.on_thread_park(parks),
        Some(callback) => runtime.on_thread_park(move || {
            parks();
            callback();
        }),
    };
}

/// Below that a threshold would make an event of every poll that the system interrupts.
fn at_least_a_millisecond(threshold: Duration) -> Duration {
    threshold.max(Duration::from_millis(1))
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
        Builder {
            name: None,
            slow_poll_threshold: Duration::from_millis(100),
            thresholds_of_names: Vec::new(),
            thresholds_of_classes: Vec::new(),
            blocking_capacity: 0,
            stacks: false,
            stack_signal: None,
            callbacks: Callbacks::default(),
        }
    }

    /// The probe that runs in this process, if one does. A forked child has none.
    pub fn current() -> Option<Self> {
        let engine = engine::get().filter(|engine| engine.is_of_this_process());
        engine.map(|engine| Self { engine: Some(engine) })
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
        crate::spawn(name, future)
    }

    /// As [`crate::spawn_detached`].
    #[track_caller]
    pub fn spawn_detached<F>(&self, name: &str, future: F) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        crate::spawn_detached(name, future)
    }

    /// As [`crate::spawn_blocking`].
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, name: &str, job: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        crate::spawn_blocking(name, job)
    }

    /// Shows a pool of the application's: anything with a capacity that work queues for. A pool of the same name is
    /// replaced; a name is cut at 255 bytes.
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
        if let Some(engine) = self.engine.filter(|engine| engine.is_of_this_process()) {
            let name = reason::cut(&engine.registry, name.into());
            engine.add_pool(UserPool::new(name, sample));
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

    /// Not in a child that was forked, in which nothing of the probe's may be locked.
    fn entry(&self) -> Option<&RuntimeEntry> {
        let is_here = engine::get().is_some_and(Engine::is_of_this_process);
        self.entry.as_deref().filter(|_| is_here)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(entry) = self.entry() {
            entry.unpin();
            entry.release_metrics();
        }
    }
}

/// The body of `main` as a row.
#[doc(hidden)]
#[track_caller]
pub fn main_body<F: Future>(body: F) -> impl Future<Output = F::Output> {
    wrapper::instrument_alone(Said::new("main"), TaskKind::Main, body)
}
