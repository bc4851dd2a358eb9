//! What the examples show of other people's pools is so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use taskscope_probe::{PoolSample, Probe};

#[path = "../examples/pool_deadpool.rs"]
mod pool_deadpool;
#[path = "../examples/pool_sqlx.rs"]
mod pool_sqlx;

#[tokio::test]
async fn a_deadpool_pool_tells_who_has_waits_and_gave_up() {
    let timeouts = Arc::new(AtomicU64::new(0));
    let pool = pool_deadpool::pool(2, Duration::from_millis(50));
    let held = [pool_deadpool::get(&pool, &timeouts).await, pool_deadpool::get(&pool, &timeouts).await];
    let full = PoolSample {
        capacity: Some(2),
        busy: Some(2),
        idle: Some(0),
        queued: Some(0),
        acquire_timeouts: Some(0),
        ..PoolSample::default()
    };
    assert_eq!(pool_deadpool::sample(&pool, timeouts.load(Relaxed)), full);
    let (waiting, counted) = (pool.clone(), Arc::clone(&timeouts));
    let waiter = tokio::spawn(async move { pool_deadpool::get(&waiting, &counted).await.is_err() });
    tokio::task::yield_now().await;
    let waits = PoolSample { queued: Some(1), ..full };
    assert_eq!(pool_deadpool::sample(&pool, timeouts.load(Relaxed)), waits);
    assert!(waiter.await.expect("it does not panic"), "it gives up");
    drop(held);
    let calm = PoolSample { busy: Some(0), idle: Some(2), acquire_timeouts: Some(1), ..full };
    assert_eq!(pool_deadpool::sample(&pool, timeouts.load(Relaxed)), calm);
    pool_deadpool::watch(Probe::builder().name("pools").start(), "numbers", &pool, timeouts);
}

#[tokio::test]
async fn an_sqlx_pool_tells_its_size_before_it_has_any_connection() {
    let options =
        sqlx::any::AnyPoolOptions::new().max_connections(5).acquire_timeout(Duration::from_millis(20));
    let pool = options.connect_lazy("postgres://localhost/orders").expect("nothing is connected yet");
    let timeouts = Arc::new(AtomicU64::new(0));
    let empty = PoolSample {
        capacity: Some(5),
        busy: Some(0),
        idle: Some(0),
        acquire_timeouts: Some(0),
        ..PoolSample::default()
    };
    assert_eq!(pool_sqlx::sample(&pool, timeouts.load(Relaxed)), empty);
    pool_sqlx::watch(Probe::builder().name("pools").start(), "orders", &pool, timeouts);
}

#[tokio::test]
async fn only_waits_that_were_given_up_count_as_such() {
    let options = sqlx::any::AnyPoolOptions::new().max_connections(1);
    let pool = options.connect_lazy("postgres://localhost/orders").expect("nothing is connected yet");
    let timeouts = AtomicU64::new(0);
    pool.close().await;
    let closed = pool_sqlx::acquire(&pool, &timeouts).await;
    assert!(matches!(closed, Err(sqlx::Error::PoolClosed)) && timeouts.load(Relaxed) == 0);
}
