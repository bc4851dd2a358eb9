//! Where in its code a poll is that runs too long.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code, reason = "what blocks in C is called as C")]

use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use taskscope_probe::Probe;
use taskscope_proto::v1::capability::{Coverage, Kind};
use taskscope_proto::v1::interned_stack::End;
use taskscope_proto::v1::{self, StackQuery, StackShare, WatchRequest, event};
use tokio::runtime::Runtime;

#[path = "asking/probe.rs"]
mod probe;

#[path = "stacks/calls.rs"]
mod calls;

use probe::{Answer, Asker, eventually, is_emulated};

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

/// Ends what waits for it, also where the test has failed.
struct AtLast(Stop);

impl Drop for AtLast {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

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

/// Stacks are taken a few times a second over all: the tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Runs `function` in a task of this name until the event that it is stuck is told; gives the stacks of that event (of the
/// one at a second where the processor is too slow for the first to have any). The function ends with it.
#[track_caller]
fn stuck_in(name: &'static str, function: extern "C" fn(&Stop)) -> Vec<Seen> {
    let stop = Stop::default();
    let _end = AtLast(Arc::clone(&stop));
    let stopped = Arc::clone(&stop);
    let job = runtime().spawn(async move {
        taskscope_probe::spawn(name, async move { function(&stopped) }).await.expect("it does not panic");
    });
    let mut asker = asker();
    let stuck = eventually(|| {
        let answer = ask(&mut asker);
        let events = answer.frame.events.iter().filter(|event| event.kind() == event::Kind::PollStuck);
        let mut polls = events.filter_map(|event| event.poll.as_ref());
        let is_late = |poll: &v1::LivePoll| is_emulated() && poll.stacks.is_empty();
        let poll = polls.find(|poll| answer.text(poll.name_sid) == name && !is_late(poll)).cloned();
        poll.map(|poll| (poll, answer)).ok_or_else(|| format!("{name} is not stuck"))
    });
    stop.store(true, Relaxed);
    runtime().block_on(job).expect("it does not panic");
    let (poll, answer) = stuck;
    assert!(is_emulated() || poll.since_ns < 550_000_000, "reported after {} ms", poll.since_ns / 1_000_000);
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
    let _turn = turn();
    is_found("sleeps", sleeps);
    is_found("spins", spins);
    is_found("reads", reads_from_a_pipe);
    is_found("locks", waits_for_a_lock);
    is_found("sorts", sorts_in_c);
    is_found("sleeps in c", sleeps_in_c);
}

#[test]
fn what_a_stack_goes_through_is_told_with_its_files() {
    let _turn = turn();
    let seen = stuck_in("files", sleeps);
    let exe = std::env::current_exe().expect("it runs").display().to_string();
    assert!(seen[0].files.contains(&exe) && seen[0].files[0].contains("libc"), "{:?}", seen[0].files);
}

#[test]
fn stacks_are_said_to_be_taken() {
    let _turn = turn();
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
    let _turn = turn();
    let stop = Stop::default();
    let _end = AtLast(Arc::clone(&stop));
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

/// Runs `work` in a task of this name; gives what it gave, and the poll as it was told when it was over.
#[track_caller]
fn slow<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> (T, v1::LivePoll, Answer) {
    let given = runtime().block_on(async { taskscope_probe::spawn(name, async { work() }).await });
    let mut asker = asker();
    let (poll, answer) = eventually(|| {
        let answer = ask(&mut asker);
        let events = answer.frame.events.iter().filter(|event| event.kind() == event::Kind::PollSlow);
        let mut polls = events.filter_map(|event| event.poll.as_ref());
        let poll = polls.find(|poll| answer.text(poll.name_sid) == name).cloned();
        poll.map(|poll| (poll, answer)).ok_or_else(|| format!("{name} was not told"))
    });
    (given.expect("it does not panic"), poll, answer)
}

const LONG: Duration = Duration::from_millis(300);

/// Runs something once [`LONG`] is over.
fn later(work: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(LONG);
        work();
    })
}

#[test]
fn a_slow_poll_says_how_much_of_it_was_where() {
    let _turn = turn();
    let stop = Stop::default();
    stop.store(true, Relaxed);
    let (_, poll, answer) = slow("two places", move || {
        let later = later({
            let stop = Arc::clone(&stop);
            stop.store(false, Relaxed);
            move || {
                std::thread::sleep(LONG);
                stop.store(true, Relaxed);
            }
        });
        sleeps(&stop);
        later.join().expect("no panic");
        std::thread::sleep(2 * LONG);
    });
    let covered = |is_there: &dyn Fn(&Seen) -> bool| -> u64 {
        let shares = poll.stacks.iter().filter(|share| is_there(&Seen::of(&answer.frame, share)));
        shares.map(|share| share.covered_ns).sum()
    };
    let inside = covered(&|seen| seen.is_in(Function::of(sleeps)));
    let all = covered(&|_| true);
    let ms = |ns: u64| ns / 1_000_000;
    // Six hundred milliseconds in the function, as many outside of it; where a sample falls just behind the end of the first, a
    // quarter of a second is the other's.
    assert!((300..=950).contains(&ms(inside)), "{} of {}: {poll:?}", ms(inside), ms(all));
    assert!(all > inside && all <= poll.since_ns && poll.stacks.len() <= 8, "{poll:?}");
}

