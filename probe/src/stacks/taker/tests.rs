//! Stacks of threads of this very process. There is one handler in a process: the tests take turns.
#![allow(
    unsafe_code,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a library is loaded while signals come, with a clock"
)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::c_void;
use taskscope_proto::v1::interned_stack::End;

use super::super::handler::{LOADS, load, own_stack};
use super::*;

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> (MutexGuard<'static, ()>, Taker) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (turn, Taker::install(None).expect("a signal is free"))
}

/// A thread that does something until it is told to stop.
struct Busy {
    tid: u32,
    own: Option<(u64, u64)>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Busy {
    fn with(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let (stop, tid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stops, tells) = (Arc::clone(&stop), Arc::clone(&tid));
        let (says, said) = sync_channel(1);
        let thread = std::thread::Builder::new().stack_size(4 << 20).spawn(move || {
            says.send(own_stack()).expect("it waits for it");
            tells.store(crate::registry::lines::current_tid().expect("Linux tells it"), Relaxed);
            work(&stops);
        });
        let thread = thread.expect("a thread can be made");
        while tid.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
        let own = said.recv().expect("it says it first");
        Self { tid: tid.load(Relaxed), own, stop, thread: Some(thread) }
    }

    /// As it is known where it has said where its stack is.
    fn known(&self) -> Thread {
        Thread { tid: self.tid, own: self.own }
    }

    /// As it is known where it has not.
    fn unknown(&self) -> Thread {
        Thread { tid: self.tid, own: None }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Sets it, also where the test has failed.
struct AtLast(Arc<AtomicBool>);

impl Drop for AtLast {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[inline(never)]
extern "C" fn spins_here(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        black_box(());
    }
    black_box(stop);
}

#[inline(never)]
extern "C" fn parks_here(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        std::thread::park_timeout(Duration::from_millis(500));
    }
    black_box(stop);
}

/// `ROOM` words a level.
#[inline(never)]
fn digs_down<const ROOM: usize>(stop: &AtomicBool, levels: u32) -> u64 {
    let mut room = [u64::from(levels); ROOM];
    black_box(&mut room);
    if levels > 0 {
        room[0] += digs_down::<ROOM>(stop, levels - 1);
    } else {
        spins_here(stop);
    }
    black_box(&mut room);
    room[0]
}

/// Asks until the stack holds an address within the first bytes of `function`.
#[track_caller]
fn until_in(taker: &mut Taker, busy: &Busy, function: usize, name: &str) -> Unwound {
    let mut last = None;
    for _ in 0..500 {
        let taken = taker.take(busy.known(), 0);
        if let Ok(taken) = &taken
            && taken.addresses.iter().any(|&at| (function as u64..function as u64 + 600).contains(&at))
        {
            return taken.clone();
        }
        last = Some(taken);
        std::thread::yield_now();
    }
    panic!("never in {name}; last seen: {last:x?}");
}

#[test]
fn the_stack_of_a_thread_that_spins_and_of_one_that_sleeps_is_whole() {
    let (_turn, mut taker) = turn();
    let spins = Busy::with(|stop| spins_here(stop));
    let taken = until_in(&mut taker, &spins, spins_here as *const () as usize, "spins_here");
    assert_eq!(taken.end, End::Whole, "{taken:x?}");
    let parks = Busy::with(|stop| parks_here(stop));
    let taken = until_in(&mut taker, &parks, parks_here as *const () as usize, "parks_here");
    assert!(taken.end == End::Whole && taken.addresses.len() > 4, "{taken:x?}");
}

#[test]
fn a_stack_that_is_longer_than_what_is_copied_says_so() {
    let (_turn, mut taker) = turn();
    // By its bytes: a hundred levels of more than two kilobytes.
    let long = Busy::with(|stop| {
        digs_down::<256>(stop, 100);
    });
    let taken = until_in(&mut taker, &long, spins_here as *const () as usize, "spins_here");
    assert!(taken.end == End::TooDeep && (30..70).contains(&taken.addresses.len()), "{taken:x?}");
    // By its frames.
    let many = Busy::with(|stop| {
        digs_down::<8>(stop, 400);
    });
    let taken = until_in(&mut taker, &many, spins_here as *const () as usize, "spins_here");
    assert_eq!((taken.end, taken.addresses.len()), (End::TooDeep, 256));
}

#[test]
fn a_stack_is_copied_in_part_where_that_is_enough_and_a_long_one_at_once_while_it_is_long() {
    let (_turn, mut taker) = turn();
    let is_up = Arc::new(AtomicBool::new(false));
    let goes_up = Arc::clone(&is_up);
    // Twenty levels of more than two kilobytes, and then none.
    let busy = Busy::with(move |stop| {
        digs_down::<256>(&goes_up, 20);
        parks_here(stop);
    });
    // Else a test that fails would wait for it for ever.
    let up = AtLast(is_up);
    let before = taker.handler.number;
    let taken = until_in(&mut taker, &busy, spins_here as *const () as usize, "spins_here");
    assert_eq!((taken.end, taker.known[&busy.tid].is_long), (End::Whole, true), "{taken:x?}");
    assert!(taker.handler.number >= before + 3, "for the mapping, for a part, and for all of it");
    let before = taker.handler.number;
    assert_eq!(taker.take(busy.known(), 0).map(|taken| taken.end), Ok(End::Whole));
    assert!(taker.copied.bytes.len() as u64 > FIRST, "{} bytes", taker.copied.bytes.len());
    assert_eq!(taker.handler.number, before + 1);
    drop(up);
    until(|| taker.take(busy.known(), 0).is_ok() && !taker.known[&busy.tid].is_long);
    let before = taker.handler.number;
    assert_eq!(taker.take(busy.known(), 0).map(|taken| taken.end), Ok(End::Whole));
    assert!(taker.copied.bytes.len() as u64 <= FIRST, "{} bytes", taker.copied.bytes.len());
    assert_eq!(taker.handler.number, before + 1);
}

const ROOM: [u64; 1024] = [7; 1024];

/// Has something on its stack that does not change from one look to the next. Around it there may be some that does: calls end
/// and begin within, and outside the kernel keeps the number of the thread's processor.
#[inline(never)]
extern "C" fn waits_here(stop: &AtomicBool) {
    let mut room = ROOM;
    black_box(&mut room);
    spins_here(stop);
    black_box(&room);
}

#[test]
fn what_is_loaded_is_what_the_kernel_copies() {
    let (_turn, mut taker) = turn();
    let busy = Busy::with(|stop| waits_here(stop));
    let (low, high) = busy.own.expect("the C library knows it");
    until_in(&mut taker, &busy, spins_here as *const () as usize, "spins_here");
    let [loaded, copied] = [(busy.known(), 1), (busy.unknown(), 0)].map(|(thread, loads)| {
        let before = LOADS.load(Relaxed);
        taker.take(thread, 0).expect("it spins");
        assert_eq!(LOADS.load(Relaxed) - before, loads, "{thread:?}");
        let Copied { from, bytes, .. } = &taker.copied;
        assert!(
            low <= *from && from + bytes.len() as u64 <= high,
            "{low:x} {high:x} {from:x} {}",
            bytes.len()
        );
        let room = ROOM.map(u64::to_ne_bytes).concat();
        let found = bytes.windows(room.len()).position(|part| part == room).expect("all of it is there");
        (*from + found as u64, bytes.len() - found)
    });
    assert_eq!(loaded, copied, "where it lies, and how far it is from there to the end");
}

#[test]
fn a_stack_elsewhere_than_the_threads_own_is_left_to_the_kernel() {
    let (_turn, mut taker) = turn();
    let busy = Busy::with(|stop| waits_here(stop));
    let (low, high) = busy.own.expect("the C library knows it");
    let before = LOADS.load(Relaxed);
    for own in [None, Some((low, low + 4096)), Some((high - 64, high)), Some((8, 4096))] {
        let taken = taker.take(Thread { tid: busy.tid, own }, 0).expect("it spins");
        assert_eq!(taken.end, End::Whole, "{own:x?} {taken:x?}");
    }
    assert_eq!(LOADS.load(Relaxed), before, "none was loaded");
}

#[test]
fn a_page_that_cannot_be_read_is_seen_and_not_touched() {
    const PAGE: usize = 64 << 10;
    let (_turn, _taker) = turn();
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping wherever there is room.
    let first = unsafe {
        let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(anywhere, 2 * PAGE, libc::PROT_READ | libc::PROT_WRITE, how, -1, 0)
    };
    assert_ne!(first, libc::MAP_FAILED);
    // SAFETY: the second half of it, of which nobody knows.
    assert_eq!(unsafe { libc::mprotect(first.byte_add(PAGE), PAGE, libc::PROT_NONE) }, 0);
    let beyond = first as u64 + PAGE as u64;
    assert!(load(beyond - 8_192, 8_192), "all of it can be read");
    assert!(!load(beyond - 8_192, 8_200), "a word of it cannot");
    assert!(!load(beyond, 64), "none of it can");
    // SAFETY: nothing of it is used any more.
    assert_eq!(unsafe { libc::munmap(first, 2 * PAGE) }, 0);
}

#[test]
fn a_thread_that_has_ended_has_no_stack() {
    let (_turn, mut taker) = turn();
    let ended = Busy::with(|_| {});
    let thread = ended.known();
    drop(ended);
    assert_eq!(taker.take(thread, 0), Err(Missing::Ended));
    // As if it had ended after it was looked at.
    assert_eq!(taker.ask(thread, None, FIRST), Err(Missing::Ended));
}

#[test]
fn threads_that_begin_and_end_all_the_time_harm_nothing() {
    let (_turn, mut taker) = turn();
    let (mut found, mut ended) = (0, 0);
    for _ in 0..300 {
        let short = Busy::with(|_| spins_for(Duration::from_micros(100)));
        match taker.take(short.known(), 0) {
            Ok(_) => found += 1,
            // At its end the C library blocks all signals.
            Err(Missing::Ended | Missing::Late | Missing::Blocks) => ended += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(found + ended, 300);
}

fn spins_for(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        black_box(());
    }
}

#[test]
fn a_thread_that_blocks_the_signal_is_not_signalled() {
    let (_turn, mut taker) = turn();
    let blocks = Busy::with(|stop| {
        nix::sys::signal::SigSet::all().thread_block().expect("it may");
        parks_here(stop);
    });
    until(|| taker.take(blocks.known(), 0) == Err(Missing::Blocks));
    let status = std::fs::read_to_string(format!("/proc/self/task/{}/status", blocks.tid));
    let pending = "SigPnd:\t0000000000000000";
    assert!(status.expect("it runs").contains(pending), "nothing waits for it");
}

/// Sends a thread of this process a signal that it waits for.
fn kick(tid: u32) -> bool {
    // SAFETY: it takes numbers; whatever thread this is waits for the signal, or is not there any more.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid, libc::SIGUSR1) == 0 }
}

/// Ends a thread that waits for signals, also where the test has failed.
struct KickAtLast(u32, Arc<AtomicBool>);

impl Drop for KickAtLast {
    fn drop(&mut self) {
        self.1.store(true, Relaxed);
        kick(self.0);
    }
}

/// Takes signals out of its queue, as the one thread does that a service keeps for that.
#[test]
fn a_thread_that_waits_for_signals_gets_none_of_ours() {
    let (_turn, mut taker) = turn();
    let got = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&got);
    let waits = Busy::with(move |stop| {
        let all = nix::sys::signal::SigSet::all();
        all.thread_block().expect("it may");
        while !stop.load(Relaxed) {
            let mut signal = 0;
            // SAFETY: the set and the number are ours.
            assert_eq!(unsafe { libc::sigwait(all.as_ref(), &raw mut signal) }, 0);
            counts.fetch_add(1, Relaxed);
        }
    });
    let in_wait = |tid| {
        let number = libc::SYS_rt_sigtimedwait as u32;
        crate::engine::activity::call(tid) == crate::engine::activity::Call::Number(number)
    };
    until(|| in_wait(waits.tid));
    let status = std::fs::read_to_string(format!("/proc/self/task/{}/status", waits.tid)).expect("it runs");
    assert!(
        status.contains("SigBlk:\t0000000000000000"),
        "the kernel does not show that it blocks it: {status}"
    );
    let end = KickAtLast(waits.tid, Arc::clone(&waits.stop));
    // Also while other signals wake it.
    for turn in 1..=300 {
        assert_eq!(taker.take(waits.known(), 0), Err(Missing::Blocks));
        assert!(kick(waits.tid));
        assert_eq!(taker.take(waits.known(), 0), Err(Missing::Blocks), "on its way out");
        until(|| got.load(Relaxed) == turn && in_wait(waits.tid));
    }
    drop(end);
    until(|| got.load(Relaxed) == 301);
    drop(waits);
    assert_eq!(got.load(Relaxed), 301, "none but those that were sent here");
}

#[test]
fn a_thread_with_a_seccomp_filter_of_its_own_is_not_signalled_and_the_others_are() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let (_turn, mut taker) = turn();
    let applied = Arc::new(AtomicBool::new(false));
    let applies = Arc::clone(&applied);
    let sandboxed = Busy::with(move |stop| {
        // What the handler calls would end this whole process.
        let calls = [libc::SYS_process_vm_readv, libc::SYS_rt_sigprocmask].map(|call| (call, vec![]));
        let arch = std::env::consts::ARCH.try_into().expect("it runs on this processor");
        let filter = SeccompFilter::new(calls.into(), SeccompAction::Allow, SeccompAction::KillProcess, arch);
        let program: BpfProgram = filter.and_then(SeccompFilter::try_into).expect("the filter is right");
        seccompiler::apply_filter(&program).expect("a thread may restrict itself");
        applies.store(true, Relaxed);
        parks_here(stop);
    });
    let other = Busy::with(|stop| spins_here(stop));
    // One that was signalled just before would meet the filter in the handler.
    until(|| applied.load(Relaxed));
    for _ in 0..20 {
        assert_eq!(taker.take(sandboxed.known(), 0), Err(Missing::Sandboxed));
        until_in(&mut taker, &other, spins_here as *const () as usize, "spins_here");
    }
    // A thread ends with calls that the filter forbids: this one waits until the process does.
    std::mem::forget(sandboxed);
}

/// On x86-64 a processor reads what may only be written; the kernel does not.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_stack_that_cannot_be_read_is_missing_and_the_others_are_taken() {
    let (_turn, mut taker) = turn();
    let (goes, begins) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (waits, tells) = (Arc::clone(&goes), Arc::clone(&begins));
    let goes = AtLast(goes);
    let unreadable = Busy::with(move |stop| {
        let (low, high) = own_stack().expect("the C library knows it");
        let protect = |how| {
            // SAFETY: it is this thread's stack, which it may write before, meanwhile and after.
            assert_eq!(unsafe { libc::mprotect(low as *mut c_void, (high - low) as usize & !4095, how) }, 0);
        };
        spins_here(&waits);
        protect(libc::PROT_WRITE);
        tells.store(true, Relaxed);
        spins_here(stop);
        // The C library uses it again.
        protect(libc::PROT_READ | libc::PROT_WRITE);
    });
    let other = Busy::with(|stop| spins_here(stop));
    // As long as it can be read, it is.
    until(|| taker.take(unreadable.unknown(), 0).is_ok());
    drop(goes);
    until(|| begins.load(Relaxed));
    until(|| taker.take(unreadable.unknown(), 0) == Err(Missing::Unreadable));
    until_in(&mut taker, &other, spins_here as *const () as usize, "spins_here");
    until(|| taker.take(unreadable.unknown(), 0) == Err(Missing::Unreadable));
}

