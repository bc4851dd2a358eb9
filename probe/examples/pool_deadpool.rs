//! A deadpool pool on the dashboard: how many of its objects are out, who waits, and how many gave up.
#![allow(dead_code, unreachable_pub, reason = "probe/tests/pools.rs takes this in without its `main`")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleResult, TimeoutType};
use taskscope_probe::{PoolSample, Probe};

/// Shows `pool` as `name`. `timeouts` is counted where an object is asked for: deadpool itself does not count them.
pub fn watch<M: Manager + 'static>(probe: Probe, name: &str, pool: &Pool<M>, timeouts: Arc<AtomicU64>) {
    let pool = pool.clone();
    probe.pool(name, move || sample(&pool, timeouts.load(Relaxed)));
}

pub fn sample<M: Manager>(pool: &Pool<M>, timeouts: u64) -> PoolSample {
    let status = pool.status();
    PoolSample {
        capacity: Some(status.max_size as u64),
        busy: Some((status.size - status.available) as u64),
        idle: Some(status.available as u64),
        queued: Some(status.waiting as u64),
        acquire_timeouts: Some(timeouts),
        ..PoolSample::default()
    }
}

/// An object, or the error, which is counted if the wait was given up.
pub async fn get<M: Manager>(pool: &Pool<M>, timeouts: &AtomicU64) -> Result<Object<M>, PoolError<M::Error>> {
    let got = pool.get().await;
    if matches!(got, Err(PoolError::Timeout(TimeoutType::Wait))) {
        timeouts.fetch_add(1, Relaxed);
    }
    got
}

/// Stands in for what makes connections.
pub struct Numbers;

impl Manager for Numbers {
    type Type = u64;
    type Error = std::convert::Infallible;

    async fn create(&self) -> Result<u64, Self::Error> {
        Ok(7)
    }

    async fn recycle(&self, _: &mut u64, _: &Metrics) -> RecycleResult<Self::Error> {
        Ok(())
    }
}

pub fn pool(size: usize, wait: Duration) -> Pool<Numbers> {
    let builder = Pool::builder(Numbers).max_size(size).wait_timeout(Some(wait));
    builder.runtime(deadpool::Runtime::Tokio1).build().expect("a runtime is given")
}

#[tokio::main]
async fn main() {
    let probe = Probe::builder().name("deadpool-example").start();
    let timeouts = Arc::new(AtomicU64::new(0));
    let numbers = pool(2, Duration::from_millis(50));
    watch(probe, "numbers", &numbers, Arc::clone(&timeouts));
    let number = get(&numbers, &timeouts).await.expect("two are there");
    println!("{}: {:?}", *number, sample(&numbers, timeouts.load(Relaxed)));
}
