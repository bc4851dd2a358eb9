//! Sliding windows over counters that only grow, and how the number of live tasks moved. Pure code.

use std::collections::{BTreeMap, VecDeque};

use taskscope_proto::histogram::{Sparse, index, upper_bound};
use taskscope_proto::v1::{PollStats, Trend};

/// A snapshot is taken this often, and this many are kept: the window is between 8 and 10 seconds, so that what it says
/// is about now.
pub(crate) const SNAPSHOT_EVERY_NS: u64 = 2_000_000_000;
const SNAPSHOTS: usize = 5;
/// One-second samples behind a trend.
const TREND_SECONDS: usize = 60;

/// The last seconds of one histogram.
#[derive(Default)]
pub(crate) struct Window {
    snapshots: VecDeque<(u64, Sparse)>,
    /// CPU and observed time of slow polls that were looked at while they ran.
    slow_cpu_ns: u64,
    slow_observed_ns: u64,
    excused: Excused,
}

/// Polls that were counted with a length that was not theirs: the process stood still in them.
#[derive(Default)]
struct Excused {
    /// When that was noticed and in which bucket they are, as long as the window can hold them.
    recent: VecDeque<(u64, usize)>,
    /// By bucket, since the probe began.
    total: BTreeMap<usize, u64>,
    paused_ns: u64,
}

impl Window {
    /// Takes a snapshot of the counters as they are at `now_ns`.
    pub(crate) fn snapshot(&mut self, now_ns: u64, counters: Sparse) {
        if self.snapshots.is_empty() {
            // What was counted before the first snapshot is recent, too.
            self.snapshots.push_back((now_ns.saturating_sub(SNAPSHOT_EVERY_NS), Sparse::default()));
        }
        if self.snapshots.len() == SNAPSHOTS {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back((now_ns, counters));
        let from = self.snapshots.front().map_or(0, |&(at, _)| at);
        // What was excused at the instant of a snapshot is in that snapshot.
        self.excused.recent.retain(|&(at, _)| at > from);
        // Halved with each snapshot, so that what it says is recent.
        self.slow_cpu_ns /= 2;
        self.slow_observed_ns /= 2;
    }

    /// A slow poll that was looked at has ended.
    pub(crate) fn observed(&mut self, on_cpu_ns: u64, observed_ns: u64) {
        self.slow_cpu_ns += on_cpu_ns.min(observed_ns);
        self.slow_observed_ns += observed_ns;
    }

    /// Takes a poll out again that the counters count with `ns`, or will in a moment, and of which the process stood still
    /// for `paused_ns`.
    pub(crate) fn excuse(&mut self, now_ns: u64, ns: u64, paused_ns: u64) {
        let bucket = index(ns);
        *self.excused.total.entry(bucket).or_default() += 1;
        self.excused.recent.push_back((now_ns, bucket));
        self.excused.paused_ns += paused_ns;
    }

    /// The longest poll since the probe began, `longest_ns` being the longest that was counted.
    pub(crate) fn longest(&self, longest_ns: u64, counters: &Sparse) -> u64 {
        if self.excused.total.is_empty() {
            return longest_ns;
        }
        let excused = |bucket| self.excused.total.get(&bucket).copied().unwrap_or(0);
        let longest = counters.iter().filter(|&(bucket, count)| count > excused(bucket)).last();
        longest.map_or(0, |(bucket, _)| longest_ns.min(upper_bound(bucket)))
    }

    /// Busy time since the probe began, `busy_ns` being what was counted.
    pub(crate) fn busy(&self, busy_ns: u64) -> u64 {
        busy_ns.saturating_sub(self.excused.paused_ns)
    }

    fn without_excused(&self, recent: Sparse) -> Sparse {
        if self.excused.recent.is_empty() {
            return recent;
        }
        let excused = |bucket| self.excused.recent.iter().filter(|&&(_, it)| it == bucket).count() as u64;
        Sparse::from_counts(
            recent.iter().map(|(bucket, count)| (bucket, count.saturating_sub(excused(bucket)))),
        )
    }

    /// What was counted in the window that ends at `now_ns`, `began_ns` being when counting began.
    pub(crate) fn stats(
        &self,
        now_ns: u64,
        began_ns: u64,
        counters: &Sparse,
        threshold_ns: u64,
    ) -> PollStats {
        let (from, recent) = match self.snapshots.front() {
            Some((at, earlier)) => (*at, counters.since(earlier)),
            None => (began_ns, counters.clone()),
        };
        let recent = self.without_excused(recent);
        PollStats {
            window_ns: now_ns.saturating_sub(from).max(1),
            polls_window: recent.total(),
            slow_window: recent.at_least(threshold_ns),
            p99_window_ns: recent.quantile(0.99),
            max_window_ns: recent.max(),
            slow_on_cpu_ratio: (self.slow_observed_ns > 0)
                .then(|| self.slow_cpu_ns as f64 / self.slow_observed_ns as f64),
            ..PollStats::default()
        }
    }

    /// Only what the window holds, for a watcher that asked for histograms.
    pub(crate) fn recent(&self, counters: &Sparse) -> Sparse {
        self.without_excused(
            self.snapshots.front().map_or_else(|| counters.clone(), |(_, earlier)| counters.since(earlier)),
        )
    }
}

/// The last minute of a group's size.
#[derive(Default)]
pub(crate) struct Size {
    /// Instant, spawned, ended.
    samples: VecDeque<(u64, u64, u64)>,
}

impl Size {
    pub(crate) fn sample(&mut self, now_ns: u64, spawned: u64, ended: u64) {
        if self.samples.len() == TREND_SECONDS {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ns, spawned, ended));
    }

