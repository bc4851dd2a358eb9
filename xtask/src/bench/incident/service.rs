//! The demo's service as a child process, and its announcements: the clock of an injection.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::now;

/// The healthy seconds before it, and what a busy machine adds.
const INJECTED_WITHIN: Duration = Duration::from_secs(30);
/// The recorder of one of the tools writes its last segment.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Ended with the rest of its standard input, which is ours; at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    announced: Receiver<(Instant, Value)>,
}

impl Service {
    /// With nothing of the caller's environment but PATH, and with `env`.
    pub(crate) fn start(command: &mut Command, folder: &Path, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", folder)
            .envs(env.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let said = child.stdout.take().context("the service has no standard output")?;
        let (tell, announced) = channel();
        thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let at = now();
                if let Ok(value) = serde_json::from_str(&line)
                    && tell.send((at, value)).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { child, announced })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the beginning of its first fault; tells when it was announced.
    pub(crate) fn injected(&self) -> anyhow::Result<Instant> {
        let give_up = now() + INJECTED_WITHIN;
        loop {
            match self.announced.recv_timeout(give_up.saturating_duration_since(now())) {
                Ok((at, said)) if is_injection(&said) => return Ok(at),
                Ok(_) => {}
                Err(error) => {
                    bail!("the service announces no fault: {error}\nhint: `taskscope demo --serve` shows why")
                }
            }
        }
    }
}

fn is_injection(said: &Value) -> bool {
    said["event"] == "fault" && said["state"] == "start"
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let give_up = now() + ENDS_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if now() > give_up {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_with_the_announced_start_of_a_fault() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut command = Command::new("sh");
        let says = r#"echo '{"event":"serving"}'; echo no json; echo '{"event":"fault","state":"end"}'
            echo '{"event":"fault","name":"leak","state":"start"}'; read ignored"#;
        command.args(["-c", says]);
        let before = now();
        let service = Service::start(&mut command, folder.path(), &[]).expect("it starts");
        assert!(service.injected().expect("it says so") >= before);
        assert!(service.pid() > 0);
    }

    #[test]
    fn a_service_that_ends_first_is_an_error_with_a_hint() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let service = Service::start(&mut Command::new("true"), folder.path(), &[]).expect("it starts");
        let error = service.injected().expect_err("it says nothing").to_string();
        assert!(error.contains("hint: "), "{error}");
    }
}
