//! A panic hook in front of the application's own: it notes which task panicked, with message and place, and keeps a
//! defect of the probe's thread away from the application, also where panics abort.
//!
//! A hook that the application sets later takes our place. One that calls the hook before it changes nothing here; behind
//! one that does not, panics of wrapped tasks are still known, without message and place, and those of other tasks are not.

use std::cell::Cell;

use std::panic::PanicHookInfo;

use super::{reason, task_id};
use crate::registry::Registry;
use crate::registry::lines::{Line, Open};
use crate::say::say;

/// Whose code a thread runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    Application,
    Probe,
    /// The application's, on the probe's thread.
    Guest,
}

thread_local! {
    static RUNNING: Cell<Code> = const { Cell::new(Code::Application) };
}

/// Declares the calling thread the probe's.
pub(crate) fn guard_this_thread() {
    crate::own_threads::add_this_one();
    RUNNING.set(Code::Probe);
}

/// Runs a closure of the application on a thread of the probe's; `None` where it panicked. Its panic is the application's.
pub(crate) fn run_application_code<T>(code: impl FnOnce() -> T) -> Option<T> {
    let before = RUNNING.replace(Code::Guest);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code));
    RUNNING.set(before);
    result.ok()
}

/// Chains our hook before the one that is set now.
pub(crate) fn install(registry: &'static Registry) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match RUNNING.get() {
        Code::Probe => {
            say(format_args!("a defect stopped a part of the probe; the service runs on ({info})"));
            stay_where_panics_abort();
        }
        Code::Guest => {
            before(info);
            // Where its panic cannot be caught, only the thread that asks it is lost.
            while cfg!(panic = "abort") && crate::pool::note_panic() {
                std::thread::park();
            }
        }
        Code::Application => {
            if let Some(line) = registry.my_line() {
                note(registry, line, info);
            }
            before(info);
        }
    }));
}

/// The process must not die of a panic on the probe's thread. Nothing of ours that the application waits for is held here;
/// the standard library keeps its lock on the hook meanwhile, so that setting another one afterwards would wait.
fn stay_where_panics_abort() {
    if cfg!(panic = "abort") {
        say(format_args!(
            "panics abort here: the probe's thread stops for good; the service runs on unobserved"
        ));
        loop {
            std::thread::park();
        }
    }
}

/// Costs a search among the known texts, and the first time a copy; allocates nothing.
#[cold]
fn note(registry: &Registry, line: &Line, info: &PanicHookInfo<'_>) {
    if line.open().is_some_and(|open| concerns(&open)) {
        line.note_panic(reason::intern(registry, message(info), info.location()));
    }
}

/// Whether it is the bracket's task that panics. Inside its poll another one may be polled that has no bracket, such as
/// one of a `LocalSet`, which keeps the panic to itself.
fn concerns(open: &Open) -> bool {
    !open.id.is_tokio() || tokio::task::try_id().is_none_or(|id| task_id(id) == open.id)
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("")
}
