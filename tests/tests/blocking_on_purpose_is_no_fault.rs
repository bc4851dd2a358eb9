//! A poll that hands its worker on before it blocks (`block_in_place`) blocks nobody, and is not said to.

use std::time::Duration;

use taskscope_tests::agent::why;
use taskscope_tests::eventually;
use taskscope_tests::target::Target;

#[test]
fn block_in_place_is_not_called_stuck_while_it_runs_nor_slow_after_it() {
    let mut target = Target::program("target-handover").start();
    target.said("ready");
    target.process.say("go");
    target.said("blocking");
    // Asked all the time until it is over: not one answer may call it a fault.
    let healthy = || {
        let (lines, code) = why(&target.address);
        assert!(code == 0 && lines.iter().all(|line| !line.starts_with("earlier")), "{lines:#?}");
        target.process.stdout.lines().iter().any(|line| line == "done")
    };
    eventually(
        Duration::from_secs(20),
        || if healthy() { Ok(()) } else { Err("it still blocks".to_owned()) },
    );
    assert!(healthy());
}
