//! The pool of a runtime on which nothing but blocking jobs is going on any more.
#![cfg(tokio_unstable)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use asking::{Answer, Asker, eventually};
use taskscope_probe::Probe;
use taskscope_proto::v1::WatchRequest;
use taskscope_proto::v1::pool::Kind;

#[path = "asking/probe.rs"]
mod asking;

/// Busy threads and jobs that wait.
fn pool(answer: &Answer) -> Option<(u64, u64)> {
    let pool = answer.frame.pools.iter().find(|pool| pool.kind() == Kind::Blocking)?;
    pool.busy.zip(pool.queued)
}

/// Ends the jobs, also where the test has failed: a runtime waits for them.
struct AtLast(Arc<AtomicBool>);

impl Drop for AtLast {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_full_pool_is_told_for_as_long_as_it_is_also_without_a_task() {
    let name = format!("blocking-{}", std::process::id());
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Probe::builder().name(&name).install(&mut builder);
    let runtime = builder
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_time()
        .build()
        .expect("a runtime can be built");
    let mut asker = Asker::of(&name);
    let is_over = Arc::new(AtomicBool::new(false));
    let _end = AtLast(Arc::clone(&is_over));
    for _ in 0..3 {
        let is_over = Arc::clone(&is_over);
        runtime.spawn_blocking(move || {
            while !is_over.load(Relaxed) {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
    }
    // The probe knows a runtime by a task that runs there for a while.
    let ticks = runtime.spawn(async {
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    runtime.block_on(ticks).expect("it does not panic");
    let mut ask = || pool(&asker.ask_for(WatchRequest::default()));
    // Long after the last poll of any task, too.
    for _ in 0..60 {
        eventually(|| match ask() {
            Some((2, 1)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let mut seen = Vec::new();
    for _ in 0..60 {
        seen.push(ask());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(seen.iter().all(|pool| *pool == Some((2, 1))), "{seen:?}");
    is_over.store(true, Relaxed);
    eventually(|| match ask() {
        Some((busy, queued)) if busy + queued > 0 => Err(format!("{busy} busy, {queued} queued")),
        _ => Ok(()),
    });
}
