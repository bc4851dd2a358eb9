//! A database with a pool of connections. As with a real client library, each connection is a task of its own that
//! answers one query at a time; a query waits until one is free.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use taskscope_probe::{PoolSample, Probe};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::sleep;

use crate::clock;

const CONNECTIONS: usize = 16;

pub(crate) struct Database {
    permits: Semaphore,
    /// As many as there are permits.
    idle: Mutex<Vec<mpsc::Sender<Query>>>,
    /// Since when each query waits for a connection, in the order in which they will get one.
    waiting: Mutex<VecDeque<(u64, Instant)>>,
}

struct Query {
    latency: Duration,
    answer: oneshot::Sender<Row>,
}

pub(crate) struct Row {
    pub(crate) version: u64,
}

impl Database {
    pub(crate) fn connect(probe: Probe) -> Arc<Self> {
        let connections = (0..CONNECTIONS).map(|_| {
            let (queries, asked) = mpsc::channel(1);
            probe.spawn("db-connection", answer(asked));
            queries
        });
        let database = Arc::new(Self {
            permits: Semaphore::new(CONNECTIONS),
            idle: Mutex::new(connections.collect()),
            waiting: Mutex::default(),
        });
        let watched = Arc::downgrade(&database);
        probe.pool("db", move || watched.upgrade().map(|database| database.sample()).unwrap_or_default());
        database
    }

    /// None if the connection broke.
    pub(crate) async fn query(&self, key: u64) -> Option<Row> {
        let connection = self.check_out().await?;
        let (answer, answered) = oneshot::channel();
        let latency = Duration::from_micros(3000 + key.wrapping_mul(0x9e37_79b9) % 2000);
        connection.queries.as_ref()?.send(Query { latency, answer }).await.ok()?;
        answered.await.ok()
    }

    async fn check_out(&self) -> Option<Connection<'_>> {
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _place = Place::take(&self.waiting);
                self.permits.acquire().await.ok()?
            }
        };
        let queries = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Some(Connection { queries, database: self, _permit: permit })
    }

    /// Called on the probe's thread: takes no lock that a query could have to wait for.
    fn sample(&self) -> PoolSample {
        let idle = self.permits.available_permits();
        let mut sample = PoolSample {
            capacity: Some(CONNECTIONS as u64),
            busy: Some(CONNECTIONS.saturating_sub(idle) as u64),
            idle: Some(idle as u64),
            ..PoolSample::default()
        };
        let front = match self.waiting.try_lock() {
            Ok(waiting) => Some((waiting.len(), waiting.front().copied())),
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => None,
        };
        if let Some((queued, front)) = front {
            sample.queued = Some(queued as u64);
            sample.oldest_wait = front.map(|(_, since)| clock::now().saturating_duration_since(since));
        }
        sample
    }
}

/// One connection, checked out; given back however the query ends.
struct Connection<'a> {
    queries: Option<mpsc::Sender<Query>>,
    database: &'a Database,
    /// Released after the connection is back among the idle ones: fields are dropped after `drop`.
    _permit: SemaphorePermit<'a>,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if let Some(queries) = self.queries.take() {
            self.database.idle.lock().unwrap_or_else(PoisonError::into_inner).push(queries);
        }
    }
}

/// A query's place among those that wait; left however the wait ends.
struct Place<'a> {
    number: u64,
    waiting: &'a Mutex<VecDeque<(u64, Instant)>>,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a Mutex<VecDeque<(u64, Instant)>>) -> Self {
        let mut places = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = places.back().map_or(0, |(last, _)| last + 1);
        places.push_back((number, clock::now()));
        drop(places);
        Self { number, waiting }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(number, _)| *number != self.number);
    }
}

async fn answer(mut asked: mpsc::Receiver<Query>) {
    let mut version = 0;
    while let Some(Query { latency, answer }) = asked.recv().await {
        sleep(latency).await;
        version += 1;
        // A caller that has left wants no answer.
        let _ = answer.send(Row { version });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn a_query_beyond_the_last_connection_waits_and_is_counted() {
        let (runtime, probe) = runtime();
        let database = runtime.block_on(async { Database::connect(probe) });
        let held: Vec<_> =
            (0..CONNECTIONS).map(|_| runtime.block_on(database.check_out()).unwrap()).collect();
        let sample = database.sample();
        assert_eq!((sample.capacity, sample.busy, sample.idle), (Some(16), Some(16), Some(0)));
        assert_eq!((sample.queued, sample.oldest_wait), (Some(0), None));

        let asked = database.clone();
        let waiting = runtime.spawn(async move { asked.query(7).await.is_some() });
        let given_up = database.clone();
        let given_up = runtime.spawn(async move { given_up.query(8).await.is_some() });
        eventually("two wait", || database.sample().queued == Some(2));
        assert!(database.sample().oldest_wait.is_some());

        given_up.abort();
        eventually("one has left", || database.sample().queued == Some(1));
        drop(held);
        assert!(runtime.block_on(waiting).unwrap(), "the one that waited is answered");
        let sample = database.sample();
        assert_eq!((sample.busy, sample.idle, sample.queued), (Some(0), Some(16), Some(0)));
    }
}
