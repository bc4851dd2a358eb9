//! What the kernel says about a process.

use std::time::Duration;

/// Whether a process (or its remains) has this id.
pub fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// The state letter of its first thread: `R` running, `S` asleep, `T` stopped, `Z` ended and not waited for.
pub fn state(pid: u32) -> Option<char> {
    fields(pid)?.first()?.chars().next()
}

/// Resident memory, bytes.
pub fn rss(pid: u32) -> Option<u64> {
    status(pid, "VmRSS:")?.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// How many threads it has.
pub fn threads(pid: u32) -> Option<u64> {
    status(pid, "Threads:")?.parse().ok()
}

/// How many threads of this name it has.
pub fn threads_named(pid: u32, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let named = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    tasks.filter(named).count()
}

/// CPU time that all its threads used, in user and kernel mode, in steps of 10 ms.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let fields = fields(pid)?;
    // utime and stime are fields 14 and 15 of the file; `state` is 3.
    let ticks: u64 =
        [11, 12].iter().map(|index| fields.get(*index)?.parse::<u64>().ok()).sum::<Option<_>>()?;
    Some(Duration::from_millis(ticks * 10))
}

/// How many files it has open.
pub fn open_files(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// The process of this program below another one, at any depth.
pub fn below(ancestor: u32, program: &str) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{ancestor}/task/{ancestor}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find_map(|pid: u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim_end() == program { Some(pid) } else { below(pid, program) }
    })
}

/// Sends a signal to one process.
///
/// # Panics
/// If there is no such process.
#[track_caller]
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let process =
        i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id is positive");
    rustix::process::kill_process(process, signal).expect("the process is there");
}

/// `/proc/PID/stat` from the state on; the name before it may hold anything.
fn fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect())
}

fn status(pid: u32, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        assert!(
            exists(pid) && rss(pid) > Some(100_000) && threads(pid) >= Some(1) && open_files(pid) >= Some(3)
        );
        assert!(cpu_time(pid).is_some() && matches!(state(pid), Some('R' | 'S')));
    }
}
