//! A collector of OpenTelemetry receives what the targets say and what fires, under OpenTelemetry's names, each target a resource
//! of its own; one that dies is told the rest when it is back.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::http::{free_port, get};
use taskscope_tests::process::Process;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{eventually, peer};

const WITHIN: Duration = Duration::from_secs(30);

/// rotel, which prints all that it receives.
struct Collector {
    process: Process,
}

/// What rotel prints of one resource.
struct Resource {
    /// `ResourceMetrics` or `ResourceLog`.
    kind: String,
    lines: Vec<String>,
}

impl Resource {
    /// Whether it prints this, as in `     -> service.name: Str(checkout)`.
    fn says(&self, what: &str) -> bool {
        self.lines.iter().any(|line| line.trim_start_matches([' ', '-', '>']) == what)
    }

    fn is_of(&self, service: &str) -> bool {
        self.says(&format!("service.name: Str({service})"))
    }
}

impl Collector {
    fn start(folder: &Path, port: u16) -> Self {
        let mut command = Command::new("rotel-agent");
        command.args(["start", "--exporter", "blackhole", "--debug-log-verbosity", "detailed"]);
        command.args(["--debug-log", "metrics", "--debug-log", "logs"]);
        command.arg("--otlp-http-endpoint").arg(format!("127.0.0.1:{port}"));
        command.arg("--otlp-grpc-endpoint").arg(format!("127.0.0.1:{}", free_port()));
        command.arg("--pid-file").arg(folder.join("rotel.pid"));
        command.arg("--log-file").arg(folder.join("rotel.log"));
        Self { process: Process::start(command) }
    }

    fn resources(&self) -> Vec<Resource> {
        let mut all: Vec<Resource> = Vec::new();
        for line in self.process.stdout.lines() {
            match line.split_once(" #") {
                Some((kind @ ("ResourceMetrics" | "ResourceLog"), _)) => {
                    all.push(Resource { kind: kind.to_owned(), lines: Vec::new() });
                }
                _ => all.iter_mut().last().into_iter().for_each(|it| it.lines.push(line.clone())),
            }
        }
        all
    }

    /// The last of this kind about this service that prints all of it.
    #[track_caller]
    fn has(&self, kind: &str, service: &str, says: &[&str]) -> Resource {
        eventually(WITHIN, || {
            let all = self.resources();
            let mut of = all.into_iter().filter(|it| it.kind == kind && it.is_of(service));
            let last = of.next_back().ok_or_else(|| format!("nothing yet\n{}", self.process.outputs()))?;
            let missing: Vec<&&str> = says.iter().filter(|it| !last.says(it)).collect();
            if missing.is_empty() { Ok(last) } else { Err(format!("{missing:?} of {:#?}", last.lines)) }
        })
    }

    /// How often it was told that an alert about a slow poll has become this.
    fn told(&self, event: &str) -> usize {
        let says = |it: &Resource| it.says(&format!("EventName: alert.{event}")) && it.is_of("checkout");
        let all = self.resources();
        all.iter().filter(|it| it.kind == "ResourceLog" && says(it)).count()
    }
}

