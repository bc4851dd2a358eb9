//! The probe's own operating-system thread, with its own runtime: it keeps reporting while the service is blocked, and a
//! panic in it never reaches the application.

use std::time::SystemTime;

use super::alarm::Alarm;
use super::capabilities::missing_hooks;
use super::server::{self, Shared};
use super::{Engine, listen};
use crate::capture::panics;
use crate::say::say;

/// Starts the thread. Where the system refuses one, says so and leaves the service alone.
pub(crate) fn spawn(engine: &'static Engine) {
    let spawned = std::thread::Builder::new().name("taskscope".to_owned()).spawn(move || {
        panics::guard_this_thread();
        if std::panic::catch_unwind(|| run(engine)).is_err() {
            say(format_args!("the probe has stopped; the service runs on unobserved"));
        }
    });
    if let Err(error) = spawned {
        say(format_args!("no thread for the probe: {error}; the service runs on unobserved"));
    }
}

fn run(engine: &'static Engine) {
    for complaint in &engine.settings.complaints {
        say(format_args!("{complaint}"));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = engine.address.set(Err(error.to_string()));
            say(format_args!("no runtime for the probe: {error}; the service runs on unobserved"));
            return;
        }
    };
    runtime.block_on(async {
        let shared = Shared::new(engine);
        match listen::bind(&engine.settings, &engine.instance).await {
            Ok(listener) => {
                let address = listener.address();
                let sees = missing_hooks()
                    .map_or(String::new(), |reason| format!(" (wrapper and labels only: {reason})"));
                say(format_args!("listening on {address}{sees}"));
                let _ = engine.address.set(Ok(address));
                let serving = std::sync::Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Err(error) = server::serve(serving, listener).await {
                        say(format_args!("stopped listening: {error}; the service runs on"));
                    }
                });
            }
            Err(error) => {
                say(format_args!("{error}; the service runs on unobserved"));
                let _ = engine.address.set(Err(error));
                return;
            }
        }
        // In a task of its own: waking the outermost future costs a system call and another look at the driver each.
        let ticks = tokio::spawn(async move {
            let alarm = Alarm::new();
            loop {
                let pause = shared.sample();
                shared.rest(&alarm, pause).await;
            }
        });
        if let Err(panic) = ticks.await.map_err(tokio::task::JoinError::try_into_panic)
            && let Ok(panic) = panic
        {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Wall clock, ns since the Unix epoch.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the probe reads the wall clock, on its own thread"
)]
pub(crate) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
