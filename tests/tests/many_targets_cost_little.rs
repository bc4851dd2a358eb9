//! What an agent costs that watches many large targets: a file of its own, so that nothing else runs meanwhile.

use std::time::Duration;

use taskscope_tests::headless::Headless;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{Size, eventually, evidence, size};

#[test]
fn an_agent_of_many_targets_uses_a_hundredth_of_a_core() {
    let (count, tasks, groups) = match size() {
        Size::Small => (5, "1000", "50"),
        Size::Full => (20, "100000", "1000"),
    };
    let (_guard, folder) = runtime_folder();
    let targets: Vec<Target> = (0..count)
        .map(|number| {
            // Each group is polled once a second.
            let target = Target::program("target-scale");
            let target = target.args(["--tasks", tasks, "--polled", groups, "--groups", groups]);
            target.env("TASKSCOPE_NAME", format!("many-{number:02}")).in_runtime_folder(&folder).start()
        })
        .collect();
    for target in &targets {
        target.said("ready");
    }
    let agent = Headless::start(&folder, &[]);
    eventually(Duration::from_secs(60), || match agent.targets() {
        targets if targets.len() == count && targets.values().all(|row| row["link"] == "live") => Ok(()),
        targets => Err(format!("{targets:?}")),
    });
    let lasts = Duration::from_secs(if size() == Size::Full { 60 } else { 10 });
    let cost = agent.cost(count, lasts);
    evidence(
        &format!(
            "an agent with {count} targets of {tasks} tasks each, spawned in {groups} groups (a probe keeps 255 apart), scraped every 15 s"
        ),
        cost,
    );
    assert!(cost.rss <= 64 << 20, "{cost}");
    if size() == Size::Full {
        assert!(cost.of_a_core <= 0.01, "{cost}");
    }
}
