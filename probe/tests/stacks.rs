//! Where in its code a poll is that runs too long.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code, reason = "what blocks in C is called as C")]

use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use taskscope_probe::Probe;
use taskscope_proto::v1::capability::{Coverage, Kind};
use taskscope_proto::v1::interned_stack::End;
use taskscope_proto::v1::{self, StackQuery, StackShare, WatchRequest, event};
use tokio::runtime::Runtime;

#[path = "asking/probe.rs"]
mod probe;

use probe::{Answer, Asker, eventually};

/// A runtime with a probe that takes stacks; all tests of this process share it.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let probe = Probe::builder().name(name()).stacks(true).slow_poll_threshold(Duration::from_millis(50));
        probe.install(builder.worker_threads(4).enable_all());
        builder.build().expect("a runtime can be built")
    })
}

/// A function of this file, whatever it is called.
#[derive(Clone, Copy)]
struct Function(usize);

impl Function {
    fn of(function: extern "C" fn(&Stop)) -> Self {
        Self(function as usize)
    }

    /// Whether an address lies in it: none of them is longer.
    fn has(self, address: u64) -> bool {
        (self.0 as u64..self.0 as u64 + 512).contains(&address)
    }
}

type Stop = Arc<AtomicBool>;

/// What a stack says, with addresses as they are in memory.
#[derive(Debug)]
struct Seen {
    addresses: Vec<u64>,
    files: Vec<String>,
    end: End,
}

impl Seen {
    fn of(frame: &v1::Frame, share: &StackShare) -> Self {
        let stack = frame.stacks.iter().find(|stack| stack.stack_sid == share.stack_sid);
        let stack = stack.expect("a stack comes with the first frame that uses it");
        assert_eq!(stack.module_ids.len(), stack.addresses.len());
        let file = |id: u32| {
            let module = frame.modules.iter().find(|module| module.id == id);
            module.map_or(String::new(), |module| module.path.clone())
        };
        let files: Vec<String> = stack.module_ids.iter().map(|&id| file(id)).collect();
        let exe = std::env::current_exe().expect("it runs").display().to_string();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("it can be read");
        let first = maps.lines().find(|line| line.ends_with(&exe)).expect("it is mapped");
        let base = u64::from_str_radix(first.split('-').next().unwrap_or_default(), 16).expect("an address");
        // A test is built position-independent: its file begins at zero.
        let in_memory =
            |(address, file): (&u64, &String)| if *file == exe { base + address } else { *address };
        Self {
            addresses: stack.addresses.iter().zip(&files).map(in_memory).collect(),
            files,
            end: stack.end(),
        }
    }

    fn is_in(&self, function: Function) -> bool {
        self.addresses.iter().any(|&address| function.has(address))
    }
}

/// Of this process: a socket of another one may be left.
fn name() -> String {
    format!("stacks-{}", std::process::id())
}

fn asker() -> Asker {
    runtime();
    Asker::of(&name())
}

fn ask(asker: &mut Asker) -> Answer {
    asker.ask_for(WatchRequest::default())
}

/// Runs `function` in a task of this name until the event that it is stuck is told; gives the stacks of that event. The function
/// ends with it.
#[track_caller]
fn stuck_in(name: &'static str, function: extern "C" fn(&Stop)) -> Vec<Seen> {
    let stop = Stop::default();
    let stopped = Arc::clone(&stop);
    let job = runtime().spawn(async move {
        taskscope_probe::spawn(name, async move { function(&stopped) }).await.expect("it does not panic");
    });
    let mut asker = asker();
    let stuck = eventually(|| {
        let answer = ask(&mut asker);
        let events = answer.frame.events.iter().filter(|event| event.kind() == event::Kind::PollStuck);
        let mut polls = events.filter_map(|event| event.poll.as_ref());
        let poll = polls.find(|poll| answer.text(poll.name_sid) == name).cloned();
        poll.map(|poll| (poll, answer)).ok_or_else(|| format!("{name} is not stuck"))
    });
    stop.store(true, Relaxed);
    runtime().block_on(job).expect("it does not panic");
    let (poll, answer) = stuck;
    assert!(poll.since_ns < 550_000_000, "reported after {} ms", poll.since_ns / 1_000_000);
    let seen: Vec<Seen> = poll.stacks.iter().map(|share| Seen::of(&answer.frame, share)).collect();
    assert!(!seen.is_empty(), "{name} was stuck without a stack: {poll:?} {:?}", answer.frame.losses);
    seen
}

#[track_caller]
fn is_found(name: &'static str, function: extern "C" fn(&Stop)) {
    let seen = stuck_in(name, function);
    assert!(seen[0].is_in(Function::of(function)), "{name}: {:#x?}", seen[0]);
    assert_eq!(seen[0].end, End::Whole, "{name}: {:#x?}", seen[0]);
}

#[inline(never)]
extern "C" fn sleeps(stop: &Stop) {
    while !stop.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
    }
    black_box(stop);
}

