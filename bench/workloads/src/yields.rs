//! Tasks that do nothing but yield.

use crate::Mode;

const TASKS: u64 = 64;

/// A unit is a poll.
pub(crate) async fn run<M: Mode>(units: u64) -> u64 {
    let yields = units.div_ceil(TASKS);
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            M::spawn(async move {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a yielding task does not panic");
    }
    // The last poll of each finds nothing more to do.
    TASKS * (yields + 1)
}
