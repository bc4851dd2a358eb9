//! A child process that ends with the test.
#![allow(unsafe_code, reason = "a child can be told to die with its parent only between fork and exec")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::stopwatch::Stopwatch;

/// A running child with its outputs captured. It leads a process group of its own, which is killed when this is
/// dropped; should the test's thread end without that, the kernel kills the child.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    pub stdout: Output,
    pub stderr: Output,
}

impl Process {
    /// Starts it. Start children from the test's own thread: they die with the thread that started them.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_dying_with_us(&mut command)
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Output::collect(child.stdout.take().expect("it is piped"));
        let stderr = Output::collect(child.stderr.take().expect("it is piped"));
        let stdin = child.stdin.take();
        Self { name, child, stdin, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its standard input is open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("the child reads its standard input");
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to it and to the children it has in its group.
    pub fn signal(&self, signal: Signal) {
        kill_process_group(self.group(), signal).expect("the process is there");
    }

    /// Ends it at once, as the kernel would.
    pub fn kill(&mut self) {
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.wait();
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end, but not for longer than this; whether it has ended.
    pub fn ends_within(&mut self, within: Duration) -> bool {
        let watch = Stopwatch::start();
        while self.ended().is_none() {
            if watch.elapsed() >= within {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Waits for its end, and for all that it wrote.
    ///
    /// # Panics
    /// If it does not end `within` that time.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let watch = Stopwatch::start();
        loop {
            if let Some(status) = self.ended() {
                // A grandchild may hold the pipes open; what it writes later is not this process's.
                self.stdout.wait_end(Duration::from_secs(2));
                self.stderr.wait_end(Duration::from_secs(2));
                return status;
            }
            assert!(
                watch.elapsed() < within,
                "`{}` still runs after {within:?}\n{}",
                self.name,
                self.outputs()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it wrote, for a message.
    pub fn outputs(&self) -> String {
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        format!("--- standard output of {}\n{stdout}--- its standard error\n{stderr}---", self.name)
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        self.kill();
        if std::thread::panicking() {
            let ended = ended.map_or("ran until now".to_owned(), |status| status.to_string());
            eprintln!("`{}` ({ended})\n{}", self.name, self.outputs());
        }
    }
}

/// The command in a process group of its own, killed by the kernel when the thread that starts it ends.
pub(crate) fn spawn_dying_with_us(command: &mut Command) -> std::io::Result<Child> {
    command.process_group(0);
    // SAFETY: what runs between fork and exec makes one system call, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn()
}

/// The lines that a child wrote so far. The newest 100 000 are kept.
#[derive(Clone)]
pub struct Output(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: VecDeque<String>,
    forgotten: usize,
    ended: bool,
}

impl Output {
    fn collect(from: impl std::io::Read + Send + 'static) -> Self {
        let output = Self(Arc::default());
        let collector = output.clone();
        std::thread::spawn(move || {
            let (collected, changed) = &*collector.0;
            let mut reader = BufReader::new(from);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&bytes);
                let mut collected = collected.lock().expect("no holder panics");
                collected.lines.push_back(text.strip_suffix('\n').unwrap_or(&text).to_owned());
                if collected.lines.len() > 100_000 {
                    collected.lines.pop_front();
                    collected.forgotten += 1;
                }
                bytes.clear();
                changed.notify_all();
            }
            collected.lock().expect("no holder panics").ended = true;
            changed.notify_all();
        });
        output
    }

    /// All lines that are kept.
    pub fn lines(&self) -> Vec<String> {
        self.0.0.lock().expect("no holder panics").lines.iter().cloned().collect()
    }

    /// All kept lines, each with its line end.
    pub fn text(&self) -> String {
        self.lines().iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// How many lines were written so far.
    pub fn count(&self) -> usize {
        let collected = self.0.0.lock().expect("no holder panics");
        collected.forgotten + collected.lines.len()
    }

    /// Waits until `wanted` finds something among the lines from number `from` (counted from 0) on.
    ///
    /// # Panics
    /// If that does not happen `within` that time, or the output ends before; with what was written.
    #[track_caller]
    pub fn wait_for<T>(&self, within: Duration, from: usize, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let watch = Stopwatch::start();
        let (collected, changed) = &*self.0;
        let mut collected = collected.lock().expect("no holder panics");
        let mut next = from;
        loop {
            for line in collected.lines.iter().skip(next.saturating_sub(collected.forgotten)) {
                if let Some(found) = wanted(line) {
                    return found;
                }
            }
            next = collected.forgotten + collected.lines.len();
            let left = watch.left_of(within);
            if left.is_zero() || collected.ended {
                let why = if collected.ended { "the output ended" } else { "nothing came in time" };
                let tail: Vec<_> = collected.lines.iter().rev().take(30).rev().cloned().collect();
                drop(collected);
                panic!("{why} ({within:?}); written so far:\n{}", tail.join("\n"));
            }
            collected = changed.wait_timeout(collected, left).expect("no holder panics").0;
        }
    }

    fn wait_end(&self, within: Duration) {
        let watch = Stopwatch::start();
        let (collected, changed) = &*self.0;
        let mut collected = collected.lock().expect("no holder panics");
        while !collected.ended && !watch.left_of(within).is_zero() {
            collected = changed.wait_timeout(collected, watch.left_of(within)).expect("no holder panics").0;
        }
    }
}

/// Keeps this thread, and every child that it starts meanwhile, on one core.
pub struct OnOneCore(rustix::thread::CpuSet);

impl OnOneCore {
    /// On the first core that this thread may use.
    pub fn pin() -> Self {
        let before = rustix::thread::sched_getaffinity(None).expect("the thread's cores can be read");
        let first = (0..rustix::thread::CpuSet::MAX_CPU)
            .find(|core| before.is_set(*core))
            .expect("it runs somewhere");
        let mut one = rustix::thread::CpuSet::new();
        one.set(first);
        rustix::thread::sched_setaffinity(None, &one).expect("fewer cores are always allowed");
        Self(before)
    }
}

impl Drop for OnOneCore {
    fn drop(&mut self) {
        let _ = rustix::thread::sched_setaffinity(None, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eventually, proc};

    #[test]
    fn a_child_ends_with_its_owner() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; sleep 600 & wait"]);
        let process = Process::start(command);
        let pid = process.pid();
        process.stdout.wait_for(Duration::from_secs(5), 0, |line| (line == "begun").then_some(()));
        drop(process);
        eventually(Duration::from_secs(5), || match proc::exists(pid) {
            true => Err(format!("process {pid} still exists")),
            false => Ok(()),
        });
    }

    #[test]
    fn a_child_ends_with_the_thread_that_forgot_it() {
        let pid = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("600");
            let process = Process::start(command);
            let pid = process.pid();
            std::mem::forget(process);
            pid
        })
        .join()
        .expect("the thread ends well");
        eventually(Duration::from_secs(5), || match proc::state(pid) {
            Some(state) if state != 'Z' => Err(format!("process {pid} is in state {state}")),
            _ => Ok(()),
        });
    }

    #[test]
    fn both_outputs_and_the_code_are_known_after_the_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "read x; echo got $x; echo no >&2; exit 3"]);
        let mut process = Process::start(command);
        process.say("this");
        assert_eq!(process.wait(Duration::from_secs(5)).code(), Some(3));
        assert_eq!((process.stdout.text().as_str(), process.stderr.text().as_str()), ("got this\n", "no\n"));
    }
}
