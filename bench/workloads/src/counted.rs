//! Work for a tool that counts instructions per thread: all of it on one worker, and as much as was asked for.

use crate::stopwatch::AsyncWork;
use crate::{Mode, on_worker, runtime};

/// Does `units` of work (as near as it can be divided) on a runtime with one worker; answers how many.
pub(crate) fn on_one_worker<M: Mode>(work: impl AsyncWork, units: u64) -> u64 {
    let (runtime, mode) = runtime::<M>(1);
    let did = on_worker::<M, u64>(&runtime, async move {
        counted_thread();
        work.run(units).await
    });
    drop(runtime);
    drop(mode);
    did
}

/// Does nothing. Its name in a thread's profile says that this thread is the one that counts.
#[inline(never)]
pub(crate) fn counted_thread() {
    std::hint::black_box(());
}
