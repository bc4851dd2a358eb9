//! A healthy service fires nothing: the demo under its load, restarted in the middle as by a deploy.

use std::time::Duration;

use taskscope_tests::agent::Agent;
use taskscope_tests::process::Process;
use taskscope_tests::target::{listening, runtime_folder};
use taskscope_tests::{Size, eventually, size};

#[test]
fn the_demo_under_load_and_through_a_restart_fires_nothing() {
    let (_guard, folder) = runtime_folder();
    let serve = || -> Process {
        let service = Agent::with(["demo", "--serve", "--faults", "none"]).env("TASKSCOPE_NAME", "shop");
        let service = service.in_runtime_folder(&folder).start();
        listening(&service);
        service
    };
    let seconds = if size() == Size::Full { 300 } else { 20 };
    let mut service = serve();
    let run_for = format!("{seconds}s");
    let mut agent = Agent::with(["alerts", "shop", "--for", &run_for]).in_runtime_folder(&folder).start();
    let watched = |line: &str| line.contains("settings of rules watch shop").then_some(());
    agent.stderr.wait_for(Duration::from_secs(20), 0, watched);
    // It has seen the first run for a while.
    let status = || Agent::with(["status", "shop", "--json"]).in_runtime_folder(&folder).run();
    eventually(Duration::from_secs(60), || {
        let polls = status().expect_code(0).json()["totals"]["polls_total"].as_u64();
        if polls > Some(2_000) { Ok(()) } else { Err(format!("{polls:?} polls")) }
    });
    service.kill();
    let _service = serve();
    let status = agent.wait(Duration::from_secs(seconds + 30));
    assert_eq!(status.code(), Some(0), "something fired:\n{}", agent.outputs());
    assert_eq!(agent.stdout.lines(), Vec::<String>::new(), "{}", agent.outputs());
    assert!(agent.stderr.text().contains("nothing fired; "), "{}", agent.outputs());
}
