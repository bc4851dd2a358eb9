//! A service that is built with `panic = "abort"` has the probe as any other. Its own panics end it, as without; what goes
//! wrong on the probe's thread does not.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use taskscope_tests::agent::{status, tasks};
use taskscope_tests::json::text;
use taskscope_tests::target::TargetBuilder;
use taskscope_tests::{Build, eventually};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn it_is_served_and_its_own_panic_aborts_it() {
    let mut target = TargetBuilder::of(Build::Abort, "aborting").start();
    target.said("ready");
    assert_eq!(text(&status(&target.address), "name"), "aborting");
    assert!(tasks(&target.address, "").iter().any(|row| text(row, "name") == "main"));
    target.process.say("panic");
    let ended = target.process.wait(SOON);
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()), "{}", target.process.outputs());
    let log = target.process.stderr.text();
    assert!(log.contains("the service panics on purpose"), "the application's hook has run: {log}");
}

#[test]
fn a_pool_closure_that_panics_stops_the_probe_and_not_the_service() {
    let (mut process, _folder) = TargetBuilder::of(Build::Abort, "aborting").arg("--pool").start_unheard();
    eventually(SOON, || {
        let log = process.stderr.text();
        let said =
            log.contains("this pool is broken on purpose") && log.contains("the service runs on unobserved");
        if said { Ok(()) } else { Err(log) }
    });
    // The service is there to be told something.
    assert!(process.ended().is_none());
    process.say("panic");
    assert_eq!(process.wait(SOON).signal(), Some(Signal::ABORT.as_raw()));
    assert!(process.stderr.text().contains("the service panics on purpose"));
}