#[test]
fn a_handler_that_does_not_come_back_is_told() {
    let (_turn, mut taker) = turn();
    let busy = Busy::with(|stop| spins_here(stop));
    until_in(&mut taker, &busy, spins_here as *const () as usize, "spins_here");
    taker.handler.stand_still(true);
    assert_eq!(taker.take(busy.known(), 0), Err(Missing::Late));
    // As if it had been found so for a while.
    taker.busy_since = taker.busy_since.and_then(|since| since.checked_sub(HELD));
    assert_eq!(taker.take(busy.known(), 0), Err(Missing::Held));
    taker.handler.stand_still(false);
    until_in(&mut taker, &busy, spins_here as *const () as usize, "spins_here");
    assert_eq!(taker.busy_since, None);
}

/// How far our handler was when that of the application ran: 1: called and not begun, 2: else.
static INTERRUPTED: AtomicU32 = AtomicU32::new(0);
static OURS: Mutex<Option<Handler>> = Mutex::new(None);

extern "C" fn looks_at_ours(_: libc::c_int) {
    // Nobody holds the lock but the test, before it raises the signal.
    let ours = OURS.lock().expect("nobody panics");
    let has_not_begun = ours.as_ref().is_some_and(Handler::has_not_begun);
    INTERRUPTED.store(if has_not_begun { 1 } else { 2 }, Relaxed);
}

