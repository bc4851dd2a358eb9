//! A healthy service fires nothing, warnings included, with the rules as they are by default: whatever its load does, and
//! whoever wrote it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use taskscope_tests::agent::Agent;
use taskscope_tests::load::{HttpLoad, redis_benchmark};
use taskscope_tests::process::Process;
use taskscope_tests::sockets::WebSockets;
use taskscope_tests::target::{Target, listening, runtime_folder};
use taskscope_tests::{Size, eventually, evidence, peer, size};
use tempfile::TempDir;

/// `taskscope alerts`, which ends by itself.
struct Watched {
    agent: Process,
    seconds: u64,
    _folder: TempDir,
}

/// Begins to watch, for a time at each size.
fn watch(address: &str, small: u64, full: u64) -> Watched {
    let (guard, folder) = runtime_folder();
    watch_in(guard, &folder, address, small, full)
}

fn watch_in(guard: TempDir, folder: &std::path::Path, target: &str, small: u64, full: u64) -> Watched {
    let seconds = if size() == Size::Full { full } else { small };
    let run_for = format!("{seconds}s");
    let agent = Agent::with(["alerts", target, "--for", &run_for]).in_runtime_folder(folder).start();
    let watched = |line: &str| line.contains("settings of rules watch ").then_some(());
    agent.stderr.wait_for(Duration::from_secs(20), 0, watched);
    Watched { agent, seconds, _folder: guard }
}

impl Watched {
    /// To its end.
    fn fired_nothing(mut self, what: &str) {
        let status = self.agent.wait(Duration::from_secs(self.seconds + 30));
        assert_eq!(status.code(), Some(0), "{what}: something fired:\n{}", self.agent.outputs());
        // What is pending may be: load comes and goes.
        let told = |line: &String| line.contains(" FIRING ") || line.contains(" RESOLVED ");
        assert_eq!(self.agent.stdout.lines().into_iter().find(told), None, "{}", self.agent.outputs());
        assert!(self.agent.stderr.text().contains("nothing fired; "), "{}", self.agent.outputs());
        evidence(&format!("{what} fires nothing"), format!("in {} s", self.seconds));
    }
}

fn server(target: &Target) -> SocketAddr {
    let port = target.said("port").parse().expect("it prints its port");
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[test]
fn the_demo_under_load_and_through_a_restart_fires_nothing() {
    let (guard, folder) = runtime_folder();
    let serve = || -> Process {
        let service = Agent::with(["demo", "--serve", "--faults", "none"]).env("TASKSCOPE_NAME", "shop");
        let service = service.in_runtime_folder(&folder).start();
        listening(&service);
        service
    };
    let mut service = serve();
    let watched = watch_in(guard, &folder, "shop", 24, 420);
    // It has seen the first run for this long, as the oldest of its tasks says.
    let (before, after) = if size() == Size::Full { (300, 120) } else { (12, 12) };
    assert_eq!(before + after, watched.seconds);
    let before = format!("age>{before}s");
    eventually(Duration::from_secs(watched.seconds), || {
        let args = ["tasks", "shop", before.as_str(), "--json"];
        let old = Agent::with(args).in_runtime_folder(&folder).run().expect_code(0).json_lines();
        if old.is_empty() { Err("no task is that old".to_owned()) } else { Ok(()) }
    });
    service.kill();
    let _service = serve();
    watched.fired_nothing("the demo under load for the most of it, and through a restart,");
}

#[test]
fn a_ramp_to_ten_times_the_traffic_fires_nothing() {
    let target = Target::program("target-axum").args(["--label-layer", "on"]).start();
    let server = server(&target);
    let watched = watch(&target.address, 20, 120);
    let over = Duration::from_secs(watched.seconds / 2);
    let load = HttpLoad::ramp(server, "/fast", 40, Duration::from_millis(40), over);
    watched.fired_nothing("a ramp from nothing to 40 connections");
    assert!(load.answered() > 1_000, "{} answers", load.answered());
}

#[test]
fn websockets_that_stay_open_fire_nothing() {
    let target = Target::program("target-matchbox").in_shell("ulimit -n 8192 && exec \"$0\" \"$@\"").start();
    let server = server(&target);
    let (count, small, full) = (if size() == Size::Full { 5_000 } else { 200 }, 20, 180);
    let mut watched = watch(&target.address, small, full);
    let mut sockets = WebSockets::open(server, count);
    let mut rounds = 0;
    while !watched.agent.ends_within(Duration::from_secs(2)) {
        sockets.say("\"KeepAlive\"");
        rounds += 1;
    }
    watched.fired_nothing(&format!("a server of others, with {count} WebSockets that stay open,"));
    assert!(rounds > 1, "they were heard once");
}

#[test]
fn a_burst_every_few_seconds_fires_nothing() {
    let target = Target::program("target-cron").start();
    let watched = watch(&target.address, 20, 120);
    watched.fired_nothing("a burst of 800 tasks and jobs every 3 s");
    let bursts = target.process.stdout.count();
    assert!(bursts >= 4, "{bursts} bursts");
}

#[test]
fn mini_redis_under_a_real_clients_load_fires_nothing() {
    if !peer("redis-benchmark") {
        return;
    }
    let target = Target::program("target-mini-redis").start();
    let port = server(&target).port();
    let mut watched = watch(&target.address, 20, 120);
    let mut rounds = 0;
    while !watched.agent.ends_within(Duration::ZERO) {
        // Its clients come, ask, and go.
        let mut clients = redis_benchmark(port, 20, 10_000);
        assert!(clients.wait(Duration::from_secs(60)).success(), "{}", clients.outputs());
        rounds += 1;
    }
    watched.fired_nothing("mini-redis under redis-benchmark");
    assert!(rounds > 0, "nobody asked it anything");
}
