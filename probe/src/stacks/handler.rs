//! The signal that takes a stack. Its handler copies the registers and the used part of the stack into memory that was set
//! aside; it understands nothing of what it copies. It takes no lock, allocates nothing, and cannot fault: it loads what is
//! certainly the thread's own, having asked the kernel for every page of it, and what is not so certain the kernel copies, which
//! stops where nothing is mapped.
//!
//! One sample is taken at a time:
//!
//! ```text
//! Idle --request--> Requested --handler--> Copying --handler--> Done --request--> Requested
//!   ^                   |
//!   '------cancel-------'      (a signal that comes later finds another number, and does nothing)
//! ```
#![allow(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};

use libc::{c_int, c_void};

use super::unwind::{REGISTERS, Registers, STACK_POINTER};

/// Bytes of a stack that are copied at most.
pub(crate) const COPIED: usize = 128 << 10;
/// Bytes that are loaded at most: beyond that the kernel's copy costs no more.
pub(crate) const LOADED: u64 = 16 << 10;
/// The smallest page of any system.
const PAGE: u64 = 4096;
/// Code may use this much below the stack pointer without moving it.
const RED_ZONE: u64 = 128;

const IDLE: u64 = 0;
const REQUESTED: u64 = 1;
const COPYING: u64 = 2;
const DONE: u64 = 3;
const PHASE_BITS: u32 = 2;

/// What the handler is told and what it tells. All of it is zero until stacks are switched on: no page of it is resident.
struct Sample {
    /// Number of the request, and its phase in the lowest bits.
    state: AtomicU64,
    /// This process, as the kernel says it in a signal.
    pid: AtomicI32,
    /// What may be copied: the mapping of the thread's stack, as far as it is known.
    readable: [AtomicU64; 2],
    /// The stack that the C library made for the thread, as the thread itself has said; zeros: not known.
    own: [AtomicU64; 2],
    /// The kernel says of an address whether it can be read.
    can_ask: AtomicBool,
    /// How many bytes of it at most.
    most: AtomicU64,
    registers: [AtomicU64; REGISTERS],
    /// Where the copied part begins, how many bytes of it there are, and where the stack ends.
    copied: [AtomicU64; 2],
    end: AtomicU64,
    /// Time in the handler, in ticks of [`crate::native::counter`].
    took: AtomicU64,
    stack: [AtomicU64; COPIED / 8],
}

static SAMPLE: Sample = Sample {
    state: AtomicU64::new(0),
    pid: AtomicI32::new(0),
    readable: [const { AtomicU64::new(0) }; 2],
    own: [const { AtomicU64::new(0) }; 2],
    can_ask: AtomicBool::new(false),
    most: AtomicU64::new(0),
    registers: [const { AtomicU64::new(0) }; REGISTERS],
    copied: [const { AtomicU64::new(0) }; 2],
    end: AtomicU64::new(0),
    took: AtomicU64::new(0),
    stack: [const { AtomicU64::new(0) }; COPIED / 8],
};

/// How often a stack was loaded.
#[cfg(test)]
pub(super) static LOADS: AtomicU64 = AtomicU64::new(0);

/// The kernel's `ucontext`, in words: which one holds which register, in DWARF's order. (The C library's own types differ from
/// one library to the next; the kernel's do not.)
#[cfg(target_arch = "x86_64")]
const CONTEXT: [usize; REGISTERS] = {
    // After `uc_flags`, `uc_link` and `uc_stack`: r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
    let first = 5;
    [
        first + 13,
        first + 12,
        first + 14,
        first + 11,
        first + 9,
        first + 8,
        first + 10,
        first + 15,
        first,
        first + 1,
        first + 2,
        first + 3,
        first + 4,
        first + 5,
        first + 6,
        first + 7,
        first + 16,
    ]
};
#[cfg(target_arch = "aarch64")]
const CONTEXT: [usize; REGISTERS] = {
    // After `uc_flags`, `uc_link`, `uc_stack`, `uc_sigmask` with its reserve, and the fault's address: x0 to x30, sp, pc.
    let mut words = [0; REGISTERS];
    let mut number = 0;
    while number < REGISTERS {
        words[number] = 23 + number;
        number += 1;
    }
    words
};

