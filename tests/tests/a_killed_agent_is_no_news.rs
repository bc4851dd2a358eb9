//! Whoever kills the agent changes nothing of what people are told: what fires goes on as it was for Prometheus and for a collector,
//! and what is silenced stays so until the silence ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::collector::Collector;
use taskscope_tests::eventually::always;
use taskscope_tests::headless::{Headless, only};
use taskscope_tests::http::free_port;
use taskscope_tests::json::{list, text};
use taskscope_tests::prometheus::Prometheus;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{eventually, peer};

const SOON: Duration = Duration::from_secs(20);
const RULE: &str = "TaskStuckInPoll";

fn service(folder: &Path) -> Target {
    let target = Target::program("target-faults").env("TASKSCOPE_NAME", "checkout");
    let target = target.in_runtime_folder(folder).start();
    target.said("ready");
    target
}

/// A configuration without any other rule.
fn configuration(folder: &Path, more: &str) -> PathBuf {
    let rule = only(RULE, "threshold = '500ms'\nkeep_firing_for = '0s'\ncritical = { enabled = false }");
    let file = folder.join("agent.toml");
    let text = format!("[targets]\nfolder = true\n{rule}[[sinks]]\ntype = 'stdout'\n{more}");
    std::fs::write(&file, text).expect("it is written");
    file
}

fn agent(folder: &Path, config: &Path, port: u16) -> Headless {
    let (metrics, config) = (format!("127.0.0.1:{port}"), config.display().to_string());
    let args = ["agent", "--metrics", &metrics, "--config", &config];
    Headless::of(Agent::with(args).in_runtime_folder(folder))
}

/// Killed as soon as its state says this, and that all has arrived; nothing of it is there afterwards.
#[track_caller]
fn killed(mut agent: Headless, folder: &Path, state_says: &str) {
    eventually(SOON, || {
        let kept = std::fs::read_to_string(folder.join("taskscope/alerts.json")).unwrap_or_default();
        let is_known = kept.contains(state_says) && kept.contains("\"owing\":[]");
        if is_known { Ok(()) } else { Err(kept) }
    });
    agent.process.signal(Signal::KILL);
    agent.process.wait(SOON);
}

/// What it has said on standard output so far.
fn events(agent: &Headless) -> Vec<String> {
    let lines = agent.process.stdout.lines();
    let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.map(|notice| text(&notice, "event").to_owned()).collect()
}

#[track_caller]
fn event(agent: &Headless, name: &str) -> Value {
    agent.process.stdout.wait_for(SOON, 0, |line| {
        let notice: Value = serde_json::from_str(line).ok()?;
        (text(&notice, "event") == name && text(&notice, "alertname") == RULE).then_some(notice)
    })
}

