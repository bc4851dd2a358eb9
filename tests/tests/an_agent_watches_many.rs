//! `taskscope agent` watches many targets at once: they come, restart and go while it runs, viewers see through it what they see
//! directly, and Prometheus scrapes it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::headless::Headless;
use taskscope_tests::http::ask;
use taskscope_tests::process::Process;
use taskscope_tests::screen::Screen;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{Build, eventually, evidence, peer, proc};

const SOON: Duration = Duration::from_secs(15);

fn service(folder: &Path, name: &str) -> Target {
    let target = Target::program("target-plain").args(["--idle", "3", "--mark", name]);
    target.env("TASKSCOPE_NAME", name).in_runtime_folder(folder).start()
}

/// The value of a series; the labels are a part of it.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn targets_come_restart_and_go() {
    let (_guard, folder) = runtime_folder();
    let mut shop = service(&folder, "shop");
    let agent = Headless::start(&folder, &["--folder", "--target", "unix:/nowhere/mail.sock"]);
    let gone = "unix:/nowhere/mail.sock";
    agent.has(&[("shop", "live"), (gone, "lost")]);
    let lost = agent.targets()[gone].clone();
    assert!(lost["error"].as_str().is_some_and(|why| why.contains("no socket")), "{lost}");

    let mut search = service(&folder, "search");
    agent.has(&[("search", "live"), ("shop", "live"), (gone, "lost")]);
    assert_eq!(agent.targets()["search"]["pid"], search.pid());

    // A restart is the same target, in metrics too.
    shop.process.kill();
    let restarted = service(&folder, "shop");
    eventually(SOON, || match agent.targets() {
        targets if targets["shop"]["pid"] == restarted.pid() && targets["shop"]["link"] == "live" => Ok(()),
        targets => Err(format!("{targets:?}")),
    });
    assert_eq!(agent.targets().len(), 3);
    let up = |name: &str| value(&agent.scrape(), &format!("taskscope_target_up{{target=\"{name}\"}}"));
    assert_eq!((up("shop"), up(gone)), (Some(1.0), Some(0.0)));

    // One that goes stays known as lost, and says nothing more.
    search.process.kill();
    agent.has(&[("search", "lost"), ("shop", "live"), (gone, "lost")]);
    let text = agent.scrape();
    assert_eq!(up("search"), Some(0.0));
    assert_eq!(value(&text, "taskscope_tasks{target=\"search\""), None, "{text}");
    assert!(value(&text, "taskscope_tasks{target=\"shop\"").is_some(), "{text}");

    // One that stands still is stale: its socket is there.
    proc::signal(restarted.pid(), Signal::STOP);
    agent.has(&[("search", "lost"), ("shop", "stale"), (gone, "lost")]);
    assert_eq!(up("shop"), Some(0.0));
    proc::signal(restarted.pid(), Signal::CONT);
    agent.has(&[("search", "lost"), ("shop", "live"), (gone, "lost")]);
}

#[test]
fn a_name_that_resolves_to_an_address_is_a_target() {
    let (_guard, folder) = runtime_folder();
    let target = Target::program("target-plain").args(["--idle", "3", "--mark", "x"]).on_tcp().start();
    let host = target.address.trim_start_matches("http://").to_owned();
    let name = format!("localhost:{}", host.rsplit_once(':').expect("it has a port").1);
    let agent = Headless::start(&folder, &["--dns", &name]);
    eventually(SOON, || match agent.targets() {
        targets if targets.values().any(|row| row["pid"] == target.pid()) => Ok(()),
        targets => Err(format!("{targets:?}")),
    });
    assert_eq!(agent.targets().len(), 1);
}

#[test]
fn it_ends_cleanly_and_leaves_no_socket() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_guard, folder) = runtime_folder();
        let mut agent = Headless::start(&folder, &[]);
        let path = agent.address.strip_prefix("unix:").expect("a socket").to_owned();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).expect("it is there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        proc::signal(agent.process.pid(), signal);
        assert_eq!(agent.process.wait(SOON).code(), Some(0));
        assert!(!Path::new(&path).exists());
    }
}

#[test]
fn what_others_could_reach_is_refused() {
    for (args, says) in [
        (
            ["agent", "--listen", "http://0.0.0.0:6671"],
            "has no access control yet\nhint: listen on unix:PATH",
        ),
        (["agent", "--listen", "tcp:6671"], "is nothing to listen on\nhint: "),
    ] {
        let answer = Agent::with(args).run().expect_code(64);
        assert!(answer.stderr.contains(says), "{answer}");
    }
    // A second agent in one place.
    let (_guard, folder) = runtime_folder();
    let first = Headless::start(&folder, &[]);
    let second = Agent::with(["agent"]).in_runtime_folder(&folder).run();
    assert_ne!(second.code, Some(0));
    assert!(second.stderr.contains("hint: another agent listens there"), "{second}");
    drop(first);
}

