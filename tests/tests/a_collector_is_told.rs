//! A collector of OpenTelemetry receives what the targets say and what fires, under OpenTelemetry's names, each target a resource
//! of its own; one that dies is told the rest when it is back.

use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::collector::Collector;
use taskscope_tests::http::{free_port, get};
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{eventually, peer};

const WITHIN: Duration = Duration::from_secs(30);

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
    // Of the same resource, and with labels that tell its pod.
    let same = ["k8s.container.name: Str(app)", "k8s.pod.name: Str(checkout-7d9)", "team: Str(a,b)", &pid];
    let labels = ["alert.pod: Str(checkout-7d9)", "alert.namespace: Str(shop)", "alert.container: Str(app)"];
    for part in same.into_iter().chain(labels) {
        assert!(log.says(part), "{part}: {:#?}", log.lines);
    }
    let of_log = log.lines.iter().find(|line| line.contains("service.instance.id: Str("));
    let id = |line: Option<&String>| line.and_then(|line| Some(line.split_once("Str(")?.1.to_owned()));
    assert!(id(of_log).is_some() && id(of_log) == id(instance), "{of_log:?} and {instance:?}");
    assert!(!log.says("alert.host"), "it is in a pod: {:#?}", log.lines);

    // It dies, and the alert ends while nobody listens.
    drop(collector);
    eventually(WITHIN, || event("resolved").ok_or_else(|| agent.outputs()));
    let collector = Collector::start(&folder, port);
    collector.has("ResourceMetrics", "checkout", &["Name: tokio.task.count"]);
    collector.has("ResourceLog", "checkout", &["EventName: alert.resolved"]);
    assert_eq!((collector.told("checkout", "firing"), collector.told("checkout", "resolved")), (0, 1));

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
