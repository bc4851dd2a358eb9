//! A program with the probe in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::Build;
use crate::process::Process;

/// How long a target may take until it listens, on a machine that does other things too.
const START_WITHIN: Duration = Duration::from_secs(20);

/// How to start a target program of `src/bin/`, without anything from the caller's environment that the probe reads.
pub struct TargetBuilder {
    command: Command,
    folder: Option<TempDir>,
}

/// A running target whose probe listens.
pub struct Target {
    pub process: Process,
    /// What the agent is given to attach to it: `unix:PATH` or `http://HOST:PORT`.
    pub address: String,
    folder: Option<TempDir>,
}

impl Target {
    /// A target of the build with hooks. It listens on a socket in a folder of its own unless told otherwise.
    pub fn program(name: &str) -> TargetBuilder {
        TargetBuilder::of(Build::Hooks, name)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its own temporary folder, if it was not told to use another.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(TempDir::path)
    }

    /// Waits for a line of standard output that starts like this; gives the rest of the line.
    #[track_caller]
    pub fn said(&self, start: &str) -> String {
        self.process
            .stdout
            .wait_for(START_WITHIN, 0, |line| line.strip_prefix(start).map(|rest| rest.trim().to_owned()))
    }

    /// The next `count` lines of JSON that it prints from now on (a program that measures itself prints one a second).
    #[track_caller]
    pub fn next_figures(&self, count: usize) -> Vec<Value> {
        let from = self.process.stdout.count();
        let mut figures = Vec::new();
        // A stopped clock would be a bug of the target; twice the time is for a busy machine.
        self.process.stdout.wait_for(Duration::from_secs(10 + 2 * count as u64), from, |line| {
            figures.extend(serde_json::from_str::<Value>(line).ok().filter(Value::is_object));
            (figures.len() >= count).then_some(())
        });
        figures.truncate(count);
        figures
    }
}

impl TargetBuilder {
    /// A target of one of the builds.
    pub fn of(build: Build, name: &str) -> Self {
        Self::of_program(&build.program(name))
    }

    /// A target that was built in some other way.
    pub fn of_program(program: &Path) -> Self {
        let folder =
            tempfile::Builder::new().prefix("ts-").tempdir().expect("a temporary folder can be made");
        let mut command = Command::new(program);
        for variable in [
            "NAME",
            "LISTEN",
            "CONTROL",
            "MEMORY",
            "CLASSES",
            "GRACE_SECONDS",
            "DISABLED",
            "CGROUP_DIR",
            "STACKS",
            "STACK_SIGNAL",
            "TEST_BIN",
            "TEST_BIN_STABLE",
            "TEST_BIN_ABORT",
        ] {
            command.env_remove(format!("TASKSCOPE_{variable}"));
        }
        command.env_remove("RUNTIME_DIRECTORY").env_remove("XDG_RUNTIME_DIR").env("TMPDIR", folder.path());
        command.env("TASKSCOPE_LISTEN", format!("unix:{}", folder.path().join("t.sock").display()));
        Self { command, folder: Some(folder) }
    }

    pub fn arg(mut self, arg: impl ToString) -> Self {
        self.command.arg(arg.to_string());
        self
    }

    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, variable: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Starts it inside this cgroup.
    pub fn in_cgroup(self, folder: &Path) -> Self {
        self.env("CGROUP", folder).in_shell("echo 0 > \"$CGROUP/cgroup.procs\" && exec \"$0\" \"$@\"")
    }

    /// Starts a shell that runs `script`; the program and its arguments are `$0` and `$@` there.
    pub fn in_shell(mut self, script: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(self.command.get_program()).args(self.command.get_args());
        for (variable, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        self.command = command;
        self
    }

    /// Listens where a name finds it, in this folder; several targets may share it.
    pub fn in_runtime_folder(mut self, folder: &Path) -> Self {
        self.command.env_remove("TASKSCOPE_LISTEN").env("XDG_RUNTIME_DIR", folder);
        self
    }

    /// Listens on a free TCP port of the loopback address.
    pub fn on_tcp(mut self) -> Self {
        self.command.env("TASKSCOPE_LISTEN", "tcp:127.0.0.1:0");
        self
    }

    /// Starts it and waits until its probe says where it listens.
    ///
    /// # Panics
    /// If it does not say so.
    #[track_caller]
    pub fn start(self) -> Target {
        let (process, folder) = self.start_unheard();
        let address = listening(&process);
        Target { process, address, folder }
    }

    /// Starts it without waiting for its probe, which may have nowhere to listen.
    pub fn start_unheard(self) -> (Process, Option<TempDir>) {
        (Process::start(self.command), self.folder)
    }
}

/// Waits until the probe in a process says where it listens; gives the address.
///
/// # Panics
/// If it does not say so.
#[track_caller]
pub fn listening(process: &Process) -> String {
    process.stderr.wait_for(START_WITHIN, 0, |line| {
        let (_, address) = line.split_once("taskscope: listening on ")?;
        address.split_whitespace().next().map(str::to_owned)
    })
}

/// A folder for sockets that only the user can enter, as a session's XDG_RUNTIME_DIR is.
pub fn runtime_folder() -> (TempDir, PathBuf) {
    let folder =
        tempfile::Builder::new().prefix("ts-run-").tempdir().expect("a temporary folder can be made");
    let path = folder.path().to_path_buf();
    (folder, path)
}
