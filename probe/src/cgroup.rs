//! The cgroup that this process lives in: its CPU quota and how long that has kept the process from running, its memory
//! limit and what is used of it. Both versions of cgroups are read; a limit may stand on the process's own cgroup or on any
//! one above it that can be seen.

use std::fs::File;
use std::path::{Path, PathBuf};

/// Cgroups looked at upwards from the process's own.
const MAX_LEVELS: usize = 16;
/// Larger limits are how the first version of cgroups says "none".
const NO_LIMIT: u64 = 1 << 60;

/// Folders of the process's cgroup and of those above it, the own one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cgroup {
    cpu: Vec<PathBuf>,
    memory: Vec<PathBuf>,
    /// Whether it can be told how long a quota kept the process from running.
    pub(crate) tells_throttling: bool,
}

/// A CPU quota: of each period the process may use so much, over all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) quota_us: u64,
    pub(crate) period_us: u64,
}

/// The memory of the cgroup with the smallest limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) limit_bytes: u64,
    /// Without file pages that the kernel would drop first.
    pub(crate) used_bytes: Option<u64>,
}

impl Cgroup {
    /// Reads where the process is, once. `folder` (TASKSCOPE_CGROUP_DIR, for tests) stands in for all of it: a folder with
    /// the files of a cgroup of either version.
    pub(crate) fn of_this_process(folder: Option<PathBuf>) -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let (cpu, memory) = match folder {
            Some(folder) => (vec![folder.clone()], vec![folder]),
            None => {
                let (cgroups, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
                (levels("cpu", &cgroups, &mounts), levels("memory", &cgroups, &mounts))
            }
        };
        let tells_throttling = cpu.iter().any(|folder| folder.join("cpu.stat").exists());
        Self { cpu, memory, tells_throttling }
    }

    /// The levels that have a CPU quota.
    pub(crate) fn quotas(&self) -> Vec<(&Path, Quota)> {
        self.cpu.iter().filter_map(|folder| Some((folder.as_path(), quota(folder)?))).collect()
    }

    /// The smallest memory limit, bytes; `None` where no level has one.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        self.tightest().map(|(_, limit)| limit)
    }

    /// `None` where there is no limit.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let (folder, limit_bytes) = self.tightest()?;
        let number = |file: &str| read_number(&folder.join(file));
        let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"));
        let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let droppable = field(&stat, "total_inactive_file").or_else(|| field(&stat, "inactive_file"));
        let used_bytes = used.map(|used| used.saturating_sub(droppable.unwrap_or(0)));
        Some(Memory { limit_bytes, used_bytes })
    }

    fn tightest(&self) -> Option<(&Path, u64)> {
        let limit = |folder: &PathBuf| {
            read_number(&folder.join("memory.max"))
                .or_else(|| read_number(&folder.join("memory.limit_in_bytes")))
                .filter(|&limit| limit < NO_LIMIT)
        };
        let limits = self.memory.iter().filter_map(|folder| Some((folder.as_path(), limit(folder)?)));
        limits.min_by_key(|&(_, limit)| limit)
    }
}

/// Time, over all levels, in which a quota was used up. It never grows faster than time itself, although the kernel adds up
/// what each core stood still.
#[derive(Debug, Default)]
pub(crate) struct Throttling {
    levels: Vec<Level>,
    total_ns: u64,
    /// Instant and total at the last looks, oldest first.
    looks: std::collections::VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct Level {
    stat: File,
    throttled_ns: u64,
}

/// Looks remembered: some seconds of ticks.
const LOOKS: usize = 64;

impl Throttling {
    /// Looks for quotas anew; they change while a process runs. What is read from now on counts.
    pub(crate) fn look_for_quotas(&mut self, cgroup: &Cgroup) {
        let quotas = cgroup.quotas();
        if quotas.len() == self.levels.len() {
            return;
        }
        let open = |folder: &Path| File::open(folder.join("cpu.stat")).ok();
        let files = quotas.iter().filter_map(|(folder, _)| open(folder));
        self.levels =
            files.filter_map(|stat| Some(Level { throttled_ns: read_throttled(&stat)?, stat })).collect();
    }

    /// The total as of now; `None` where there is no quota.
    pub(crate) fn look(&mut self, at_ns: u64) -> Option<u64> {
        let mut longest_ns = 0;
        // A cgroup that is gone has no quota any more.
        self.levels.retain_mut(|level| {
            let Some(throttled_ns) = read_throttled(&level.stat) else { return false };
            longest_ns = longest_ns.max(throttled_ns.saturating_sub(level.throttled_ns));
            level.throttled_ns = throttled_ns;
            true
        });
        if self.levels.is_empty() {
            self.looks.clear();
            return None;
        }
        self.add(at_ns, longest_ns);
        Some(self.total_ns)
    }

