//! The signal by which stacks are taken, and an application that has plans of its own for it. Each test runs in a process of its
//! own: a process has one probe.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code, reason = "the application's own handlers")]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use taskscope_probe::{Builder, Probe};
use taskscope_proto::v1::capability::{Coverage, Kind};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Capability, LivePoll, WatchRequest, event};

#[path = "asking/probe.rs"]
mod probe;

use probe::{Answer, Asker, eventually, is_emulated};

const CASE: &str = "TASKSCOPE_TEST_CASE";

/// Whether this is the process of this test alone; elsewhere it is started, with these variables, and has to succeed.
#[track_caller]
fn alone(test: &str, variables: &[(&str, &str)]) -> bool {
    if std::env::var(CASE).is_ok_and(|case| case == test) {
        return true;
    }
    let exe = std::env::current_exe().expect("it runs");
    let mut child = std::process::Command::new(exe);
    child.args(["--exact", test, "--nocapture"]).env(CASE, test).envs(variables.iter().copied());
    let output = child.output().expect("it can be started");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{:?}\n{said}", output.status);
    false
}

struct Target {
    runtime: tokio::runtime::Runtime,
    asker: Asker,
}

impl Target {
    fn start(builder: Builder) -> Self {
        let name = format!("signals-{}", std::process::id());
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        builder
            .name(&name)
            .slow_poll_threshold(Duration::from_millis(50))
            .install(runtime.worker_threads(2).enable_all());
        let runtime = runtime.build().expect("a runtime can be built");
        Self { runtime, asker: Asker::of(&name) }
    }

    fn ask(&mut self) -> Answer {
        self.asker.ask_for(WatchRequest::default())
    }

    /// What is said about stacks, once it is said for good.
    fn capability(&mut self) -> Capability {
        eventually(|| {
            let answer = self.ask();
            let said = answer.frame.capabilities.iter().find(|it| it.kind() == Kind::Stacks).cloned();
            let said = said.ok_or("nothing")?;
            if said.reason.contains("being") { Err(said.reason) } else { Ok(said) }
        })
    }

    /// A poll of 300 ms, as it was told when it was over.
    fn slow_poll(&mut self, name: &'static str) -> LivePoll {
        let long = Duration::from_millis(if is_emulated() { 3_000 } else { 300 });
        self.runtime.block_on(async {
            let job = taskscope_probe::spawn(name, async move { std::thread::sleep(long) });
            job.await.expect("it does not panic");
        });
        eventually(|| {
            let answer = self.ask();
            let slow = answer.frame.events.iter().filter(|event| event.kind() == event::Kind::PollSlow);
            let mut polls = slow.filter_map(|event| event.poll.clone());
            polls.find(|poll| answer.text(poll.name_sid) == name).ok_or_else(|| format!("no {name}"))
        })
    }
}

/// Signals of this process that have a handler.
fn caught() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it can be read");
    let set = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("it is there");
    u64::from_str_radix(set.trim(), 16).expect("it is a set")
}

fn has_thread() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").expect("it can be read").flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok())
        .any(|name| name.trim_end() == "taskscope-stack" || name.trim_end() == "taskscope-stacks")
}

/// Real-time signals as `SigCgt` has them, without the two that the C library keeps for itself.
fn caught_for_real_time() -> u64 {
    caught() & !((1 << (libc::SIGRTMIN() - 1)) - 1)
}

static RECEIVED: AtomicU32 = AtomicU32::new(0);

extern "C" fn of_the_application(_: libc::c_int) {
    RECEIVED.fetch_add(1, Relaxed);
}

fn set_action(signal: i32, action: usize) {
    // SAFETY: all zeroes are a valid `sigaction`.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = action;
    // SAFETY: the action is the default one or a handler that only counts.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const new, std::ptr::null_mut()) }, 0);
}