    /// The movement since the group was last at its lowest.
    pub(crate) fn trend(&self, now_ns: u64, spawned: u64, ended: u64) -> Trend {
        let live = |&(_, spawned, ended): &(u64, u64, u64)| spawned.saturating_sub(ended);
        // The latest of equally low samples: that is when it began to grow.
        let lowest = self.samples.iter().rev().min_by_key(|sample| live(sample));
        let growing = |from_ns: u64| {
            let since: Vec<u64> =
                self.samples.iter().filter(|sample| sample.0 >= from_ns).map(live).collect();
            since.windows(2).filter(|pair| pair[1] > pair[0]).count() as u32
        };
        match lowest {
            Some(low) if live(low) < spawned.saturating_sub(ended) => Trend {
                growing_seconds: growing(low.0),
                window_ns: now_ns.saturating_sub(low.0),
                live_before: live(low),
                spawned: spawned.saturating_sub(low.1),
                ended: ended.saturating_sub(low.2),
            },
            _ => Trend { live_before: spawned.saturating_sub(ended), ..Trend::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskscope_proto::histogram::index;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_window_forgets_what_is_old() {
        let mut window = Window::default();
        let slow = |count| Sparse::from_counts([(index(200_000_000), count)]);
        window.snapshot(0, slow(0));
        for tick in 1..=5 {
            window.snapshot(tick * 2 * S, slow(5));
        }
        let stats = window.stats(11 * S, 0, &slow(7), 100_000_000);
        assert_eq!((stats.polls_window, stats.slow_window), (2, 2));
        assert_eq!(stats.window_ns, 9 * S);
        assert!(stats.p99_window_ns.is_some_and(|ns| (200_000_000..210_000_000).contains(&ns)));
    }

    #[test]
    fn a_first_poll_stays_in_the_window_after_the_first_snapshot() {
        let mut window = Window::default();
        let one = Sparse::from_counts([(index(900_000_000), 1)]);
        window.snapshot(2 * S, one.clone());
        assert_eq!(window.stats(3 * S, 0, &one, 100_000_000).slow_window, 1);
    }

    #[test]
    fn a_poll_that_was_long_only_because_the_process_stood_still_is_not_counted() {
        let mut window = Window::default();
        let counted = |long| Sparse::from_counts([(index(300_000_000), 2), (index(5 * S), long)]);
        window.snapshot(0, counted(0));
        window.excuse(S, 5 * S, 4_900_000_000);
        let stats = window.stats(S, 0, &counted(1), 100_000_000);
        assert_eq!((stats.polls_window, stats.slow_window), (2, 2));
        assert!(stats.max_window_ns.is_some_and(|ns| ns < 310_000_000), "{stats:?}");
        assert_eq!(window.recent(&counted(1)).total(), 2);
        assert_eq!(window.busy(6 * S), 1_100_000_000);
        let longest = window.longest(5_001_000_000, &counted(1));
        assert!((300_000_000..310_000_000).contains(&longest), "{longest}");
        // One that really took as long counts, now and when the window has moved on.
        assert_eq!(window.stats(2 * S, 0, &counted(2), 100_000_000).slow_window, 3);
        assert_eq!(window.longest(5_001_000_000, &counted(2)), 5_001_000_000);
        (1..=6).for_each(|tick| window.snapshot(tick * 2 * S, counted(2)));
        assert_eq!(window.stats(13 * S, 0, &counted(3), 100_000_000).slow_window, 1);
    }

    #[test]
    fn what_was_excused_at_a_snapshot_is_in_it() {
        let mut window = Window::default();
        let counted = |long| Sparse::from_counts([(index(5 * S), long)]);
        window.excuse(2 * S, 5 * S, 4_900_000_000);
        (1..=6).for_each(|tick| window.snapshot(tick * 2 * S, counted(1)));
        // A poll of the same length that nothing excuses.
        assert_eq!(window.stats(13 * S, 0, &counted(2), 100_000_000).slow_window, 1);
    }

    #[test]
    fn an_empty_window_has_no_percentile() {
        let stats = Window::default().stats(5 * S, 0, &Sparse::default(), 1);
        assert_eq!((stats.polls_window, stats.p99_window_ns, stats.slow_on_cpu_ratio), (0, None, None));
    }

    #[test]
    fn a_trend_begins_where_growth_began() {
        let mut size = Size::default();
        for second in 0..10 {
            size.sample(second * S, 40, 0);
        }
        for second in 10..43 {
            size.sample(second * S, 40 + (second - 9) * 40, 0);
        }
        let trend = size.trend(43 * S, 1400, 0);
        assert_eq!(
            trend,
            Trend { window_ns: 34 * S, live_before: 40, spawned: 1360, ended: 0, growing_seconds: 33 }
        );
    }

    #[test]
    fn a_burst_grows_in_one_second_only() {
        let mut size = Size::default();
        size.sample(0, 0, 0);
        (1..20).for_each(|second| size.sample(second * S, 212, 0));
        let trend = size.trend(20 * S, 212, 0);
        assert_eq!((trend.live_before, trend.spawned, trend.growing_seconds), (0, 212, 1));
    }

    #[test]
    fn a_steady_group_has_no_trend() {
        let mut size = Size::default();
        (0..9).for_each(|second| size.sample(second * S, 40 + second * 7, second * 7));
        assert_eq!(size.trend(9 * S, 103, 63).window_ns, 0);
    }
}
