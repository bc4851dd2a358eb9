//! A real Prometheus.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::{ask, free_port};
use crate::process::Process;

const READY_WITHIN: Duration = Duration::from_secs(30);

/// One that scrapes, with a folder and a port of its own, which outlive its process.
pub struct Prometheus {
    folder: TempDir,
    port: u16,
    process: Option<Process>,
}

/// The values of one series by their time, in milliseconds.
pub type Samples = Vec<(u64, f64)>;

impl Prometheus {
    /// Scrapes `HOST:PORT` this often, as in `1s`; `more` is a line of its configuration.
    #[track_caller]
    pub fn scrapes(host: &str, every: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let yaml = format!(
            "global: {{scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: {every}}}\n{more}\n\
             scrape_configs:\n- job_name: taskscope\n  static_configs: [{{targets: ['{host}']}}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), yaml).expect("the configuration can be written");
        let mut prometheus = Self { folder, port: free_port(), process: None };
        prometheus.start();
        prometheus
    }

    /// Starts it, again if it was killed before, and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", at("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", at("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port));
        let process = Process::start(command);
        let ready = "Server is ready to receive web requests";
        process.stderr.wait_for(READY_WITHIN, 0, |line| line.contains(ready).then_some(()));
        self.process = Some(process);
    }

    pub fn kill(&mut self) {
        // It ends with this.
        self.process = None;
    }

    /// The one finite number that the query gives.
    pub fn query(&self, query: &str) -> Result<f64, String> {
        let answer = self.ask(query)?;
        let value = answer["data"]["result"][0]["value"][1].as_str().and_then(|it| it.parse::<f64>().ok());
        value.filter(|value| value.is_finite()).ok_or_else(|| answer.to_string())
    }

    /// All samples of the one series that the selector means, of the last ten minutes.
    pub fn samples(&self, selector: &str) -> Result<Samples, String> {
        let answer = self.ask(&format!("{selector}[10m]"))?;
        let sample = |pair: &Value| {
            let at_ms = (pair[0].as_f64()? * 1000.0).round() as u64;
            Some((at_ms, pair[1].as_str()?.parse().ok()?))
        };
        match answer["data"]["result"].as_array().map(Vec::as_slice) {
            Some([series]) => {
                let values = series["values"].as_array().ok_or_else(|| answer.to_string())?;
                values.iter().map(|pair| sample(pair).ok_or_else(|| pair.to_string())).collect()
            }
            _ => Err(format!("not one series: {answer}")),
        }
    }

    fn ask(&self, query: &str) -> Result<Value, String> {
        let encoded: String = query.bytes().map(encoded).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let (code, body) = ask(&format!("127.0.0.1:{}", self.port), &path, "*/*");
        if code != 200 {
            return Err(body);
        }
        serde_json::from_str(body.trim()).map_err(|error| format!("{error}: {body}"))
    }
}

fn encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}
