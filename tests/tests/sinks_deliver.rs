//! An alert arrives where people already look, and so does its end: a real Alertmanager shows it as ours, and loses, doubles or
//! ends nothing while it is restarted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::eventually::always;
use taskscope_tests::process::Process;
use taskscope_tests::target::Target;
use taskscope_tests::{eventually, peer};

const WITHIN: Duration = Duration::from_secs(30);

/// What Alertmanager's webhook has sent, each message with what it says of each alert.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<Value>>>);

impl Inbox {
    /// Listens on a port of its own until the test is over.
    fn open() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        let inbox = Self::default();
        let taker = inbox.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taker = taker.clone();
                std::thread::spawn(move || taker.take(stream));
            }
        });
        (inbox, port)
    }

    fn take(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
            self.0.lock().expect("nobody panicked").push(serde_json::from_slice(&body).expect("it is JSON"));
        }
    }

    /// What was said of this alert, in order.
    fn said(&self, fingerprint: &str) -> Vec<String> {
        let messages = self.0.lock().expect("nobody panicked");
        let of = |alert: &Value| {
            (alert["fingerprint"] == fingerprint)
                .then(|| alert["status"].as_str().map(str::to_owned))
                .flatten()
        };
        messages.iter().filter_map(|it| it["alerts"].as_array()).flatten().filter_map(of).collect()
    }
}

/// The body of what is answered.
fn get(port: u16, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    Ok(answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned()))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port()
}

fn alertmanager(folder: &Path, port: u16) -> Process {
    let mut command = Command::new("prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", folder.join("am.yml").display()))
        .arg(format!("--storage.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=");
    let process = Process::start(command);
    eventually(WITHIN, || match get(port, "/-/ready") {
        Ok(body) if body.contains("OK") => Ok(()),
        other => Err(format!("{other:?}\n{}", process.outputs())),
    });
    process
}

/// Alertmanager's only alert about slow polls.
fn shown(port: u16) -> Result<Value, String> {
    let body = get(port, "/api/v2/alerts")?;
    let alerts: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    let slow = |alert: &&Value| alert["labels"]["alertname"] == "TaskSlowPoll";
    let slow: Vec<&Value> = alerts.as_array().into_iter().flatten().filter(slow).collect();
    match slow[..] {
        [alert] => Ok(alert.clone()),
        _ => Err(format!("{} alerts about slow polls: {body}", slow.len())),
    }
}

fn amtool(port: u16, args: &[&str]) -> String {
    let url = format!("--alertmanager.url=http://127.0.0.1:{port}");
    let answer = Command::new("amtool").arg(url).args(args).output().expect("amtool can be started");
    assert!(answer.status.success(), "{answer:?}");
    String::from_utf8_lossy(&answer.stdout).trim().to_owned()
}

