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
    // It has seen the first run for a while: the oldest of its tasks says so.
    let half = format!("age>{}s", seconds / 3);
    eventually(Duration::from_secs(seconds), || {
        let args = ["tasks", "shop", half.as_str(), "--json"];
        let old = Agent::with(args).in_runtime_folder(&folder).run().expect_code(0).json_lines();
        if old.is_empty() { Err("no task is that old".to_owned()) } else { Ok(()) }
    });
    service.kill();
    let _service = serve();
    let status = agent.wait(Duration::from_secs(seconds + 30));
    assert_eq!(status.code(), Some(0), "something fired:\n{}", agent.outputs());
    // What is pending may be: load comes and goes.
    let told = |line: &String| line.contains(" FIRING ") || line.contains(" RESOLVED ");
    assert_eq!(agent.stdout.lines().into_iter().find(told), None, "{}", agent.outputs());
    assert!(agent.stderr.text().contains("nothing fired; "), "{}", agent.outputs());
}
