//! What a thread is doing, from `/proc/self/task/<tid>/{stat,syscall,schedstat}`: readable without privileges; and what the
//! process as a whole has used.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[cfg(target_os = "linux")]
use nix::time::ClockId;
use taskscope_proto::v1::ThreadActivity;
use taskscope_proto::v1::thread_activity::State;

/// One look at a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Look {
    pub(crate) state: State,
    pub(crate) syscall: Option<u32>,
    pub(crate) cpu: Option<CpuTime>,
    /// Time until now in which the cgroup's CPU quota was used up; `None` where there is no quota.
    pub(crate) throttled_ns: Option<u64>,
}

/// Since the thread began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CpuTime {
    pub(crate) on_cpu_ns: u64,
    pub(crate) waiting_ns: u64,
}

/// The system call that a thread is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Number(u32),
    /// It stands still outside of every call.
    None,
    /// It runs, or could run, wherever that is.
    Running,
    /// The system does not say it, or the thread has ended.
    Unknown,
}

/// The system has refused to show a thread, as opposed to not having it.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether the system has refused to show what threads do, when they were last looked at.
pub(crate) fn is_refused() -> bool {
    REFUSED.load(Relaxed)
}

/// Looks at thread `tid` of this process; `None` where it has ended or /proc cannot be read.
pub(crate) fn look(tid: u32) -> Option<Look> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/task/{tid}/{file}"));
    let stat = read("stat");
    let refused = [ErrorKind::PermissionDenied, ErrorKind::Unsupported];
    REFUSED.store(stat.as_ref().is_err_and(|error| refused.contains(&error.kind())), Relaxed);
    let state = parse_state(&stat.ok()?)?;
    Some(Look {
        state,
        syscall: read("syscall").ok().and_then(|text| parse_syscall(&text)),
        cpu: cpu_time(tid),
        throttled_ns: None,
    })
}

/// The system call that thread `tid` of this process is in now: one file is read, which disturbs it in nothing.
pub(crate) fn call(tid: u32) -> Call {
    match std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")) {
        Ok(text) if text.starts_with("running") => Call::Running,
        Ok(text) if text.starts_with('-') => Call::None,
        Ok(text) => parse_syscall(&text).map_or(Call::Unknown, Call::Number),
        Err(_) => Call::Unknown,
    }
}

/// Numbers of all threads of this process; none where /proc cannot be read.
pub(crate) fn threads() -> Vec<u32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok()).collect()
}

