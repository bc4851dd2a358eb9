//! Pools of the application and of the process: a full one is said in words, and a broken one harms nothing.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::{Agent, status, why};
use taskscope_tests::json::text;
use taskscope_tests::target::Target;
use taskscope_tests::{eventually, evidence, proc};

/// `taskscope pools --json`.
fn pools(target: &Target) -> Vec<Value> {
    Agent::with(["pools", &target.address, "--json"]).run().expect_code(0).json_lines()
}

fn named(target: &Target, name: &str) -> Option<Value> {
    pools(target).into_iter().find(|pool| text(pool, "name") == name)
}

/// Lines of the probe's own on standard error about the pool of this name.
fn said_of(target: &Target, name: &str) -> Vec<String> {
    let about = |line: &String| line.starts_with("taskscope: ") && line.contains(&format!("`{name}`"));
    target.process.stderr.lines().into_iter().filter(about).collect()
}

fn eventually_lost(target: &Target, reason: &str, count: u64) {
    eventually(Duration::from_secs(15), || match &status(&target.address)["losses"][reason] {
        lost if lost.as_u64() == Some(count) => Ok(()),
        lost => Err(format!("{reason}: {lost}")),
    });
}

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
    // The last one in the round that asks them all.
    let pools = eventually(Duration::from_secs(10), || {
        let pools = pools(&target);
        let last = pools.iter().any(|pool| text(pool, "name") == "silent");
        if last { Ok(pools) } else { Err(format!("{pools:#?}")) }
    });
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
    for (broken, reason) in [("panics", "pool_panics"), ("nonsense", "pool_nonsense")] {
        eventually_lost(&target, reason, 1);
        assert_eq!(said_of(&target, broken).len(), 1, "{:?}", target.process.stderr.lines());
    }
    // The panic's own message, by the application's hook.
    let log = target.process.stderr.text();
    assert_eq!(log.matches("this pool is broken on purpose").count(), 1, "{log}");
}

#[test]
fn a_closure_that_blocks_costs_its_own_pool_only() {
    let mut target = Target::program("target-pools").args(["--blocked", "2"]).start();
    target.said("ready");
    eventually_lost(&target, "pool_blocked", 2);
    let asked = || named(&target, "database").and_then(|pool| pool["acquire_timeouts_total"].as_u64());
    let before = asked().expect("it answers");
    eventually(Duration::from_secs(10), || match asked() {
        Some(now) if now > before + 2 => Ok(()),
        now => Err(format!("the other pools are not asked any more: {before}, then {now:?}")),
    });
    for blocked in ["blocked-0", "blocked-1"] {
        assert_eq!(named(&target, blocked), None, "nothing is shown of it");
        let said = said_of(&target, blocked);
        assert!(said.len() == 1 && said[0].contains("hint: "), "{said:?}");
    }
    target.process.say("go on");
    target.said("released");
    for blocked in ["blocked-0", "blocked-1"] {
        eventually(Duration::from_secs(10), || match named(&target, blocked) {
            Some(pool) if pool["capacity"].as_u64() == Some(5) => Ok(()),
            other => Err(format!("it has returned, and is shown as {other:?}")),
        });
    }
    eventually_lost(&target, "pool_blocked", 2);
}

#[test]
fn many_closures_that_block_take_four_threads_and_no_more() {
    let mut target = Target::program("target-pools").args(["--blocked", "7"]).start();
    target.said("ready");
    eventually_lost(&target, "pool_blocked", 4);
    let pid = target.pid();
    let threads = || proc::threads_named(pid, "taskscope-pools");
    assert_eq!(threads(), 4);
    // Nobody is left to ask the others, and the age of what they said before is told.
    eventually(Duration::from_secs(15), || match named(&target, "database") {
        Some(pool) if pool["age_ns"].as_u64() > Some(2_000_000_000) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(threads(), 4);
    target.process.say("go on");
    target.said("released");
    eventually(Duration::from_secs(15), || {
        let pools = pools(&target);
        let shown = pools.iter().filter(|pool| text(pool, "name").starts_with("blocked-")).count();
        let fresh = pools.iter().all(|pool| text(pool, "kind") != "user" || pool["age_ns"].is_null());
        if shown == 7 && fresh && threads() == 1 {
            Ok(())
        } else {
            Err(format!("{} threads, {pools:#?}", threads()))
        }
    });
}

#[test]
fn what_the_process_runs_out_of_is_told() {
    let limited = "ulimit -Sn 200 && exec \"$0\" \"$@\"";
    let target =
        Target::program("target-pools").args(["--files", "175", "--listen"]).in_shell(limited).start();
    let address: std::net::SocketAddr =
        target.said("listening on ").parse().expect("it prints where it listens");
    target.said("ready");
    let open = || proc::open_files(target.pid()).expect("the target runs") as u64;
    let files = eventually(Duration::from_secs(10), || {
        let (before, files, after) = (open(), named(&target, "file descriptors"), open());
        let (lowest, highest) = (before.min(after), before.max(after) + 1);
        match files {
            Some(files)
                if files["capacity"].as_u64() == Some(200)
                    && files["busy"]
                        .as_u64()
                        .is_some_and(|busy| busy + 4 >= lowest && busy <= highest + 4) =>
            {
                Ok(files)
            }
            files => Err(format!("{lowest} to {highest} are open, told: {files:?}")),
        }
    });
    let waiting: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(address).expect("the kernel takes it")).collect();
    let said = eventually(Duration::from_secs(20), || {
        let (lines, code) = why(&target.address);
        let line = |start: &str| lines.iter().find(|line| line.starts_with(start)).cloned();
        let said = line("FILE DESCRIPTORS").zip(line("ACCEPT BACKLOG")).filter(|_| code == 1);
        said.ok_or_else(|| lines.join("\n"))
    });
    assert!(said.0.contains("of 200 open"), "{said:?}");
    let wanted = format!("3 connections wait to be accepted on {address}");
    assert!(said.1.contains(&wanted), "{said:?}");
    let queues: Vec<_> = pools(&target).iter().map(|pool| text(pool, "kind").to_owned()).collect();
    for kind in ["global_queue", "local_queues", "blocking", "user"] {
        assert!(queues.iter().any(|it| it == kind), "{kind} is missing: {queues:?}");
    }
    evidence("file descriptors and accept backlog of a process", format!("{files}; {}; {}", said.0, said.1));
    drop(waiting);
}

#[test]
fn memory_is_told_against_the_limit_of_the_cgroup() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).expect("it can be");
    write("memory.max", "1073741824\n");
    write("memory.current", "1063741824\n");
    write("memory.stat", "anon 5\ninactive_file 3741824\n");
    let target = Target::program("target-pools").env("TASKSCOPE_CGROUP_DIR", folder.path()).start();
    target.said("ready");
    let (lines, memory) = eventually(Duration::from_secs(10), || {
        let (lines, _) = why(&target.address);
        let memory = named(&target, "memory");
        let said = lines.iter().any(|line| line.starts_with("MEMORY: 1010.9 MiB of the cgroup's 1.0 GiB"));
        memory.filter(|_| said).map(|it| (lines.clone(), it)).ok_or_else(|| lines.join("\n"))
    });
    let told = ["capacity", "busy"].map(|key| memory[key].as_u64());
    assert_eq!(told, [Some(1_073_741_824), Some(1_060_000_000)], "{memory} {lines:?}");
    // Two per cent of the limit, but at least what holds anything.
    let budget = status(&target.address)["probe"]["memory_limit"].as_u64();
    assert!(budget < Some(32 << 20) && budget >= Some(4 << 20), "{budget:?}");
}
