//! When the demo ends: after its time, at ctrl-c or SIGTERM, or with whoever started it.

use std::future::pending;
use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// On a runtime that drives signals and timers whatever the shop's workers do.
pub(crate) async fn reached(run_for: Option<Duration>, until_stdin_closes: bool) {
    tokio::select! {
        () = time_is_up(run_for) => {}
        () = told_to_end() => {}
        () = stdin_closes(until_stdin_closes) => {}
    }
}

async fn time_is_up(run_for: Option<Duration>) {
    match run_for {
        Some(run_for) => tokio::time::sleep(run_for).await,
        None => pending().await,
    }
}

#[cfg(unix)]
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without a handler the signal's own default ends the process.
        return pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(not(unix))]
async fn told_to_end() {
    if tokio::signal::ctrl_c().await.is_err() {
        pending().await
    }
}

async fn stdin_closes(watched: bool) {
    if !watched {
        return pending().await;
    }
    let (closed, seen) = oneshot::channel::<()>();
    // A thread of its own and never joined: nothing interrupts a read from a terminal.
    let reader = thread::Builder::new().name("demo-stdin".into()).spawn(move || {
        let _closed = closed;
        let mut ignored = [0; 256];
        let mut stdin = io::stdin().lock();
        while matches!(stdin.read(&mut ignored), Ok(1..)) {}
    });
    match reader {
        Ok(_) => drop(seen.await),
        Err(_) => pending().await,
    }
}