#[inline(never)]
extern "C" fn spins(stop: &Stop) {
    while !stop.load(Relaxed) {
        black_box(());
    }
    black_box(stop);
}

#[inline(never)]
extern "C" fn reads_from_a_pipe(stop: &Stop) {
    let (mut reads, writes) = std::io::pipe().expect("a pipe can be made");
    let stop = Arc::clone(stop);
    let writer = std::thread::spawn(move || {
        sleeps(&stop);
        drop(writes);
    });
    let read = reads.read(&mut [0; 8]);
    assert_eq!(read.ok(), Some(0), "it was not interrupted");
    writer.join().expect("no panic");
}

type Holder = std::thread::JoinHandle<()>;

/// A lock that another thread holds until it is told to stop.
fn held_lock(stop: &Stop) -> (Arc<Mutex<()>>, Holder) {
    let lock = Arc::new(Mutex::new(()));
    let (theirs, stop) = (Arc::clone(&lock), Arc::clone(stop));
    let is_held = Arc::new(AtomicBool::new(false));
    let tells = Arc::clone(&is_held);
    let holder = std::thread::spawn(move || {
        let held = theirs.lock();
        tells.store(true, Relaxed);
        sleeps(&stop);
        drop(held);
    });
    while !is_held.load(Relaxed) {
        std::thread::yield_now();
    }
    (lock, holder)
}

#[inline(never)]
extern "C" fn waits_for_a_lock(stop: &Stop) {
    let (lock, holder) = held_lock(stop);
    drop(lock.lock());
    holder.join().expect("no panic");
}

fn unsorted() -> Vec<u32> {
    (0..2_000).map(|n: u32| n.wrapping_mul(2_654_435_761)).collect()
}

#[inline(never)]
extern "C" fn sorts_in_c(stop: &Stop) {
    extern "C" fn compare(one: *const libc::c_void, other: *const libc::c_void) -> i32 {
        for turn in 0..20_000 {
            black_box(turn);
        }
        // SAFETY: `qsort` gives pointers to two elements of the array.
        unsafe { (*one.cast::<u32>()).cmp(&*other.cast::<u32>()) as i32 }
    }
    while !stop.load(Relaxed) {
        let mut numbers = unsorted();
        // SAFETY: the array has as many elements of that size, and the function compares two of them.
        unsafe { libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 4, Some(compare)) };
        assert!(numbers.is_sorted());
    }
    black_box(stop);
}

#[inline(never)]
extern "C" fn sleeps_in_c(stop: &Stop) {
    while !stop.load(Relaxed) {
        // SAFETY: it takes a number.
        unsafe { libc::usleep(200_000) };
    }
    black_box(stop);
}

#[test]
fn a_stuck_poll_is_reported_with_the_function_that_it_is_in() {
    is_found("sleeps", sleeps);
    is_found("spins", spins);
    is_found("reads", reads_from_a_pipe);
    is_found("locks", waits_for_a_lock);
    is_found("sorts", sorts_in_c);
    is_found("sleeps in c", sleeps_in_c);
}

#[test]
fn what_a_stack_goes_through_is_told_with_its_files() {
    let seen = stuck_in("files", sleeps);
    let exe = std::env::current_exe().expect("it runs").display().to_string();
    assert!(seen[0].files.contains(&exe) && seen[0].files[0].contains("libc"), "{:?}", seen[0].files);
}

#[test]
fn stacks_are_said_to_be_taken() {
    let mut asker = asker();
    eventually(|| {
        let answer = ask(&mut asker);
        let capability = answer.frame.capabilities.iter().find(|it| it.kind() == Kind::Stacks);
        let coverage = capability.map(v1::Capability::coverage);
        if coverage == Some(Coverage::Full) { Ok(()) } else { Err(format!("{capability:?}")) }
    });
}

#[test]
fn a_poll_that_is_not_slow_is_looked_at_when_somebody_asks() {
    let stop = Stop::default();
    let stopped = Arc::clone(&stop);
    let job = runtime().spawn_blocking(move || sleeps(&stopped));
    let mut asker = asker();
    let request = WatchRequest { stacks: Some(StackQuery::default()), ..WatchRequest::default() };
    // Tokio's own `spawn_blocking`: the probe does not know of the job, only of a thread.
    eventually(|| {
        let answer = asker.ask_for(request.clone());
        let frame = &answer.frame;
        let found = frame.threads.iter().find(|thread| {
            thread.poll.is_none()
                && thread.stacks.iter().any(|share| Seen::of(frame, share).is_in(Function::of(sleeps)))
        });
        let is_told = found.is_some_and(|thread| {
            thread.name.as_deref() == Some("tokio-rt-worker") && thread.activity.is_some()
        });
        if is_told { Ok(()) } else { Err(format!("{:?}", frame.threads)) }
    });
    stop.store(true, Relaxed);
    runtime().block_on(job).expect("no panic");
}
