//! What an agent costs that watches many large targets: a file of its own, so that nothing else runs meanwhile.

use std::time::Duration;

use taskscope_tests::headless::Headless;
use taskscope_tests::stopwatch::Stopwatch;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{Size, eventually, evidence, proc, size};

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
    let pid = agent.process.pid();
    let before = proc::cpu_time(pid).expect("the agent runs");
    let watch = Stopwatch::start();
    let mut scrapes = 0;
    // As often as Prometheus is usually told to.
    let (every, lasts) =
        (Duration::from_secs(15), Duration::from_secs(if size() == Size::Full { 60 } else { 10 }));
    eventually(lasts * 3, || {
        if watch.elapsed() >= every * scrapes {
            scrapes += 1;
            let text = agent.scrape();
            assert_eq!(
                text.lines()
                    .filter(|line| line.starts_with("taskscope_target_up") && line.ends_with(" 1"))
                    .count(),
                targets.len()
            );
        }
        if watch.elapsed() >= lasts { Ok(()) } else { Err("measuring".to_owned()) }
    });
    let used = proc::cpu_time(pid).expect("the agent runs") - before;
    let share = used.as_secs_f64() / watch.elapsed().as_secs_f64();
    let rss = proc::rss(pid).expect("the agent runs");
    evidence(
        &format!(
            "an agent with {count} targets of {tasks} tasks each, spawned in {groups} groups (a probe keeps 255 apart), scraped every 15 s"
        ),
        format!("{:.1} % of a core, {} MiB", share * 100.0, rss >> 20),
    );
    assert!(rss <= 64 << 20, "{rss} bytes");
    if size() == Size::Full {
        assert!(share <= 0.01, "{share} of a core");
    }
}
