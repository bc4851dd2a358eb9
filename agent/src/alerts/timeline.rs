//! The clock of a target, made one that does not go back: each run of the target begins its own at zero.

/// Of the time between two runs, more than this tells nothing: the wall clock was set.
const LONGEST_GAP_NS: u64 = 3_600_000_000_000;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Timeline {
    instance: String,
    /// What this run's clock is behind ours.
    offset_ns: u64,
    now_ns: u64,
    unix_ns: u64,
}

impl Timeline {
    /// The time of a frame. Within a run the target's monotonic clock decides, between two runs the wall clock; where either
    /// goes back, no time has passed.
    pub(crate) fn take(&mut self, instance: &str, at_ns: u64, unix_ns: u64) -> u64 {
        if self.instance != instance {
            let gap_ns = match self.unix_ns {
                0 => 0,
                before => unix_ns.saturating_sub(before).min(LONGEST_GAP_NS),
            };
            instance.clone_into(&mut self.instance);
            self.offset_ns = self.now_ns.saturating_add(gap_ns).saturating_sub(at_ns);
        }
        self.now_ns = self.now_ns.max(at_ns.saturating_add(self.offset_ns));
        self.unix_ns = unix_ns;
        self.now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_restart_takes_as_long_as_the_wall_clock_says() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.take("a", 50 * S, 1_000 * S), 50 * S);
        assert_eq!(timeline.take("a", 51 * S, 1_001 * S), 51 * S);
        assert_eq!(timeline.take("b", S, 1_006 * S), 56 * S);
        assert_eq!(timeline.take("b", 3 * S, 1_008 * S), 58 * S);
    }

    #[test]
    fn clocks_that_jump_make_no_time() {
        let mut timeline = Timeline::default();
        timeline.take("a", 50 * S, 1_000 * S);
        // Within a run the wall clock says nothing.
        assert_eq!(timeline.take("a", 51 * S, 9_000_000 * S), 51 * S);
        assert_eq!(timeline.take("a", 20 * S, 9_000_000 * S), 51 * S);
        // It was set back, or far ahead, between two runs.
        assert_eq!(timeline.take("b", S, 1_000 * S), 51 * S);
        assert_eq!(timeline.take("b", 2 * S, 1_001 * S), 52 * S);
        assert_eq!(timeline.take("c", S, 90_000 * S), 52 * S + LONGEST_GAP_NS);
    }
}
