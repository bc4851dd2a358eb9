//! Tasks that wait for ever, and what each adds to the process' resident memory.

use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::sleep;

use crate::{Mode, on_worker, runtime};

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Idle {
    /// Nothing: a future that is never ready and knows no waker.
    Plain,
    /// A timer, in an hour.
    Timer,
}

/// Tasks that have been polled, and wait.
static WAITING: AtomicU64 = AtomicU64::new(0);

/// Spawned before memory is looked at: what the first tasks of a process take belongs to the process.
const FIRST: u64 = 16;
/// Spawned at once; then whoever follows tasks may catch up.
const BATCH: u64 = 1000;

/// Resident bytes.
pub(crate) struct Memory {
    /// Of the process, before.
    pub(crate) start: u64,
    /// That each task added.
    pub(crate) per_task: f64,
}

/// Lets `tasks` wait.
pub(crate) fn memory<M: Mode>(idle: Idle, tasks: u64) -> Memory {
    let (runtime, mode) = runtime::<M>(2);
    let memory = on_worker::<M, _>(&runtime, async move {
        wait_in::<M>(idle, FIRST).await;
        let start = settled().await;
        wait_in::<M>(idle, tasks).await;
        let after = settled().await;
        Memory { start, per_task: (after as f64 - start as f64) / tasks as f64 }
    });
    // Ending so many tasks takes some modes longer than everything before.
    std::mem::forget((runtime, mode));
    memory
}

async fn wait_in<M: Mode>(idle: Idle, tasks: u64) {
    let all = WAITING.load(Relaxed) + tasks;
    let mut spawned = 0;
    while spawned < tasks {
        let batch = BATCH.min(tasks - spawned);
        for _ in 0..batch {
            let _forgotten = match idle {
                Idle::Plain => M::spawn(async {
                    WAITING.fetch_add(1, Relaxed);
                    pending::<()>().await;
                }),
                Idle::Timer => M::spawn(async {
                    WAITING.fetch_add(1, Relaxed);
                    sleep(Duration::from_secs(3600)).await;
                }),
            };
        }
        spawned += batch;
        while WAITING.load(Relaxed) < all - tasks + spawned {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Resident bytes, once they have stood still for a while; after ten seconds, as they are.
async fn settled() -> u64 {
    const STILL: u64 = 64 << 10;
    let mut seen = resident();
    let mut times = 0;
    for _ in 0..200 {
        sleep(Duration::from_millis(50)).await;
        let now = resident();
        times = if now.abs_diff(seen) <= STILL { times + 1 } else { 0 };
        seen = now;
        if times == 6 {
            break;
        }
    }
    seen
}

/// Exact, which `/proc/self/statm` is not.
fn resident() -> u64 {
    let rollup =
        std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux tells a process its memory");
    let kib =
        rollup.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib << 10).expect("the kernel tells resident memory in kB")
}
