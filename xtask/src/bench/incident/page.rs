//! The table of a run, and the page docs/benchmarks-incident.md around it.

use std::fmt::Write as _;
use std::time::Duration;

use super::fault::{Fault, Guilty};
use super::tool::Tool;
use super::verdict::{Runs, Verdict};
use super::{GOAL, LIMIT, console, dial9, gdb, taskscope};
use crate::bench::table::Table;
use crate::evidence::Machine;

/// All runs of one tool at one fault.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) fault: Fault,
    pub(crate) tool: Tool,
    pub(crate) guilty: Guilty,
    pub(crate) runs: Runs,
}

impl Cell {
    /// `right` only if every run was.
    pub(crate) fn verdict(&self) -> &'static str {
        if self.runs.middle().is_some() {
            "right"
        } else if self.runs.right() > 0 {
            "not always"
        } else if self.runs.instead().is_empty() {
            "never"
        } else {
            "wrong"
        }
    }

    /// Whether Taskscope is as good as it is meant to be; of its peers nothing is demanded.
    pub(crate) fn is_good(&self) -> bool {
        self.tool != Tool::Taskscope || self.runs.middle().is_some_and(|middle| middle.after <= GOAL)
    }
}

/// What came of one run, for its user to see while it goes on.
pub(crate) fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Right { after, keystrokes, beside } => {
            format!("right after {}, {keystrokes} keystrokes, {beside} other lines", seconds(*after))
        }
        Verdict::Wrong { places } => {
            let places: Vec<String> = places.iter().map(ToString::to_string).collect();
            format!("wrong: {}", places.join(", "))
        }
        Verdict::Never => "never".to_owned(),
    }
}

fn seconds(after: Duration) -> String {
    format!("{:.1} s", after.as_secs_f64())
}

/// Where, when and how it ran.
pub(crate) struct Page<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) rounds: u32,
    /// Before and after, as the system tells it: whether others used the machine.
    pub(crate) load: (String, String),
    pub(crate) cells: &'a [Cell],
    /// What could not run, and why.
    pub(crate) missing: &'a [(Tool, String)],
}

