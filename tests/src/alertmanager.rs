//! A real Alertmanager.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::eventually;
use crate::http::{free_port, get};
use crate::process::Process;

const WITHIN: Duration = Duration::from_secs(30);

/// One instance with a folder and a port of its own, which outlive its process.
pub struct Alertmanager {
    pub port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Alertmanager {
    /// Not started yet. Groups are told of at `hook`, first after `group_wait`.
    pub fn new(hook: u16, group_wait: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "route: {{ receiver: us, group_by: [alertname], group_wait: {group_wait}, group_interval: 500ms, repeat_interval: 4h }}\n\
             receivers: [{{ name: us, webhook_configs: [{{ url: 'http://127.0.0.1:{hook}/' }}] }}]\n"
        );
        std::fs::write(folder.path().join("am.yml"), config).expect("it is written");
        Self { port: free_port(), folder, process: None }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it, again if it ran before, and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        self.process = None;
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", self.folder.path().join("am.yml").display()))
            .arg(format!("--storage.path={}", self.folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            // What it has told whom is on the disk soon, so that being killed does not make it tell it again.
            .arg("--data.maintenance-interval=500ms")
            .arg("--cluster.listen-address=");
        let process = Process::start(command);
        eventually(WITHIN, || match get(self.port, "/-/ready") {
            Ok(body) if body.contains("OK") => Ok(()),
            other => Err(format!("{other:?}\n{}", process.outputs())),
        });
        self.process = Some(process);
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    /// Waits until what it has told whom is on the disk: one that is killed before would tell it again.
    #[track_caller]
    pub fn has_written_down_what_it_told(&self) {
        let log = self.folder.path().join("data/nflog");
        eventually(WITHIN, || match std::fs::metadata(&log).map(|it| it.len()) {
            Ok(length) if length > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Its alerts of that name.
    pub fn alerts(&self, name: &str) -> Result<Vec<Value>, String> {
        let body = get(self.port, "/api/v2/alerts")?;
        let alerts: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        let of = |alert: &&Value| alert["labels"]["alertname"] == name;
        Ok(alerts.as_array().into_iter().flatten().filter(of).cloned().collect())
    }

    /// Its only alert of that name.
    pub fn alert(&self, name: &str) -> Result<Value, String> {
        match &self.alerts(name)?[..] {
            [alert] => Ok(alert.clone()),
            other => Err(format!("{} alerts called {name}: {other:?}", other.len())),
        }
    }

    /// What `amtool` says with these arguments.
    #[track_caller]
    pub fn amtool(&self, args: &[&str]) -> String {
        let url = format!("--alertmanager.url={}", self.url());
        let answer = Command::new("amtool").arg(url).args(args).output().expect("amtool can be started");
        assert!(answer.status.success(), "{answer:?}");
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    }
}
