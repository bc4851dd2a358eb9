//! A real collector of OpenTelemetry.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::eventually;
use crate::http::free_port;
use crate::process::Process;

const WITHIN: Duration = Duration::from_secs(30);

/// rotel, which prints all that it receives.
pub struct Collector {
    pub process: Process,
}

/// What rotel prints of one resource.
pub struct Resource {
    /// `ResourceMetrics` or `ResourceLog`.
    pub kind: String,
    pub lines: Vec<String>,
}

impl Resource {
    /// Whether it prints this, as in `     -> service.name: Str(checkout)`.
    pub fn says(&self, what: &str) -> bool {
        self.lines.iter().any(|line| line.trim_start_matches([' ', '-', '>']) == what)
    }

    /// Whether it is this service.
    pub fn is_of(&self, service: &str) -> bool {
        self.says(&format!("service.name: Str({service})"))
    }
}

impl Collector {
    /// Listens on this port, and keeps what it keeps in this folder.
    pub fn start(folder: &Path, port: u16) -> Self {
        let mut command = Command::new("rotel-agent");
        command.args(["start", "--exporter", "blackhole", "--debug-log-verbosity", "detailed"]);
        command.args(["--debug-log", "metrics", "--debug-log", "logs"]);
        command.arg("--otlp-http-endpoint").arg(format!("127.0.0.1:{port}"));
        command.arg("--otlp-grpc-endpoint").arg(format!("127.0.0.1:{}", free_port()));
        command.arg("--pid-file").arg(folder.join("rotel.pid"));
        command.arg("--log-file").arg(folder.join("rotel.log"));
        Self { process: Process::start(command) }
    }

    /// Everything that it was told, in order.
    pub fn resources(&self) -> Vec<Resource> {
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
    pub fn has(&self, kind: &str, service: &str, says: &[&str]) -> Resource {
        eventually(WITHIN, || {
            let all = self.resources();
            let mut of = all.into_iter().filter(|it| it.kind == kind && it.is_of(service));
            let last = of.next_back().ok_or_else(|| format!("nothing yet\n{}", self.process.outputs()))?;
            let missing: Vec<&&str> = says.iter().filter(|it| !last.says(it)).collect();
            if missing.is_empty() { Ok(last) } else { Err(format!("{missing:?} of {:#?}", last.lines)) }
        })
    }

    /// How often it was told that an alert of this service has become this.
    pub fn told(&self, service: &str, event: &str) -> usize {
        let says = |it: &Resource| it.says(&format!("EventName: alert.{event}")) && it.is_of(service);
        self.resources().iter().filter(|it| it.kind == "ResourceLog" && says(it)).count()
    }
}
