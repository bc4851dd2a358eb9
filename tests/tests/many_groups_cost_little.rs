//! What an agent costs where its targets have very many groups: a file of its own, so that nothing else runs meanwhile.

use std::time::Duration;

use taskscope_tests::headless::Headless;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{Size, eventually, evidence, size};

#[test]
fn a_thousand_groups_of_each_of_many_targets_use_a_hundredth_of_a_core() {
    let (count, groups, seconds) = match size() {
        Size::Small => (4, 200, 20),
        Size::Full => (20, 1_000, 60),
    };
    let (_guard, folder) = runtime_folder();
    let crowd = Target::program("target-groups");
    let crowd = crowd.arg("--targets").arg(count).arg("--groups").arg(groups).in_runtime_folder(&folder);
    let (mut crowd, _temporary) = crowd.start_unheard();
    crowd.stdout.wait_for(Duration::from_secs(20), 0, |line| (line == "ready").then_some(()));
    let agent = Headless::start(&folder, &[]);
    eventually(Duration::from_secs(60), || match agent.targets() {
        targets if targets.len() == count && targets.values().all(|row| row["link"] == "live") => Ok(()),
        targets => Err(format!("{targets:?}")),
    });
    // Series of their own for as many groups as metrics tell apart, and one for the others.
    let of_one = r#"taskscope_group_tasks{target="crowd-00","#;
    let told = |text: &str| text.lines().filter(|line| line.starts_with(of_one)).count();
    eventually(Duration::from_secs(20), || match told(&agent.scrape()) {
        201 => Ok(()),
        200 if groups == 200 => Ok(()),
        other => Err(format!("{other} groups")),
    });
    let mut sent = || {
        let from = crowd.stdout.count();
        crowd.say("sent");
        crowd.stdout.wait_for(Duration::from_secs(10), from, |line| {
            let (frames, groups) = line.strip_prefix("frames ")?.split_once(" groups ")?;
            Some((frames.parse::<u64>().ok()?, groups.parse::<u64>().ok()?))
        })
    };
    let before = sent();
    let cost = agent.cost(count, Duration::from_secs(seconds));
    let after = sent();
    let (frames, rows) = (after.0 - before.0, after.1 - before.1);
    // All were watched all the time, each of so many groups every second and a half, with its groups every fifteen.
    let count = count as u64;
    assert!(frames >= count * (seconds - 4) * 2 / 3, "{frames} frames");
    assert!(rows >= count * groups * (seconds / 16), "{rows} rows of groups");
    evidence(
        &format!("an agent with {count} targets of {groups} groups each, scraped every 15 s"),
        format!("{cost}; {frames} frames with {rows} rows of groups in {seconds} s"),
    );
    assert!(cost.rss <= 64 << 20, "{cost}");
    if size() == Size::Full {
        assert!(cost.of_a_core <= 0.01, "{cost}");
    }
}
