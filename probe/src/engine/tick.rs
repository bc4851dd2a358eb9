//! How often the sampler looks at the thread lines. Every 50 ms while somebody watches or a poll runs long; every 100 ms
//! while nobody does; and less often in a process in which nothing happens, so that an idle one is hardly woken.
//!
//! A poll that begins in a pause is seen at its end at the latest. No pause is therefore longer than a poll may run before
//! it has to be reported: its threshold and the 50 ms within which the report is due.

/// Between two looks while it matters.
pub(crate) const TICK_NS: u64 = 50_000_000;
const UNWATCHED_NS: u64 = 100_000_000;
const QUIET_NS: u64 = 200_000_000;
/// Nothing has happened for this many ticks: it is quiet.
const QUIET_TICKS: u32 = 20;
/// Left for the timer and the look itself.
const MARGIN_NS: u64 = 10_000_000;

/// What a tick has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) watched: bool,
    /// A bracket is open on some line.
    pub(crate) open: bool,
    /// One of them is old enough to be looked at.
    pub(crate) long: bool,
    /// Differs from the number of the tick before if any bracket has ended in between.
    pub(crate) ends: u64,
    /// The lowest length at which a poll is an event.
    pub(crate) threshold_ns: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Ticks {
    quiet: u32,
    ends: u64,
}

impl Ticks {
    /// Time until the next tick.
    pub(crate) fn next_ns(&mut self, seen: Seen) -> u64 {
        let moved = seen.open || seen.ends != self.ends;
        self.ends = seen.ends;
        self.quiet = if moved { 0 } else { self.quiet.saturating_add(1) };
        let wanted_ns = match () {
            () if self.quiet >= QUIET_TICKS => QUIET_NS,
            () if seen.watched || seen.long => TICK_NS,
            () => UNWATCHED_NS,
        };
        wanted_ns.min(seen.threshold_ns.saturating_add(TICK_NS - MARGIN_NS)).max(TICK_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const WATCHED: Seen = Seen { watched: true, open: false, long: false, ends: 7, threshold_ns: 100 * MS };

    fn after_silence(seen: Seen) -> (Ticks, u64) {
        let mut ticks = Ticks::default();
        let last = (0..40).map(|_| ticks.next_ns(seen)).last().unwrap_or(0);
        (ticks, last)
    }

    #[test]
    fn silence_makes_it_slow_and_any_bracket_makes_it_fast_again() {
        let (mut ticks, slow) = after_silence(WATCHED);
        assert_eq!(slow, 140 * MS);
        assert_eq!(ticks.next_ns(Seen { open: true, ..WATCHED }), TICK_NS);
        let (mut ticks, _) = after_silence(WATCHED);
        let ended = Seen { ends: 8, ..WATCHED };
        // And it stays fast for a while.
        assert_eq!((0..20).filter(|_| ticks.next_ns(ended) == TICK_NS).count(), 20);
    }

    #[test]
    fn without_a_watcher_only_a_long_poll_is_looked_at_often() {
        let mut ticks = Ticks::default();
        let busy = Seen { watched: false, open: true, ..WATCHED };
        assert_eq!(ticks.next_ns(busy), 100 * MS);
        assert_eq!(ticks.next_ns(Seen { long: true, ..busy }), TICK_NS);
        assert_eq!(ticks.next_ns(Seen { threshold_ns: 20 * MS, ..busy }), 60 * MS);
    }

    #[test]
    fn a_poll_that_begins_in_the_pause_is_seen_in_time_to_be_reported() {
        for threshold_ns in [1, 20 * MS, 100 * MS, 150 * MS, 1_000 * MS, u64::MAX] {
            for watched in [false, true] {
                let (_, slow) = after_silence(Seen { watched, threshold_ns, ..WATCHED });
                assert!(slow <= threshold_ns.saturating_add(50 * MS), "{threshold_ns}: {slow}");
                assert!((TICK_NS..=200 * MS).contains(&slow));
            }
        }
    }
}