#[test]
fn a_job_of_the_blocking_pool_is_looked_at_once_it_is_old() {
    let _turn = turn();
    let stop = Stop::default();
    let _end = AtLast(Arc::clone(&stop));
    let stopped = Arc::clone(&stop);
    let entered = runtime().enter();
    let job = taskscope_probe::spawn_blocking("report", move || sleeps(&stopped));
    drop(entered);
    let mut asker = asker();
    eventually(|| {
        let answer = ask(&mut asker);
        let frame = &answer.frame;
        let mut polls = frame.threads.iter().filter_map(|thread| thread.poll.as_ref());
        let poll = polls.find(|poll| answer.text(poll.name_sid) == "report");
        let found = poll.is_some_and(|poll| {
            poll.stacks.iter().any(|share| Seen::of(frame, share).is_in(Function::of(sleeps)))
        });
        if found { Ok(()) } else { Err(format!("{:?}", frame.threads)) }
    });
    stop.store(true, Relaxed);
    runtime().block_on(job).expect("no panic");
}

#[test]
fn only_the_tasks_that_were_asked_for_are_looked_at_and_at_once() {
    let _turn = turn();
    let stop = Stop::default();
    let _end = AtLast(Arc::clone(&stop));
    let (one, other) = (Arc::clone(&stop), Arc::clone(&stop));
    // Too young to be looked at by itself.
    let jobs = runtime().block_on(async {
        [
            taskscope_probe::spawn_blocking("asked for", move || sleeps(&one)),
            taskscope_probe::spawn_blocking("not asked for", move || sleeps(&other)),
        ]
    });
    let mut asker = asker();
    fn poll(answer: &Answer, name: &str) -> Option<v1::LivePoll> {
        let mut polls = answer.frame.threads.iter().filter_map(|thread| thread.poll.clone());
        polls.find(|poll| answer.text(poll.name_sid) == name)
    }
    let id = eventually(|| {
        let answer = ask(&mut asker);
        poll(&answer, "asked for").map(|poll| poll.task_id).ok_or("it has not begun".to_owned())
    });
    let query = StackQuery { task_ids: vec![id], other_threads: false };
    let request = WatchRequest { stacks: Some(query), ..WatchRequest::default() };
    let (asked, other) = eventually(|| {
        let answer = asker.ask_for(request.clone());
        let both = poll(&answer, "asked for").zip(poll(&answer, "not asked for"));
        let found = both.clone().filter(|(asked, _)| !asked.stacks.is_empty());
        found.ok_or_else(|| format!("{both:?}"))
    });
    assert!(asked.since_ns < 500_000_000, "it was looked at because it is old: {asked:?}");
    assert!(other.stacks.is_empty() || other.since_ns >= 500_000_000, "{other:?}");
    stop.store(true, Relaxed);
    jobs.into_iter().for_each(|job| runtime().block_on(job).expect("no panic"));
}

#[test]
fn of_a_full_pool_is_told_what_its_threads_do_although_nobody_follows_its_jobs() {
    let _turn = turn();
    runtime();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).max_blocking_threads(2).thread_name("full").enable_time();
    Probe::builder().blocking_capacity(2).install(&mut builder);
    let full = builder.build().expect("a runtime can be built");
    let stop = Stop::default();
    let _end = AtLast(Arc::clone(&stop));
    let jobs: Vec<_> = (0..5)
        .map(|_| {
            let stop = Arc::clone(&stop);
            full.spawn_blocking(move || sleeps(&stop))
        })
        .collect();
    // A runtime that does nothing is not asked for its pool.
    full.spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut asker = asker();
    if cfg!(tokio_unstable) {
        eventually(|| {
            let answer = ask(&mut asker);
            let frame = &answer.frame;
            let threads = frame.threads.iter().filter(|thread| thread.name.as_deref() == Some("full"));
            let in_job = threads.filter(|thread| {
                thread.poll.is_none()
                    && thread.stacks.iter().any(|share| Seen::of(frame, share).is_in(Function::of(sleeps)))
            });
            if in_job.count() == 2 { Ok(()) } else { Err(format!("{:?} {:#?}", frame.threads, frame.pools)) }
        });
    }
    stop.store(true, Relaxed);
    jobs.into_iter().for_each(|job| full.block_on(job).expect("no panic"));
}

/// With the hooks every poll is seen; without, only that a worker stands still.
#[test]
fn a_worker_that_stands_still_is_told_with_its_line_also_without_hooks() {
    let _turn = turn();
    let stop = Stop::default();
    let _end = AtLast(Arc::clone(&stop));
    let stopped = Arc::clone(&stop);
    let job = runtime().spawn(async move { sleeps(&stopped) });
    let mut asker = asker();
    eventually(|| {
        let answer = ask(&mut asker);
        let frame = &answer.frame;
        let polls =
            frame.runtimes.iter().flat_map(|runtime| &runtime.workers).filter_map(|it| it.poll.as_ref());
        let shares: Vec<&StackShare> = polls.flat_map(|poll| &poll.stacks).collect();
        let found = shares.iter().any(|share| Seen::of(frame, share).is_in(Function::of(sleeps)));
        if found { Ok(()) } else { Err(format!("{:?}", frame.runtimes)) }
    });
    stop.store(true, Relaxed);
    runtime().block_on(job).expect("no panic");
}
