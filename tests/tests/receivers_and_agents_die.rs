//! Whoever is killed while an alert fires, each Alertmanager tells of it once, and of its end once: the agent's state outlives it,
//! and each instance has its own.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::alertmanager::Alertmanager;
use taskscope_tests::eventually::always;
use taskscope_tests::http::get;
use taskscope_tests::process::Process;
use taskscope_tests::receiver::Receiver;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{eventually, peer};

const WITHIN: Duration = Duration::from_secs(30);
const SLOW_POLL: &str = "TaskSlowPoll";

/// A service whose polls are slow as often as it is asked.
struct Service {
    port: u16,
    _target: Target,
}

impl Service {
    fn start(folder: &Path, name: &str) -> Self {
        let target = Target::program("target-axum").args(["--label-layer", "off"]);
        let target = target.env("TASKSCOPE_NAME", name).in_runtime_folder(folder).start();
        let port = target.said("port ").parse().expect("a port");
        Self { port, _target: target }
    }

    fn is_slow(&self) -> Result<(), String> {
        get(self.port, "/slow?ms=200").map(|_| ())
    }
}

fn agent(folder: &Path, config: &Path) -> Process {
    let config = config.display().to_string();
    let process = Agent::with(["agent", "--config", &config]).in_runtime_folder(folder).start();
    process.stderr.wait_for(WITHIN, 0, |line| line.contains("listening on").then_some(()));
    process
}

/// The alert of a service, as an instance shows it.
fn shown(manager: &Alertmanager, service: &str) -> Result<Value, String> {
    let alerts = manager.alerts(SLOW_POLL)?;
    let its: Vec<&Value> = alerts.iter().filter(|it| it["labels"]["service"] == service).collect();
    match its[..] {
        [alert] => Ok(alert.clone()),
        _ => Err(format!("{} alerts about {service}: {alerts:?}", its.len())),
    }
}

#[test]
fn every_instance_tells_of_an_alert_once_whoever_is_killed_meanwhile() {
    if !peer("prometheus-alertmanager") {
        return;
    }
    let (_guard, folder) = runtime_folder();
    let (inboxes, mut managers): (Vec<Receiver>, Vec<Alertmanager>) = (0..2)
        .map(|_| {
            let inbox = Receiver::open();
            // Long enough for what begins at about one time to be told at one time.
            let manager = Alertmanager::new(inbox.port, "3s");
            (inbox, manager)
        })
        .unzip();
    let config = folder.join("taskscope.toml");
    let text = format!(
        "[agent]\nmetrics = \"off\"\n[targets]\nfolder = true\n\
         [rules.TaskSlowPoll.critical]\nenabled = false\n\
         [rules.TaskSlowPoll.warning]\nthreshold = \"100ms\"\nmin_count = 1\nwindow = \"8s\"\n\
         [[sinks]]\ntype = \"stdout\"\n\
         [[sinks]]\ntype = \"alertmanager\"\nurls = [\"{}\", \"{}\"]\nresend = \"1s\"\n",
        managers[0].url(),
        managers[1].url()
    );
    std::fs::write(&config, text).expect("it is written");
    let services = ["checkout", "search"].map(|name| Service::start(&folder, name));
    let slow = || services.iter().try_for_each(Service::is_slow);
    // The second is not there yet.
    managers[0].start();
    let first_agent = agent(&folder, &config);

    // The one that is there groups the alerts of both services into one message.
    let mut first = Vec::new();
    for name in ["checkout", "search"] {
        first.push(eventually(WITHIN, || {
            slow()?;
            shown(&managers[0], name)
        }));
    }
    let same = |manager: &Alertmanager| -> Result<(), String> {
        for alert in &first {
            let now = shown(manager, alert["labels"]["service"].as_str().unwrap_or_default())?;
            for key in ["fingerprint", "startsAt", "labels"] {
                if now[key] != alert[key] {
                    return Err(format!("{key} is another one: {now} instead of {alert}"));
                }
            }
        }
        Ok(())
    };
    let fingerprints: Vec<&str> =
        first.iter().map(|alert| alert["fingerprint"].as_str().expect("it has one")).collect();
    let told = |inbox: &Receiver, wanted: &[&str]| -> Result<(), String> {
        let said: Vec<Vec<String>> = fingerprints.iter().map(|it| inbox.said(it)).collect();
        if said.iter().all(|said| said == wanted) { Ok(()) } else { Err(format!("{said:?}")) }
    };
    eventually(WITHIN, || {
        slow()?;
        told(&inboxes[0], &["firing"])
    });
    let messages = inboxes[0].messages();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0]["groupLabels"]["alertname"], SLOW_POLL);
    assert_eq!(messages[0]["alerts"].as_array().map(Vec::len), Some(2), "{messages:?}");

    // The second comes, and is told of what began before.
    managers[1].start();
    eventually(WITHIN, || {
        slow()?;
        same(&managers[1])?;
        told(&inboxes[1], &["firing"])
    });

    // The agent is killed, and the second instance with it; both come back.
    eventually(WITHIN, || {
        let kept = std::fs::read_to_string(folder.join("taskscope/alerts.json")).unwrap_or_default();
        if fingerprints.len() <= kept.matches(SLOW_POLL).count() { Ok(()) } else { Err(kept) }
    });
    managers[1].has_written_down_what_it_told();
    first_agent.signal(Signal::KILL);
    managers[1].process().kill();
    drop(first_agent);
    slow().expect("the services answer");
    managers[1].start();
    let second_agent = agent(&folder, &config);
    eventually(WITHIN, || {
        slow()?;
        same(&managers[0])?;
        same(&managers[1])
    });
    always(Duration::from_secs(3), || {
        slow()?;
        inboxes.iter().try_for_each(|inbox| told(inbox, &["firing"]))
    });

    // It ends once for each. Alertmanager tells all of a group when one of it ends: the other one may be told anew as firing.
    let ended = |inbox: &Receiver| -> Result<(), String> {
        let said: Vec<Vec<String>> = fingerprints.iter().map(|it| inbox.said(it)).collect();
        let is_over = |said: &Vec<String>| {
            said.iter().position(|it| it == "resolved") == said.len().checked_sub(1) && said.len() <= 3
        };
        if said.iter().all(is_over) { Ok(()) } else { Err(format!("{said:?}")) }
    };
    eventually(WITHIN * 2, || inboxes.iter().try_for_each(ended));
    for manager in &managers {
        eventually(WITHIN, || match &manager.alerts(SLOW_POLL)?[..] {
            [] => Ok(()),
            alerts => Err(format!("{alerts:?}")),
        });
    }
    let events = |event: &str| {
        let lines = second_agent.stdout.lines();
        lines.iter().filter(|line| line.contains(SLOW_POLL) && line.contains(event)).count()
    };
    assert_eq!((events("\"firing\""), events("\"resolved\"")), (0, 2), "{}", second_agent.outputs());
}