#[test]
fn the_listener_for_metrics_serves_nothing_else() {
    let (_guard, folder) = runtime_folder();
    let agent = Headless::start(&folder, &[]);
    eventually(SOON, || match agent.get("/readyz", "*/*") {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(agent.get("/livez", "*/*").0, 200);
    for path in
        ["/", "/debug", "/metrics/x", "/taskscope.v1.Alerts/ListTargets", "/taskscope.v1.Introspect/Describe"]
    {
        assert_eq!(agent.get(path, "*/*").0, 404, "{path}");
    }
}

#[test]
fn a_viewer_sees_through_the_agent_what_it_sees_directly() {
    let (_guard, folder) = runtime_folder();
    let shop = service(&folder, "shop");
    let _search = service(&folder, "search");
    let agent = Headless::start(&folder, &[]);
    agent.has(&[("search", "live"), ("shop", "live")]);
    let through = agent.targets()["shop"]["address"].as_str().expect("it has one").to_owned();
    let rows = |address: &str| {
        let rows = Agent::with(["tasks", address, "name~idle", "--json"]).run().expect_code(0).json_lines();
        let mut rows: Vec<String> = rows.iter().map(|row| format!("{} {}", row["id"], row["name"])).collect();
        rows.sort();
        rows
    };
    let directly = rows(&shop.address);
    assert_eq!((directly.len(), rows(&through)), (3, directly));
    // A word of the target's own about what cannot be.
    let answer = Agent::with(["why", &agent.address]).run().expect_code(2);
    assert!(answer.stderr.contains("has 2 targets\nhint: name one of them: search, shop"), "{answer}");
    let answer = Agent::with(["why", &format!("{}#mail", agent.address)]).run().expect_code(2);
    assert!(answer.stderr.contains("no target `mail`\nhint: name one of them: search, shop"), "{answer}");
}

#[test]
fn the_dashboard_offers_the_targets_of_an_agent() {
    if !peer("tmux") {
        return;
    }
    let (_guard, folder) = runtime_folder();
    let _shop = service(&folder, "shop");
    let _search = service(&folder, "search");
    let agent = Headless::start(&folder, &[]);
    agent.has(&[("search", "live"), ("shop", "live")]);
    let screen = Screen::open(120, 30, &[("NO_COLOR", "1")]);
    screen.run(&format!("{} top {}", Build::Hooks.program("taskscope").display(), agent.address));
    screen.shows(SOON, |text| text.contains("search") && text.contains("shop"));
    // The first of the list is `search`.
    screen.keys(&["Enter"]);
    screen.keys(&["t"]);
    screen.shows(SOON, |text| text.contains("idle-search"));
    screen.keys(&["q"]);
}

#[test]
fn prometheus_scrapes_it_and_finds_the_quantile() {
    if !peer("prometheus") || !peer("promtool") {
        return;
    }
    let (_guard, folder) = runtime_folder();
    let busy =
        Target::program("target-busy").env("TASKSCOPE_NAME", "busy").in_runtime_folder(&folder).start();
    let agent = Headless::start(&folder, &[]);
    agent.has(&[("busy", "live")]);
    eventually(SOON, || {
        let text = agent.scrape();
        match value(&text, "taskscope_task_poll_duration_seconds_count{target=\"busy\"") {
            Some(count) if count > 0.0 => Ok(()),
            _ => Err(text),
        }
    });
    let text = agent.scrape();
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]);
    let mut check = Process::start(check);
    check.say(&text);
    check.close_stdin();
    let status = check.wait(SOON);
    assert!(status.success(), "{}{}", check.stdout.text(), check.stderr.text());

    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let config = data.path().join("prometheus.yml");
    let yaml = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n- job_name: taskscope\n  static_configs: [{{targets: ['{}']}}]\n",
        taskscope_tests::root().join("deploy/prometheus/rules.yaml").display(),
        agent.metrics
    );
    std::fs::write(&config, yaml).expect("the configuration can be written");
    let port = free_port();
    let start = || {
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let prometheus = Process::start(command);
        let ready = "Server is ready to receive web requests";
        prometheus.stderr.wait_for(Duration::from_secs(30), 0, |line| line.contains(ready).then_some(()));
        prometheus
    };
    let host = format!("127.0.0.1:{port}");
    let mut prometheus = start();
    let query = |text: &str| {
        let (code, body) = ask(&host, &format!("/api/v1/query?query={text}"), "*/*");
        assert_eq!(code, 200, "{body}");
        let answer: Value =
            serde_json::from_str(body.trim()).unwrap_or_else(|error| panic!("{error}: {body}"));
        let value =
            answer["data"]["result"][0]["value"][1].as_str().and_then(|number| number.parse::<f64>().ok());
        value.filter(|value| value.is_finite()).ok_or_else(|| answer.to_string())
    };
    let quantile = "histogram_quantile(0.99,sum%20by(le)(rate(taskscope_task_poll_duration_seconds_bucket%7Btarget=%22busy%22%7D%5B10s%5D)))";
    let seconds = eventually(Duration::from_secs(40), || query(quantile));
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds} s");
    evidence("the 99th percentile of poll durations, asked of Prometheus", format!("{seconds} s"));
    // Its own rules of recording are evaluated, too.
    eventually(Duration::from_secs(40), || query("target:taskscope_task_poll_duration_seconds:p99"));
    // One that is killed and started anew remembers what it had scraped, and finds no counter that fell.
    let polls = "taskscope_task_poll_duration_seconds_count%7Btarget=%22busy%22%7D";
    let scrapes = "count_over_time(taskscope_target_up%7Btarget=%22busy%22%7D%5B10m%5D)";
    let before = query(scrapes).expect("it has scraped");
    prometheus.kill();
    let _prometheus = start();
    eventually(Duration::from_secs(40), || match query(scrapes) {
        Ok(now) if now >= before + 3.0 => Ok(()),
        other => Err(format!("{other:?}, and {before} before")),
    });
    assert_eq!(query(&format!("sum(resets({polls}%5B10m%5D))")), Ok(0.0));
    let again = eventually(Duration::from_secs(40), || query(quantile));
    assert!(again > 0.0 && again < 60.0, "{again} s");
    // A target that goes is 0, and its other series end.
    drop(busy);
    eventually(Duration::from_secs(40), || match query("taskscope_target_up%7Btarget=%22busy%22%7D") {
        Ok(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

#[test]
fn what_fires_is_said_on_standard_output_and_counted() {
    let (_guard, folder) = runtime_folder();
    let mut stuck = Target::program("target-stuck").in_runtime_folder(&folder).start();
    let agent = Headless::start(&folder, &["--folder"]);
    eventually(SOON, || match agent.targets() {
        targets if targets.values().any(|row| row["link"] == "live") => Ok(()),
        targets => Err(format!("{targets:?}")),
    });
    stuck.process.say("");
    let fired = agent.process.stdout.wait_for(Duration::from_secs(30), 0, |line| {
        let notice: Value = serde_json::from_str(line).ok()?;
        (notice["event"] == "firing" && notice["alertname"] == "TaskStuckInPoll").then_some(notice)
    });
    assert!(fired["annotations"]["summary"].is_string() && fired["fingerprint"].is_string(), "{fired}");
    eventually(SOON, || {
        let text = agent.scrape();
        let series = text.lines().find(|line| {
            line.starts_with("taskscope_alerts{")
                && line.contains("alertstate=\"firing\"")
                && line.contains("alertname=\"TaskStuckInPoll\"")
        });
        series.map(str::to_owned).ok_or(text)
    });
    eventually(SOON, || {
        let (code, text) = agent.get("/metrics", "*/*");
        assert_eq!(code, 200);
        let delivered = text.lines().find(|line| {
            line.starts_with("taskscope_sink_notices_total") && line.contains("result=\"delivered\"")
        });
        match delivered.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()) {
            Some(count) if count > 0 => Ok(()),
            _ => Err(text),
        }
    });
}

/// The first notice about a stuck poll with this event.
#[track_caller]
fn stuck_poll(agent: &Headless, event: &str) -> Value {
    agent.process.stdout.wait_for(Duration::from_secs(60), 0, |line| {
        let notice: Value = serde_json::from_str(line).ok()?;
        let is_it = notice["alertname"] == "TaskStuckInPoll" && notice["labels"]["severity"] == "warning";
        (is_it && notice["event"] == event).then_some(notice)
    })
}

#[test]
fn an_agent_that_was_killed_tells_the_end_of_what_fired_and_does_not_tell_it_twice() {
    let (_guard, folder) = runtime_folder();
    let mut service = Target::program("target-faults").in_runtime_folder(&folder).start();
    service.said("ready");
    let agent = Headless::start(&folder, &["--folder"]);
    service.process.say("stuck");
    let fired = stuck_poll(&agent, "firing");
    // What is written is written soon after it is told.
    eventually(SOON, || {
        let kept = std::fs::read_to_string(folder.join("taskscope/alerts.json")).unwrap_or_default();
        if kept.contains("TaskStuckInPoll") { Ok(()) } else { Err(kept) }
    });
    agent.process.signal(Signal::KILL);
    drop(agent);

    let agent = Headless::start(&folder, &["--folder"]);
    eventually(SOON, || match agent.targets() {
        targets if targets.values().any(|row| row["link"] == "live") => Ok(()),
        targets => Err(format!("{targets:?}")),
    });
    service.process.say("end");
    let resolved = stuck_poll(&agent, "resolved");
    for same in ["fingerprint", "starts_at", "labels"] {
        assert_eq!(resolved[same], fired[same], "{resolved}");
    }
    let text = agent.process.stdout.text();
    let again = text.lines().filter(|line| line.contains("\"firing\"") && line.contains("TaskStuckInPoll"));
    assert_eq!(again.filter(|line| line.contains("\"severity\":\"warning\"")).count(), 0, "{text}");
}