#[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
const _: () = assert!(std::mem::offset_of!(libc::ucontext_t, uc_mcontext) == 5 * 8);
#[cfg(all(target_env = "gnu", target_arch = "aarch64"))]
const _: () = assert!(std::mem::offset_of!(libc::ucontext_t, uc_mcontext) == 22 * 8);

/// The kernel's `siginfo` of a signal that carries a value.
#[repr(C)]
struct Info {
    signo: c_int,
    errno: c_int,
    code: c_int,
    _align: c_int,
    pid: c_int,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}
const _: () = assert!(size_of::<Info>() == size_of::<libc::siginfo_t>());

/// Runs on the thread whose stack is wanted, wherever it is.
extern "C" fn take(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let began = crate::native::counter();
    // SAFETY: the kernel gives a handler with SA_SIGINFO a pointer to a `siginfo` that is whole and lives until the handler
    // returns, and `Info` has its layout where `code` is SI_QUEUE; the fields are numbers, of which all bits are valid.
    let Info { code, pid, value, .. } = unsafe { info.cast::<Info>().read() };
    let sample = &SAMPLE;
    if code != libc::SI_QUEUE || pid != sample.pid.load(Relaxed) {
        return;
    }
    let phase = |phase: u64| value << PHASE_BITS | phase;
    // A signal that comes late finds another request, or none.
    if sample.state.compare_exchange(phase(REQUESTED), phase(COPYING), Acquire, Relaxed).is_err() {
        return;
    }
    for (register, &word) in sample.registers.iter().zip(&CONTEXT) {
        // SAFETY: the kernel gives such a handler a pointer to its `ucontext`, aligned to a word and longer than any word of
        // `CONTEXT`, which lives until the handler returns.
        register.store(unsafe { context.cast::<u64>().add(word).read() }, Relaxed);
    }
    let pointer = sample.registers[STACK_POINTER].load(Relaxed);
    let [low, high] = [sample.readable[0].load(Relaxed), sample.readable[1].load(Relaxed)];
    let mut copied = 0;
    if low <= pointer && pointer < high {
        // Where the C library made the stack, what is the thread's own lies at its end: beyond is somebody else's memory.
        let its = thread_pointer();
        let end = if pointer < its && its < high { its } else { high };
        let from = pointer.saturating_sub(RED_ZONE).max(low) & !7;
        let [own_low, own_high] = [sample.own[0].load(Relaxed), sample.own[1].load(Relaxed)];
        let is_own = own_low <= from && pointer < own_high;
        let end = if is_own { end.min(own_high) } else { end };
        let wanted = end.saturating_sub(from).min(sample.most.load(Relaxed));
        let may_load = is_own && wanted <= LOADED && sample.can_ask.load(Relaxed);
        copied = if may_load && load(from, wanted) { wanted } else { copy(pid, from, wanted) };
        sample.copied[0].store(from, Relaxed);
        sample.end.store(end, Relaxed);
    }
    sample.copied[1].store(copied, Relaxed);
    sample.took.store(crate::native::counter().wrapping_sub(began), Relaxed);
    sample.state.store(phase(DONE), Release);
}

