//! `taskscope agent`, as tests ask it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::agent::Agent;
use crate::eventually;
use crate::http::ask;
use crate::process::Process;

const SOON: Duration = Duration::from_secs(15);

/// An agent that listens.
pub struct Headless {
    pub process: Process,
    /// Of its viewers.
    pub address: String,
    /// `HOST:PORT` of its metrics.
    pub metrics: String,
}

impl Headless {
    /// Watches the folder, and what the arguments say.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        let all = [&["agent", "--metrics", "127.0.0.1:0"], args].concat();
        Self::of(Agent::with(all).in_runtime_folder(folder))
    }

    /// Waits until it listens to viewers and to metrics systems.
    #[track_caller]
    pub fn of(agent: Agent) -> Self {
        let process = agent.start();
        let said = |start: &str| {
            process.stderr.wait_for(SOON, 0, |line| line.strip_prefix(start).map(str::to_owned))
        };
        let address = said("taskscope: listening on ");
        let metrics = said("taskscope: metrics at http://").trim_end_matches("/metrics").to_owned();
        Self { process, address, metrics }
    }

    /// The rows of its silences, as `taskscope silence` shows them.
    pub fn silences(&self) -> Vec<Value> {
        Agent::with(["silence", &self.address, "--json"]).run().expect_code(0).json_lines()
    }

    /// Its targets by name, as `taskscope ls` shows them.
    pub fn targets(&self) -> BTreeMap<String, Value> {
        let rows = Agent::with(["ls", &self.address, "--json"]).run().expect_code(0).json_lines();
        rows.into_iter().map(|row| (row["name"].as_str().unwrap_or_default().to_owned(), row)).collect()
    }

    /// Waits until exactly these are there, each with this link.
    #[track_caller]
    pub fn has(&self, wanted: &[(&str, &str)]) {
        eventually(SOON, || {
            let targets = self.targets();
            let seen: Vec<(&str, &str)> = targets
                .iter()
                .map(|(name, row)| (name.as_str(), row["link"].as_str().unwrap_or_default()))
                .collect();
            if seen == wanted { Ok(()) } else { Err(format!("{targets:?}")) }
        });
    }

    /// The code and the body.
    pub fn get(&self, path: &str, accept: &str) -> (u16, String) {
        ask(&self.metrics, path, accept)
    }

    /// What a scraper reads.
    pub fn scrape(&self) -> String {
        let (code, text) = self.get("/metrics", "*/*");
        assert_eq!(code, 200, "{text}");
        text
    }
}

/// What a configuration says so that of all rules only this one holds, as `settings` have it.
pub fn only(rule: &str, settings: &str) -> String {
    let rules = Agent::with(["rules", "list", "--json"]).run().expect_code(0).json_lines();
    let others = rules.iter().filter_map(|it| it["name"].as_str()).filter(|name| *name != rule);
    let others: String = others.map(|name| format!("[rules.{name}]\nenabled = false\n")).collect();
    format!("{others}[rules.{rule}]\n{settings}\n")
}