#[test]
fn rotel_receives_metrics_and_logs_of_each_target_as_a_resource() {
    if !peer("rotel-agent") {
        return;
    }
    let (_guard, folder) = runtime_folder();
    let port = free_port();
    let collector = Collector::start(&folder, port);
    let target = Target::program("target-axum").args(["--label-layer", "on"]);
    let target = target
        .env("TASKSCOPE_NAME", "checkout")
        .env("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=checkout-7d9,k8s.namespace.name=shop,team=a%2Cb")
        .in_runtime_folder(&folder)
        .start();
    let service: u16 = target.said("port ").parse().expect("a port");
    let _other = Target::program("target-plain")
        .args(["--idle", "3", "--mark", "x"])
        .env("TASKSCOPE_NAME", "search")
        .in_runtime_folder(&folder)
        .start();
    let slow = || get(service, "/slow?ms=250").map(|_| ());
    let config = folder.join("taskscope.toml");
    let text = format!(
        "[agent]\nmetrics = \"off\"\nlabels = {{ container = \"app\" }}\n[targets]\nfolder = true\n\
         [rules.TaskSlowPoll.critical]\nenabled = false\n\
         [rules.TaskSlowPoll.warning]\nthreshold = \"100ms\"\nmin_count = 1\nwindow = \"4s\"\nkeep_firing_for = \"1s\"\n\
         [[sinks]]\ntype = \"stdout\"\n\
         [[sinks]]\ntype = \"otlp\"\nendpoint = \"http://127.0.0.1:{port}\"\nmetrics = \"1s\"\n"
    );
    std::fs::write(&config, text).expect("it is written");
    let config = config.display().to_string();
    let agent = Agent::with(["agent", "--config", &config]).in_runtime_folder(&folder).start();
    let event = |what: &str| {
        let find = |line: &String| {
            let json: Value = serde_json::from_str(line).ok()?;
            (json["event"] == what && json["alertname"] == "TaskSlowPoll").then_some(json)
        };
        agent.stdout.lines().iter().find_map(find)
    };
    eventually(WITHIN, || {
        slow()?;
        event("firing").ok_or_else(|| agent.outputs())
    });

    // Metrics: whose they are, and their names, units and kinds.
    let pid = format!("process.pid: Int({})", target.pid());
    let told = collector.has(
        "ResourceMetrics",
        "checkout",
        &[
            "taskscope.target.name: Str(checkout)",
            &pid,
            "k8s.pod.name: Str(checkout-7d9)",
            "k8s.namespace.name: Str(shop)",
            "k8s.container.name: Str(app)",
            "team: Str(a,b)",
            "Name: tokio.task.count",
            "Name: tokio.task.poll.duration",
            "Name: tokio.worker.busy.time",
            "Name: taskscope.probe.events.dropped",
            "Name: taskscope.probe.memory.usage",
            "Name: taskscope.target.up",
            "DataType: Histogram",
            "Unit: {task}",
            "Unit: By",
            "Unit: s",
        ],
    );
    let instance = told.lines.iter().find(|line| line.contains("service.instance.id: Str("));
    assert!(instance.is_some() && told.lines.iter().any(|line| line.contains("host.name: Str(")));
    let forbidden = |line: &&String| line.contains("_total") || line.contains("taskscope_");
    assert_eq!(told.lines.iter().find(forbidden), None);
    collector.has("ResourceMetrics", "search", &["taskscope.target.name: Str(search)"]);
    collector.has(
        "ResourceMetrics",
        "taskscope-agent",
        &["Name: taskscope.build", "Name: taskscope.sink.up"],
    );
    // Logs.
    let log = collector.has("ResourceLog", "checkout", &["EventName: alert.firing", "SeverityText: warning"]);
    assert!(log.says("k8s.container.name: Str(app)"), "{:#?}", log.lines);

    // It dies, and the alert ends while nobody listens.
    drop(collector);
    eventually(WITHIN, || event("resolved").ok_or_else(|| agent.outputs()));
    let collector = Collector::start(&folder, port);
    collector.has("ResourceMetrics", "checkout", &["Name: tokio.task.count"]);
    collector.has("ResourceLog", "checkout", &["EventName: alert.resolved"]);
    assert_eq!((collector.told("firing"), collector.told("resolved")), (0, 1));

    // A target that goes is down and says nothing more.
    drop(target);
    let gone = eventually(WITHIN, || {
        let all = collector.resources();
        let mut of = all.into_iter().filter(|it| it.kind == "ResourceMetrics" && it.is_of("checkout"));
        match of.next_back() {
            Some(last) if !last.says("Name: tokio.task.count") => Ok(last),
            _ => Err("it is told of as before".to_owned()),
        }
    });
    assert!(gone.says("Name: taskscope.target.up") && gone.says(&pid), "{:#?}", gone.lines);
}
