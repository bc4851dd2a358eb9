//! Takes the stack of a thread: sends the signal, waits a moment for the copy, and unwinds it. On `taskscope-stacks` only.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use taskscope_proto::v1::interned_stack::End;

use super::gate::Gate;
use super::handler::{Answer, COPIED, Copied, Handler, LOADED, Refused, Thread, Unsent};
use super::modules::{Memory, Modules, OwnMemory, parse_maps};
use super::unwind::{DEEPEST, STACK_POINTER, Stack, Unwound, unwind};

/// A thread that does not answer in this time is stopped, throttled, or waits for a CPU.
const PATIENCE: Duration = Duration::from_millis(50);
/// Between two looks for the answer: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_micros(50);
const LONGEST_LOOK: Duration = Duration::from_millis(2);
/// A handler that has been at work for so long is not coming back soon.
const HELD: Duration = Duration::from_secs(2);
/// How often a stack that is not where it was is looked for.
const ATTEMPTS: u32 = 2;
/// Bytes of a stack that are copied at first: as much as most are long.
const FIRST: u64 = LOADED;
/// Threads whose stacks are known; beyond that all are looked up anew.
const KNOWN: usize = 1024;

/// Why there is no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The thread has ended.
    Ended,
    /// It blocks the signal, or waits for signals itself.
    Blocks,
    /// It is under more of seccomp than this thread: what the handler calls may end it.
    Sandboxed,
    /// The kernel could not read its stack, although it reads this thread's.
    Unreadable,
    /// It did not answer in time.
    Late,
    /// The handler has been at work for an earlier request for [`HELD`].
    Held,
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
    gate: Gate,
    /// Since when the handler was found at work for an earlier request, whenever one was to be made.
    busy_since: Option<Instant>,
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
            gate: Gate::default(),
            busy_since: None,
        })
    }

    pub(crate) fn signal(&self) -> i32 {
        self.handler.signal
    }

    /// The stack of a thread. Waits for it, [`PATIENCE`] at most for each of three signals: the first tells where a new
    /// thread's stack is, and the last takes all of one that turns out to be long.
    pub(crate) fn take(&mut self, thread: Thread, now_ns: u64) -> Result<Unwound, Missing> {
        let tid = thread.tid;
        self.gate.lets(tid, self.handler.signal)?;
        // A stack may come without the kernel's copying; the rules of the code that it leads through do not.
        let here = [0u8; 8];
        if OwnMemory.read(here.as_ptr() as u64, &mut [0; 8]) != here.len() {
            return Err(Missing::Off(Off::Unreadable));
        }
        let is_long = self.known.get(&tid).is_some_and(|known| known.is_long);
        self.copy(thread, if is_long { COPIED as u64 } else { FIRST })?;
        let mut unwound = self.unwound(now_ns);
        let ran_out = unwound.end == End::TooDeep && unwound.addresses.len() < DEEPEST;
        if ran_out && !is_long {
            match self.copy(thread, COPIED as u64) {
                Ok(()) => unwound = self.unwound(now_ns),
                Err(Missing::Off(off)) => return Err(Missing::Off(off)),
                // It says itself that it is not whole.
                Err(_) => {}
            }
        }
        if let Some(known) = self.known.get_mut(&tid) {
            // One that has become short is copied in part again.
            known.is_long = ran_out || is_long && self.copied.bytes.len() as u64 > FIRST;
        }
        Ok(unwound)
    }

    /// Copies the stack of a thread, `most` bytes of it.
    fn copy(&mut self, thread: Thread, most: u64) -> Result<(), Missing> {
        let mut range = self.known.get(&thread.tid).map(|known| known.range);
        for attempt in 0.. {
            self.ask(thread, range, most)?;
            if !self.copied.bytes.is_empty() {
                break;
            }
            let pointer = self.copied.registers[STACK_POINTER].unwrap_or(0);
            if range.is_some_and(|(low, high)| low <= pointer && pointer < high) {
                return Err(Missing::Unreadable);
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
            self.known.insert(thread.tid, Known { range: found, is_long: false });
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
    fn ask(&mut self, thread: Thread, readable: Option<(u64, u64)>, most: u64) -> Result<(), Missing> {
        let requested = self.handler.request(thread, readable, most);
        if requested != Err(Unsent::Busy) {
            self.busy_since = None;
        }
        requested.map_err(|unsent| match unsent {
            Unsent::Ended => Missing::Ended,
            Unsent::Busy => match self.busy_since.get_or_insert_with(Instant::now).elapsed() < HELD {
                true => Missing::Late,
                false => Missing::Held,
            },
            Unsent::Taken => Missing::Off(Off::Taken(self.handler.signal)),
            // The queue of signals is full: another time.
            Unsent::Refused(libc::EAGAIN) => Missing::Late,
            Unsent::Refused(errno) => Missing::Off(Off::Refused(errno)),
        })?;
        let began = Instant::now();
        let mut pause = FIRST_LOOK;
        while self.handler.answer() == Answer::NotYet {
            if began.elapsed() >= PATIENCE && self.handler.cancel() {
                let is_there = crate::engine::activity::exists(thread.tid);
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