#[test]
fn prometheus_and_a_collector_are_told_nothing_of_it() {
    if !peer("prometheus") || !peer("rotel-agent") {
        return;
    }
    let (_guard, folder) = runtime_folder();
    let (metrics, collected) = (free_port(), free_port());
    let collector = Collector::start(&folder, collected);
    let mut service = service(&folder);
    let otlp =
        format!("[[sinks]]\ntype = 'otlp'\nendpoint = 'http://127.0.0.1:{collected}'\nmetrics = '1s'\n");
    let config = configuration(&folder, &otlp);
    let first = agent(&folder, &config, metrics);
    let prometheus = Prometheus::scrapes(&first.metrics, "200ms", "");
    service.process.say("stuck");
    let fired = event(&first, "firing");
    let fires = format!("taskscope_alerts{{alertname=\"{RULE}\",alertstate=\"firing\",target=\"checkout\"}}");
    eventually(SOON, || prometheus.query(&fires));
    let delivered = "taskscope_sink_notices_total{sink=\"stdout\",result=\"delivered\"}";
    let is_counted = |count: f64| match prometheus.query(delivered) {
        Ok(it) if (it - count).abs() < f64::EPSILON => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually(SOON, || is_counted(1.0));
    let logged = collector.has("ResourceLog", "checkout", &["EventName: alert.firing"]);
    let begun = format!("alert.starts_at: Str({})", text(&fired, "starts_at"));
    assert!(logged.says(&begun), "{:#?}", logged.lines);
    let told = || (collector.told("checkout", "firing"), collector.told("checkout", "resolved"));

    killed(first, &folder, RULE);
    let second = agent(&folder, &config, metrics);
    let up = "up{job=\"taskscope\"}";
    let before = prometheus.samples(up).expect("it has scraped").len();
    // It is scraped again and again, exports again, and goes on to say what fires.
    eventually(SOON, || {
        let (scraped, fires) = (prometheus.samples(up)?, prometheus.query(&fires)?);
        let again = scraped.iter().skip(before).filter(|(_, up)| *up > 0.5).count();
        if again >= 10 { Ok(fires) } else { Err(format!("{scraped:?}")) }
    });
    always(Duration::from_secs(1), || match (told(), events(&second)) {
        ((1, 0), events) if events.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Whenever the agent was there since it began to fire, the alert was.
    let (scraped, seen) =
        (prometheus.samples(up).expect("scrapes"), prometheus.samples(&fires).expect("samples"));
    let (from, to) = (seen[0].0, seen[seen.len() - 1].0);
    let gaps: Vec<_> = scraped
        .iter()
        .filter(|(at, up)| (from..=to).contains(at) && *up > 0.5)
        .filter(|(at, _)| !seen.iter().any(|(other, _)| other == at))
        .collect();
    assert!(gaps.is_empty(), "it did not fire at {gaps:?}\nscraped {scraped:?}\nseen {seen:?}");
    // What the target counts has not fallen; what the agent counts began anew, once.
    let resets = |series: &str| prometheus.query(&format!("sum(resets({series}[10m]))"));
    assert_eq!(resets("taskscope_tasks_spawned_total{target=\"checkout\",task_group=\"ticker\"}"), Ok(0.0));
    assert_eq!(resets("taskscope_task_poll_duration_seconds_count{task_group=\"ticker\"}"), Ok(0.0));
    assert_eq!((resets(delivered), prometheus.query(delivered)), (Ok(1.0), Ok(0.0)));

    service.process.say("end");
    let resolved = event(&second, "resolved");
    for key in ["fingerprint", "starts_at", "labels"] {
        assert_eq!(resolved[key], fired[key], "another {key}");
    }
    let logged = collector.has("ResourceLog", "checkout", &["EventName: alert.resolved"]);
    assert!(logged.says(&begun), "{:#?}", logged.lines);
    eventually(SOON, || match prometheus.query(&fires) {
        Err(_) => is_counted(1.0),
        Ok(value) => Err(format!("it fires: {value}")),
    });
    assert_eq!(told(), (1, 1));
}

#[test]
fn a_silence_holds_over_it_until_it_ends() {
    let (_guard, folder) = runtime_folder();
    let mut service = service(&folder);
    let config = configuration(&folder, "");
    let first = agent(&folder, &config, 0);
    first.has(&[("checkout", "live")]);
    let matcher = format!("alertname={RULE}");
    let made =
        ["silence", &first.address, &matcher, "service=~\"check.*\"", "--for", "12s", "--comment", "deploy"];
    let id = Agent::with(made).run().expect_code(0).stdout.trim().to_owned();
    let held = |agent: &Headless| {
        eventually(SOON, || match &agent.silences()[..] {
            [silence] if silence["holds"] == 1 => Ok(silence.clone()),
            other => Err(format!("{other:?}")),
        })
    };
    service.process.say("stuck");
    let before = held(&first);
    assert_eq!((text(&before, "id"), text(&before, "comment")), (id.as_str(), "deploy"));
    assert_eq!(events(&first), Vec::<String>::new());

    killed(first, &folder, "check.*");
    let second = agent(&folder, &config, 0);
    let after = held(&second);
    assert_eq!(after, before, "the same silence, with the same end");
    assert_eq!(list(&after, "matchers").len(), 2);
    assert_eq!(events(&second), Vec::<String>::new());
    // It ends by itself, and what still fires is told.
    let fired = event(&second, "firing");
    assert!(text(&fired, "ts") >= text(&after, "ends_at"), "{fired} before the end of {after}");
    assert!(second.silences().is_empty());
    service.process.say("end");
    event(&second, "resolved");
    assert_eq!(events(&second), ["firing", "resolved"]);
}
