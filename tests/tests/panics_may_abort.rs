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
fn a_pool_closure_that_panics_costs_its_pool_and_neither_the_probe_nor_the_service() {
    let mut target = TargetBuilder::of(Build::Abort, "aborting").arg("--pool").start();
    eventually(SOON, || {
        let log = target.process.stderr.text();
        let said = log.contains("this pool is broken on purpose")
            && log.contains("the closure of pool `broken` panicked; it is not asked again");
        if said { Ok(()) } else { Err(log) }
    });
    assert_eq!(text(&status(&target.address), "name"), "aborting", "the probe answers");
    // The service is there to be told something.
    assert!(target.process.ended().is_none());
    target.process.say("panic");
    assert_eq!(target.process.wait(SOON).signal(), Some(Signal::ABORT.as_raw()));
    assert!(target.process.stderr.text().contains("the service panics on purpose"));
}