/// What the system calls thread `tid`, 15 bytes at most.
pub(crate) fn name(tid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/self/task/{tid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// CPU time of thread `tid`.
pub(crate) fn cpu_time(tid: u32) -> Option<CpuTime> {
    parse_schedstat(&std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?)
}

/// CPU time of the thread that made it. Its file stays open: it is read every tick, which then costs one system call.
#[derive(Debug)]
pub(crate) struct OwnCpu {
    file: Option<File>,
}

impl OwnCpu {
    pub(crate) fn of_this_thread() -> Self {
        Self { file: File::open("/proc/thread-self/schedstat").ok() }
    }

    #[cfg(unix)]
    pub(crate) fn read(&self) -> Option<CpuTime> {
        use std::os::unix::fs::FileExt;
        let mut buffer = [0; 96];
        let read = self.file.as_ref()?.read_at(&mut buffer, 0).ok()?;
        parse_schedstat(std::str::from_utf8(buffer.get(..read)?).ok()?)
    }
}

/// CPU time of all threads of this process.
#[cfg(target_os = "linux")]
pub(crate) fn process_cpu_ns() -> Option<u64> {
    clock_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Time in which the machine was suspended since its start.
#[cfg(target_os = "linux")]
pub(crate) fn suspended_ns() -> Option<u64> {
    // In this order, so that the time between the two readings is not taken for suspension.
    let with = clock_ns(ClockId::CLOCK_BOOTTIME)?;
    let without = clock_ns(ClockId::CLOCK_MONOTONIC)?;
    Some(with.saturating_sub(without))
}

#[cfg(target_os = "linux")]
pub(crate) fn clock_ns(clock: ClockId) -> Option<u64> {
    let time = nix::time::clock_gettime(clock).ok()?;
    Some(u64::try_from(time.tv_sec()).ok()? * 1_000_000_000 + u64::try_from(time.tv_nsec()).ok()?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn process_cpu_ns() -> Option<u64> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn suspended_ns() -> Option<u64> {
    None
}

/// Whether thread `tid` of this process is there.
pub(crate) fn exists(tid: u32) -> bool {
    std::path::Path::new(&format!("/proc/self/task/{tid}")).exists()
}

/// Whether /proc is of this process's pid namespace: it then shows the calling thread under its own id.
pub(crate) fn sees_own_threads() -> bool {
    crate::registry::lines::current_tid().is_some_and(exists)
}

impl Look {
    /// As it goes out: counts since `first`, `observed_ns` ago.
    pub(crate) fn since(&self, first: &Self, observed_ns: u64) -> ThreadActivity {
        let grown = |part: fn(&CpuTime) -> u64| {
            let (now, then) = (self.cpu.as_ref()?, first.cpu.as_ref()?);
            Some(part(now).saturating_sub(part(then)))
        };
        ThreadActivity {
            state: self.state.into(),
            syscall: self.syscall,
            on_cpu_ns: grown(|cpu| cpu.on_cpu_ns),
            waiting_for_cpu_ns: grown(|cpu| cpu.waiting_ns),
            observed_ns,
            throttled_ns: self.throttled_since(first, observed_ns),
        }
    }

    /// What the quota took of the time that this thread wanted a CPU: a thread that slept lost nothing by it.
    fn throttled_since(&self, first: &Self, observed_ns: u64) -> Option<u64> {
        let throttled_ns = self.throttled_ns?.saturating_sub(first.throttled_ns?);
        let wanted_ns = match (self.cpu, first.cpu) {
            // A wait is booked when it ends, and one that runs or waits may be in one now.
            (Some(now), Some(then)) if self.state == State::OnCpu => {
                observed_ns.saturating_sub(now.on_cpu_ns.saturating_sub(then.on_cpu_ns))
            }
            (Some(now), Some(then)) => now.waiting_ns.saturating_sub(then.waiting_ns),
            _ => observed_ns,
        };
        Some(throttled_ns.min(wanted_ns).min(observed_ns))
    }
}

/// The letter after the name, which stands in parentheses and may hold any character.
fn parse_state(stat: &str) -> Option<State> {
    let after_name = stat.get(stat.rfind(')')? + 1..)?;
    Some(match after_name.trim_start().chars().next()? {
        'R' => State::OnCpu,
        'S' | 'I' => State::Asleep,
        'D' => State::DiskSleep,
        'T' | 't' => State::Stopped,
        _ => State::Unspecified,
    })
}

/// `running`, `-1 …` (not in a system call), or the number and its arguments.
fn parse_syscall(text: &str) -> Option<u32> {
    text.split_whitespace().next()?.parse().ok()
}

/// Time on CPU, time waiting for one, time slices.
fn parse_schedstat(text: &str) -> Option<CpuTime> {
    let mut numbers = text.split_whitespace();
    Some(CpuTime { on_cpu_ns: numbers.next()?.parse().ok()?, waiting_ns: numbers.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_state() {
        assert_eq!(parse_state("17 (a) S (b) R 1 17 17"), Some(State::OnCpu));
        assert_eq!(parse_state("17 (worker) S 1"), Some(State::Asleep));
        assert_eq!(parse_state("garbage"), None);
    }

    #[test]
    fn a_running_thread_is_in_no_system_call() {
        assert_eq!(parse_syscall("running\n"), None);
        assert_eq!(parse_syscall("-1 0x7ffd 0x7f\n"), None);
        assert_eq!(parse_syscall("230 0x0 0x0 0x7f 0x0 0x0 0x0 0x7ffd 0x7f\n"), Some(230));
    }

    #[test]
    fn a_quota_took_only_what_the_thread_wanted() {
        const MS: u64 = 1_000_000;
        let look = |state, on_cpu_ms, waiting_ms, throttled_ms: Option<u64>| Look {
            state,
            syscall: None,
            cpu: Some(CpuTime { on_cpu_ns: on_cpu_ms * MS, waiting_ns: waiting_ms * MS }),
            throttled_ns: throttled_ms.map(|ms| ms * MS),
        };
        let first = look(State::OnCpu, 10, 0, Some(1_000));
        let taken = |last: Look| last.since(&first, 500 * MS).throttled_ns.map(|ns| ns / MS);
        assert_eq!(taken(look(State::OnCpu, 110, 320, Some(1_380))), Some(380));
        assert_eq!(taken(look(State::OnCpu, 400, 90, Some(1_380))), Some(110));
        assert_eq!(taken(look(State::Asleep, 11, 2, Some(1_380))), Some(2));
        assert_eq!(taken(look(State::OnCpu, 110, 320, None)), None, "no quota is no zero");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_this_thread_and_this_process_use_grows() {
        let own = OwnCpu::of_this_thread();
        let (thread, process) = (own.read().expect("schedstat"), process_cpu_ns().expect("a clock"));
        let grew = (0..1_000_000).any(|_| {
            own.read().is_some_and(|now| now.on_cpu_ns > thread.on_cpu_ns) && process_cpu_ns() > Some(process)
        });
        assert!(grew && suspended_ns().is_some());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_sleeping_thread_is_seen_asleep() {
        let (send, receive) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).expect("the test waits");
            let _ = stopped.recv();
        });
        let tid = receive.recv().expect("the thread runs");
        let asleep = (0..2000)
            .any(|_| look(tid).is_some_and(|look| look.state == State::Asleep && look.syscall.is_some()));
        assert!(asleep, "{:?}", look(tid));
        drop(stop);
        thread.join().expect("no panic");
        assert!(sees_own_threads() && !exists(tid));
    }
}
