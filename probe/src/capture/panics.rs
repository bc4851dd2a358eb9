//! A panic hook in front of the application's own: it notes which task panicked, and keeps a defect of the probe's thread
//! away from the application, also where panics abort.

use std::cell::Cell;

use crate::registry::Registry;
use crate::say::say;

/// Whose code a thread runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    Application,
    Probe,
}

thread_local! {
    static RUNNING: Cell<Code> = const { Cell::new(Code::Application) };
}

/// Declares the calling thread the probe's.
pub(crate) fn guard_this_thread() {
    RUNNING.set(Code::Probe);
}

/// Runs a closure of the application on a thread of the probe's; `None` where it panicked. Its panic is the application's.
pub(crate) fn run_application_code<T>(code: impl FnOnce() -> T) -> Option<T> {
    let before = RUNNING.replace(Code::Application);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code));
    RUNNING.set(before);
    result.ok()
}

/// Chains our hook before the one that is set now.
pub(crate) fn install(registry: &'static Registry) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if RUNNING.get() == Code::Probe {
            say(format_args!("a defect stopped a part of the probe; the service runs on ({info})"));
            while cfg!(panic = "abort") {
                // The process must not die of it. Nothing that the application waits for is held here.
                std::thread::park();
            }
            return;
        }
        if let Some(line) = registry.lines.mine() {
            line.note_panic();
        }
        before(info);
        // The closure of a pool: where its panic cannot be caught, only the thread that asks it is lost.
        while cfg!(panic = "abort") && crate::pool::note_panic() {
            std::thread::park();
        }
    }));
}