#[test]
fn no_signal_comes_while_the_handler_runs() {
    use nix::sys::signal::SigSet;
    let (_turn, mut taker) = turn();
    // Of two signals that wait the one with the smaller number is delivered first; the other one then interrupts its handler at
    // its first instruction, unless that is kept from it.
    let later = libc::SIGRTMAX();
    assert!(taker.signal() < later);
    // SAFETY: all zeroes are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = looks_at_ours as extern "C" fn(libc::c_int) as usize;
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nobody raises this signal but the test below.
    assert_eq!(unsafe { libc::sigaction(later, &raw const action, &raw mut before) }, 0);
    let unblock = Arc::new(AtomicBool::new(false));
    let unblocks = Arc::clone(&unblock);
    let busy = Busy::with(move |stop| {
        SigSet::all().thread_block().expect("it may");
        spins_here(&unblocks);
        SigSet::all().thread_unblock().expect("it may");
        spins_here(stop);
    });
    let _end = AtLast(Arc::clone(&unblock));
    until(|| taker.take(busy.known(), 0) == Err(Missing::Blocks));
    taker.handler.request(busy.known(), None, FIRST).expect("it runs");
    *OURS.lock().expect("nobody panics") = Some(Handler { ..taker.handler });
    // SAFETY: the thread runs until it is joined; the signal has a handler.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), busy.tid, later) };
    assert_eq!(sent, 0);
    unblock.store(true, Relaxed);
    until(|| INTERRUPTED.load(Relaxed) != 0);
    drop(busy);
    // SAFETY: what was there before is put back; nobody raises it any more.
    assert_eq!(unsafe { libc::sigaction(later, &raw const before, std::ptr::null_mut()) }, 0);
    assert_eq!(taker.handler.answer(), Answer::Done);
    assert_eq!(INTERRUPTED.load(Relaxed), 2, "it came in between");
}

