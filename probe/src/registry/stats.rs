//! Counters of finished polls, shared by groups and labels. Any thread adds; the probe's thread reads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use bytemuck::Zeroable;
use taskscope_proto::histogram::{self, Sparse};

#[derive(Zeroable)]
pub(crate) struct Stats {
    polls: AtomicU64,
    busy_ns: AtomicU64,
    longest_ns: AtomicU64,
    /// Log-linear, counting modulo 2³²: differences are right as long as no bucket gets that many in one window. Pages of octaves that never occur are never touched.
    histogram: [AtomicU32; histogram::BUCKETS],
}

impl Stats {
    #[inline]
    pub(crate) fn add(&self, duration_ns: u64) {
        self.polls.fetch_add(1, Relaxed);
        self.busy_ns.fetch_add(duration_ns, Relaxed);
        self.histogram[histogram::index(duration_ns)].fetch_add(1, Relaxed);
        if duration_ns > self.longest_ns.load(Relaxed) {
            self.longest_ns.fetch_max(duration_ns, Relaxed);
        }
    }

    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Relaxed)
    }

    pub(crate) fn busy_ns(&self) -> u64 {
        self.busy_ns.load(Relaxed)
    }

    pub(crate) fn longest_ns(&self) -> u64 {
        self.longest_ns.load(Relaxed)
    }

    pub(crate) fn histogram(&self) -> Sparse {
        Sparse::from_counts(
            self.histogram.iter().enumerate().map(|(bucket, count)| (bucket, u64::from(count.load(Relaxed)))),
        )
    }
}
