//! A real terminal: tmux, with a server of its own for each screen.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::eventually;
use crate::process::Process;

/// A terminal in which a command runs. Its pane stays after the command ended, so that the last screen can be read.
pub struct Screen {
    // Dropped first: the server and all that runs in it end before its folder goes.
    _server: Process,
    folder: TempDir,
}

impl Screen {
    /// A shell in a terminal of this size, with these variables set.
    ///
    /// # Panics
    /// If tmux cannot be started.
    #[track_caller]
    pub fn open(width: u16, height: u16, variables: &[(&str, &str)]) -> Self {
        let folder =
            tempfile::Builder::new().prefix("ts-tmux-").tempdir().expect("a temporary folder can be made");
        let mut server = Command::new("tmux");
        // Not as a daemon: it dies with the test.
        server.arg("-S").arg(folder.path().join("s")).args(["-f", "/dev/null", "-D"]);
        server
            .env_remove("TMUX")
            .env("SHELL", "/bin/sh")
            .env("PS1", "$ ")
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8");
        server.envs(variables.iter().copied());
        let screen = Self { _server: Process::start(server), folder };
        eventually(Duration::from_secs(10), || screen.tmux(&["show-options", "-s"]).map(drop));
        let (width, height) = (width.to_string(), height.to_string());
        screen.must(&[
            "set-option",
            "-g",
            "status",
            "off",
            ";",
            "set-option",
            "-g",
            "default-terminal",
            "tmux-256color",
        ]);
        screen.must(&["new-session", "-d", "-x", &width, "-y", &height, "/bin/sh"]);
        eventually(Duration::from_secs(10), || match screen.text() {
            text if text.contains("$ ") || text.contains("# ") || text.trim_end().ends_with(['$', '#']) => {
                Ok(())
            }
            text => Err(text),
        });
        screen
    }

    /// Types a command into the shell, and Enter.
    #[track_caller]
    pub fn run(&self, command: &str) {
        self.must(&["send-keys", "-l", command]);
        self.keys(&["Enter"]);
    }

    /// Presses keys, by tmux's names: `q`, `Down`, `C-c`.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        self.must(&[&["send-keys"], keys].concat());
    }

    #[track_caller]
    pub fn resize(&self, width: u16, height: u16) {
        self.must(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What it shows now, trailing blanks cut.
    #[track_caller]
    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// What it shows now.
    #[track_caller]
    pub fn text(&self) -> String {
        self.must(&["capture-pane", "-p"])
    }

    /// Whether a full-screen program has the terminal's second screen.
    #[track_caller]
    pub fn is_alternate(&self) -> bool {
        self.format("#{alternate_on}") == "1"
    }

    /// Whether the cursor shows.
    #[track_caller]
    pub fn has_cursor(&self) -> bool {
        self.format("#{cursor_flag}") == "1"
    }

    /// The process of the shell.
    #[track_caller]
    pub fn shell_pid(&self) -> u32 {
        self.format("#{pane_pid}").parse().expect("tmux prints a process id")
    }

    /// Waits until the screen's text is as wanted; gives the text.
    #[track_caller]
    pub fn shows(&self, within: Duration, wanted: impl Fn(&str) -> bool) -> String {
        eventually(within, || {
            let text = self.text();
            if wanted(&text) { Ok(text) } else { Err(text) }
        })
    }

    #[track_caller]
    fn format(&self, format: &str) -> String {
        self.must(&["display-message", "-p", format]).trim().to_owned()
    }

    #[track_caller]
    fn must(&self, args: &[&str]) -> String {
        self.tmux(args).unwrap_or_else(|error| panic!("tmux {args:?}: {error}"))
    }

    fn tmux(&self, args: &[&str]) -> Result<String, String> {
        let mut client = Command::new("tmux");
        client
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .arg("-S")
            .arg(self.folder.path().join("s"))
            .args(args);
        let out = client.output().map_err(|error| error.to_string())?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_shows_what_runs_in_it_at_its_size() {
        if !crate::peer("tmux") {
            return;
        }
        let screen = Screen::open(70, 20, &[("GREETING", "good day")]);
        screen.run("clear; echo \"$GREETING\"; stty size");
        let text = screen.shows(Duration::from_secs(5), |text| text.contains("20 70"));
        assert!(text.contains("good day"), "{text}");
        assert!(!screen.is_alternate() && screen.has_cursor());
    }
}
