//! `taskscope-stacks`: takes the stacks that the sampler wants, one after the other.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::handler::{Refused, Thread};
use super::table::File;
use super::taker::{Missing, Off, Taker};
use super::{Answer, NoStack, Order, Stacks, State};
use crate::capture::panics;
use crate::engine::Engine;
use crate::say::say;

const CHOOSE_SIGNAL: &str = "choose a signal that is free, by TASKSCOPE_STACK_SIGNAL=NUMBER";

const SHOW_PROC: &str =
    "mount a /proc of the process's own pid namespace, and allow `openat` in the service's seccomp profile";

/// Between two stacks that a watcher asked for.
const SPACE: Duration = Duration::from_millis(2);
/// Times in a row.
const FOR_GOOD: u32 = 3;
/// Threads of which it is known.
const THREADS: usize = 1024;

/// Starts it. Where the system refuses a thread, no stacks are taken.
pub(super) fn spawn(
    stacks: &'static Stacks,
    engine: &'static Engine,
    orders: Receiver<Order>,
    answers: Sender<Answer>,
) {
    let spawned = std::thread::Builder::new().name("taskscope-stacks".to_owned()).spawn(move || {
        panics::guard_this_thread();
        // The application's signals are for its own threads.
        let _ = nix::sys::signal::SigSet::all().thread_block();
        if std::panic::catch_unwind(move || run(stacks, engine, &orders, &answers)).is_err() {
            stacks.switch_off("a defect stopped it".to_owned(), "report it");
            say(format_args!("no stacks are taken any more; the service runs on"));
        }
    });
    if let Err(error) = spawned {
        stacks.switch_off(format!("no thread for it: {error}"), "");
        say(format_args!("no thread for stacks: {error}; the service runs on without"));
    }
}

fn run(stacks: &Stacks, engine: &Engine, orders: &Receiver<Order>, answers: &Sender<Answer>) {
    let mut taker = match Taker::install(stacks.wanted.signal) {
        Ok(taker) => taker,
        Err(refused) => {
            let (reason, hint) = why_not(refused);
            say(format_args!("no stacks are taken: {reason}; hint: {hint}"));
            stacks.switch_off(reason, hint);
            return;
        }
    };
    *stacks.state() = State::On { signal: taker.signal() };
    let mut blocked = Blocked::default();
    let mut waiting = VecDeque::new();
    let mut spaced = Spaced::default();
    while let Some(order) = next(orders, &mut waiting, &mut spaced) {
        let stack = if stacks.is_on() {
            take(stacks, engine, &mut taker, &mut blocked, order)
        } else {
            Err(NoStack::Off)
        };
        if answers.send(Answer { order, at: engine.registry.clock.now(), stack }).is_err() {
            return;
        }
        if order.is_urgent {
            stacks.news.notify_one();
        }
    }
}

/// When the next of those that a watcher asked for may be taken: what interrupts many threads does not do so at once.
#[derive(Debug, Default)]
struct Spaced {
    not_before: Option<Instant>,
}

impl Spaced {
    /// How long the next one has yet to wait at `now`; where it need not, it is taken now.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let left =
            self.not_before.and_then(|at| at.checked_duration_since(now)).filter(|left| !left.is_zero());
        if left.is_none() {
            self.not_before = Some(now + SPACE);
        }
        left
    }
}

