//! The identity provider's client: an ordinary blocking library on a thread of its own, which tells every session
//! several times a second how old it may be. What it tells wakes the sessions whether or not a worker is free.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

const EVERY: Duration = Duration::from_millis(250);

/// Runs until it is dropped.
pub(crate) struct Revocations {
    _running: Sender<()>,
}

/// Sessions with a lower number are no longer valid.
pub(crate) type OldestValid = watch::Receiver<u64>;

impl Revocations {
    pub(crate) fn start() -> io::Result<(Self, OldestValid)> {
        let (running, stopped) = channel::<()>();
        let (publish, oldest_valid) = watch::channel(0);
        thread::Builder::new().name("revocations".into()).spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                // Nobody's key has been stolen today.
                publish.send_modify(|oldest_valid| *oldest_valid = 0);
            }
        })?;
        Ok((Self { _running: running }, oldest_valid))
    }
}
