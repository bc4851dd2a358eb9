//! One fault while it is in the shop. It works from outside the shop's runtime, over HTTP and through switches that no
//! worker holds, so that it begins and ends on time even while every worker is stuck.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::request::Request;
use crate::shop::Shop;

/// More than there are workers: whichever of them is free gets one.
const STUCK_REQUESTS: usize = 6;
/// With the thumbnail workers' 8 and the audit log's 1: 69 jobs for 8 threads.
const IMPORTED_PHOTOS: usize = 60;
const PATIENCE: Duration = Duration::from_secs(1);

/// The shop is repaired when it is dropped.
pub(crate) struct Injection {
    fault: Fault,
    shop: Arc<Shop>,
    /// Kept open while the fault lasts: a client that left would have its handler dropped.
    _asked: Vec<TcpStream>,
}

impl Injection {
    pub(crate) fn start(fault: Fault, shop: &Arc<Shop>, address: SocketAddr, now: Instant) -> Self {
        shop.break_with(fault, now + fault.duration());
        let (times, request) = match fault {
            Fault::StuckPoll => (STUCK_REQUESTS, Request::post("/resize", r#"{"photo":7}"#.into())),
            Fault::Contention => (1, Request::post("/prices", String::new())),
            Fault::PoolFull => (1, Request::post("/import", format!(r#"{{"photos":{IMPORTED_PHOTOS}}}"#))),
            // The shop's own customers bring it out, or it needs nobody.
            Fault::SlowPoll
            | Fault::Panic
            | Fault::Leak
            | Fault::IgnoresCancel
            | Fault::Error
            | Fault::Pending
            | Fault::NeverYields
            | Fault::HotLoop
            | Fault::LostWaker
            | Fault::LongJob
            | Fault::Files
            | Fault::Queue
            | Fault::Busy => (0, Request::get("/health".into())),
        };
        // One that fails is no loss: the customers ask for the same.
        let asked = (0..times).filter_map(|_| send(address, &request).ok()).collect();
        Self { fault, shop: shop.clone(), _asked: asked }
    }

    pub(crate) fn fault(&self) -> Fault {
        self.fault
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.shop.repair(self.fault);
    }
}

/// Waits for no answer: a listening socket takes a request whether or not anyone serves it.
fn send(address: SocketAddr, request: &Request) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&request.to_bytes())?;
    Ok(stream)
}