impl Page<'_> {
    /// A row a fault and tool.
    pub(crate) fn table(&self) -> String {
        let titles =
            ["fault", "guilty line", "tool", "verdict", "seconds", "slowest", "keystrokes", "other lines"];
        let mut table = Table::new(4, &titles);
        for cell in self.cells {
            let verdict = match (cell.verdict(), cell.tool, cell.is_good()) {
                ("right", _, true) => "right".to_owned(),
                ("right", ..) => "right, **late**".to_owned(),
                ("not always", ..) => format!("right in {} of {}", cell.runs.right(), cell.runs.len()),
                (other, Tool::Taskscope, _) => format!("**{other}**"),
                (other, ..) => other.to_owned(),
            };
            let middle = cell.runs.middle();
            let number = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
            table.row([
                cell.fault.name().to_owned(),
                cell.guilty.words(),
                cell.tool.name().to_owned(),
                verdict,
                number(middle.map(|middle| format!("{:.1}", middle.after.as_secs_f64()))),
                number(middle.map(|middle| format!("{:.1}", middle.slowest.as_secs_f64()))),
                number(middle.map(|middle| middle.keystrokes.to_string())),
                number(middle.map(|middle| middle.beside.to_string())),
            ]);
        }
        table.markdown()
    }

    /// As Markdown.
    pub(crate) fn text(&self) -> String {
        let Machine { commit, processor, cores, kernel, date } = self.machine;
        let Self { rounds, load: (before, after), .. } = self;
        let (limit, goal) = (LIMIT.as_secs(), GOAL.as_secs());
        let mut page = format!(
            "# From a fault to its line\n\nWritten by `cargo xtask bench incident --rounds {rounds}`; edit nothing here by \
             hand.\n\n- Commit: {commit}\n- Machine: {processor}, {cores} cores, {kernel}\n- Date: {date} UTC\n- Load average \
             (1, 5, 15 minutes): {before} before, {after} after\n- Release builds with `debug = \"line-tables-only\"`\n\n\
             Each fault of the demo is injected under each tool, in a service and a terminal (220×50) of its own, and the \
             tool is used by a fixed script that knows nothing of the fault. Seconds are from the demo's announcement of the \
             injection to the moment at which the guilty line stands on the screen. Keys are pressed without a pause between \
             them; the keystrokes tell what a person adds to that. Typing begins with the injection. Medians of {rounds} \
             rounds, but for dial9, whose time is that of its segments; a pair that was not right is not repeated.\n\n\
             - **right**: the tool points at a line of the guilty statement, by file and line. What counts as pointing is \
             stated with each tool's script. *Other lines* are those of the service's own code that the same answer points \
             at, too: what its reader still has to choose from.\n- **wrong**: it points at lines of the service's own code \
             and, within {limit} s, not at the guilty one.\n- **never**: it points at no line of the service's own code \
             within {limit} s.\n\nThe guilty line of `panic` is where it panics, that of `leak` where the tasks are spawned \
             which never end, that of `contention` the lock that is waited for. Taskscope is held to be right within {goal} \
             s at every fault.\n\n"
        );
        for (tool, reason) in self.missing {
            let _ = writeln!(page, "Not run: {}: {reason}.\n", tool.name());
        }
        page.push_str(&self.table());
        page.push('\n');
        let wrong: Vec<&Cell> = self.cells.iter().filter(|cell| !cell.runs.instead().is_empty()).collect();
        if !wrong.is_empty() {
            page.push_str("What was pointed at instead:\n\n");
            for cell in wrong {
                let places: Vec<String> =
                    cell.runs.instead().iter().map(|place| format!("`{place}`")).collect();
                let _ =
                    writeln!(page, "- {}, {}: {}", cell.fault.name(), cell.tool.name(), places.join(", "));
            }
            page.push('\n');
        }
        page.push_str("## The scripts\n\n");
        for tool in Tool::ALL {
            let _ = writeln!(page, "- **{}**: {}", tool.name(), script(tool));
        }
        page.push_str(
            "\npy-spy reads stacks of Python, and there is none here. Every panic is also in the service's own log, where its \
             operator keeps it.\n\n## What each is for\n\n",
        );
        for tool in Tool::ALL {
            let _ = writeln!(page, "- **{}**: {}", tool.name(), purpose(tool));
        }
        page
    }
}

/// What is pressed, and how the answer is read.
fn script(tool: Tool) -> String {
    match tool {
        Tool::Taskscope => format!(
            "`{}` and Enter; a second after each answer, Up and Enter. It points at the first line of its first sentence. \
             The demo has stacks switched on.",
            taskscope::COMMAND
        ),
        Tool::Gdb => format!(
            "`{}` and Enter, the process id being known; a second after each answer, Up and Enter. It points, for each \
             thread, at the innermost frame of the service's own code. The service stands still while gdb reads it. Run with \
             the right to trace the process.",
            gdb::command(12345)
        ),
        Tool::TokioConsole => console::SCRIPT.to_owned(),
        Tool::Dial9 => format!(
            "`{}` and Enter; a second after each answer, Up and Enter. The recorder samples what is on CPU and what leaves \
             it, in a build with frame pointers and as root, and seals a segment every 20 s instead of every 60 s, because \
             only sealed ones can be read; none of the faults but the leak is longer. It points at what each of four parts of \
             the report puts first: the longest polls that have a stack, the calls that blocked inside polls, the spawn \
             sites of leaked tasks, and the heaviest path on CPU.",
            dial9::COMMAND
        ),
    }
}

