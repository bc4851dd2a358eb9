//! What the tests of several files need: the shop without its load, and a way to wait for what must come.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use taskscope_probe::Probe;
use tokio::runtime::Runtime;

use crate::load::Connection;
use crate::request::Request;
use crate::shop::Shop;
use crate::{api, clock, listener, service};

pub(crate) fn runtime() -> (Runtime, Probe) {
    let (mut builder, probe) = service::probed();
    (builder.build().unwrap(), probe)
}

/// The shop, served, without customers.
pub(crate) struct Served {
    runtime: Runtime,
    pub(crate) shop: Arc<Shop>,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn start() -> Self {
        let (runtime, probe) = runtime();
        let entered = runtime.enter();
        let shop = Shop::open(probe).unwrap();
        let address = listener::listen(probe, api::router(shop.clone())).unwrap();
        drop(entered);
        Self { runtime, shop, address }
    }

    pub(crate) fn alive(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// The status and the body of one answer, on a connection of its own.
    pub(crate) fn ask(&self, request: &Request) -> (u16, String) {
        let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        client.block_on(async {
            let (status, body) = Connection::open(self.address).await.unwrap().ask(request).await.unwrap();
            (status, String::from_utf8(body).unwrap())
        })
    }
}

/// An output whose writes arrive at the other end of the channel, until that end is dropped.
pub(crate) struct Chunks(pub(crate) Sender<String>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(String::from_utf8_lossy(bytes).into_owned()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = clock::now() + Duration::from_secs(10);
    while !condition() {
        assert!(clock::now() < deadline, "not within 10 s: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}
