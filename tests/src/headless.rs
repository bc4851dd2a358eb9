//! `taskscope agent`, as tests ask it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::agent::Agent;
use crate::eventually;
use crate::http::ask;
use crate::proc;
use crate::process::Process;
use crate::stopwatch::Stopwatch;

/// As often as Prometheus is usually told to scrape.
const SCRAPED_EVERY: Duration = Duration::from_secs(15);
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

    /// What it uses while it watches so many targets and is scraped.
    ///
    /// # Panics
    /// If one of them is not up in a scrape, or the agent has ended.
    #[track_caller]
    pub fn cost(&self, targets: usize, lasts: Duration) -> Cost {
        let pid = self.process.pid();
        let before = proc::cpu_time(pid).expect("the agent runs");
        let watch = Stopwatch::start();
        let mut scrapes = 0;
        eventually(lasts * 3, || {
            if watch.elapsed() >= SCRAPED_EVERY * scrapes {
                scrapes += 1;
                let text = self.scrape();
                let is_up = |line: &&str| line.starts_with("taskscope_target_up") && line.ends_with(" 1");
                assert_eq!(text.lines().filter(is_up).count(), targets);
            }
            if watch.elapsed() >= lasts { Ok(()) } else { Err("measuring".to_owned()) }
        });
        let used = proc::cpu_time(pid).expect("the agent runs") - before;
        Cost {
            of_a_core: used.as_secs_f64() / watch.elapsed().as_secs_f64(),
            rss: proc::rss(pid).expect("the agent runs"),
        }
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

/// What an agent has used.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// 1 is a core.
    pub of_a_core: f64,
    /// Bytes.
    pub rss: u64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} % of a core, {} MiB", self.of_a_core * 100.0, self.rss >> 20)
    }
}