fn raise(signal: i32) {
    // SAFETY: it takes a number; the signal has a handler.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

fn application_handler() -> usize {
    of_the_application as extern "C" fn(libc::c_int) as usize
}

#[test]
fn what_nobody_switched_on_installs_nothing() {
    if !alone("what_nobody_switched_on_installs_nothing", &[]) {
        return;
    }
    let mut target = Target::start(Probe::builder());
    let said = target.capability();
    assert!(said.coverage() == Coverage::None && said.hint.contains("TASKSCOPE_STACKS=on"), "{said:?}");
    assert!(target.slow_poll("unseen").stacks.is_empty());
    assert!(caught_for_real_time() == 0 && !has_thread());
    assert_eq!(target.ask().lost(Reason::LostStacks), 0);
}

#[test]
fn the_environment_switches_off_what_the_builder_switched_on() {
    let test = "the_environment_switches_off_what_the_builder_switched_on";
    if !alone(test, &[("TASKSCOPE_STACKS", "off")]) {
        return;
    }
    let mut target = Target::start(Probe::builder().stacks(true));
    assert_eq!(target.capability().coverage(), Coverage::None);
    assert!(caught_for_real_time() == 0 && !has_thread());
}

#[test]
fn the_environment_switches_on_and_chooses_the_signal() {
    let variables = [("TASKSCOPE_STACKS", "on"), ("TASKSCOPE_STACK_SIGNAL", "50")];
    if !alone("the_environment_switches_on_and_chooses_the_signal", &variables) {
        return;
    }
    let mut target = Target::start(Probe::builder().stack_signal(40));
    assert_eq!(target.capability().coverage(), Coverage::Full);
    assert_eq!(caught_for_real_time(), 1 << 49);
    assert!(has_thread());
    assert!(!target.slow_poll("seen").stacks.is_empty());
}

#[test]
fn the_signal_can_be_set_and_a_slow_poll_is_seen_by_it() {
    if !alone("the_signal_can_be_set_and_a_slow_poll_is_seen_by_it", &[]) {
        return;
    }
    let signal = libc::SIGRTMIN() + 3;
    let mut target = Target::start(Probe::builder().stacks(true).stack_signal(signal));
    assert_eq!(target.capability().coverage(), Coverage::Full);
    assert_eq!(caught_for_real_time(), 1 << (signal - 1));
    let poll = target.slow_poll("seen");
    let (samples, covered_ns) = poll.stacks.iter().fold((0, 0), |(samples, covered_ns), share| {
        (samples + share.samples, covered_ns + share.covered_ns)
    });
    // At its threshold, and once more each quarter of a second.
    assert!((1..=1 + poll.since_ns / 200_000_000).contains(&u64::from(samples)), "{poll:?}");
    assert!((50_000_000..=poll.since_ns).contains(&covered_ns), "{poll:?}");
}

#[test]
fn a_signal_that_the_application_has_is_left_to_it() {
    if !alone("a_signal_that_the_application_has_is_left_to_it", &[]) {
        return;
    }
    let signal = libc::SIGRTMIN() + 4;
    set_action(signal, application_handler());
    let mut target = Target::start(Probe::builder().stacks(true).stack_signal(signal));
    let said = target.capability();
    assert!(said.coverage() == Coverage::None && said.reason.contains("action of its own"), "{said:?}");
    assert!(said.hint.contains("TASKSCOPE_STACK_SIGNAL"), "{said:?}");
    assert!(target.slow_poll("unseen").stacks.is_empty());
    assert_eq!(RECEIVED.load(Relaxed), 0);
    raise(signal);
    assert_eq!(RECEIVED.load(Relaxed), 1);
}

#[test]
fn one_that_is_no_real_time_signal_is_refused() {
    if !alone("one_that_is_no_real_time_signal_is_refused", &[]) {
        return;
    }
    let mut target = Target::start(Probe::builder().stacks(true).stack_signal(libc::SIGUSR1));
    let said = target.capability();
    assert!(said.coverage() == Coverage::None && said.reason.contains("no real-time signal"), "{said:?}");
    assert_eq!(caught() & (1 << (libc::SIGUSR1 - 1)), 0);
}

#[test]
fn without_a_choice_one_is_taken_that_is_free() {
    if !alone("without_a_choice_one_is_taken_that_is_free", &[]) {
        return;
    }
    let first = libc::SIGRTMAX() - 3;
    set_action(first, application_handler());
    let mut target = Target::start(Probe::builder().stacks(true));
    assert_eq!(target.capability().coverage(), Coverage::Full);
    assert_eq!(caught_for_real_time(), 1 << (first - 1) | 1 << (first - 2));
    assert!(!target.slow_poll("seen").stacks.is_empty());
    assert_eq!(RECEIVED.load(Relaxed), 0);
}

#[test]
fn an_application_that_takes_the_signal_later_gets_none_of_ours() {
    if !alone("an_application_that_takes_the_signal_later_gets_none_of_ours", &[]) {
        return;
    }
    let signal = libc::SIGRTMIN() + 5;
    let mut target = Target::start(Probe::builder().stacks(true).stack_signal(signal));
    assert_eq!(target.capability().coverage(), Coverage::Full);
    assert!(!target.slow_poll("before").stacks.is_empty());
    set_action(signal, application_handler());
    assert!(target.slow_poll("after").stacks.is_empty());
    assert_eq!(RECEIVED.load(Relaxed), 0);
    let said = target.capability();
    assert!(said.coverage() == Coverage::None && said.reason.contains("action of its own"), "{said:?}");
    raise(signal);
    assert_eq!(RECEIVED.load(Relaxed), 1);
}

#[test]
fn an_application_that_resets_the_signal_is_not_killed_by_it() {
    if !alone("an_application_that_resets_the_signal_is_not_killed_by_it", &[]) {
        return;
    }
    let signal = libc::SIGRTMIN() + 5;
    let mut target = Target::start(Probe::builder().stacks(true).stack_signal(signal));
    assert_eq!(target.capability().coverage(), Coverage::Full);
    set_action(signal, libc::SIG_DFL);
    assert!(target.slow_poll("after").stacks.is_empty());
    assert_eq!(target.capability().coverage(), Coverage::None);
}
