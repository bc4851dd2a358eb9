//! Wall time per unit of work, at a size that lasts long enough in every mode.

use std::time::{Duration, Instant};

use crate::{Mode, on_worker, runtime};

/// How long the measured run is to last. Modes differ by a factor of hundreds, so each finds its own size.
const AIM: Duration = Duration::from_millis(500);

/// Nanoseconds of wall time per unit, on two workers.
///
/// Runs of growing size warm up and tell the size; one more is measured. `work` takes how many units to do, and answers
/// how many it did.
pub(crate) fn sized<M: Mode>(work: impl AsyncWork) -> f64 {
    let (runtime, mode) = runtime::<M>(2);
    let ns = on_worker::<M, f64>(&runtime, async move {
        let mut units = 1000;
        let mut took = timed(&work, units).await;
        while took.1 < AIM / 5 {
            units *= 2;
            took = timed(&work, units).await;
        }
        let units = took.0 as f64 * AIM.as_secs_f64() / took.1.as_secs_f64();
        let (did, took) = timed(&work, units as u64).await;
        took.as_nanos() as f64 / did as f64
    });
    drop(runtime);
    drop(mode);
    ns
}

async fn timed(work: &impl AsyncWork, units: u64) -> (u64, Duration) {
    let began = now();
    let did = work.run(units).await;
    (did, began.elapsed())
}

#[allow(clippy::disallowed_methods, reason = "this is the stopwatch")]
pub(crate) fn now() -> Instant {
    Instant::now()
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
