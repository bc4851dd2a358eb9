//! A terminal of its own, in which a tool is used as a person uses it: keys go in, and what stands there is read.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::keys::Key;
use super::now;

const COLUMNS: &str = "220";
const ROWS: &str = "50";
/// All that a debugger says of all threads, and more.
const HISTORY: &str = "100000";
/// What the shell shows when it waits for a command.
pub(crate) const PROMPT: &str = "incident>";

const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    socket: std::path::PathBuf,
}

impl Terminal {
    /// A shell in `folder`, with nothing of the caller's environment but PATH, before which the folder's `bin` is, and with
    /// `env`.
    pub(crate) fn open(folder: &Path, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let terminal = Self { socket: folder.join("tmux.sock") };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(folder.join("bin")).chain(std::env::split_paths(&path));
        let mut command = terminal.tmux();
        command
            .env_clear()
            .env("PATH", std::env::join_paths(paths).context("a folder of PATH has a colon in its name")?)
            .env("HOME", folder)
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .env("TMPDIR", folder);
        for (name, value) in env {
            command.env(name, value);
        }
        command.current_dir(folder);
        command.args(["start-server", ";", "set-option", "-g", "history-limit", HISTORY, ";"]);
        command.args(["set-option", "-g", "default-terminal", "tmux-256color", ";"]);
        command.args(["new-session", "-d", "-x", COLUMNS, "-y", ROWS, "-c"]).arg(folder);
        // What starts the shell may be one itself, and forget the prompt of another. A history would be written when the
        // folder is gone already.
        command.arg(format!("exec env 'PS1={PROMPT} ' HISTFILE= bash --norc --noprofile"));
        done(&mut command)?;
        let give_up = now() + STARTS_WITHIN;
        while !is_idle(&terminal.shown()?) {
            ensure!(now() < give_up, "the shell of the run shows no prompt:\n{}", terminal.shown()?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(terminal)
    }

    pub(crate) fn press(&self, key: &Key) -> anyhow::Result<()> {
        let mut command = self.tmux();
        command.arg("send-keys");
        match key {
            Key::Text(text) => command.args(["-l", "--", text]),
            Key::Enter => command.arg("Enter"),
            Key::Escape => command.arg("Escape"),
            Key::Up => command.arg("Up"),
            Key::Down => command.arg("Down"),
            Key::Left => command.arg("Left"),
            Key::Right => command.arg("Right"),
        };
        done(&mut command).map(|_| ())
    }

    /// All that it has shown, lines that were too long for it whole.
    pub(crate) fn shown(&self) -> anyhow::Result<String> {
        done(self.tmux().args(["capture-pane", "-p", "-J", "-S", "-"]))
    }

    /// What it shows now.
    pub(crate) fn screen(&self) -> anyhow::Result<String> {
        done(self.tmux().args(["capture-pane", "-p"]))
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(["-f", "/dev/null"]);
        command
    }
}

/// Whether the shell waits for a command.
pub(crate) fn is_idle(shown: &str) -> bool {
    shown.lines().map(str::trim).rfind(|line| !line.is_empty()) == Some(PROMPT)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Without a server there is nothing to end.
        let _ = self.tmux().arg("kill-server").stderr(Stdio::null()).status();
    }
}

fn done(command: &mut Command) -> anyhow::Result<String> {
    let out = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        out.status.success(),
        "{command:?} ended with {}: {}",
        out.status,
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::incident::keys::{again, command};

    #[test]
    fn what_is_typed_is_run_and_the_last_command_comes_again() {
        if Command::new("tmux").arg("-V").output().is_err() {
            eprintln!("not run: there is no tmux");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder can be made");
        let terminal = Terminal::open(folder.path(), &[("WORD", "seen")]).expect("there is a terminal");
        let shows = |count: usize| {
            let give_up = now() + Duration::from_secs(10);
            loop {
                let shown = terminal.shown().expect("it can be read");
                if shown.lines().filter(|line| *line == "seen it").count() == count && is_idle(&shown) {
                    return;
                }
                assert!(now() < give_up, "not {count} times:\n{shown}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        for (times, keys) in [(1, command("echo $WORD it")), (2, again())] {
            for key in keys {
                terminal.press(&key).expect("it takes keys");
            }
            shows(times);
        }
    }

    #[test]
    fn a_shell_is_idle_when_its_prompt_is_the_last_that_it_said() {
        assert!(is_idle("incident> ls\na\nincident> \n\n"));
        assert!(!is_idle("incident> ls\na\n"));
        assert!(!is_idle("incident> taskscope why demo\n"));
        assert!(!is_idle(""));
    }
}