/// What its makers made it for.
fn purpose(tool: Tool) -> &'static str {
    match tool {
        Tool::Taskscope => {
            "says what is wrong in a running service that was built with the probe. It sees nothing of services without it, \
             and no line where stacks are not allowed."
        }
        Tool::Gdb => {
            "shows everything of any process, without preparation, also one that hangs altogether. It judges nothing, knows \
             no tasks, and stops the process while it looks; what is over it cannot show."
        }
        Tool::TokioConsole => {
            "shows tasks and resources of a service in development as they live, with wakes, self-wakes and lost wakers. \
             Its lines are those where tasks were spawned; it takes no stacks."
        }
        Tool::Dial9 => {
            "records every poll, wake and sample into files for an analysis afterwards, with far more detail about the past \
             than a tool that keeps fifteen minutes in two megabytes. It is not made to answer while an incident lasts, and \
             its viewer in a browser, which no script here can use, shows whole stacks of which the report prints six \
             frames: the lock of `contention` is among those that it leaves out. What threads of the blocking \
             pool wait for is not in the report."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::incident::place::places;

    fn cell(fault: Fault, tool: Tool, verdicts: Vec<Verdict>) -> Cell {
        let mut runs = Runs::default();
        verdicts.into_iter().for_each(|verdict| runs.push(verdict));
        let guilty = Guilty::of(fault, &crate::root()).expect("it is in the source");
        Cell { fault, tool, guilty, runs }
    }

    fn right(seconds: u64, keystrokes: usize) -> Verdict {
        Verdict::Right { after: Duration::from_secs(seconds), keystrokes, beside: 0 }
    }

    #[test]
    fn a_row_says_how_soon_how_laboriously_and_how_truly() {
        let wrong = Verdict::Wrong { places: places("demo/src/load.rs:84 demo/src/api.rs:9") };
        let cells = [
            cell(Fault::Panic, Tool::Taskscope, vec![right(1, 19), right(3, 23), right(2, 21)]),
            cell(Fault::Panic, Tool::Gdb, vec![wrong]),
            cell(Fault::Panic, Tool::TokioConsole, vec![Verdict::Never]),
            cell(Fault::Panic, Tool::Dial9, vec![right(30, 50), Verdict::Never]),
            cell(Fault::Leak, Tool::Taskscope, vec![right(11, 41)]),
            cell(Fault::Leak, Tool::Taskscope, vec![Verdict::Never]),
        ];
        let machine = Machine {
            commit: "abc".into(),
            processor: "a CPU".into(),
            cores: 2,
            kernel: "Linux 6".into(),
            date: "2026-01-31 12:00".into(),
        };
        let page = Page {
            machine: &machine,
            rounds: 3,
            load: ("0.10 0.20 0.30".into(), "1.90 1.00 0.50".into()),
            cells: &cells,
            missing: &[(Tool::Gdb, "there is no gdb here".to_owned())],
        };
        let table = page.table();
        let rows: Vec<Vec<&str>> =
            table.lines().skip(2).map(|row| row.split('|').skip(3).map(str::trim).collect()).collect();
        assert_eq!(
            rows,
            [
                ["Taskscope", "right", "2.0", "3.0", "21", "0", ""],
                ["gdb", "wrong", "–", "–", "–", "–", ""],
                ["tokio-console", "never", "–", "–", "–", "–", ""],
                ["dial9", "right in 1 of 2", "–", "–", "–", "–", ""],
                ["Taskscope", "right, **late**", "11.0", "11.0", "41", "0", ""],
                ["Taskscope", "**never**", "–", "–", "–", "–", ""],
            ]
        );
        assert_eq!(
            cells.iter().map(Cell::is_good).collect::<Vec<_>>(),
            [true, true, true, true, false, false]
        );
        let text = page.text();
        for part in [
            "Written by `cargo xtask bench incident --rounds 3`",
            "Not run: gdb: there is no gdb here.",
            "- panic, gdb: `demo/src/load.rs:84`, `demo/src/api.rs:9`",
            "`taskscope why demo` and Enter",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
    }
}