/// Loads `wanted` bytes from `from`, whole words of the calling thread's own stack, into the sample; false where some of it
/// cannot be read. It saves the greater part of what the kernel's copy costs (decision 0004).
pub(super) fn load(from: u64, wanted: u64) -> bool {
    let beyond = from + wanted;
    let pages = std::iter::successors(Some(from), |at| Some((at | (PAGE - 1)) + 1));
    let mut pages = pages.take_while(|&at| at < beyond);
    if !kept_errno(|| pages.all(|page| can_be_read(page) == Some(true))) {
        return false;
    }
    #[cfg(test)]
    LOADS.fetch_add(1, Relaxed);
    let (to, count) = (SAMPLE.stack.as_ptr(), (wanted / 8).min(LOADED / 8));
    // What is read was just seen to be readable, to the last page. It stays so: it lies above the stack pointer of the code that
    // was interrupted, on the stack of this very thread, which does not end before the handler returns. No reference is made to
    // it, whatever its type and whether or not it was ever written.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction copies `count` words upwards (the ABI has the direction flag clear): from memory that can be read,
    // as above, to `stack`, which is at least as long and made of atomics: it may be written through a shared reference.
    unsafe {
        std::arch::asm!(
            "rep movsq",
            inout("rcx") count => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: copies `count` words upwards: from memory that can be read, as above, to `stack`, which is at least as long and made
    // of atomics: it may be written through a shared reference.
    unsafe {
        std::arch::asm!(
            "cbz {count}, 3f",
            "2:",
            "ldr {word}, [{from}], #8",
            "str {word}, [{to}], #8",
            "sub {count}, {count}, #1",
            "cbnz {count}, 2b",
            "3:",
            count = inout(reg) count => _,
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            word = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
    true
}

/// Whether the word at an address can be read, as the kernel sees it, and nothing else happens; `None`: it does not say. The
/// call reads a set of signals there and then finds that it is told to do no such thing as there is with it. Changes `errno`.
fn can_be_read(at: u64) -> Option<bool> {
    const NO_SUCH: libc::c_long = -1;
    // SAFETY: the kernel reads 8 bytes at `at`, which it checks itself, and writes none: where the old set would go is null.
    // With a first argument that it does not know it changes nothing.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            NO_SUCH,
            at as usize as *const u64,
            std::ptr::null_mut::<u64>(),
            8,
        )
    };
    match last_errno() {
        libc::EINVAL if asked == -1 => Some(true),
        libc::EFAULT if asked == -1 => Some(false),
        _ => None,
    }
}

/// Runs `code` and gives the calling thread's `errno` the value that it had before.
fn kept_errno<T>(code: impl FnOnce() -> T) -> T {
    // SAFETY: gives the address of this thread's `errno`, which is valid as long as the thread runs.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; the code that was interrupted is this thread's own and does not run now.
    let before = unsafe { errno.read() };
    let done = code();
    // SAFETY: as for reading it.
    unsafe { errno.write(before) };
    done
}

/// Copies `wanted` bytes from `from` into the sample; gives how many there were.
fn copy(pid: c_int, from: u64, wanted: u64) -> u64 {
    let wanted = wanted.min(COPIED as u64) as usize;
    let local = libc::iovec { iov_base: SAMPLE.stack.as_ptr().cast_mut().cast(), iov_len: wanted };
    let remote = libc::iovec { iov_base: from as usize as *mut c_void, iov_len: wanted };
    let copied = kept_errno(|| {
        // SAFETY: the system call reads two `iovec` that live until it returns. The kernel writes at most `iov_len` bytes into
        // `stack`, whose length is `COPIED`, and which is made of atomics: it may be written through a shared reference. What it
        // reads it checks itself, and stops where nothing is mapped.
        unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) }
    });
    u64::try_from(copied).unwrap_or(0)
}

/// Where the calling thread keeps what is its own: with all C libraries at the upper end of a stack that they made.
fn thread_pointer() -> u64 {
    let pointer: u64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the ABI keeps the thread's base at `fs:0`; the instruction reads that word and nothing else.
    unsafe {
        std::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(pure, readonly, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads a register that user code may read.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    pointer
}

/// The stack that the C library, or the kernel for the first thread, made for the calling thread: its lowest address, and the one
/// beyond its highest. Of the first thread it is as long as it may become. Allocates; `None` where the library does not know.
pub(super) fn own_stack() -> Option<(u64, u64)> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the calling thread exists; where the call succeeds it has initialised what it was given a place for.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut low, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: it is initialised, and the call writes the two numbers.
    let told = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut bytes) };
    // SAFETY: it is initialised, and not used afterwards.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (told == 0 && !low.is_null()).then(|| (low as u64, (low as u64).saturating_add(bytes as u64)))
}

/// The action of `signal` as it is now: whether it is the default, and whether it is ours. `None`: there is no such signal.
fn action(signal: c_int) -> Option<(bool, bool)> {
    // SAFETY: all zeroes are a valid `sigaction`: integers, a set of bits, and no function.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action nothing is changed; the old one is written to a `sigaction` of ours.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) };
    (asked == 0).then_some((now.sa_sigaction == libc::SIG_DFL, now.sa_sigaction == entry()))
}

fn entry() -> usize {
    take as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize
}

