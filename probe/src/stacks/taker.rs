//! Takes the stack of a thread: sends the signal, waits a moment for the copy, and unwinds it. On `taskscope-stacks` only.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use taskscope_proto::v1::interned_stack::End;

use super::handler::{Answer, COPIED, Copied, Handler, Refused, Unsent};
use super::modules::{Modules, OwnMemory, parse_maps};
use super::unwind::{DEEPEST, STACK_POINTER, Stack, Unwound, unwind};

/// A thread that does not answer in this time is stopped, throttled, or waits for a CPU.
const PATIENCE: Duration = Duration::from_millis(50);
/// Between two looks for the answer: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_micros(50);
const LONGEST_LOOK: Duration = Duration::from_millis(2);
/// How often a stack that is not where it was is looked for.
const ATTEMPTS: u32 = 2;
/// Bytes of a stack that are copied at first: as much as most are long.
const FIRST: u64 = 16 << 10;
/// Threads whose stacks are known; beyond that all are looked up anew.
const KNOWN: usize = 1024;

/// Why there is no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The thread has ended.
    Ended,
    /// It blocks the signal.
    Blocks,
    /// It did not answer in time.
    Late,
    /// The application has taken the signal, or the system refuses it: no stack is taken any more.
    Off(Off),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Off {
    Taken(i32),
    Refused(i32),
    /// The kernel does not let this process read its own memory.
    Unreadable,
    /// Nor its own threads in `/proc`, with this `errno`.
    NoProc(i32),
}

#[derive(Debug)]
pub(crate) struct Taker {
    handler: Handler,
    pub(crate) modules: Modules<OwnMemory>,
    /// By thread.
    known: HashMap<u32, Known>,
    copied: Copied,
}

/// What is known of a thread's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// The mapping that it lies in.
    range: (u64, u64),
    /// It was longer than [`FIRST`] when it was last seen.
    is_long: bool,
}

impl Taker {
    /// Installs the handler, where everything else is there that is needed.
    pub(crate) fn install(signal: Option<i32>) -> Result<Self, Refused> {
        if !crate::engine::activity::sees_own_threads() || std::fs::read("/proc/self/maps").is_err() {
            return Err(Refused::NoProc);
        }
        Ok(Self {
            handler: Handler::install(signal)?,
            modules: Modules::new(OwnMemory),
            known: HashMap::new(),
            copied: Copied::nothing(),
        })
    }

    pub(crate) fn signal(&self) -> i32 {
        self.handler.signal
    }

    /// The stack of thread `tid`. Waits for it, [`PATIENCE`] at most for each of three signals: the first tells where a new
    /// thread's stack is, and the last takes all of one that turns out to be long.
    pub(crate) fn take(&mut self, tid: u32, now_ns: u64) -> Result<Unwound, Missing> {
        self.can_be_signalled(tid)?;
        let is_long = self.known.get(&tid).is_some_and(|known| known.is_long);
        self.copy(tid, if is_long { COPIED as u64 } else { FIRST })?;
        let mut unwound = self.unwound(now_ns);
        let ran_out = unwound.end == End::TooDeep && unwound.addresses.len() < DEEPEST;
        if ran_out && !is_long {
            match self.copy(tid, COPIED as u64) {
                Ok(()) => unwound = self.unwound(now_ns),
                Err(Missing::Off(off)) => return Err(Missing::Off(off)),
                // It says itself that it is not whole.
                Err(Missing::Ended | Missing::Blocks | Missing::Late) => {}
            }
        }
        if let Some(known) = self.known.get_mut(&tid) {
            // One that has become short is copied in part again.
            known.is_long = ran_out || is_long && self.copied.bytes.len() as u64 > FIRST;
        }
        Ok(unwound)
    }

    /// Copies the stack of thread `tid`, `most` bytes of it.
    fn copy(&mut self, tid: u32, most: u64) -> Result<(), Missing> {
        let mut range = self.known.get(&tid).map(|known| known.range);
        for attempt in 0.. {
            self.ask(tid, range, most)?;
            if !self.copied.bytes.is_empty() {
                break;
            }
            let pointer = self.copied.registers[STACK_POINTER].unwrap_or(0);
            if range.is_some_and(|(low, high)| low <= pointer && pointer < high) {
                return Err(Missing::Off(Off::Unreadable));
            }
            // One that changes from stack to stack is left for another time.
            if attempt == ATTEMPTS {
                return Err(Missing::Late);
            }
            let found = range_of(pointer).ok_or(Missing::Late)?;
            range = Some(found);
            if self.known.len() >= KNOWN {
                self.known.clear();
            }
            self.known.insert(tid, Known { range: found, is_long: false });
        }
        Ok(())
    }

    /// What was copied, unwound.
    fn unwound(&mut self, now_ns: u64) -> Unwound {
        let Copied { registers, from, bytes, is_cut, .. } = &self.copied;
        self.modules.begin(now_ns);
        let stack = Stack { from: *from, bytes, is_cut: *is_cut };
        let unwound = unwind(registers, stack, &mut self.modules);
        // A library may have been loaded where another one was.
        if unwound.end == End::Lost && self.modules.begin_anew() {
            return unwind(registers, stack, &mut self.modules);
        }
        unwound
    }

    /// One signal and its answer.
    #[allow(clippy::disallowed_methods, reason = "this is a driver: it waits for another thread")]
    fn ask(&mut self, tid: u32, readable: Option<(u64, u64)>, most: u64) -> Result<(), Missing> {
        self.handler.request(tid, readable, most).map_err(|unsent| match unsent {
            Unsent::Ended => Missing::Ended,
            Unsent::Busy => Missing::Late,
            Unsent::Taken => Missing::Off(Off::Taken(self.handler.signal)),
            // The queue of signals is full: another time.
            Unsent::Refused(libc::EAGAIN) => Missing::Late,
            Unsent::Refused(errno) => Missing::Off(Off::Refused(errno)),
        })?;
        let began = Instant::now();
        let mut pause = FIRST_LOOK;
        while self.handler.answer() == Answer::NotYet {
            if began.elapsed() >= PATIENCE && self.handler.cancel() {
                let is_there = crate::engine::activity::exists(tid);
                return Err(if is_there { Missing::Late } else { Missing::Ended });
            }
            if began.elapsed() >= 2 * PATIENCE {
                // It copies, and was put aside by the scheduler meanwhile: its answer is nobody's.
                return Err(Missing::Late);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_LOOK);
        }
        self.handler.copied(&mut self.copied);
        Ok(())
    }

    /// A thread that blocks the signal would be sent it much later; one that has not taken an earlier one yet, twice.
    fn can_be_signalled(&self, tid: u32) -> Result<(), Missing> {
        let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status"));
        let status = status.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Missing::Ended,
            // No file can be opened just now: another time.
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR) | None => Missing::Late,
            Some(errno) => Missing::Off(Off::NoProc(errno)),
        })?;
        let bit = 1u64 << (self.handler.signal - 1);
        let has = |set: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(set));
            line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & bit != 0)
        };
        match () {
            () if has("SigBlk:") => Err(Missing::Blocks),
            () if has("SigPnd:") => Err(Missing::Late),
            () => Ok(()),
        }
    }
}

/// The mapping that a stack pointer lies in.
fn range_of(pointer: u64) -> Option<(u64, u64)> {
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let maps = String::from_utf8_lossy(&maps);
    let mut holds = parse_maps(&maps).filter(|it| it.is_writable && it.start <= pointer && pointer < it.end);
    holds.next().map(|it| (it.start, it.end))
}

// Miri knows no signals.
#[cfg(all(test, not(miri)))]
mod tests;
