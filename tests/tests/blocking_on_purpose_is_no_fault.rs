//! A poll that hands its worker on before it blocks (`block_in_place`) blocks nobody, and is not said to.

use std::time::Duration;

use taskscope_proto::v1::WatchRequest;
use taskscope_proto::v1::event::Kind;
use taskscope_tests::agent::why;
use taskscope_tests::target::Target;
use taskscope_tests::watcher::Watcher;
use taskscope_tests::{Size, eventually, evidence, size};

#[test]
fn block_in_place_is_not_called_stuck_while_it_runs_nor_slow_after_it() {
    stays_healthy(1, 1, 4000);
}

#[test]
fn many_that_block_on_purpose_at_once_and_again_are_no_fault_either() {
    let (tasks, calls) = if size() == Size::Full { (100, 10) } else { (20, 3) };
    let answers = stays_healthy(tasks, calls, 1000);
    evidence(
        "answers of `why` during calls of block_in_place of 1 s, none of which names a fault",
        format!("{answers} during {} calls", tasks * calls),
    );
}

/// Asks all the time until it is over: not one answer may call it a fault. How many there were.
fn stays_healthy(tasks: u64, calls: u64, ms: u64) -> u32 {
    let mut target = Target::program("target-handover").on_tcp().start();
    let watcher = Watcher::attach(&target.address, WatchRequest::default());
    target.said("ready");
    target.process.say(&format!("{tasks} {calls} {ms}"));
    target.said("blocking");
    let mut answers = 0;
    let mut is_over = || {
        let (lines, code) = why(&target.address);
        assert!(code == 0 && lines.iter().all(|line| !line.starts_with("earlier")), "{lines:#?}");
        answers += 1;
        target.process.stdout.lines().iter().any(|line| line == "done")
    };
    eventually(
        Duration::from_secs(60),
        || if is_over() { Ok(()) } else { Err("it still blocks".to_owned()) },
    );
    assert!(is_over());
    // The last events of all are in a frame by now.
    let last = watcher.last().seq;
    eventually(Duration::from_secs(10), || match watcher.last().seq {
        seq if seq > last + 1 => Ok(()),
        seq => Err(format!("frame {seq}")),
    });
    for kind in [Kind::PollStuck, Kind::PollSlow] {
        assert_eq!(watcher.events(kind), []);
    }
    answers
}
