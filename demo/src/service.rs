//! Runs the shop in this process: its runtime with the probe, its load, and the tour of faults.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use taskscope_probe::Probe;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, sleep_until};

use crate::announcement::{Announcement, Edge, Progress};
use crate::announcer::Announcer;
use crate::fault::{Fault, Faults};
use crate::injection::Injection;
use crate::load::Load;
use crate::shop::Shop;
use crate::tour::{Step, schedule};
use crate::{api, clock, ending, listener};

const WORKERS: usize = 2;
const BLOCKING_THREADS: usize = 8;
/// For tasks that are in a poll; one that stays longer does not keep the process.
const SHUTDOWN: Duration = Duration::from_millis(500);

/// A probe without an address by then listens nowhere.
const PROBE_START: Duration = Duration::from_millis(500);

/// How to run the demo. The default is the whole tour, until it is told to end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub faults: Faults,
    /// Counted from when the service is ready.
    pub run_for: Option<Duration>,
    pub output: Output,
    /// Ends when standard input does: a child with a piped standard input ends with its parent, however that one ended.
    pub until_stdin_closes: bool,
}

/// How the demo speaks on standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Output {
    /// One JSON object a line, see [`Announcement`].
    #[default]
    Lines,
    /// Plain words; the first word of the first line is the probe's address.
    Words,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on a port of 127.0.0.1: {0}\nhint: the demo needs the loopback device")]
    Listen(#[source] io::Error),
    #[error("cannot start a thread or a runtime: {0}\nhint: see `ulimit -u` and `ulimit -n`")]
    Start(#[source] io::Error),
}

/// Runs the service until its end: [`Options::run_for`], ctrl-c, SIGTERM, or the end of standard input. The tour's own
/// end does not end it. Blocks the caller; may be called from anywhere.
pub fn serve(options: Options) -> Result<(), Error> {
    serve_on(options, |mut builder| builder.build())
}

/// [`serve`], on a runtime that the caller makes: for a shop that another tool watches, too. `build` is called once, with
/// the builder that the shop would have used; the probe's hooks are in it unless `TASKSCOPE_DISABLED=1` keeps them out.
///
/// ```no_run
/// taskscope_demo::serve_on(taskscope_demo::Options::default(), |mut builder| {
///     builder.on_thread_start(|| eprintln!("one more thread")).build()
/// })?;
/// # Ok::<(), taskscope_demo::Error>(())
/// ```
pub fn serve_on(
    options: Options,
    build: impl FnOnce(Builder) -> io::Result<Runtime> + Send + 'static,
) -> Result<(), Error> {
    // A runtime may be neither entered nor dropped inside a task of another one: a thread of our own is free of that.
    let tour =
        thread::Builder::new().name("demo-tour".into()).spawn(move || run(&options, io::stdout(), build));
    tour.map_err(Error::Start)?.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn run(
    options: &Options,
    output: impl Write + Send + 'static,
    build: impl FnOnce(Builder) -> io::Result<Runtime>,
) -> Result<(), Error> {
    let announcer = Announcer::start(options.output, output).map_err(Error::Start)?;
    let clockwork = Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let service = Service::start(build)?;
    clockwork.block_on(async {
        announcer.say(&service.serving().await);
        conduct(options, &service, &announcer).await;
    });
    service.stop();
    Ok(())
}

struct Service {
    runtime: Runtime,
    probe: Probe,
    shop: Arc<Shop>,
    address: SocketAddr,
    load: Load,
}

impl Service {
    fn start(build: impl FnOnce(Builder) -> io::Result<Runtime>) -> Result<Self, Error> {
        let (builder, probe) = probed();
        let runtime = build(builder).map_err(Error::Start)?;
        let entered = runtime.enter();
        let shop = Shop::open(probe).map_err(Error::Start)?;
        let address = listener::listen(probe, api::router(shop.clone())).map_err(Error::Listen)?;
        drop(entered);
        let load = Load::start(address).map_err(Error::Start)?;
        Ok(Self { runtime, probe, shop, address, load })
    }

    async fn serving(&self) -> Announcement {
        let hooks = self.probe.hooks();
        Announcement::Serving {
            http: format!("http://{}", self.address),
            probe: listening(self.probe).await,
            hooks: hooks.is_ok(),
            hooks_absent: hooks.err(),
        }
    }

    fn stop(self) {
        drop(self.load);
        self.runtime.shutdown_timeout(SHUTDOWN);
    }
}

/// The probe's address, which it has some milliseconds after its start, or never.
async fn listening(probe: Probe) -> Option<String> {
    let give_up = Instant::now() + PROBE_START;
    while probe.address().is_none() && Instant::now() < give_up {
        sleep(PROBE_START / 100).await;
    }
    probe.address()
}

/// The builder of the runtime that the shop lives on, with the probe in it.
pub(crate) fn probed() -> (Builder, Probe) {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).max_blocking_threads(BLOCKING_THREADS).enable_all();
    let probe =
        Probe::builder().name("demo").blocking_capacity(BLOCKING_THREADS).stacks(true).install(&mut builder);
    (builder, probe)
}

/// Carries out the tour, and then waits for the end.
async fn conduct(options: &Options, service: &Service, announcer: &Announcer) {
    let mut end = pin!(ending::reached(options.run_for, options.until_stdin_closes));
    let ready = Instant::now();
    let mut injection = None;
    for (at, step) in schedule(&options.faults) {
        tokio::select! {
            () = &mut end => return,
            () = sleep_until(ready + at) => {}
        }
        let announce = |fault: Fault, state| {
            let truth = fault.truth().to_owned();
            // Milliseconds of u64 outlast the machine.
            let at_ms = ready.elapsed().as_millis() as u64;
            announcer.say(&Announcement::Fault { name: fault, state, truth, at_ms });
        };
        match step {
            Step::Start(fault) => {
                announce(fault, Edge::Start);
                injection = Some(Injection::start(fault, &service.shop, service.address, clock::now()));
            }
            Step::End(_) => {
                if let Some(ended) = injection.take() {
                    announce(ended.fault(), Edge::End);
                }
            }
            Step::Done => announcer.say(&Announcement::Tour { state: Progress::Done }),
        }
    }
    end.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Chunks, Served, eventually};
    use std::sync::mpsc::channel;

    #[test]
    fn the_service_announces_itself_first_and_ends_after_its_time() {
        let (output, lines) = channel();
        let started = clock::now();
        let options =
            Options { faults: Faults::None, run_for: Some(Duration::from_millis(200)), ..Options::default() };
        run(&options, Chunks(output), |mut builder| builder.build()).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(200));
        let lines: Vec<String> = lines.iter().collect();
        let [first] = &lines[..] else { panic!("{lines:?}") };
        let Announcement::Serving { http, hooks, hooks_absent, .. } = first.parse().unwrap() else {
            panic!("{first}")
        };
        assert!(http.starts_with("http://127.0.0.1:"), "{http}");
        assert_eq!(hooks, hooks_absent.is_none());
    }

    #[test]
    fn the_shop_lives_on_the_runtime_that_the_caller_makes() {
        let (output, lines) = channel();
        let (started, threads) = channel();
        let options = Options { faults: Faults::None, run_for: Some(Duration::ZERO), ..Options::default() };
        run(&options, Chunks(output), move |mut builder| {
            builder.thread_name("callers-own").on_thread_start(move || {
                let _ = started.send(thread::current().name().map(str::to_owned));
            });
            builder.build()
        })
        .unwrap();
        assert_eq!(lines.iter().count(), 1);
        let names: Vec<_> = threads.iter().collect();
        assert!(names.len() >= WORKERS && names.iter().all(|name| name.as_deref() == Some("callers-own")));

        let refused = |_: Builder| Err(io::Error::other("no runtime today"));
        let error = run(&options, Chunks(channel().0), refused).unwrap_err();
        assert!(error.to_string().contains("no runtime today"), "{error}");
    }

    #[test]
    fn a_reader_that_is_gone_ends_nothing() {
        let (output, gone) = channel();
        drop(gone);
        let run_for = Some(Duration::from_millis(200));
        let started = clock::now();
        run(&Options { run_for, ..Options::default() }, Chunks(output), |mut builder| builder.build())
            .unwrap();
        assert!(started.elapsed() >= Duration::from_millis(200));
    }

    #[test]
    fn a_fault_that_is_dropped_is_repaired() {
        let served = Served::start();
        let now = clock::now();
        let injection = Injection::start(Fault::PoolFull, &served.shop, served.address, now);
        eventually("8 jobs hang", || served.shop.storage.hanging_writes() == 8);
        assert_eq!(injection.fault(), Fault::PoolFull);
        drop(injection);
        eventually("none hangs", || served.shop.storage.hanging_writes() == 0);
    }
}
