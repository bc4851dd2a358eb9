//! A service whose pools are full, contradict themselves, or panic. Prints `ready`.

use std::time::Duration;

use taskscope_probe::{PoolSample, Probe};

#[taskscope_probe::main(worker_threads = 2)]
async fn main() {
    let probe = Probe::current().expect("the attribute has started it");
    probe.pool("database", || PoolSample {
        capacity: Some(8),
        busy: Some(8),
        idle: Some(0),
        queued: Some(61),
        oldest_wait: Some(Duration::from_millis(8700)),
    });
    probe.pool("nonsense", || PoolSample { capacity: Some(2), busy: Some(7), ..PoolSample::default() });
    probe.pool("panics", || panic!("this pool is broken on purpose"));
    probe.pool("silent", PoolSample::default);
    println!("ready");
    std::future::pending::<()>().await;
}