#[test]
fn a_signal_that_comes_late_does_nothing() {
    let (_turn, mut taker) = turn();
    let unblock = Arc::new(AtomicBool::new(false));
    let unblocks = Arc::clone(&unblock);
    let late = Busy::with(move |stop| {
        nix::sys::signal::SigSet::all().thread_block().expect("it may");
        spins_here(&unblocks);
        nix::sys::signal::SigSet::all().thread_unblock().expect("it may");
        spins_here(stop);
    });
    until(|| taker.take(late.known(), 0) == Err(Missing::Blocks));
    // It was not seen to block it.
    assert_eq!(taker.ask(late.known(), None, FIRST), Err(Missing::Late));
    // The signal waits for it: there is no second one.
    unblock.store(true, Relaxed);
    let taken = until_in(&mut taker, &late, spins_here as *const () as usize, "spins_here");
    assert_eq!(taken.end, End::Whole);
    assert_eq!(taker.handler.answer(), Answer::Done);
}

#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "it did not become so");
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_finds_its_errno_as_it_left_it() {
    let (_turn, mut taker) = turn();
    let wrong = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&wrong);
    let busy = Busy::with(move |stop| {
        while !stop.load(Relaxed) {
            nix::errno::Errno::from_raw(77).set();
            for turn in 0..1_000 {
                black_box(turn);
            }
            counts.fetch_add(u64::from(nix::errno::Errno::last_raw() != 77), Relaxed);
        }
    });
    let taken = (0..300).filter(|_| taker.take(busy.known(), 0).is_ok()).count();
    assert!(taken > 200, "{taken} of 300");
    drop(busy);
    assert_eq!(wrong.load(Relaxed), 0);
}

