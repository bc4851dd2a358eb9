//! `cargo xtask bench incident`: each fault of the demo is injected under each tool, and the time and the keys are counted
//! until the tool points at the guilty line. Every run has a service and a terminal of its own; the clock starts with the
//! demo's own announcement.

use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::evidence::Machine;

mod build;
mod console;
mod dial9;
mod fault;
mod gdb;
mod keys;
mod page;
mod place;
mod service;
mod taskscope;
mod terminal;
mod tool;
mod verdict;

use fault::{Fault, Guilty};
use page::{Cell, Page};
use service::Service;
use terminal::Terminal;
use tool::{Programs, Run, Tool};
use verdict::{Judge, Runs, Verdict};

const PAGE: &str = "docs/benchmarks-incident.md";
/// After that a tool has not answered.
const LIMIT: Duration = Duration::from_secs(60);
/// What Taskscope is held to.
const GOAL: Duration = Duration::from_secs(10);
/// How often the screen is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(crate) struct Incident {
    /// Print one JSON object per fault and tool, one a line
    #[arg(long)]
    json: bool,
    /// How often each pair runs; one that was not right is not repeated
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these tools; docs/benchmarks-incident.md is then not written
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TOOL")]
    only: Vec<Tool>,
    /// Only these faults; docs/benchmarks-incident.md is then not written
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULT")]
    faults: Vec<Fault>,
}

/// True: Taskscope is right within its goal wherever it ran.
pub(crate) fn run(root: &Path, asked: &Incident) -> anyhow::Result<bool> {
    let is_whole = asked.only.is_empty() && asked.faults.is_empty();
    let tools = if asked.only.is_empty() { Tool::ALL.to_vec() } else { asked.only.clone() };
    let faults = if asked.faults.is_empty() { Fault::ALL.to_vec() } else { asked.faults.clone() };
    let machine = Machine::here(root)?;
    let (programs, missing) = build::programs(root, &tools)?;
    for (tool, reason) in &missing {
        eprintln!("not run: {}: {reason}", tool.name());
    }
    let tools: Vec<Tool> =
        tools.into_iter().filter(|tool| missing.iter().all(|(missing, _)| missing != tool)).collect();
    let before = load();
    let mut cells = Vec::new();
    for &fault in &faults {
        let guilty = Guilty::of(fault, root)?;
        for &tool in &tools {
            let mut runs = Runs::default();
            for round in 1..=tool.rounds(asked.rounds) {
                let verdict = incident(&programs, tool, fault, &guilty)
                    .with_context(|| format!("{} at {}", tool.name(), fault.name()))?;
                eprintln!("{}, {}, round {round}: {}", fault.name(), tool.name(), page::words(&verdict));
                let is_right = matches!(verdict, Verdict::Right { .. });
                runs.push(verdict);
                if !is_right {
                    break;
                }
            }
            let cell = Cell { fault, tool, guilty: guilty.clone(), runs };
            if asked.json {
                println!("{}", object(&cell));
            }
            cells.push(cell);
        }
    }
    let page = Page {
        machine: &machine,
        rounds: asked.rounds,
        load: (before, load()),
        cells: &cells,
        missing: &missing,
    };
    let table = page.table();
    if asked.json {
        eprint!("{table}");
    } else {
        print!("{table}");
    }
    if is_whole {
        let file = root.join(PAGE);
        std::fs::write(&file, page.text()).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("written to {PAGE}");
    }
    Ok(cells.iter().all(Cell::is_good))
}

/// One fault under one tool.
fn incident(programs: &Programs, tool: Tool, fault: Fault, guilty: &Guilty) -> anyhow::Result<Verdict> {
    let folder = folder()?;
    let folder = folder.path();
    let port = free_port()?;
    let run = Run { programs, folder, port };
    tool.prepare(run)?;
    let sockets = folder.join("run").display().to_string();
    let mut env = vec![("XDG_RUNTIME_DIR", sockets.as_str())];
    let terminal = Terminal::open(folder, &env)?;
    env.extend(tool.env());
    let service = Service::start(&mut tool.service(run, fault), folder, &env)?;
    let injected = service.injected()?;

    let mut judge = Judge::of(guilty);
    let (mut turns, mut keystrokes) = (0, 0);
    let mut pressed: Option<Instant> = None;
    let mut idle_since: Option<Instant> = None;
    while injected.elapsed() < LIMIT {
        let since = |at: Option<Instant>| at.map(|at| at.elapsed());
        let is_next = pressed.is_none_or(|pressed| tool.is_next(pressed.elapsed(), since(idle_since)));
        if is_next && !judge.is_right() {
            for key in tool.keys(turns, service.pid(), port) {
                terminal.press(&key)?;
                keystrokes += key.strokes();
            }
            turns += 1;
            (pressed, idle_since) = (Some(now()), None);
        }
        thread::sleep(LOOK_EVERY);
        let answer = tool.answer(&terminal)?;
        let after = injected.elapsed();
        ensure!(
            !answer.contains("command not found"),
            "the shell of the run does not find the tool:\n{answer}"
        );
        // A command that is typed and not yet read by the shell leaves the prompt as it was.
        let is_idle = tool.is_idle(&answer);
        idle_since = if is_idle { idle_since.or_else(|| Some(now())) } else { None };
        let pointed_at = tool.pointed_at(&answer, &programs.own_files);
        if let Some(verdict) = judge.look(pointed_at, after, keystrokes, tool.is_whole(&answer)) {
            return Ok(verdict);
        }
    }
    Ok(judge.end())
}

/// One object for `--json`.
fn object(cell: &Cell) -> Value {
    let mut object = json!({
        "fault": cell.fault.name(),
        "tool": cell.tool.name(),
        "guilty": cell.guilty.words(),
        "verdict": cell.verdict(),
        "rounds": cell.runs.len(),
        "right": cell.runs.right(),
    });
    if let Some(middle) = cell.runs.middle() {
        object["seconds"] = json!(middle.after.as_secs_f64());
        object["slowest_seconds"] = json!(middle.slowest.as_secs_f64());
        object["keystrokes"] = json!(middle.keystrokes);
        object["other_lines"] = json!(middle.beside);
    }
    let instead = cell.runs.instead();
    if !instead.is_empty() {
        object["pointed_at_instead"] = json!(instead.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    object
}

/// Private, because the sockets of probe and terminal are in it.
fn folder() -> anyhow::Result<TempDir> {
    let folder =
        tempfile::Builder::new().prefix("incident-").tempdir().context("no temporary folder can be made")?;
    std::fs::create_dir(folder.path().join("run")).context("no folder can be made")?;
    Ok(folder)
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port of 127.0.0.1 is free")?;
    Ok(listener.local_addr()?.port())
}

/// As the system tells it: whether others used the machine.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let numbers: Vec<&str> = text.split(' ').take(3).collect();
    if numbers.len() == 3 { numbers.join(" ") } else { "not known".to_owned() }
}

#[allow(clippy::disallowed_methods, reason = "the chores are a driver")]
fn now() -> Instant {
    Instant::now()
}
