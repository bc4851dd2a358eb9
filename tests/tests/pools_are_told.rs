//! Pools of the application: a full one is said in words, and a broken one harms nothing.

use std::time::Duration;

use taskscope_tests::agent::{Agent, why};
use taskscope_tests::eventually;
use taskscope_tests::json::text;
use taskscope_tests::target::Target;

#[test]
fn a_full_pool_is_said_and_broken_ones_cost_only_themselves() {
    let target = Target::program("target-pools").start();
    target.said("ready");
    let full = eventually(Duration::from_secs(10), || {
        let (lines, code) = why(&target.address);
        let full = lines.iter().find(|line| line.starts_with("FULL") && line.contains("database")).cloned();
        full.filter(|_| code == 1).ok_or_else(|| lines.join("\n"))
    });
    for part in ["8 of 8", "61", "8.7 s"] {
        assert!(full.contains(part), "`{part}` is missing: {full}");
    }
    let pools = Agent::with(["pools", &target.address, "--json"]).run().expect_code(0).json_lines();
    let named = |name: &str| pools.iter().find(|pool| text(pool, "name") == name);
    let database = named("database").expect("the pool is there");
    assert_eq!(
        ["capacity", "busy", "idle", "queued"].map(|key| database[key].as_u64()),
        [Some(8), Some(8), Some(0), Some(61)],
        "{database}"
    );
    let nonsense = named("nonsense").expect("shown as it came");
    assert_eq!(
        (nonsense["busy"].as_u64(), nonsense["queued"].as_u64()),
        (Some(7), None),
        "absent is not zero: {nonsense}"
    );
    let silent = named("silent").expect("a pool that knows nothing is still there");
    assert!(["capacity", "busy", "idle", "queued"].iter().all(|key| silent[*key].is_null()), "{silent}");
    // One log line of the probe; the rest is the panic's own message.
    let log = target.process.stderr.lines();
    assert_eq!(
        log.iter().filter(|line| line.starts_with("taskscope: ") && line.contains("`panics`")).count(),
        1,
        "{log:?}"
    );
}