#[test]
fn code_of_the_kernels_own_page_is_unwound_too() {
    let (_turn, mut taker) = turn();
    let asks = Busy::with(|stop| {
        while !stop.load(Relaxed) {
            black_box(Instant::now());
        }
    });
    let mut inside = 0;
    for _ in 0..300 {
        let Ok(taken) = taker.take(asks.known(), 0) else { continue };
        let module = taken.addresses.first().and_then(|&at| taker.modules.of(at));
        inside += usize::from(module.is_some_and(|module| module.path == "[vdso]"));
        assert_eq!(taken.end, End::Whole, "{taken:x?}");
    }
    // Where the kernel's clock cannot be read there, it is a system call.
    println!("{inside} of 300 in [vdso]");
}

/// In a handler of the application's until `stop` is set.
static IN_HANDLER: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);

extern "C" fn handles_here(_: libc::c_int) {
    // The thread that raised the signal has set it and let go of the lock.
    let stop = IN_HANDLER.lock().expect("nobody panics").clone().expect("it is set");
    spins_here(&stop);
}

#[inline(never)]
extern "C" fn raises_here(stop: &AtomicBool) {
    nix::sys::signal::raise(nix::sys::signal::SIGUSR2).expect("a signal can be raised");
    black_box(stop);
}

#[test]
fn what_a_handler_of_the_applications_own_interrupted_is_seen_too() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
    let (_turn, mut taker) = turn();
    let action = SigAction::new(SigHandler::Handler(handles_here), SaFlags::empty(), SigSet::empty());
    // SAFETY: nobody raises this signal but the thread below, in a call, with no lock held that the handler takes.
    let before = unsafe { nix::sys::signal::sigaction(Signal::SIGUSR2, &action) }.expect("it may");
    let stop = Arc::new(AtomicBool::new(false));
    *IN_HANDLER.lock().expect("nobody panics") = Some(Arc::clone(&stop));
    let raises = Busy::with(|stop| raises_here(stop));
    let taken = until_in(&mut taker, &raises, spins_here as *const () as usize, "spins_here");
    let within = |function: usize| move |&at: &u64| (function as u64..function as u64 + 600).contains(&at);
    let handler = taken.addresses.iter().position(within(handles_here as *const () as usize));
    // The functions lie side by side: the last one that may be it.
    let raised = taken.addresses.iter().rposition(within(raises_here as *const () as usize));
    stop.store(true, Relaxed);
    drop(raises);
    // SAFETY: what was there before is put back; nobody raises it any more.
    unsafe { nix::sys::signal::sigaction(Signal::SIGUSR2, &before) }.expect("it may");
    assert!(taken.end == End::Whole && handler.is_some() && handler < raised, "{taken:x?}");
}

