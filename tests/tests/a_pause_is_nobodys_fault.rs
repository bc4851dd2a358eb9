//! A process that was stopped and went on says so once, and blames no poll for the time. A process that merely gets little
//! of the CPU says no such thing.

use std::time::Duration;

use rustix::process::Signal;
use taskscope_proto::v1::event::Kind;
use taskscope_proto::v1::{GroupQuery, TaskQuery, WatchRequest};
use taskscope_tests::agent::why;
use taskscope_tests::eventually::always;
use taskscope_tests::process::OnOneCore;
use taskscope_tests::target::Target;
use taskscope_tests::watcher::Watcher;
use taskscope_tests::{Size, alone, eventually, evidence, proc, size};

/// From which a poll is slow: others on the machine may keep a poll of 5 ms from the CPU, but not that long.
const THRESHOLD_MS: u64 = 1000;

fn busy(workers: u32, nice: u32) -> Target {
    let target = Target::program("target-busy").arg("--threshold-ms").arg(THRESHOLD_MS);
    let target = target.arg("--workers").arg(workers).arg("--nice").arg(nice).on_tcp().start();
    target.said("ready");
    target
}

fn request() -> WatchRequest {
    WatchRequest {
        interval_ns: 100_000_000,
        tasks: Some(TaskQuery::default()),
        groups: Some(GroupQuery::default()),
        ..WatchRequest::default()
    }
}

#[test]
fn a_stopped_process_is_told_once_and_no_poll_is_blamed() {
    let _alone = alone();
    let length = match size() {
        Size::Small => Duration::from_millis(1500),
        Size::Full => Duration::from_secs(5),
    };
    let target = busy(2, 0);
    let watcher = Watcher::attach(&target.address, request());
    target.process.signal(Signal::STOP);
    let stopped = || match proc::state(target.pid()) {
        Some('T') => Ok(()),
        other => Err(format!("the target is in state {other:?}")),
    };
    eventually(Duration::from_secs(5), stopped);
    always(length, stopped);
    target.process.signal(Signal::CONT);

    let paused_ns = eventually(Duration::from_secs(10), || {
        let paused = watcher.events(Kind::ProcessPaused).first().and_then(|event| event.paused_ns);
        paused.ok_or_else(|| "no pause was told".to_owned())
    });
    let paused = Duration::from_nanos(paused_ns);
    // When in a tick it began is not known.
    assert!(paused + Duration::from_millis(200) >= length && paused <= length * 2, "{paused:?}");
    always(Duration::from_secs(2), || {
        let [pauses, slow, stuck] =
            [Kind::ProcessPaused, Kind::PollSlow, Kind::PollStuck].map(|kind| watcher.events(kind));
        if pauses.len() == 1 && slow.is_empty() && stuck.is_empty() {
            return Ok(());
        }
        Err(format!("pauses {pauses:#?}, slow {slow:#?}, stuck {stuck:#?}"))
    });
    let threshold_ns = THRESHOLD_MS * 1_000_000;
    for frame in watcher.frames() {
        let polls = frame.runtimes.iter().flat_map(|runtime| &runtime.workers);
        assert!(
            polls.filter_map(|worker| worker.poll.as_ref()).all(|poll| poll.since_ns < threshold_ns),
            "{frame:#?}"
        );
        assert!(frame.runtimes.iter().all(|it| it.oldest_ready_ns < Some(threshold_ns)), "{frame:#?}");
        let rows = frame.tasks.and_then(|window| window.rows).unwrap_or_default();
        assert!(rows.longest_poll_ns.iter().all(|&ns| ns < threshold_ns), "{rows:#?}");
        let groups = frame.groups.unwrap_or_default();
        let group = groups.groups.iter().filter_map(|group| group.polls.as_ref());
        let label = groups.labels.iter().filter_map(|label| label.polls.as_ref());
        for polls in group.chain(label) {
            assert!(polls.slow_window == 0 && polls.longest_ns < threshold_ns, "{groups:#?}");
        }
    }
    let (lines, code) = why(&target.address);
    let said = lines.join("\n");
    assert!(code == 0 && said.contains("process paused"), "{said}");
    evidence(
        "a process under load, stopped and continued",
        format!("stopped for {length:?}, told as one pause of {paused:?}; no slow and no stuck poll"),
    );
}

#[test]
fn a_process_that_gets_little_of_the_cpu_was_not_paused() {
    let _alone = alone();
    let length = match size() {
        Size::Small => Duration::from_secs(4),
        Size::Full => Duration::from_secs(60),
    };
    // All of them on one core, where each of the others counts sixty times as much.
    let _one_core = OnOneCore::pin();
    let target = busy(2, 19);
    let watcher = Watcher::attach(&target.address, request());
    let others = busy(40, 0);
    always(length, || match watcher.events(Kind::ProcessPaused).as_slice() {
        [] => Ok(()),
        pauses => Err(format!("it says that it was paused: {pauses:#?}")),
    });
    drop(others);
}
