//! What a unit of work takes, at a size that lasts long enough in every mode.

use std::time::{Duration, Instant};

use crate::{Mode, on_worker, runtime};

/// How long the measured run is to last. Modes differ by a factor of hundreds, so each finds its own size.
const AIM: Duration = Duration::from_millis(500);

/// Nanoseconds per unit, on two workers.
pub(crate) struct Taken {
    /// Of time that went by.
    pub(crate) wall_ns: f64,
    /// Of time on a processor, of all threads together: what a mode's own threads take is in it, what other processes
    /// take is not.
    pub(crate) cpu_ns: f64,
}

/// Runs of growing size warm up and tell the size; one more is measured. `work` takes how many units to do, and answers
/// how many it did.
pub(crate) fn sized<M: Mode>(work: impl AsyncWork) -> Taken {
    let (runtime, mode) = runtime::<M>(2);
    let taken = on_worker::<M, _>(&runtime, async move {
        let mut units = 1000;
        let mut run = timed(&work, units).await;
        while run.wall < AIM / 5 {
            units *= 2;
            run = timed(&work, units).await;
        }
        let units = run.units as f64 * AIM.as_secs_f64() / run.wall.as_secs_f64();
        let run = timed(&work, units as u64).await;
        Taken {
            wall_ns: run.wall.as_nanos() as f64 / run.units as f64,
            cpu_ns: run.cpu_ns as f64 / run.units as f64,
        }
    });
    drop(runtime);
    drop(mode);
    taken
}

struct Run {
    units: u64,
    wall: Duration,
    cpu_ns: u64,
}

async fn timed(work: &impl AsyncWork, units: u64) -> Run {
    let cpu = cpu_ns();
    let began = now();
    let units = work.run(units).await;
    Run { units, wall: began.elapsed(), cpu_ns: cpu_ns() - cpu }
}

#[allow(clippy::disallowed_methods, reason = "this is the stopwatch")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What all threads of this process have taken, as the kernel adds it up: to a tick, for those that run.
fn cpu_ns() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux tells a process its threads");
    threads.filter_map(|thread| cpu_ns_of(&thread.ok()?.path())).sum()
}

/// What one thread has taken, named by its folder in `/proc`; `None` once it has ended.
pub(crate) fn cpu_ns_of(thread: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// An asynchronous function from units to do to units done, whose future can be sent.
pub(crate) trait AsyncWork: Send + Sync + 'static {
    fn run(&self, units: u64) -> impl Future<Output = u64> + Send;
}

impl<W, F> AsyncWork for W
where
    W: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = u64> + Send,
{
    fn run(&self, units: u64) -> impl Future<Output = u64> + Send {
        self(units)
    }
}