#[test]
fn a_sample_takes_a_few_microseconds_of_the_thread() {
    let (_turn, mut taker) = turn();
    if !crate::native::HAS_COUNTER {
        return;
    }
    let clock = crate::clock::Clock::start();
    let busy = Busy::with(|stop| {
        digs_down::<64>(stop, 20);
    });
    let mut medians = [busy.known(), busy.unknown()].map(|thread| {
        let took =
            (0..300).filter_map(|_| taker.take(thread, 0).ok().map(|_| clock.between(0, taker.copied.took)));
        let mut took: Vec<u64> = took.collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied().expect("there are some")
    });
    println!("median {} ns in the handler that loads, {} where the kernel copies", medians[0], medians[1]);
    medians.sort_unstable();
    assert!((1..=50_000).contains(&medians[0]) && medians[1] <= 50_000, "{medians:?}");
}

#[test]
fn files_have_the_build_id_that_their_linker_gave_them() {
    let (_turn, mut taker) = turn();
    let busy = Busy::with(|stop| parks_here(stop));
    let taken = until_in(&mut taker, &busy, parks_here as *const () as usize, "parks_here");
    let libc = taken.addresses.iter().filter_map(|&at| taker.modules.of(at));
    let libc: Vec<_> = libc.filter(|module| module.path.contains("libc")).collect();
    assert!(!libc.is_empty() && libc.iter().all(|module| module.build_id.len() >= 8), "{libc:?}");
}

