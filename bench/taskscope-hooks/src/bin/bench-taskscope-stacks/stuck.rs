//! One long poll that does nothing but read the clock of its own CPU time: what a stack sample takes of it is the gap between two
//! readings. Time in which another thread had its CPU is not in it, the kernel's delivery of the signal is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use bench_workloads::Mode;
use tokio::runtime::Builder;

/// Some four samples each second.
const LASTS: Duration = Duration::from_secs(15);
/// Fewer than these would tell nothing.
const LEAST: usize = 20;
/// What interrupts takes at least this long.
const GAP: Duration = Duration::from_nanos(1_500);
/// Between two samples. What `taskscope-stacks` does within it after one is of the same.
const APART: Duration = Duration::from_millis(100);

/// Of the gaps in which a sample was taken.
pub(crate) struct Gaps {
    pub(crate) median_ns: f64,
    pub(crate) p99_ns: f64,
}

pub(crate) fn gaps<M: Mode>() -> Gaps {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    let (runtime, mode) = M::build(builder);
    let mut gaps =
        runtime.block_on(async { M::spawn(async { gaps_of_this_poll() }).await }).expect("no panic");
    drop(runtime);
    drop(mode);
    assert!(gaps.len() >= LEAST, "{} samples in {LASTS:?}", gaps.len());
    gaps.sort_unstable();
    // By nearest rank.
    let at = |percent: usize| gaps[(gaps.len() * percent).div_ceil(100) - 1].as_nanos() as f64;
    Gaps { median_ns: at(50), p99_ns: at(99) }
}

fn gaps_of_this_poll() -> Vec<Duration> {
    let taker = Taker::find();
    let (mut gaps, mut ran) = (Vec::with_capacity(1024), taker.ran());
    let began = now();
    let mut not_before = began;
    let mut last = cpu_time();
    while began.elapsed() < LASTS {
        let at = cpu_time();
        let gap = at.saturating_sub(last);
        last = at;
        if gap < GAP {
            continue;
        }
        let before = std::mem::replace(&mut ran, taker.ran());
        // It has slept for long, and has run now: in this gap its signal came. Else it was the kernel's tick or the like.
        let is_due = now() >= not_before;
        if before != ran {
            not_before = now() + APART;
            if is_due {
                gaps.push(gap);
            }
        }
        last = cpu_time();
    }
    // The first sample takes two signals: the mapping of the stack is not known yet.
    gaps.drain(..1.min(gaps.len()));
    gaps
}

/// The thread that sends the signal. It runs for nothing else.
struct Taker {
    file: File,
}

impl Taker {
    /// Soon after the start it is there.
    fn find() -> Self {
        let until = now() + Duration::from_secs(5);
        loop {
            let threads = std::fs::read_dir("/proc/self/task").expect("Linux tells a process its threads");
            let mut folders = threads.flatten().map(|thread| thread.path());
            // Names are cut to 15 bytes.
            let is_it = |name: String| name == "taskscope-stack\n";
            let found = folders.find(|it| std::fs::read_to_string(it.join("comm")).is_ok_and(is_it));
            if let Some(folder) = found {
                return Self { file: File::open(folder.join("schedstat")).expect("it is there") };
            }
            assert!(now() < until, "the probe takes no stacks");
        }
    }

    /// How often it was given a CPU.
    fn ran(&self) -> u64 {
        let mut text = [0; 96];
        let read = self.file.read_at(&mut text, 0).expect("it lives as long as the process");
        let text = std::str::from_utf8(&text[..read]).expect("numbers");
        let last = text.split_whitespace().nth(2);
        last.and_then(|number| number.parse().ok()).expect("three numbers")
    }
}

/// Of this thread, as the kernel counts it to now.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[allow(clippy::disallowed_methods, reason = "this is a stopwatch")]
fn now() -> Instant {
    Instant::now()
}