/// The next order, waited for; `None` where no more come. What a watcher asked for comes after everything else: each of its
/// threads may take its time to answer.
#[allow(clippy::disallowed_methods, reason = "this is a driver: it waits")]
fn next(orders: &Receiver<Order>, waiting: &mut VecDeque<Order>, spaced: &mut Spaced) -> Option<Order> {
    loop {
        if waiting.is_empty() {
            waiting.push_back(orders.recv().ok()?);
        }
        waiting.extend(orders.try_iter());
        if let Some(first) = waiting.iter().position(|order| order.round.is_none()) {
            return waiting.remove(first);
        }
        match spaced.wait(Instant::now()) {
            None => return waiting.pop_front(),
            Some(left) => match orders.recv_timeout(left) {
                Ok(order) => waiting.push_back(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            },
        }
    }
}

/// How often in a row each thread was seen to block the signal. The C library does so for a moment where a thread ends or
/// another program is started, and that is nothing to tell.
#[derive(Default)]
struct Blocked {
    times: HashMap<u32, u32>,
}

impl Blocked {
    /// Whether a thread blocks it for good.
    fn saw(&mut self, tid: u32, blocks: bool) -> bool {
        if !blocks {
            self.times.remove(&tid);
            return false;
        }
        if self.times.len() == THREADS {
            self.times.clear();
        }
        let times = self.times.entry(tid).or_default();
        *times = times.saturating_add(1);
        *times >= FOR_GOOD
    }
}

fn take(
    stacks: &Stacks,
    engine: &Engine,
    taker: &mut Taker,
    blocked: &mut Blocked,
    order: Order,
) -> Result<super::StackId, NoStack> {
    let clock = &engine.registry.clock;
    let now_ns = clock.at(clock.now());
    let still_open = || {
        order.target.bracket.is_none_or(|(position, word)| {
            let view = engine.registry.lines.get(position).and_then(|line| line.view());
            view.is_some_and(|view| {
                view.tid == order.target.tid && view.bracket.is_some_and(|bracket| bracket.start == word)
            })
        })
    };
    if now_ns >= order.until_ns {
        return Err(NoStack::Lost);
    }
    if !still_open() {
        return Err(NoStack::Over);
    }
    // A thread that Tokio does not know has never said it.
    let line = order.target.bracket.and_then(|(position, _)| engine.registry.lines.get(position));
    let thread = Thread { tid: order.target.tid, own: line.and_then(|line| line.stack()) };
    let taken = taker.take(thread, now_ns);
    let blocks = blocked.saw(order.target.tid, taken == Err(Missing::Blocks));
    // That of a thread which Tokio does not know is told of this thread alone: it never runs a poll.
    stacks.blocked.fetch_or(blocks && !order.is_other, Relaxed);
    stacks.sandboxed.fetch_or(taken == Err(Missing::Sandboxed) && !order.is_other, Relaxed);
    // Until one is taken again.
    match &taken {
        Err(Missing::Held) => stacks.held.store(true, Relaxed),
        Ok(_) => stacks.held.store(false, Relaxed),
        Err(_) => {}
    }
    let unwound = taken.map_err(|missing| match missing {
        Missing::Ended => NoStack::Over,
        Missing::Late | Missing::Held => NoStack::Lost,
        Missing::Blocks => NoStack::Blocks,
        Missing::Sandboxed => NoStack::Sandboxed,
        Missing::Unreadable => NoStack::Unreadable,
        Missing::Off(off) => {
            let (reason, hint) = why_no_more(off);
            say(format_args!("no stacks are taken any more: {reason}; hint: {hint}"));
            stacks.switch_off(reason, hint);
            NoStack::Off
        }
    })?;
    // Else it is the stack of something else.
    if !still_open() {
        return Err(NoStack::Over);
    }
    let frames = unwound.addresses.iter().map(|&address| match taker.modules.of(address) {
        Some(module) => {
            let file = File { path: module.path.clone(), build_id: module.build_id.clone() };
            (Some(file), module.in_file(address))
        }
        None => (None, address),
    });
    stacks.table().intern(frames, unwound.end).ok_or(NoStack::Lost)
}

fn why_not(refused: Refused) -> (String, &'static str) {
    match refused {
        Refused::Taken(signal) => {
            (format!("the application has an action of its own for signal {signal}"), CHOOSE_SIGNAL)
        }
        Refused::NoneFree => {
            ("the application has an action of its own for every real-time signal".to_owned(), CHOOSE_SIGNAL)
        }
        Refused::NotRealTime(signal) => (format!("signal {signal} is no real-time signal"), CHOOSE_SIGNAL),
        Refused::Failed(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            (format!("the system refuses a handler: {error}"), CHOOSE_SIGNAL)
        }
        Refused::NoProc => {
            ("/proc does not show this process's own threads and mappings".to_owned(), SHOW_PROC)
        }
        Refused::NoSignal(errno) => why_no_more(Off::Refused(errno)),
        Refused::Unreadable => why_no_more(Off::Unreadable),
    }
}

fn why_no_more(off: Off) -> (String, &'static str) {
    match off {
        Off::Taken(signal) => {
            (format!("the application has given signal {signal} an action of its own"), CHOOSE_SIGNAL)
        }
        Off::Refused(errno) => (
            format!("the system refuses the signal: {}", std::io::Error::from_raw_os_error(errno)),
            "allow `rt_tgsigqueueinfo` in the service's seccomp profile",
        ),
        Off::Unreadable => (
            "the system does not let the process read its own memory".to_owned(),
            "allow `process_vm_readv` in the service's seccomp profile",
        ),
        Off::NoProc(errno) => (
            format!(
                "the system does not let the process read its own threads in /proc: {}",
                std::io::Error::from_raw_os_error(errno)
            ),
            SHOW_PROC,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::stacks::schedule::Target;

    fn order(tid: u32, round: Option<u64>) -> Order {
        let target = Target { tid, bracket: None };
        Order { target, round, is_other: false, is_urgent: false, until_ns: u64::MAX }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an instant to begin with")]
    fn what_a_watcher_asked_for_is_not_taken_in_a_burst() {
        let (mut spaced, began) = (Spaced::default(), Instant::now());
        assert_eq!(spaced.wait(began), None);
        assert_eq!(spaced.wait(began), Some(SPACE));
        assert_eq!(spaced.wait(began + SPACE / 2), Some(SPACE / 2));
        assert_eq!(spaced.wait(began + SPACE), None);
        assert_eq!(spaced.wait(began + SPACE), Some(SPACE));
        assert_eq!(spaced.wait(began + 9 * SPACE), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
    fn what_a_watcher_asked_for_comes_spaced_and_after_everything_else() {
        let (sends, orders) = channel();
        for tid in 1..=10 {
            sends.send(order(tid, Some(1))).expect("it is received");
        }
        let (mut waiting, mut spaced, began) = (VecDeque::new(), Spaced::default(), Instant::now());
        let mut next = || next(&orders, &mut waiting, &mut spaced).map(|order| order.target.tid);
        assert_eq!(next(), Some(1));
        sends.send(order(99, None)).expect("it is received");
        assert_eq!(next(), Some(99), "it waits for none of them");
        for tid in 2..=10 {
            assert_eq!(next(), Some(tid));
        }
        assert!(began.elapsed() >= 9 * SPACE, "{:?}", began.elapsed());
        drop(sends);
        assert_eq!(next(), None);
    }
}
