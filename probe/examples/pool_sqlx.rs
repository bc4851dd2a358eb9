//! An sqlx pool on the dashboard, of any database: how many of its connections are in use, and how many waits were given up.
#![allow(dead_code, unreachable_pub, reason = "probe/tests/pools.rs takes this in without its `main`")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use taskscope_probe::{PoolSample, Probe};

/// Shows `pool` as `name`. `timeouts` is counted where a connection is asked for: sqlx itself does not count them.
pub fn watch<D: Database>(probe: Probe, name: &str, pool: &Pool<D>, timeouts: Arc<AtomicU64>) {
    let pool = pool.clone();
    probe.pool(name, move || sample(&pool, timeouts.load(Relaxed)));
}

pub fn sample<D: Database>(pool: &Pool<D>, timeouts: u64) -> PoolSample {
    // The two are read one after the other: never more idle than there are.
    let (idle, size) = (pool.num_idle() as u64, u64::from(pool.size()));
    PoolSample {
        capacity: Some(u64::from(pool.options().get_max_connections())),
        busy: Some(size.saturating_sub(idle)),
        idle: Some(idle.min(size)),
        // sqlx does not tell how many wait, but it does tell who gave up.
        acquire_timeouts: Some(timeouts),
        ..PoolSample::default()
    }
}

/// A connection, or the error, which is counted if the wait was given up.
pub async fn acquire<D: Database>(pool: &Pool<D>, timeouts: &AtomicU64) -> sqlx::Result<PoolConnection<D>> {
    let got = pool.acquire().await;
    if matches!(got, Err(sqlx::Error::PoolTimedOut)) {
        timeouts.fetch_add(1, Relaxed);
    }
    got
}

#[tokio::main]
async fn main() -> sqlx::Result<()> {
    let probe = Probe::builder().name("sqlx-example").start();
    // With a driver of your own: `PgPoolOptions`, `SqlitePoolOptions`, …
    let orders =
        sqlx::any::AnyPoolOptions::new().max_connections(5).connect_lazy("postgres://localhost/orders")?;
    let timeouts = Arc::new(AtomicU64::new(0));
    watch(probe, "orders", &orders, Arc::clone(&timeouts));
    println!("{:?}", sample(&orders, timeouts.load(Relaxed)));
    Ok(())
}
