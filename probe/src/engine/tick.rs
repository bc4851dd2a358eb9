//! How often the sampler looks at the thread lines: every 50 ms while anything happens on them, and less often in a
//! process in which nothing does, so that an idle one is hardly woken for the probe.
//!
//! A poll that begins in the pause is seen at its end at the latest; the pause is therefore as long as a poll may run
//! before it has to be reported, and no longer: its threshold and the 50 ms within which the report is due.

/// Between two looks while anything happens.
pub(crate) const TICK_NS: u64 = 50_000_000;
/// Nothing has happened for this many ticks: it is quiet.
const QUIET_TICKS: u32 = 20;
/// However high the threshold is.
const LONGEST_NS: u64 = 200_000_000;
/// Left for the timer and the look itself.
const MARGIN_NS: u64 = 10_000_000;

/// Told at each tick what the lines show.
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    quiet: u32,
    /// Sum of the ends of the last brackets of all lines.
    ends: u64,
}

impl Ticks {
    /// Time until the next tick. `open`: a bracket is open on some line. `ends`: a number that differs from the one of the
    /// tick before if any bracket ended in between. `threshold_ns`: the lowest length at which a poll is an event.
    pub(crate) fn next_ns(&mut self, open: bool, ends: u64, threshold_ns: u64) -> u64 {
        let moved = open || ends != self.ends;
        self.ends = ends;
        self.quiet = if moved { 0 } else { self.quiet.saturating_add(1) };
        if self.quiet < QUIET_TICKS {
            return TICK_NS;
        }
        threshold_ns.saturating_add(TICK_NS - MARGIN_NS).clamp(TICK_NS, LONGEST_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn after_silence(threshold_ns: u64) -> (Ticks, u64) {
        let mut ticks = Ticks::default();
        let last = (0..40).map(|_| ticks.next_ns(false, 7, threshold_ns)).last().unwrap_or(0);
        (ticks, last)
    }

    #[test]
    fn silence_makes_it_slow_and_any_bracket_makes_it_fast_again() {
        let (mut ticks, slow) = after_silence(100 * MS);
        assert_eq!(slow, 140 * MS);
        assert_eq!(ticks.next_ns(true, 7, 100 * MS), TICK_NS);
        let (mut ticks, _) = after_silence(100 * MS);
        assert_eq!(ticks.next_ns(false, 8, 100 * MS), TICK_NS);
        // And it stays fast for a while.
        assert_eq!((0..19).filter(|_| ticks.next_ns(false, 8, 100 * MS) == TICK_NS).count(), 19);
    }

    #[test]
    fn a_poll_that_begins_in_the_pause_is_seen_in_time_to_be_reported() {
        for threshold_ns in [1, 20 * MS, 100 * MS, 150 * MS, 1_000 * MS, u64::MAX] {
            let (_, slow) = after_silence(threshold_ns);
            assert!(
                slow <= threshold_ns.saturating_add(50 * MS) && slow <= 200 * MS,
                "{threshold_ns}: {slow}"
            );
            assert!(slow >= TICK_NS);
        }
    }
}