/// How many are taken in the test below; `cargo xtask verify` sets it.
fn samples() -> u32 {
    let set = std::env::var("TASKSCOPE_STACK_SAMPLES").ok();
    set.map_or(3_000, |number| number.parse().expect("TASKSCOPE_STACK_SAMPLES is a number"))
}

/// Allocates and frees, so that the allocator's locks are often held when the signal comes.
fn allocates(stop: &AtomicBool) {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for turn in 0.. {
        if stop.load(Relaxed) {
            return;
        }
        kept.push(vec![1; (turn * 977) % 70_000 + 1]);
        if kept.len() > 50 {
            kept.swap_remove((turn * 31) % 50);
        }
        // Of a size that is mapped on its own.
        black_box(vec![1u8; 300_000]);
    }
}

/// Loads and unloads a library, so that the loader's lock is often held, and code comes and goes.
fn loads(stop: &AtomicBool) {
    for turn in 0.. {
        if stop.load(Relaxed) {
            return;
        }
        let name = [c"libm.so.6", c"libresolv.so.2", c"libutil.so.1"][turn % 3];
        // SAFETY: these libraries of the system run no code of their own when they are loaded and unloaded, and nothing of them
        // is used.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if !library.is_null() {
            // SAFETY: it was just loaded, and is unloaded once.
            unsafe { libc::dlclose(library) };
        }
    }
}

/// Two threads that wake one another: one wake-up that is lost, and both stand still.
fn passes(mine: &Receiver<()>, theirs: &SyncSender<()>, count: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        match mine.recv_timeout(Duration::from_secs(20)) {
            Ok(()) => count.fetch_add(1, Relaxed),
            // The other one has stopped.
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => panic!("a wake-up was lost"),
        };
        if theirs.send(()).is_err() {
            return;
        }
    }
}

#[test]
fn thousands_of_samples_under_load_harm_nothing() {
    let (_turn, mut taker) = turn();
    let count = Arc::new(AtomicU64::new(0));
    let ((to_one, of_one), (to_other, of_other)) = (sync_channel(1), sync_channel(1));
    to_one.send(()).expect("there is room");
    let (counts, counts_too) = (Arc::clone(&count), Arc::clone(&count));
    let threads = vec![
        Busy::with(allocates),
        Busy::with(allocates),
        Busy::with(loads),
        Busy::with(|stop| spins_here(stop)),
        Busy::with(move |stop| passes(&of_one, &to_other, &counts, stop)),
        Busy::with(move |stop| passes(&of_other, &to_one, &counts_too, stop)),
    ];
    let clock = crate::clock::Clock::start();
    let (mut whole, mut not_whole, mut missing) = (0, 0, 0);
    for sample in 0..samples() {
        let busy = &threads[sample as usize % threads.len()];
        // Every other round by the kernel's copy.
        let thread =
            if (sample as usize / threads.len()).is_multiple_of(2) { busy.known() } else { busy.unknown() };
        match taker.take(thread, clock.at(clock.now())).map(|taken| taken.end) {
            Ok(End::Whole) => whole += 1,
            // The loader was at work on the library that it was in.
            Ok(_) => not_whole += 1,
            // The C library blocks all signals for moments.
            Err(Missing::Late | Missing::Blocks) => missing += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    println!("{whole} whole, {not_whole} not, {missing} missing");
    let before = count.load(Relaxed);
    until(|| count.load(Relaxed) > before + 100);
    for mut busy in threads {
        busy.stop.store(true, Relaxed);
        let thread = busy.thread.take().expect("it was not joined yet");
        assert!(thread.join().is_ok());
    }
    assert!(whole > samples() / 2, "{whole} whole, {not_whole} not, {missing} missing");
    assert!(not_whole < samples() / 20, "{whole} whole, {not_whole} not, {missing} missing");
}
