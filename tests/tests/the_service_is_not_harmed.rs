//! Whatever happens to an agent, the target works on as fast as before, in the same memory.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::process::Process;
use taskscope_tests::target::Target;
use taskscope_tests::{Size, eventually, evidence, proc, size};

/// How the two conditions are compared: in turns, because a shared machine's speed swings within minutes.
struct Plan {
    turns: usize,
    seconds: usize,
    /// How much slower the median second may be.
    tolerance: f64,
    /// A neighbour on the machine can only make it look worse, so this many comparisons are made until one is good; harm
    /// by the agent would be in all of them.
    tries: usize,
    /// Growth of resident memory from the first turn's end to the last turn's.
    growth: u64,
}

fn plan() -> Plan {
    match size() {
        Size::Small => Plan { turns: 2, seconds: 3, tolerance: 0.10, tries: 3, growth: 2 << 20 },
        Size::Full => Plan { turns: 2, seconds: 60, tolerance: 0.02, tries: 3, growth: 1 << 20 },
    }
}

/// Medians over seconds.
struct Figures {
    ops: f64,
    p99_ns: f64,
}

fn figures(seconds: &[Value]) -> Figures {
    let median = |key: &str| {
        let mut values: Vec<f64> = seconds.iter().filter_map(|second| second[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures { ops: median("ops"), p99_ns: median("p99_ns") }
}

const IDLE_TASKS: usize = 2000;

/// A watcher of every row, who has been sent them twice.
fn watcher(address: &str) -> Process {
    let watcher = Agent::with(["tasks", address, "--watch", "--json", "--limit", "5000"]).start();
    eventually(Duration::from_secs(15), || match watcher.stdout.count() {
        rows if rows > 2 * IDLE_TASKS => Ok(()),
        rows => Err(format!("the watcher got {rows} rows")),
    });
    watcher
}

/// Seconds with nobody attached, and seconds under `condition`, in turns. The condition lasts until what it gives is
/// dropped.
fn compared<T>(promise: &str, target: &Target, condition: impl Fn() -> T) {
    let plan = plan();
    let mut told = Vec::new();
    for _ in 0..plan.tries {
        let (mut alone, mut under) = (Vec::new(), Vec::new());
        let mut memory = None;
        for _ in 0..plan.turns {
            alone.extend(target.next_figures(plan.seconds));
            let held = condition();
            under.extend(target.next_figures(plan.seconds));
            drop(held);
            memory = memory.or(proc::rss(target.pid()));
        }
        let grown = proc::rss(target.pid()).zip(memory).map(|(after, before)| after.saturating_sub(before));
        let (alone, under) = (figures(&alone), figures(&under));
        let (slower, later) = (1.0 - under.ops / alone.ops, under.p99_ns / alone.p99_ns - 1.0);
        let figure = format!(
            "throughput {:+.1} %, p99 {:+.1} %, memory +{} KiB ({} s each, in turns)",
            -100.0 * slower,
            100.0 * later,
            grown.unwrap_or_default() / 1024,
            plan.seconds * plan.turns
        );
        let grown = grown.expect("the target's memory can be read");
        assert!(grown <= plan.growth, "{promise}: the target's memory grew: {figure}");
        if slower <= plan.tolerance && later <= plan.tolerance {
            evidence(promise, figure);
            return;
        }
        told.push(figure);
    }
    panic!(
        "{promise}: slower than {} % in each of {} comparisons: {told:#?}",
        100.0 * plan.tolerance,
        plan.tries
    );
}

#[test]
fn neither_five_stopped_watchers_nor_a_killed_agent_change_anything() {
    let target = Target::program("target-plain").args(["--idle", &IDLE_TASKS.to_string()]).start();
    // The first watcher makes the probe allocate what every later one uses again.
    drop(watcher(&target.address));
    let (files, threads) = quiet(&target);

    compared("five watchers under SIGSTOP", &target, || {
        let stopped: Vec<Process> = (0..5).map(|_| watcher(&target.address)).collect();
        stopped.iter().for_each(|watcher| watcher.signal(Signal::STOP));
        for watcher in &stopped {
            eventually(Duration::from_secs(5), || match proc::state(watcher.pid()) {
                Some('T' | 't') => Ok(()),
                other => Err(format!("the watcher is in state {other:?}")),
            });
        }
        stopped
    });
    compared("an agent under SIGKILL", &target, || {
        let mut killed = watcher(&target.address);
        killed.kill();
    });

    // Nothing of the agents is left in the target.
    eventually(Duration::from_secs(20), || match quiet(&target) {
        (open, running) if open <= files && running <= threads => Ok(()),
        now => Err(format!(
            "open files and threads: {now:?}, before any agent was killed {:?}",
            (files, threads)
        )),
    });
    assert!(watcher(&target.address).ended().is_none(), "a new agent is served");
}

/// Open files and threads.
fn quiet(target: &Target) -> (usize, u64) {
    let pid = target.pid();
    (proc::open_files(pid).expect("the target runs"), proc::threads(pid).expect("the target runs"))
}
