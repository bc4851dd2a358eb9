//! The tools, and what each is given: its service, its script, and how its answer is read. A script knows nothing of the
//! fault, and is the same for all of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;

use super::fault::Fault;
use super::keys::{self, Key};
use super::place::Place;
use super::terminal::{self, PROMPT, Terminal};
use super::{console, dial9, gdb, taskscope};

/// Between an answer and the next try.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Tool {
    Taskscope,
    Gdb,
    TokioConsole,
    Dial9,
}

/// What the tools and their services are: programs, and folders.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The agent, which is the demo, too.
    pub(crate) taskscope: PathBuf,
    /// The demo with console-subscriber's layer.
    pub(crate) demo_console: PathBuf,
    pub(crate) tokio_console: PathBuf,
    /// The demo with dial9's recorder.
    pub(crate) demo_dial9: PathBuf,
    /// The folder with `analyze.js`, as dial9's crate has it.
    pub(crate) dial9_toolkit: PathBuf,
    /// Names of the files of the demo's own code.
    pub(crate) own_files: Vec<String>,
}

/// What a run has to itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) folder: &'a Path,
    /// Free when it was asked for.
    pub(crate) port: u16,
}

impl Tool {
    pub(crate) const ALL: [Self; 4] = [Self::Taskscope, Self::Gdb, Self::TokioConsole, Self::Dial9];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Taskscope => "Taskscope",
            Self::Gdb => "gdb",
            Self::TokioConsole => "tokio-console",
            Self::Dial9 => "dial9",
        }
    }

    /// How often it is used on a fault that it finds.
    pub(crate) fn rounds(self, asked: u32) -> u32 {
        match self {
            Self::Taskscope | Self::Gdb | Self::TokioConsole => asked,
            // Its time is that of its segments, which begin with the service.
            Self::Dial9 => 1,
        }
    }

    /// The demo as this tool needs it.
    pub(crate) fn service(self, run: Run<'_>, fault: Fault) -> Command {
        let Run { programs, folder, port } = run;
        let mut command = match self {
            // gdb looks at the service as it is in production, with the probe in it.
            Self::Taskscope | Self::Gdb => Command::new(&programs.taskscope),
            Self::TokioConsole => Command::new(&programs.demo_console),
            Self::Dial9 => Command::new(&programs.demo_dial9),
        };
        match self {
            Self::Taskscope | Self::Gdb => {
                command.args(["demo", "--serve", "--child", "--faults", fault.name()])
            }
            Self::TokioConsole => command.args([fault.name(), &port.to_string()]),
            Self::Dial9 => command.arg(fault.name()).arg(folder.join(dial9::TRACES)),
        };
        command
    }

    /// Of the service: without the probe where another tool is in it.
    pub(crate) fn env(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Taskscope | Self::Gdb => &[],
            Self::TokioConsole | Self::Dial9 => &[("TASKSCOPE_DISABLED", "1")],
        }
    }

    /// Puts the tool where the shell of the run finds it.
    pub(crate) fn prepare(self, run: Run<'_>) -> anyhow::Result<()> {
        let Run { programs, folder, .. } = run;
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).context("no folder can be made")?;
        let (from, to) = match self {
            Self::Taskscope => (&programs.taskscope, bin.join("taskscope")),
            Self::TokioConsole => (&programs.tokio_console, bin.join("tokio-console")),
            Self::Dial9 => (&programs.dial9_toolkit, folder.join(dial9::TOOLKIT)),
            Self::Gdb => return Ok(()),
        };
        std::os::unix::fs::symlink(from, &to).with_context(|| format!("cannot make {}", to.display()))
    }

    /// What is pressed after `turns` earlier turns.
    pub(crate) fn keys(self, turns: usize, pid: u32, port: u16) -> Vec<Key> {
        match (self, turns) {
            (Self::TokioConsole, _) => console::keys(turns, port),
            (Self::Taskscope, 0) => keys::command(taskscope::COMMAND),
            (Self::Gdb, 0) => keys::command(&gdb::command(pid)),
            (Self::Dial9, 0) => keys::command(dial9::COMMAND),
            (Self::Taskscope | Self::Gdb | Self::Dial9, _) => keys::again(),
        }
    }

    /// What it shows now, all of it where that is longer than the screen.
    pub(crate) fn answer(self, terminal: &Terminal) -> anyhow::Result<String> {
        match self {
            Self::TokioConsole => terminal.screen(),
            Self::Taskscope | Self::Gdb | Self::Dial9 => terminal.shown(),
        }
    }

    /// Whether what was pressed `since` has been answered long enough ago for the next turn. `idle` is for how long the
    /// shell has waited for a command.
    pub(crate) fn is_next(self, since: Duration, idle: Option<Duration>) -> bool {
        match self {
            Self::TokioConsole => since >= PAUSE,
            Self::Taskscope | Self::Gdb | Self::Dial9 => idle.is_some_and(|idle| idle >= PAUSE),
        }
    }

    /// Whether the shell waits; a tool that fills the screen never lets it.
    pub(crate) fn is_idle(self, answer: &str) -> bool {
        !matches!(self, Self::TokioConsole) && terminal::is_idle(answer)
    }

    /// Whether it has said all of its answer; a screen is drawn at once.
    pub(crate) fn is_whole(self, answer: &str) -> bool {
        matches!(self, Self::TokioConsole) || terminal::is_idle(answer)
    }

    /// The lines that its last answer points at.
    pub(crate) fn pointed_at(self, answer: &str, own_files: &[String]) -> Vec<Place> {
        match self {
            Self::Taskscope => taskscope::pointed_at(last(answer)),
            Self::Gdb => gdb::pointed_at(last(answer)),
            Self::TokioConsole => console::pointed_at(answer),
            Self::Dial9 => dial9::pointed_at(last(answer), own_files),
        }
    }
}

/// What stands after the last prompt that was typed at.
fn last(shown: &str) -> &str {
    shown.rsplit(PROMPT).find(|answer| !answer.trim().is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_answer_counts() {
        let shown = "incident> why\nold demo/src/work.rs:14\nincident> why\nnew\nincident> \n";
        assert_eq!(last(shown), " why\nnew\n");
        assert_eq!(last("incident> "), "");
    }

    #[test]
    fn a_command_is_repeated_with_two_keys() {
        for tool in [Tool::Taskscope, Tool::Gdb, Tool::Dial9] {
            assert_eq!(tool.keys(3, 7, 8), keys::again(), "{tool:?}");
        }
        assert_eq!(
            Tool::Gdb.keys(0, 4711, 8)[0],
            Key::Text("gdb -p 4711 -batch -ex 'thread apply all bt'".into())
        );
    }
}