#[test]
fn alertmanager_shows_groups_silences_and_resolves_our_alert() {
    if !peer("prometheus-alertmanager") || !peer("amtool") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (inbox, hook) = Inbox::open();
    let port = free_port();
    let am_config = format!(
        "route: {{ receiver: us, group_by: [alertname], group_wait: 10ms, group_interval: 500ms, repeat_interval: 4h }}\n\
         receivers: [{{ name: us, webhook_configs: [{{ url: 'http://127.0.0.1:{hook}/' }}] }}]\n"
    );
    std::fs::write(folder.path().join("am.yml"), am_config).expect("it is written");
    let mut manager = alertmanager(folder.path(), port);
    let config = folder.path().join("taskscope.toml");
    let our_config = format!(
        "[rules.TaskSlowPoll.critical]\nenabled = false\n\
         [rules.TaskSlowPoll.warning]\nthreshold = \"100ms\"\nmin_count = 1\nwindow = \"5s\"\n\
         [[sinks]]\ntype = \"alertmanager\"\nurls = [\"http://127.0.0.1:{port}\"]\nresend = \"1s\"\n"
    );
    std::fs::write(&config, our_config).expect("it is written");
    let target = Target::program("target-axum").args(["--label-layer", "on"]).start();
    let service: u16 = target.said("port ").parse().expect("a port");
    let slow = || get(service, "/slow?ms=250").map(|_| ());
    let config = config.display().to_string();
    let agent = Agent::with(["alerts", &target.address, "--json", "--config", &config]).start();
    let event = |what: &str| {
        let find = |line: &str| {
            let json: Value = serde_json::from_str(line).ok()?;
            (json["event"] == what && json["alertname"] == "TaskSlowPoll").then_some(json)
        };
        agent.stdout.lines().iter().find_map(|line| find(line))
    };

    // It fires, and is shown as ours.
    let fired = eventually(WITHIN, || {
        slow()?;
        event("firing").ok_or_else(|| agent.outputs())
    });
    let fingerprint = fired["fingerprint"].as_str().expect("it has one").to_owned();
    let first = eventually(WITHIN, || shown(port));
    assert_eq!(first["fingerprint"], *fingerprint);
    assert_eq!(first["startsAt"], fired["starts_at"]);
    assert_eq!(first["annotations"]["summary"], fired["annotations"]["summary"]);
    let told = |count: usize| {
        let said = inbox.said(&fingerprint);
        if said.len() >= count { Ok(said) } else { Err(format!("the webhook was told {said:?}")) }
    };
    assert_eq!(eventually(WITHIN, || told(1)), ["firing"]);

    // While it is restarted, nothing is lost, doubled or ended.
    manager.signal(Signal::TERM);
    manager.wait(WITHIN);
    slow().expect("the service answers");
    let manager = alertmanager(folder.path(), port);
    let again = eventually(WITHIN, || {
        slow()?;
        shown(port)
    });
    assert_eq!((&again["fingerprint"], &again["startsAt"]), (&first["fingerprint"], &first["startsAt"]));
    always(Duration::from_secs(2), || {
        slow()?;
        match (inbox.said(&fingerprint), event("resolved")) {
            (said, None) if said == ["firing"] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // A silence is Alertmanager's own affair: we go on telling it.
    let silence =
        amtool(port, &["silence", "add", "-d", "1h", "-a", "us", "-c", "known", "alertname=TaskSlowPoll"]);
    eventually(WITHIN, || {
        slow()?;
        let alert = shown(port)?;
        if alert["status"]["state"] == "suppressed" { Ok(()) } else { Err(alert.to_string()) }
    });
    amtool(port, &["silence", "expire", &silence]);

    // It ends once, with the beginning that it had.
    let resolved = eventually(WITHIN, || event("resolved").ok_or_else(|| agent.outputs()));
    assert_eq!(resolved["starts_at"], fired["starts_at"]);
    let said = eventually(WITHIN, || told(2));
    assert_eq!(said, ["firing", "resolved"], "{}", manager.outputs());
    eventually(WITHIN, || match shown(port) {
        Ok(alert) => Err(alert.to_string()),
        Err(_) => Ok(()),
    });
}

#[test]
fn what_is_wrong_with_a_configuration_is_all_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.toml");
    std::fs::write(&file, "[rules.TaskSlowPol]\n[rules.TaskSlowPoll]\nwindow = 60\n").expect("it is written");
    let path = file.display().to_string();
    let answer = Agent::with(["rules", "check", &path]).run().expect_code(1);
    let said = format!(
        "{path}:1:8: no rule is called `TaskSlowPol`\nhint: did you mean `TaskSlowPoll`?\n\
         {path}:3:10: `rules.TaskSlowPoll.window`: 60 has no unit\n"
    );
    assert!(answer.stderr.starts_with(&said), "{answer}");
    std::fs::write(&file, "[rules.TaskSlowPoll]\nwindow = \"30s\"\n").expect("it is written");
    Agent::with(["rules", "check", &path]).run().expect_code(0);
    let answer = Agent::with(["config", "print"]).env("TASKSCOPE_CONFIG", &path).run().expect_code(0);
    let line = answer.stdout.lines().find(|line| line.starts_with("window = \"30s\""));
    assert!(line.is_some_and(|line| line.ends_with(&format!("# {path}:2"))), "{answer}");
    Agent::with(["rules", "check", "/nowhere/a.toml"]).run().expect_code(2);
}