/// Why there can be no handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This signal has an action of the application's.
    Taken(i32),
    /// No real-time signal is free.
    NoneFree,
    /// It is no real-time signal.
    NotRealTime(i32),
    /// The system refuses.
    Failed(i32),
    /// `/proc` does not show this process's own threads and mappings.
    NoProc,
    /// The kernel does not let this process read its own memory by `process_vm_readv`.
    Unreadable,
    /// It does not let this process send itself a signal, with this `errno`.
    NoSignal(i32),
}

/// A thread of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    pub(crate) tid: u32,
    /// Its stack, as it has said itself ([`own_stack`]).
    pub(crate) own: Option<(u64, u64)>,
}

/// The handler, installed. There is one in a process.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) signal: i32,
    /// Of the last request: each has the next one.
    pub(super) number: u64,
}

/// Why no signal was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The handler still copies for an earlier request.
    Busy,
    /// The thread has ended.
    Ended,
    /// The signal's action is another one now: sending it could end the process.
    Taken,
    /// The system refuses, with this `errno`.
    Refused(i32),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    NotYet,
    /// The copy is ready, and stays until the next request.
    Done,
}

/// What was copied.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    pub(crate) registers: Registers,
    /// Address of the first of `bytes`.
    pub(crate) from: u64,
    /// Empty: the stack pointer was not in the range that was given.
    pub(crate) bytes: Vec<u8>,
    /// The stack goes on after them.
    pub(crate) is_cut: bool,
    /// Time in the handler, in ticks of the counter.
    pub(crate) took: u64,
}

impl Copied {
    pub(crate) fn nothing() -> Self {
        Self { registers: [None; REGISTERS], from: 0, bytes: Vec::new(), is_cut: false, took: 0 }
    }
}

impl Handler {
    /// Installs it for `signal`, or for the first real-time signal from the third-last downwards whose action is the default.
    pub(crate) fn install(signal: Option<i32>) -> Result<Self, Refused> {
        let (least, most) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        let is_free = |signal: i32| action(signal).is_some_and(|(default, ours)| default || ours);
        let signal = match signal {
            Some(signal) if !(least..=most).contains(&signal) => return Err(Refused::NotRealTime(signal)),
            Some(signal) if !is_free(signal) => return Err(Refused::Taken(signal)),
            Some(signal) => signal,
            None => (least..=most - 3).rev().find(|&signal| is_free(signal)).ok_or(Refused::NoneFree)?,
        };
        let pid = std::process::id() as i32;
        SAMPLE.pid.store(pid, Relaxed);
        // Also so that the functions which the handler calls are bound by then: the loader binds some at their first call.
        let here = [1u8; 8];
        if copy(pid, here.as_ptr() as u64, 8) != 8 {
            return Err(Refused::Unreadable);
        }
        // Some systems look at the other arguments first. No process has anything at so low an address.
        let can_ask = can_be_read(here.as_ptr() as u64) == Some(true) && can_be_read(8) == Some(false);
        SAMPLE.can_ask.store(can_ask, Relaxed);
        // Number 0 is no signal: the kernel only says whether it would send one.
        let own = crate::registry::lines::current_tid().ok_or(Refused::NoProc)?;
        send(pid, own, 0, 0).map_err(Refused::NoSignal)?;
        // The handler's first look at a page must not be what makes it.
        SAMPLE.stack.iter().step_by(512).for_each(|word| word.store(0, Relaxed));
        // SAFETY: all zeroes are a valid `sigaction`: no flags, an empty mask, the default action.
        let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
        new.sa_sigaction = entry();
        // Nothing interrupts it: another handler that came in between could leave by a jump, and ours would never be over. Also
        // not the signals that the C library keeps for itself, which `sigfillset` leaves out: they cancel threads.
        // SAFETY: the mask is a set of bits, of which all values are valid; it is written whole, and nothing beside it.
        unsafe { (&raw mut new.sa_mask).write_bytes(0xff, 1) };
        new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: `take` has the type that SA_SIGINFO asks for, lives as long as the process, and does only what may be done in
        // a handler; whatever action there was is the default one.
        if unsafe { libc::sigaction(signal, &raw const new, std::ptr::null_mut()) } != 0 {
            return Err(Refused::Failed(last_errno()));
        }
        let number = SAMPLE.state.load(Acquire) >> PHASE_BITS;
        Ok(Self { signal, number })
    }

