//! Where in its code a thread is. Switched on by the application ([`crate::Builder::stacks`]) or its operator
//! (`TASKSCOPE_STACKS`), on Linux, x86-64 and aarch64.
//!
//! The sampler says whose stack it wants (`schedule.rs`) and goes on. `taskscope-stacks` sends that thread a signal, whose
//! handler copies registers and stack (`handler.rs`), and makes addresses of the copy (`unwind.rs`) by rules that it reads from
//! the memory of the code itself (`modules.rs`). What is found is kept once (`table.rs`); names of functions are looked up by
//! whoever watches.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use taskscope_proto::v1::Capability;
use taskscope_proto::v1::capability::{Coverage, Kind};

use crate::clock::Ticks;
use crate::engine::Engine;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod gate;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod handler;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod modules;
pub(crate) mod schedule;
pub(crate) mod table;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod taker;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod thread;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod unwind;

use schedule::Target;
use table::{StackId, Table};

/// Whether stacks can be taken on this system at all.
pub(crate) const CAN_BE: bool =
    cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")));

/// The stack of the calling thread, its lowest address and the one beyond its highest; `None` where it is not known. Allocates.
pub(crate) fn of_this_thread() -> Option<(u64, u64)> {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    return handler::own_stack();
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    return None;
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Number of a real-time signal; `None`: one that is free.
    pub(crate) signal: Option<i32>,
}

/// The share of a budget that goes to stacks where they are switched on; the copy of the handler is a part of it.
pub(crate) const fn share_of(budget: usize) -> usize {
    let share = budget / 8;
    if share < LEAST_SHARE {
        LEAST_SHARE
    } else if share > 1 << 20 {
        1 << 20
    } else {
        share
    }
}

/// What is there beside the stacks, and some two hundred of them.
pub(crate) const LEAST_SHARE: usize = BESIDE_THE_TABLE + (128 << 10);
/// The handler's copy and that of the thread (128 KiB each), the pages of code that it has read (256 KiB), and what it knows of
/// files and threads.
const BESIDE_THE_TABLE: usize = 576 << 10;

/// What the process has of it while it is switched on.
pub(crate) struct Stacks {
    wanted: Wanted,
    bytes: usize,
    pub(crate) table: Mutex<Table>,
    state: Mutex<State>,
    /// A thread was seen that blocks the signal for good.
    blocked: AtomicBool,
    /// A thread of Tokio's was seen that has a seccomp filter of its own.
    sandboxed: AtomicBool,
    /// The handler has been at work for seconds: a thread stands still in it, or has left it by a jump.
    held: AtomicBool,
    /// An answer has come that the sampler waits for.
    pub(crate) news: tokio::sync::Notify,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Beginning,
    On { signal: i32 },
    Off { reason: String, hint: &'static str },
}

/// The sampler wants a stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) target: Target,
    /// The round of a watcher that it belongs to.
    pub(crate) round: Option<u64>,
    /// Its thread is one that Tokio does not know.
    pub(crate) is_other: bool,
    /// An event waits for it: the answer wakes the probe's thread.
    pub(crate) is_urgent: bool,
    /// After this instant nobody wants it any more.
    pub(crate) until_ns: u64,
}

/// What became of an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) order: Order,
    pub(crate) at: Ticks,
    pub(crate) stack: Result<StackId, NoStack>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoStack {
    /// The thread or the bracket has ended meanwhile.
    Over,
    /// Wanted, and missing: the thread did not answer, or there was no room.
    Lost,
    /// Likewise: the thread blocks the signal, or waits for signals itself.
    Blocks,
    /// Likewise: it has a seccomp filter of its own, which may end it for what the handler calls.
    Sandboxed,
    /// Likewise: the kernel could not read its stack.
    Unreadable,
    /// None is taken any more.
    Off,
}

impl Stacks {
    /// With `bytes` of memory.
    pub(crate) fn new(wanted: Wanted, bytes: usize) -> Self {
        Self {
            wanted,
            bytes,
            table: Mutex::new(Table::with_budget(bytes.saturating_sub(BESIDE_THE_TABLE))),
            state: Mutex::new(State::Beginning),
            blocked: AtomicBool::new(false),
            sandboxed: AtomicBool::new(false),
            held: AtomicBool::new(false),
            news: tokio::sync::Notify::new(),
        }
    }

    /// Bytes reserved.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread; what it is told goes into the first end, what it says comes out of the second.
    pub(crate) fn begin(&'static self, engine: &'static Engine) -> (Sender<Order>, Receiver<Answer>) {
        let ((orders, their_orders), (their_answers, answers)) = (channel(), channel());
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        thread::spawn(self, engine, their_orders, their_answers);
        #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
        drop((engine, their_orders, their_answers));
        (orders, answers)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None is taken any more, and why.
    fn switch_off(&self, reason: String, hint: &'static str) {
        *self.state() = State::Off { reason, hint };
    }

    /// Whether they are taken, or will be soon.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(*self.state(), State::Off { .. })
    }
}

const SWITCH_ON: &str = "set TASKSCOPE_STACKS=on, or call `Probe::builder().stacks(true)`";

/// What is said about stacks to whoever watches.
pub(crate) fn capability(stacks: Option<&Stacks>) -> Capability {
    let of = |coverage: Coverage, reason: &str, hint: &str| Capability {
        kind: Kind::Stacks.into(),
        coverage: coverage.into(),
        reason: reason.to_owned(),
        hint: hint.to_owned(),
    };
    if !CAN_BE {
        return of(Coverage::None, "stacks are taken on Linux only, x86-64 and aarch64", "");
    }
    let Some(stacks) = stacks else { return of(Coverage::None, "not switched on", SWITCH_ON) };
    let state = stacks.state().clone();
    match state {
        State::Beginning => of(Coverage::None, "being switched on", ""),
        State::Off { reason, hint } => of(Coverage::None, &reason, hint),
        State::On { signal } if stacks.held.load(Relaxed) => of(
            Coverage::Partial,
            &format!(
                "a thread has been in the handler of signal {signal} for seconds: none is taken meanwhile"
            ),
            "see whether that thread is stopped, or whether a handler of the application's leaves by `siglongjmp`",
        ),
        State::On { signal } if stacks.blocked.load(Relaxed) => of(
            Coverage::Partial,
            &format!("some threads block signal {signal}: theirs are not taken"),
            "do not block it, or choose another by TASKSCOPE_STACK_SIGNAL",
        ),
        State::On { .. } if stacks.sandboxed.load(Relaxed) => of(
            Coverage::Partial,
            "some threads have a seccomp filter of their own: theirs are not taken",
            "apply the filter to all threads of the process (SECCOMP_FILTER_FLAG_TSYNC), or before it starts",
        ),
        State::On { .. } => of(Coverage::Full, "", ""),
    }
}
