//! `taskscope agent` watches many targets at once: they come, restart and go while it runs, viewers see through it what they see
//! directly, and Prometheus scrapes it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::eventually::always;
use taskscope_tests::headless::Headless;
use taskscope_tests::impostor::saying;
use taskscope_tests::process::Process;
use taskscope_tests::prometheus::Prometheus;
use taskscope_tests::screen::Screen;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{Build, eventually, evidence, peer, proc, root};

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
fn replicas_on_one_machine_have_names_that_stay_and_the_end_of_any_is_told() {
    let (_guard, folder) = runtime_folder();
    let mut first = service(&folder, "shop");
    let mut second = service(&folder, "shop");
    let agent = Headless::start(&folder, &["--folder"]);
    agent.has(&[("shop", "live"), ("shop-2", "live")]);
    let is = |name: &str, target: &Target| assert_eq!(agent.targets()[name]["pid"], target.pid(), "{name}");
    is("shop", &first);
    is("shop-2", &second);
    // The older one, which the younger one has run beside.
    first.process.kill();
    agent.has(&[("shop", "lost"), ("shop-2", "live")]);
    let third = service(&folder, "shop");
    agent.has(&[("shop", "live"), ("shop-2", "live")]);
    is("shop", &third);
    is("shop-2", &second);
    // A restart in which the new one is there first.
    let fourth = service(&folder, "shop");
    agent.has(&[("shop", "live"), ("shop-2", "live"), ("shop-3", "live")]);
    second.process.kill();
    agent.has(&[("shop", "live"), ("shop-2", "live")]);
    is("shop", &third);
    is("shop-2", &fourth);
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

/// Builds the resolver of the tests; what is preloaded with it reads addresses from a file.
fn names(folder: &Path) -> PathBuf {
    let library = folder.join("names.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(root().join("tests/foreign/names.c"));
    let built = cc.arg("-ldl").output().expect("a C compiler is here");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

#[test]
fn a_name_that_resolves_to_many_addresses_is_as_many_targets_and_those_that_vanish_are_let_go() {
    let (_guard, folder) = runtime_folder();
    let on = |listen: &str| {
        let target = Target::program("target-plain").args(["--idle", "3", "--mark", "x"]);
        target.env("TASKSCOPE_LISTEN", format!("tcp:{listen}")).start()
    };
    let first = on("127.0.0.1:0");
    let port = first.address.rsplit_once(':').expect("it has a port").1.to_owned();
    let at = |host: u8| format!("127.0.0.{host}:{port}");
    let (_second, third) = (on(&at(2)), on(&at(3)));
    // Connections that are open at each, as the kernel has it.
    let open = |host: u8| {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("it can be read");
        let local = format!("{host:02X}00007F:{:04X}", port.parse::<u16>().expect("it is one"));
        let is_open = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1) == Some(&local.as_str()) && words.get(3) == Some(&"01")
        };
        sockets.lines().filter(is_open).count()
    };
    let file = folder.join("names");
    let resolves = |hosts: &[u8]| {
        let lines: String = hosts.iter().map(|host| format!("127.0.0.{host}\n")).collect();
        // As a whole: it is read all the time.
        std::fs::write(folder.join("next"), lines).expect("it is written");
        std::fs::rename(folder.join("next"), &file).expect("it is put there");
    };
    let config = folder.join("agent.toml");
    let text = format!("[targets]\ndns = [\"shop.test:{port}\"]\nrefresh = \"200ms\"\n");
    std::fs::write(&config, text).expect("it is written");
    let args = ["agent", "--metrics", "127.0.0.1:0", "--config", &config.display().to_string()];
    let agent = Agent::with(args).in_runtime_folder(&folder);
    let agent =
        agent.env("LD_PRELOAD", names(&folder)).env("NAMES_NAME", "shop.test").env("NAMES_FILE", &file);
    let agent = Headless::of(agent);

    // Nobody can say yet what it stands for: the agent lives, and is not ready.
    let (code, why) = eventually(SOON, || match agent.get("/readyz", "*/*") {
        (code, why) if why.contains("cannot be resolved") => Ok((code, why)),
        other => Err(format!("{other:?}")),
    });
    assert!(code == 503 && why.starts_with(&format!("not ready: shop.test:{port} ")), "{code} {why}");
    assert_eq!(agent.get("/livez", "*/*").0, 200);
    assert!(agent.targets().is_empty());

    // The second one twice is one, and a link each.
    resolves(&[2, 1, 2]);
    agent.has(&[(&at(1), "live"), (&at(2), "live")]);
    eventually(SOON, || match agent.get("/readyz", "*/*") {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    resolves(&[1, 3]);
    agent.has(&[(&at(1), "live"), (&at(2), "lost"), (&at(3), "live")]);
    assert_eq!(agent.targets()[&at(3)]["pid"], third.pid());
    eventually(SOON, || match [open(1), open(2), open(3)] {
        [1, 0, 1] => Ok(()),
        other => Err(format!("{other:?} connections")),
    });
    let up = |host: u8| value(&agent.scrape(), &format!("taskscope_target_up{{target=\"{}\"}}", at(host)));
    assert_eq!([up(1), up(2), up(3)], [Some(1.0), Some(0.0), Some(1.0)]);

    // Where nobody can say, nothing has gone; it was ready, and is.
    std::fs::remove_file(&file).expect("it is there");
    always(Duration::from_secs(1), || match (agent.get("/readyz", "*/*").0, [up(1), up(2), up(3)]) {
        (200, [Some(1.0), Some(0.0), Some(1.0)]) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    resolves(&[3, 2, 1]);
    agent.has(&[(&at(1), "live"), (&at(2), "live"), (&at(3), "live")]);
}

#[test]
fn an_agent_is_ready_when_each_of_its_targets_was_tried() {
    let (_guard, folder) = runtime_folder();
    let _shop = service(&folder, "shop");
    // Whoever takes connections and says nothing is waited for.
    let silent = format!("http://{}", saying(b""));
    let agent = Headless::start(&folder, &["--folder", "--target", &silent]);
    let short = silent.trim_start_matches("http://");
    let (code, why) = agent.get("/readyz", "*/*");
    assert_eq!(code, 503, "{why}");
    eventually(SOON, || match agent.get("/readyz", "*/*") {
        (503, why) if why.starts_with(&format!("not ready: {short} has not answered yet")) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The loop answers all the while.
    assert_eq!(agent.get("/livez", "*/*"), (200, "alive\n".to_owned()));
    eventually(SOON, || match agent.get("/readyz", "*/*") {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // It cannot be reached, and is tried again: an agent that is ready stays so.
    agent.has(&[(short, "lost"), ("shop", "live")]);
    always(Duration::from_secs(1), || match agent.get("/readyz", "*/*") {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
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

    let rules = root().join("deploy/prometheus/rules.yaml");
    let rules = format!("rule_files: [{}]", rules.display());
    let mut prometheus = Prometheus::scrapes(&agent.metrics, "1s", &rules);
    let quantile = "histogram_quantile(0.99,sum by(le)(rate(taskscope_task_poll_duration_seconds_bucket{target=\"busy\"}[10s])))";
    let seconds = eventually(Duration::from_secs(40), || prometheus.query(quantile));
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds} s");
    evidence("the 99th percentile of poll durations, asked of Prometheus", format!("{seconds} s"));
    // Its own rules of recording are evaluated, too.
    eventually(Duration::from_secs(40), || {
        prometheus.query("target:taskscope_task_poll_duration_seconds:p99")
    });
    // One that is killed and started anew remembers what it had scraped, and finds no counter that fell.
    let polls = "taskscope_task_poll_duration_seconds_count{target=\"busy\"}";
    let scrapes = "count_over_time(taskscope_target_up{target=\"busy\"}[10m])";
    let before = prometheus.query(scrapes).expect("it has scraped");
    prometheus.kill();
    prometheus.start();
    eventually(Duration::from_secs(40), || match prometheus.query(scrapes) {
        Ok(now) if now >= before + 3.0 => Ok(()),
        other => Err(format!("{other:?}, and {before} before")),
    });
    assert_eq!(prometheus.query(&format!("sum(resets({polls}[10m]))")), Ok(0.0));
    let again = eventually(Duration::from_secs(40), || prometheus.query(quantile));
    assert!(again > 0.0 && again < 60.0, "{again} s");
    // A target that goes is 0, and its other series end.
    drop(busy);
    eventually(Duration::from_secs(40), || match prometheus.query("taskscope_target_up{target=\"busy\"}") {
        Ok(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
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
    // What is written is written soon after it is told, and so is that it has arrived.
    eventually(SOON, || {
        let kept = std::fs::read_to_string(folder.join("taskscope/alerts.json")).unwrap_or_default();
        let is_known = kept.contains("TaskStuckInPoll") && kept.contains("\"owing\":[]");
        if is_known { Ok(()) } else { Err(kept) }
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