    /// Sends the signal to a thread of this process; what may be copied is `readable`, `None` where that is not known: then
    /// only the registers come. Of it come `most` bytes from the stack pointer up, and [`COPIED`] at most.
    pub(crate) fn request(
        &mut self,
        thread: Thread,
        readable: Option<(u64, u64)>,
        most: u64,
    ) -> Result<(), Unsent> {
        let before = SAMPLE.state.load(Acquire);
        match before & ((1 << PHASE_BITS) - 1) {
            IDLE | DONE => {}
            REQUESTED if self.cancel() => {}
            _ => return Err(Unsent::Busy),
        }
        if action(self.signal).is_none_or(|(_, ours)| !ours) {
            return Err(Unsent::Taken);
        }
        // The kernel gives back what it was given: as many bits as a number has that is shifted by the phase.
        self.number = (self.number + 1) & (u64::MAX >> PHASE_BITS);
        let (low, high) = readable.unwrap_or((0, 0));
        SAMPLE.readable[0].store(low, Relaxed);
        SAMPLE.readable[1].store(high, Relaxed);
        let (low, high) = thread.own.unwrap_or((0, 0));
        SAMPLE.own[0].store(low, Relaxed);
        SAMPLE.own[1].store(high, Relaxed);
        SAMPLE.most.store(most, Relaxed);
        SAMPLE.state.store(self.state(REQUESTED), Release);
        let pid = SAMPLE.pid.load(Relaxed);
        // Its action was just seen to be ours.
        send(pid, thread.tid, self.signal, self.number).map_err(|errno| {
            self.cancel();
            if errno == libc::ESRCH { Unsent::Ended } else { Unsent::Refused(errno) }
        })
    }

    fn state(&self, phase: u64) -> u64 {
        self.number << PHASE_BITS | phase
    }

    /// How the last request stands.
    pub(crate) fn answer(&self) -> Answer {
        if SAMPLE.state.load(Acquire) == self.state(DONE) { Answer::Done } else { Answer::NotYet }
    }

    /// Takes the last request back; false where the handler has begun to copy, or has done so.
    pub(crate) fn cancel(&self) -> bool {
        let state = &SAMPLE.state;
        state.compare_exchange(self.state(REQUESTED), self.state(IDLE), Acquire, Relaxed).is_ok()
    }

    /// What was copied; only after [`Answer::Done`].
    pub(crate) fn copied(&self, into: &mut Copied) {
        for (register, from) in into.registers.iter_mut().zip(&SAMPLE.registers) {
            *register = Some(from.load(Relaxed));
        }
        let count = SAMPLE.copied[1].load(Relaxed);
        into.from = SAMPLE.copied[0].load(Relaxed);
        into.bytes.clear();
        let words = SAMPLE.stack.iter().take(count as usize / 8);
        into.bytes.extend(words.flat_map(|word| word.load(Relaxed).to_ne_bytes()));
        into.is_cut = count > 0 && into.from + count < SAMPLE.end.load(Relaxed);
        into.took = SAMPLE.took.load(Relaxed);
    }
}

/// What the tests see and do of it.
#[cfg(test)]
impl Handler {
    /// Whether it was called for the last request, and has not begun.
    pub(super) fn has_not_begun(&self) -> bool {
        SAMPLE.state.load(Acquire) == self.state(REQUESTED)
    }

    /// As if a thread had begun to copy and stood still, or had come to its end after all.
    pub(super) fn stand_still(&self, begin: bool) {
        SAMPLE.state.store(self.state(if begin { COPYING } else { DONE }), Release);
    }
}

/// Sends a signal with a value to a thread of this process; the `errno` where it is refused.
fn send(pid: c_int, tid: u32, signal: c_int, value: u64) -> Result<(), c_int> {
    let info = Info {
        signo: signal,
        errno: 0,
        code: libc::SI_QUEUE,
        _align: 0,
        pid,
        // Only the handler reads it, and it does not ask.
        uid: 0,
        value,
        rest: [0; 12],
    };
    // SAFETY: the kernel reads a `siginfo` of its size that lives until the call returns, and sends the signal to a thread of
    // this process, or fails. What the signal does is its action's matter: callers give one that is ours, or no signal.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            libc::c_long::from(pid),
            libc::c_long::from(tid),
            libc::c_long::from(signal),
            &raw const info,
        )
    };
    if sent == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