    fn add(&mut self, at_ns: u64, grown_ns: u64) {
        let passed_ns = self.looks.back().map_or(0, |&(before, _)| at_ns.saturating_sub(before));
        self.total_ns += grown_ns.min(passed_ns);
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((at_ns, self.total_ns));
    }

    /// Between two instants, both since the oldest look that is remembered; `None` where that is not known.
    pub(crate) fn between(&self, from_ns: u64, to_ns: u64) -> Option<u64> {
        Some(self.at(to_ns)?.saturating_sub(self.at(from_ns)?))
    }

    /// The total at an instant, evenly between two looks.
    fn at(&self, at_ns: u64) -> Option<u64> {
        let after = self.looks.iter().position(|&(look, _)| look >= at_ns);
        let Some(after) = after else { return self.looks.back().map(|&(_, total)| total) };
        let (later_ns, later) = self.looks[after];
        let Some(&(earlier_ns, earlier)) = after.checked_sub(1).and_then(|before| self.looks.get(before))
        else {
            return (later_ns == at_ns).then_some(later);
        };
        let share = (at_ns - earlier_ns) as f64 / (later_ns - earlier_ns).max(1) as f64;
        Some(earlier + ((later - earlier) as f64 * share) as u64)
    }
}

fn quota(folder: &Path) -> Option<Quota> {
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    let (quota, period) = match text("cpu.max") {
        Some(both) => {
            let (quota, period) = both.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (text("cpu.cfs_quota_us")?, text("cpu.cfs_period_us")?),
    };
    // `max` and `-1` are no numbers of microseconds: there is no quota.
    Some(Quota { quota_us: quota.trim().parse().ok()?, period_us: period.trim().parse().ok()? })
}

/// `throttled_usec` of the second version of cgroups, `throttled_time` (ns) of the first.
fn read_throttled(stat: &File) -> Option<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = [0; 1024];
    let read = stat.read_at(&mut buffer, 0).ok()?;
    let text = std::str::from_utf8(buffer.get(..read)?).ok()?;
    field(text, "throttled_time").or_else(|| field(text, "throttled_usec").map(|us| us.saturating_mul(1000)))
}

fn read_number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Folders of one controller from `/proc/self/cgroup` and `/proc/self/mountinfo`, the process's own first.
fn levels(controller: &str, cgroups: &str, mounts: &str) -> Vec<PathBuf> {
    // `4:memory:/user.slice`; the second version has no names: `0::/user.slice`.
    let lines = || cgroups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let first = lines().find(|(names, _)| names.split(',').any(|name| name == controller));
    let (version, path) = match (first, lines().find(|(names, _)| names.is_empty())) {
        (Some((_, path)), _) => ("cgroup", path),
        (None, Some((_, path))) => ("cgroup2", path),
        (None, None) => return Vec::new(),
    };
    let mount = mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let kind = system.next()?;
        let options = system.nth(1).unwrap_or("");
        let right = kind == version && (kind == "cgroup2" || options.split(',').any(|it| it == controller));
        let mut mount = mount.split(' ').skip(3);
        right.then_some((mount.next()?, mount.next()?))
    });
    let Some((root, mount_point)) = mount else { return Vec::new() };
    let mount_point = Path::new(mount_point);
    // Seen from inside a container the path may be one that only the host has: then the mount itself is ours.
    let inside = Path::new(path)
        .strip_prefix(root)
        .ok()
        .filter(|inside| inside.components().all(|part| matches!(part, std::path::Component::Normal(_))));
    let own = match inside {
        Some(inside) if inside != Path::new("") => mount_point.join(inside),
        _ => mount_point.to_path_buf(),
    };
    own.ancestors()
        .take_while(|folder| folder.starts_with(mount_point))
        .take(MAX_LEVELS)
        .map(Path::to_path_buf)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A folder with the files of a cgroup, gone with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn with(test: &str, files: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("ts-cgroup-{}-{test}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a temporary folder can be made");
            let folder = Self(path);
            files.iter().for_each(|(file, text)| folder.write(file, text));
            folder
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::write(self.0.join(file), text).expect("it can be written");
        }

        fn cgroup(&self) -> Cgroup {
            Cgroup::of_this_process(Some(self.0.clone()))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn paths(controller: &str, cgroups: &str, mounts: &str) -> Vec<String> {
        levels(controller, cgroups, mounts).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn both_versions_are_found_where_they_are_mounted() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let cgroups = "2:cpu,cpuacct:/a/b\n0::/user.slice\n";
        assert_eq!(
            paths("cpu", cgroups, mounts),
            ["/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/cpu,cpuacct/a", "/sys/fs/cgroup/cpu,cpuacct"]
        );
        assert_eq!(
            paths("memory", cgroups, mounts),
            ["/sys/fs/cgroup/unified/user.slice", "/sys/fs/cgroup/unified"]
        );
        assert_eq!(paths("memory", "", mounts), [""; 0]);
        assert_eq!(paths("memory", cgroups, ""), [""; 0]);
    }

    #[test]
    fn in_a_container_the_mount_is_the_own_cgroup() {
        let bound = "5 1 0:29 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(paths("memory", "4:memory:/docker/c0ffee\n", bound), ["/sys/fs/cgroup/memory"]);
        let other = "5 1 0:29 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(paths("memory", "0::/../../kubepods/pod1\n", other), ["/sys/fs/cgroup"]);
        assert_eq!(paths("cpu", "0::/\n", other), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn a_quota_is_read_in_both_versions_and_none_is_none() {
        let second = Folder::with("v2", &[("cpu.max", "20000 100000\n")]);
        let quota = |folder: &Folder| folder.cgroup().quotas().first().map(|&(_, quota)| quota);
        let fifth = Quota { quota_us: 20_000, period_us: 100_000 };
        assert_eq!(quota(&second), Some(fifth));
        second.write("cpu.max", "max 100000\n");
        assert_eq!(quota(&second), None);
        let first = Folder::with("v1", &[("cpu.cfs_quota_us", "20000\n"), ("cpu.cfs_period_us", "100000\n")]);
        assert_eq!(quota(&first), Some(fifth));
        first.write("cpu.cfs_quota_us", "-1\n");
        assert_eq!(quota(&first), None);
    }

    #[test]
    fn throttled_time_is_read_in_both_versions_and_never_runs_faster_than_time() {
        for (test, name, unit) in [("us", "throttled_usec", 1_000), ("ns", "throttled_time", 1)] {
            let stat = |ms: u64| format!("nr_periods 9\nnr_throttled 7\n{name} {}\n", ms * MS / unit);
            let folder = Folder::with(test, &[("cpu.max", "20000 100000"), ("cpu.stat", &stat(500))]);
            let mut throttling = Throttling::default();
            throttling.look_for_quotas(&folder.cgroup());
            assert_eq!(throttling.look(1_000 * MS), Some(0), "what was before counts for nothing");
            folder.write("cpu.stat", &stat(580));
            assert_eq!(throttling.look(1_100 * MS), Some(80 * MS));
            // Two cores stood still for 160 ms together, within 100 ms.
            folder.write("cpu.stat", &stat(740));
            assert_eq!(throttling.look(1_200 * MS), Some(180 * MS));
            assert_eq!(throttling.between(1_000 * MS, 1_200 * MS), Some(180 * MS));
            assert_eq!(throttling.between(1_050 * MS, 1_100 * MS), Some(40 * MS));
            assert_eq!(throttling.between(900 * MS, 1_100 * MS), None, "nobody looked then");
        }
    }

    #[test]
    fn a_quota_that_goes_or_comes_is_noticed() {
        let folder = Folder::with("comes", &[("cpu.max", "max 100000"), ("cpu.stat", "throttled_usec 5\n")]);
        let mut throttling = Throttling::default();
        throttling.look_for_quotas(&folder.cgroup());
        assert_eq!(throttling.look(MS), None);
        folder.write("cpu.max", "50000 100000");
        throttling.look_for_quotas(&folder.cgroup());
        assert_eq!(throttling.look(2 * MS), Some(0));
        folder.write("cpu.max", "max 100000");
        throttling.look_for_quotas(&folder.cgroup());
        assert_eq!(throttling.look(3 * MS), None);
    }

    #[test]
    fn memory_is_what_cannot_be_dropped_against_the_limit() {
        let stat = "anon 1\nfile 9\ninactive_file 300\n";
        let files = [("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", stat)];
        let second = Folder::with("memory-v2", &files);
        let used = Memory { limit_bytes: 1000, used_bytes: Some(400) };
        assert_eq!(second.cgroup().memory(), Some(used));
        second.write("memory.max", "max\n");
        assert_eq!(second.cgroup().memory(), None);
        let files = [
            ("memory.limit_in_bytes", "1000\n"),
            ("memory.usage_in_bytes", "700\n"),
            ("memory.stat", "inactive_file 20\ntotal_inactive_file 300\n"),
        ];
        let first = Folder::with("memory-v1", &files);
        assert_eq!(first.cgroup().memory(), Some(used));
        first.write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(first.cgroup().memory_limit(), None);
    }

    #[test]
    fn the_smallest_limit_above_counts() {
        let tight = Folder::with("tight", &[("memory.max", "500\n")]);
        let wide = Folder::with("wide", &[("memory.max", "900\n")]);
        let memory = vec![wide.0.clone(), tight.0.clone()];
        assert_eq!(Cgroup { memory, ..Cgroup::default() }.memory_limit(), Some(500));
    }
}
