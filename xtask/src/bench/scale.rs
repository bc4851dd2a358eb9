//! `cargo xtask bench scale`: builds `target-scale` and `bench-scale` of the tests' crate optimised, lets the second
//! measure the first, and puts what it says beside the limits, on the screen and in docs/benchmarks-scale.md.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::Value;

use crate::cargo::{Flags, Profile, binaries, cargo};
use crate::evidence::Machine;
use crate::test::ends_well;

const PAGE: &str = "docs/benchmarks-scale.md";
const MIB: f64 = (1 << 20) as f64;

#[derive(Args)]
pub(crate) struct Scale {
    /// Print one JSON object per measurement, one a line
    #[arg(long)]
    json: bool,
    /// A hundredth of the sizes, to try it out; the page is then not written
    #[arg(long)]
    small: bool,
}

/// One figure, and what it may be at most.
struct Figure {
    what: String,
    /// `None`: it was not measured.
    value: Option<f64>,
    unit: Unit,
    limit: Option<f64>,
}

#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    BytesPerSecond,
    Milliseconds,
    /// Of one core.
    Share,
    PerSecond,
    Count,
}

impl Unit {
    fn words(self, value: f64) -> String {
        match self {
            Self::Bytes => format!("{:+.1} MiB", value / MIB),
            Self::BytesPerSecond => format!("{:.1} kB/s", value / 1e3),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Share => format!("{:.3} %", value * 100.0),
            Self::PerSecond => format!("{value:.1}/s"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

impl Figure {
    fn holds(&self) -> Option<bool> {
        Some(self.value? <= self.limit?)
    }
}

/// True: no limit is exceeded.
pub(crate) fn run(root: &Path, asked: &Scale) -> anyhow::Result<bool> {
    eprintln!("building");
    let mut build = cargo(root, Flags::Hooks);
    build.args([
        "build",
        "-p",
        "taskscope-tests",
        "--bin",
        "target-scale",
        "--bin",
        "bench-scale",
        "--locked",
    ]);
    ensure!(ends_well(build.args(Profile::Release.args()))?, "the programs do not build");
    let machine = Machine::here(root)?;
    eprintln!("measuring; this takes some minutes, and wants the machine for itself");
    let folder = binaries(root, Flags::Hooks, Profile::Release)?;
    let mut measure = Command::new(folder.join("bench-scale"));
    measure.args(asked.small.then_some("--small"));
    let out = measure
        .env("TASKSCOPE_TEST_BIN", &folder)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {measure:?}"))?;
    ensure!(out.status.success(), "{measure:?} ended with {}", out.status);
    let text = String::from_utf8(out.stdout).context("it printed no UTF-8")?;
    if asked.json {
        print!("{text}");
    }
    let said: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("it printed no JSON")?;
    let figures: Vec<Figure> = said.iter().flat_map(figures).collect();
    ensure!(!figures.is_empty(), "nothing was measured");
    let table = table(&figures);
    if asked.json {
        eprint!("{table}");
    } else {
        print!("{table}");
    }
    if !asked.small {
        let page = root.join(PAGE);
        std::fs::write(&page, written(&machine, &table))
            .with_context(|| format!("cannot write {}", page.display()))?;
        eprintln!("written to {PAGE}");
    }
    Ok(figures.iter().all(|figure| figure.holds() != Some(false)))
}

/// What one object says, with the limits that apply to it.
fn figures(said: &Value) -> Vec<Figure> {
    let number = |name: &str| said[name].as_f64();
    let figure = |what: String, name: &str, unit: Unit, limit: Option<f64>| Figure {
        what,
        value: number(name),
        unit,
        limit,
    };
    match said["what"].as_str() {
        Some("idle") => vec![
            figure("idle process: CPU of the probe".into(), "cpu", Unit::Share, Some(0.001)),
            figure(
                "idle process: wake-ups of the probe".into(),
                "wakeups_per_second",
                Unit::PerSecond,
                Some(20.0),
            ),
        ],
        Some("live") => {
            let tasks = said["tasks"].as_u64().unwrap_or(0);
            let of = |what: &str| format!("{} tasks: {what}", grouped(tasks));
            let (memory, first, cpu, bytes) = match tasks {
                1_000_000.. => (96.0 * MIB, 1_000.0, 0.02, 100_000.0),
                _ => (16.0 * MIB, 300.0, 0.01, 100_000.0),
            };
            vec![
                figure(of("memory added"), "memory_added", Unit::Bytes, Some(memory)),
                figure(of("memory added, watched"), "memory_added_watched", Unit::Bytes, Some(memory)),
                figure(of("time to first frame"), "first_frame_ms", Unit::Milliseconds, Some(first)),
                figure(of("CPU of the probe, one watcher"), "cpu", Unit::Share, Some(cpu)),
                figure(of("wake-ups of the probe, one watcher"), "wakeups_per_second", Unit::PerSecond, None),
                figure(of("bytes on the wire"), "bytes_per_second", Unit::BytesPerSecond, Some(bytes)),
                figure(
                    of("age of the choice of rows, median"),
                    "rows_age_ms_median",
                    Unit::Milliseconds,
                    None,
                ),
                figure(of("age of the choice of rows, most"), "rows_age_ms_most", Unit::Milliseconds, None),
                figure(of("CPU where all rows change all the time"), "changing_cpu", Unit::Share, Some(cpu)),
                figure(
                    of("bytes on the wire where all rows change all the time"),
                    "changing_bytes_per_second",
                    Unit::BytesPerSecond,
                    Some(bytes),
                ),
                figure(of("CPU of the probe, nobody watching"), "unwatched_cpu", Unit::Share, Some(0.001)),
                figure(of("tasks without a row"), "evicted", Unit::Count, Some(0.0)),
                Figure {
                    what: of("tasks not found by the first frame"),
                    value: number("rows_found").map(|found| (tasks as f64 - found).max(0.0)),
                    unit: Unit::Count,
                    limit: Some(0.0),
                },
            ]
        }
        Some("short") => {
            let survivors = number("survivors");
            let of =
                |what: &str| format!("{} short tasks: {what}", grouped(said["tasks"].as_u64().unwrap_or(0)));
            let off =
                number("rows_of_survivors").zip(survivors).map(|(rows, survivors)| (rows - survivors).abs());
            let grown =
                |name: &str| number(name).zip(number("memory_before")).map(|(then, before)| then - before);
            vec![
                Figure {
                    what: of("rows of survivors that are wrong"),
                    value: off,
                    unit: Unit::Count,
                    limit: Some(0.0),
                },
                figure(of("rows after the survivors ended"), "rows_after", Unit::Count, Some(0.0)),
                figure(of("tasks without a row"), "evicted", Unit::Count, Some(0.0)),
                Figure {
                    what: of("memory of the process with the survivors"),
                    value: grown("memory_with_survivors"),
                    unit: Unit::Bytes,
                    limit: None,
                },
                Figure {
                    what: of("memory of the process after they ended"),
                    value: grown("memory_after"),
                    unit: Unit::Bytes,
                    limit: None,
                },
            ]
        }
        _ => Vec::new(),
    }
}

/// `1000000` as `1 000 000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn table(figures: &[Figure]) -> String {
    let mut table = "| measured | figure | limit | |\n|---|---|---|---|\n".to_owned();
    for figure in figures {
        let words = |value: Option<f64>| value.map_or("–".to_owned(), |value| figure.unit.words(value));
        let verdict = match (figure.holds(), figure.value) {
            (Some(true), _) => "holds",
            (Some(false), _) => "**over**",
            (None, Some(_)) => "",
            (None, None) => "not measured",
        };
        let _ = writeln!(
            table,
            "| {} | {} | {} | {verdict} |",
            figure.what,
            words(figure.value),
            words(figure.limit)
        );
    }
    table
}

fn written(machine: &Machine, table: &str) -> String {
    let Machine { commit, processor, cores, kernel, date } = machine;
    format!(
        "# What watching costs at scale\n\nWritten by `cargo xtask bench scale`; edit nothing here by hand.\n\n- Commit: \
         {commit}\n- Machine: {processor}, {cores} cores, {kernel}\n- Date: {date} UTC\n\nTarget and watcher run on the \
         same machine. Of the live tasks 10 000 are polled once a second by a timer; all others wait for ever. The watcher \
         asks for what the dashboard's tasks screen asks for, four times a second, over TCP through a relay that counts \
         the bytes of both directions. Memory is that of the process against the same program with TASKSCOPE_DISABLED=1; \
         the budget is raised to 256 MiB for the million. CPU is the share of one core that the probe's thread used.\n\n\
         {table}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_limit_that_is_exceeded_is_said_to_be_and_what_is_absent_is_not_zero() {
        let said = json!({ "what": "live", "tasks": 1_000_000, "cpu": 0.03, "bytes_per_second": 900.0, "rows_found": 999_999 });
        let figures = figures(&said);
        let table = table(&figures);
        assert!(
            table.contains(
                "| 1 000 000 tasks: CPU of the probe, one watcher | 3.000 % | 2.000 % | **over** |"
            ),
            "{table}"
        );
        assert!(
            table.contains("| 1 000 000 tasks: bytes on the wire | 0.9 kB/s | 100.0 kB/s | holds |"),
            "{table}"
        );
        assert!(
            table.contains("| 1 000 000 tasks: memory added | – | +96.0 MiB | not measured |"),
            "{table}"
        );
        assert!(table.contains("tasks not found by the first frame | 1 | 0 | **over** |"), "{table}");
    }
}
