//! The binary `taskscope`, run as a user runs it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::Process;
use crate::stopwatch::Stopwatch;
use crate::{Build, json};

/// No command that ends by itself may take longer, unless it was told to.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// One run of `taskscope`, not started yet. The sizes of the caller's terminal and its colours do not reach it.
pub struct Agent {
    command: Command,
    within: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Agent {
    /// `taskscope` with arguments, of the build with hooks.
    pub fn with<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        Self::of(Build::Hooks, args)
    }

    pub fn of<'a>(build: Build, args: impl IntoIterator<Item = &'a str>) -> Self {
        Self::command(Command::new(build.program("taskscope")), args)
    }

    /// Started by a shell: in the script, `exec "$0" "$@"` begins it.
    pub fn in_shell<'a>(script: &str, args: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(Build::Hooks.program("taskscope"));
        Self::command(command, args)
    }

    fn command<'a>(mut command: Command, args: impl IntoIterator<Item = &'a str>) -> Self {
        command
            .args(args)
            .env("NO_COLOR", "1")
            .env_remove("COLUMNS")
            .env_remove("LINES")
            .env_remove("RUST_LOG");
        Self { command, within: ENDS_WITHIN }
    }

    /// Looks for names in this folder and in no other, and keeps what it keeps there.
    pub fn in_runtime_folder(mut self, folder: &Path) -> Self {
        self.command
            .env("XDG_RUNTIME_DIR", folder)
            .env("XDG_STATE_HOME", folder)
            .env_remove("STATE_DIRECTORY")
            .env_remove("TASKSCOPE_CONFIG")
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("TASKSCOPE_LISTEN");
        self
    }

    pub fn env(mut self, variable: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(variable, value);
        self
    }

    /// The hard limit; without it 15 s.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Starts it, its standard input a pipe that ends at once.
    pub fn start(self) -> Process {
        let mut process = Process::start(self.command);
        process.close_stdin();
        process
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it does not end within its limit.
    #[track_caller]
    pub fn run(self) -> Answer {
        let within = self.within;
        let watch = Stopwatch::start();
        let mut process = self.start();
        let status = process.wait(within);
        let took = watch.elapsed();
        Answer { code: status.code(), stdout: process.stdout.text(), stderr: process.stderr.text(), took }
    }
}

impl Answer {
    /// # Panics
    /// If the exit code is another one.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "the exit code is another one:\n{self}");
        self
    }

    /// The objects that `--json` printed.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        json::lines(&self.stdout)
    }

    /// The only object that `--json` printed.
    #[track_caller]
    pub fn json(&self) -> Value {
        json::one(&self.stdout)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr, took } = self;
        write!(
            f,
            "exit code {code:?} after {took:?}\n--- standard output\n{stdout}--- standard error\n{stderr}---"
        )
    }
}

/// `taskscope status TARGET --json`.
#[track_caller]
pub fn status(address: &str) -> Value {
    Agent::with(["status", address, "--json"]).run().expect_code(0).json()
}

/// `taskscope tasks TARGET FILTER --json`, at most 5 000 of them.
#[track_caller]
pub fn tasks(address: &str, filter: &str) -> Vec<Value> {
    let args = ["tasks", address, filter, "--json", "--limit", "5000"];
    Agent::with(args.into_iter().filter(|arg| !arg.is_empty())).run().expect_code(0).json_lines()
}

/// `taskscope why TARGET`: its lines and its exit code, 0 or 1.
///
/// # Panics
/// On any other exit code.
#[track_caller]
pub fn why(address: &str) -> (Vec<String>, i32) {
    let answer = Agent::with(["why", address]).run();
    let code =
        answer.code.filter(|code| matches!(code, 0 | 1)).unwrap_or_else(|| panic!("`why` failed:\n{answer}"));
    (answer.stdout.lines().map(str::to_owned).collect(), code)
}
