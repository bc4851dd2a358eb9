//! What this process uses, as the kernel counts it. What it does not count is not known.

use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

use crate::alerts::vitals::Memory;

/// What the agent may hold where no cgroup limits it: many times what it needs.
const MOST_BYTES: u64 = 512 << 20;
/// The folder of another cgroup, for tests.
const FOLDER_VARIABLE: &str = "TASKSCOPE_CGROUP_DIR";
const CGROUPS: &str = "/sys/fs/cgroup";

/// The limit is looked up once: it is a property of the deployment.
#[derive(Debug)]
pub(super) struct Usage {
    limit: u64,
}

impl Default for Usage {
    fn default() -> Self {
        let limit = match std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
            Some(folder) => limit_of(Path::new(&folder), "0::/"),
            None => std::fs::read_to_string("/proc/self/cgroup")
                .ok()
                .and_then(|cgroups| limit_of(Path::new(CGROUPS), &cgroups)),
        };
        Self { limit: limit.unwrap_or(MOST_BYTES) }
    }
}

impl Usage {
    pub(super) fn memory(&self) -> Option<Memory> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        Some(Memory { held: resident(&status)?, limit: self.limit })
    }
}

/// Of all threads, since the start.
pub(super) fn cpu_ns() -> Option<u64> {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(used.tv_sec).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(used.tv_nsec).ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lowest limit of the cgroup and those around it, in version 2 or 1.
fn limit_of(root: &Path, cgroups: &str) -> Option<u64> {
    let found = cgroups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        match controllers {
            "" => Some((root.to_path_buf(), path, "memory.max")),
            _ if controllers.split(',').any(|it| it == "memory") => {
                Some((root.join("memory"), path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    let limits = found.flat_map(|(root, path, file)| {
        // A container may see the path of its host, and its own cgroup as the root.
        let inside: PathBuf = root.join(path.trim_start_matches('/'));
        let around = inside.ancestors().take_while(|folder| folder.starts_with(&root));
        let limits = around.filter_map(|folder| std::fs::read_to_string(folder.join(file)).ok());
        limits.filter_map(|text| text.trim().parse().ok()).collect::<Vec<u64>>()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_around_counts_and_none_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = folder.path();
        let inner = root.join("a/b");
        std::fs::create_dir_all(&inner).expect("it can be made");
        let write =
            |at: &Path, text: &str| std::fs::write(at.join("memory.max"), text).expect("it is written");
        write(&inner, "max\n");
        assert_eq!(limit_of(root, "0::/a/b\n"), None);
        write(&root.join("a"), "2000\n");
        assert_eq!(limit_of(root, "1:cpu:/a/b\n0::/a/b\n"), Some(2000));
        write(&inner, "1000\n");
        assert_eq!(limit_of(root, "0::/a/b\n"), Some(1000));
        // A path of the host's, seen from a container.
        write(root, "3000\n");
        assert_eq!(limit_of(root, "0::/elsewhere/x\n"), Some(3000));
        let v1 = root.join("memory/x");
        std::fs::create_dir_all(&v1).expect("it can be made");
        std::fs::write(v1.join("memory.limit_in_bytes"), "500\n").expect("it is written");
        assert_eq!(limit_of(root, "4:cpu,memory:/x\n"), Some(500));
        assert_eq!(limit_of(root, "nonsense"), None);
    }

    #[test]
    fn this_process_uses_something() {
        assert!(cpu_ns().is_some_and(|ns| ns > 0));
        if cfg!(target_os = "linux") {
            let memory = Usage::default().memory().expect("the kernel says");
            assert!(memory.held > 0 && memory.limit > 0);
        }
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident("VmRSS:\t many\n"), None);
    }
}
