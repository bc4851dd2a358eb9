//! A server that nobody here wrote, under a real client's load: its tasks are there, and they move.

use std::collections::BTreeMap;
use std::time::Duration;

use taskscope_tests::agent::{status, tasks};
use taskscope_tests::json::{list, text};
use taskscope_tests::load::redis_benchmark;
use taskscope_tests::target::Target;
use taskscope_tests::{eventually, evidence, peer};

const CONNECTIONS: usize = 50;

/// Rows by id: polls so far. Only connections: the tasks that mini-redis spawns in its `server.rs`.
fn connections(address: &str) -> BTreeMap<u64, u64> {
    tasks(address, "at~server.rs")
        .iter()
        .inspect(|row| {
            let at = text(row, "spawned_at");
            assert!(
                at.starts_with("mini-redis/src/server.rs:"),
                "a connection is spawned at mini-redis's own line: {row}"
            );
            assert_ne!(text(row, "state"), "ended", "{row}");
        })
        .map(|row| (row["id"].as_u64().expect("a row has an id"), row["polls"].as_u64().expect("and polls")))
        .collect()
}

#[test]
fn each_connection_of_mini_redis_is_a_row_whose_polls_grow() {
    if !peer("redis-benchmark") {
        return;
    }
    let target = Target::program("target-mini-redis").start();
    let port = target.said("port ").parse().expect("the target prints its port");
    let client = redis_benchmark(port, CONNECTIONS, 1_000_000_000);
    let first = eventually(Duration::from_secs(20), || {
        let rows = connections(&target.address);
        if rows.len() >= CONNECTIONS {
            Ok(rows)
        } else {
            Err(format!("{} connections have a row", rows.len()))
        }
    });
    eventually(Duration::from_secs(20), || {
        let now = connections(&target.address);
        let standing: Vec<_> =
            first.iter().filter(|&(id, polls)| now.get(id).is_none_or(|now| now <= polls)).collect();
        if standing.is_empty() { Ok(()) } else { Err(format!("polls of these did not grow: {standing:?}")) }
    });
    evidence(
        "each connection of mini-redis is a row",
        format!("{} rows for {CONNECTIONS} connections", first.len()),
    );

    let state = status(&target.address);
    assert_eq!(
        (text(&state, "name"), state["pid"].as_u64()),
        ("target-mini-redis", Some(target.pid().into())),
        "{state}"
    );
    let runtimes = list(&state, "runtimes");
    assert_eq!(runtimes.len(), 1, "{state}");
    assert_eq!(list(&runtimes[0], "workers").len(), 2, "{state}");
    assert!(state["tasks"]["live"].as_u64() >= Some(CONNECTIONS as u64), "{state}");
    assert!(state["probe"]["memory_bytes"].as_u64() <= state["probe"]["memory_limit"].as_u64(), "{state}");

    // The body of `main` is a row, too, and the rows of a client that left go.
    assert!(tasks(&target.address, "").iter().any(|row| text(row, "name") == "main"));
    drop(client);
    eventually(Duration::from_secs(20), || match connections(&target.address).len() {
        0 => Ok(()),
        left => Err(format!("{left} connections still have a row although the client is gone")),
    });
}

#[test]
fn filters_sorting_and_limits_choose_rows() {
    let target = Target::program("target-plain").args(["--idle", "40", "--mark", "x"]).start();
    let ask = |args: &[&str]| {
        let args = [&["tasks", &target.address], args, &["--json"]].concat();
        taskscope_tests::agent::Agent::with(args).run().expect_code(0).json_lines()
    };
    eventually(Duration::from_secs(10), || match ask(&["name~idle-x"]).len() {
        40 => Ok(()),
        found => Err(format!("{found} rows are named idle-x")),
    });
    assert_eq!(ask(&["name~idle-x state=idle", "--limit", "7"]).len(), 7);
    assert_eq!(ask(&["name~nobody"]).len(), 0);
    let busiest = ask(&["--sort", "polls", "--limit", "3"]);
    let polls: Vec<_> = busiest.iter().map(|row| row["polls"].as_u64().expect("a row has polls")).collect();
    assert!(polls.len() == 3 && polls.is_sorted_by(|a, b| a >= b), "largest first: {polls:?}");
    for row in ask(&["name~idle-x", "--limit", "1"]) {
        // Never polled again: all of its life is known.
        for key in ["id", "polls", "busy_ns", "age_ns", "since_ns", "longest_poll_ns"] {
            assert!(row[key].is_u64(), "{key} is missing: {row}");
        }
        assert!(text(&row, "spawned_at").contains("target-plain.rs:"), "{row}");
        assert!(row["outcome"].is_null(), "a task that lives has no outcome: {row}");
    }
}
