//! A process that may use a fifth of a core: its polls are long because of the quota, and that is what is said of them.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taskscope_proto::v1::event::Kind;
use taskscope_proto::v1::{Event, WatchRequest};
use taskscope_tests::agent::why;
use taskscope_tests::target::{Target, TargetBuilder};
use taskscope_tests::watcher::Watcher;
use taskscope_tests::{eventually, evidence};

const PROMISE: &str = "polls of 60 ms CPU under a quota of 20 % of a core";

/// One worker that polls for so much CPU time each.
fn busy(poll_ms: u32) -> TargetBuilder {
    Target::program("target-busy").args(["--workers", "1", "--poll-ms"]).arg(poll_ms).on_tcp()
}

/// A cgroup of its own with a quota of 20 %; gone with the test.
struct Fifth {
    folder: PathBuf,
}

impl Fifth {
    /// `None` where this machine lets us make none.
    fn of_a_core() -> Option<Self> {
        let name = format!("taskscope-test-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/cpu");
        if first.join("cpu.cfs_quota_us").exists() || first.join("cgroup.procs").exists() {
            let folder = first.join(name);
            std::fs::create_dir(&folder).ok()?;
            let fifth = Self { folder };
            std::fs::write(fifth.folder.join("cpu.cfs_quota_us"), "20000").ok()?;
            return Some(fifth);
        }
        let folder = Path::new("/sys/fs/cgroup").join(name);
        std::fs::create_dir(&folder).ok()?;
        let fifth = Self { folder };
        std::fs::write(fifth.folder.join("cpu.max"), "20000 100000").ok()?;
        Some(fifth)
    }
}

impl Drop for Fifth {
    fn drop(&mut self) {
        // Only an empty one can be removed: whoever is in it has just been killed.
        eventually(Duration::from_secs(5), || {
            std::fs::remove_dir(&self.folder).map_err(|error| error.to_string())
        });
    }
}

/// The slow polls of which it is known how long the quota stopped them.
fn throttled(watcher: &Watcher) -> Vec<(Event, f64)> {
    let share = |event: &Event| {
        let activity = event.poll.as_ref()?.activity?;
        Some(activity.throttled_ns? as f64 / activity.observed_ns as f64)
    };
    let slow = watcher.events(Kind::PollSlow).into_iter();
    slow.filter_map(|event| share(&event).map(|share| (event, share))).collect()
}

#[test]
fn polls_that_a_quota_stops_say_so_and_the_code_is_not_blamed() {
    let Some(cgroup) = Fifth::of_a_core() else {
        // The other test, with simulated files, is what then holds.
        return evidence(PROMISE, "not measured: no cgroup with a quota can be made here");
    };
    let target = busy(60).in_cgroup(&cgroup.folder).start();
    target.said("ready");
    let watcher = Watcher::attach(&target.address, WatchRequest::default());
    let shares: Vec<f64> = eventually(Duration::from_secs(30), || {
        let throttled = throttled(&watcher);
        let mostly = throttled.iter().filter(|(_, share)| *share >= 0.5).count();
        if mostly >= 5 {
            Ok(throttled.iter().map(|(_, share)| *share).collect())
        } else {
            Err(format!("{throttled:#?}"))
        }
    });
    assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
    let sentence = eventually(Duration::from_secs(15), || {
        let (lines, code) = why(&target.address);
        let slow = lines.iter().find(|line| line.starts_with("SLOW") && line.contains("throttled"));
        slow.filter(|_| code == 1).cloned().ok_or_else(|| lines.join("\n"))
    });
    assert!(sentence.contains("spin") && sentence.contains("raise the CPU quota"), "{sentence}");
    assert!(!sentence.contains("spawn_blocking"), "{sentence}");
    evidence(PROMISE, sentence);
    // The target goes before its cgroup.
    drop((watcher, target));
}

#[test]
fn simulated_files_of_the_second_version_of_cgroups_say_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("cpu.max"), "20000 100000\n").expect("it can be written");
    let stat = std::fs::File::create(folder.path().join("cpu.stat")).expect("it can be written");
    // In one write and always of one length, as the kernel's own is never half there.
    let write = |usec: u64| {
        let text = format!("usage_usec 9\nnr_periods 100\nnr_throttled 90\nthrottled_usec {usec:012}\n");
        stat.write_all_at(text.as_bytes(), 0).expect("it can be written");
    };
    write(0);
    let target = busy(300).env("TASKSCOPE_CGROUP_DIR", folder.path()).start();
    target.said("ready");
    let watcher = Watcher::attach(&target.address, WatchRequest::default());
    let mut usec = 0;
    eventually(Duration::from_secs(20), || {
        // Asked every 20 ms: half of the time or so. What the thread really got of a CPU counts for more.
        usec += 10_000;
        write(usec);
        let told = throttled(&watcher);
        let known = told.iter().filter(|(_, share)| *share > 0.0).count();
        if known >= 2 { Ok(()) } else { Err(format!("{told:#?}")) }
    });
}
