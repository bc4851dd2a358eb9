//! The shop's customers: a steady load on keep-alive connections, from a thread and a runtime of their own, without a
//! probe. Each asks at its own pace whatever the answers do; one that is not answered gives up and connects anew.

mod connection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::request::Request;
use crate::session::REGULARS;
pub(crate) use connection::Connection;

const CUSTOMERS: u32 = 50;
const REQUESTS_PER_SECOND: u32 = 1100;
/// Longer than any fault keeps a worker: connections, and so tasks, are as many after a fault as before.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a customer asks for, one after the other. Of 28 requests one is a login: 39 a second.
const MIX: [Wish; 28] = {
    use Wish::*;
    [
        Photo, Album, Photo, Photo, Resize, Photo, Album, Photo, Health, Photo, Photo, Album, Order, Photo,
        Login, Photo, Album, Photo, Resize, Photo, Photo, Album, Health, Photo, Photo, Album, Order, Photo,
    ]
};

#[derive(Clone, Copy)]
enum Wish {
    Photo,
    Album,
    Health,
    Order,
    Resize,
    Login,
}

impl Wish {
    fn request(self, number: u64) -> Request {
        let id = number * 7919 % 5000 + 1;
        let regular = number / MIX.len() as u64 % REGULARS;
        match self {
            Self::Photo => Request::get(format!("/photos/{id}")),
            Self::Album => Request::get(format!("/albums/{id}")),
            Self::Health => Request::get("/health".into()),
            Self::Order => Request::post("/orders", format!(r#"{{"photo":{id},"copies":2}}"#)),
            Self::Resize => Request::post("/resize", format!(r#"{{"photo":{id}}}"#)),
            Self::Login => {
                Request::post("/login", format!(r#"{{"user":"customer-{regular}","password":"secret"}}"#))
            }
        }
    }
}

/// Ends when it is dropped.
pub(crate) struct Load {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    #[cfg_attr(not(test), allow(dead_code, reason = "what the tests look at"))]
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    given_up: AtomicU64,
}

impl Load {
    pub(crate) fn start(shop: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        for customer in 0..CUSTOMERS {
            runtime.spawn(visit(shop, customer, counts.clone()));
        }
        let thread = thread::Builder::new().name("customers".into()).spawn(move || {
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), counts })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn visit(shop: SocketAddr, customer: u32, counts: Arc<Counts>) {
    let period = Duration::from_secs(1) * CUSTOMERS / REQUESTS_PER_SECOND;
    let mut pace = interval_at(Instant::now() + period * customer / CUSTOMERS, period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut connection = None;
    // 11 and 28 have no common divisor: at any moment the customers are at different places of the mix.
    for number in u64::from(customer) * 11.. {
        pace.tick().await;
        let request = MIX[(number % MIX.len() as u64) as usize].request(number);
        let asked = timeout(PATIENCE, ask(connection.take(), shop, &request));
        match asked.await {
            Ok(Ok(kept)) => {
                counts.answered.fetch_add(1, Ordering::Relaxed);
                connection = Some(kept);
            }
            Ok(Err(_)) | Err(_) => {
                counts.given_up.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn ask(kept: Option<Connection>, shop: SocketAddr, request: &Request) -> io::Result<Connection> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => Connection::open(shop).await?,
    };
    connection.ask(request).await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::testing::{Served, eventually};

    #[test]
    fn the_load_is_steady_and_the_shop_has_the_stated_number_of_tasks() {
        let served = Served::start();
        let started = clock::now();
        let load = Load::start(served.address).unwrap();
        let answered = || load.counts.answered.load(Ordering::Relaxed);
        eventually("a thousand requests are answered", || answered() >= 1000);
        assert!(started.elapsed() > Duration::from_millis(700), "the load is faster than it says");
        assert_eq!(load.counts.given_up.load(Ordering::Relaxed), 0);
        eventually("212 tasks live", || served.alive() == 212);
        drop(load);
        eventually("the connections have ended", || served.alive() == 212 - CUSTOMERS as usize);
    }

    #[test]
    fn every_wish_is_answered_well() {
        let served = Served::start();
        for wish in MIX {
            let request = wish.request(5);
            let (status, _) = served.ask(&request);
            assert!((200..300).contains(&status), "{request:?}: {status}");
        }
    }
}
