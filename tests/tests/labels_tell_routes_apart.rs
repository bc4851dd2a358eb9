//! All handlers of an HTTP server share one spawn site; a label says which of them is at fault.

use std::net::SocketAddr;
use std::time::Duration;

use taskscope_tests::agent::{status, why};
use taskscope_tests::eventually;
use taskscope_tests::json::{list, text};
use taskscope_tests::load::{HttpConnection, HttpLoad};
use taskscope_tests::target::Target;

struct Service {
    target: Target,
    server: SocketAddr,
    // Both routes are used all the time; only one of them blocks.
    _fast: HttpLoad,
    _slow: HttpLoad,
}

fn service(label_layer: &str) -> Service {
    let target = Target::program("target-axum").args(["--label-layer", label_layer]).start();
    let port = target.said("port ").parse().expect("the target prints its port");
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let fast = HttpLoad::start(server, "/fast", 4, Duration::from_millis(5));
    let slow = HttpLoad::start(server, "/slow?ms=300", 1, Duration::from_millis(100));
    Service { target, server, _fast: fast, _slow: slow }
}

#[test]
fn why_names_the_route_that_blocks_and_no_other() {
    let service = service("on");
    let address = &service.target.address;
    let lines = eventually(Duration::from_secs(20), || {
        let (lines, code) = why(address);
        if code == 1 && lines.iter().any(|line| line.contains("GET /slow")) {
            Ok(lines)
        } else {
            Err(lines.join("\n"))
        }
    });
    assert!(lines.len() <= 8, "at most eight lines:\n{}", lines.join("\n"));
    assert!(
        !lines.iter().any(|line| line.contains("GET /fast")),
        "the other route is not at fault:\n{}",
        lines.join("\n")
    );

    // While it blocks, the worker's own row says so.
    let mut connection = HttpConnection::open(service.server).expect("the target serves");
    connection.ask("/slow?ms=4000").expect("a request can be sent");
    eventually(Duration::from_secs(4), || {
        let state = status(address);
        let polls = list(&state, "runtimes").iter().flat_map(|runtime| list(runtime, "workers"));
        let mut stuck =
            polls.map(|worker| &worker["poll"]).filter(|poll| poll["since_ns"].as_u64() > Some(500_000_000));
        match stuck.next() {
            Some(poll)
                if text(poll, "label") == "GET /slow" && text(poll, "syscall") == "clock_nanosleep" =>
            {
                Ok(())
            }
            _ => Err(state.to_string()),
        }
    });
}

#[test]
fn without_labels_the_spawn_site_is_called_what_it_is() {
    let service = service("off");
    let lines = eventually(Duration::from_secs(20), || {
        let (lines, code) = why(&service.target.address);
        if code == 1 && lines.iter().any(|line| line.contains("axum/src/serve/")) {
            Ok(lines)
        } else {
            Err(lines.join("\n"))
        }
    });
    let told = lines.join("\n");
    for line in lines.iter().filter(|line| line.contains("axum/src/serve/")) {
        let (before, after) = line.split_once("axum/src/serve/").expect("it is in the line");
        assert!(before.ends_with("spawned at "), "a spawn site is never called the guilty line:\n{told}");
        assert!(after.contains("no label"), "what is missing is said:\n{told}");
    }
    assert!(!told.contains("GET /"), "a route cannot be known without labels:\n{told}");
}
