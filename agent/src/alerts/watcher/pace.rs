//! How often a target is asked for frames: seldom while nothing looms, and often enough to tell in time once something does.
//! An event of the target comes at once at either pace. A pure machine; times are ns on the target's clock.

const CALM_NS: u64 = 1_000_000_000;
/// Of a target with many groups, which has more to say. What looms there is told within two seconds still.
const CALM_LARGE_NS: u64 = 1_500_000_000;
const HURRIED_NS: u64 = 250_000_000;
/// Another pace is another request, after which the target sends everything anew: not for what comes and goes.
const HURRIED_FOR_NS: u64 = 10_000_000_000;

/// Rows of groups, where they are many: they are most of what a large target has to say, and what rules read of them changes over
/// minutes, unless tasks become more.
const CALM_GROUPS_NS: u64 = 15_000_000_000;
const GROWING_GROUPS_NS: u64 = 5_000_000_000;
const GROWING_FOR_NS: u64 = 60_000_000_000;

#[derive(Default)]
pub(super) struct Pace {
    loomed_ns: Option<u64>,
    grew_ns: Option<u64>,
}

impl Pace {
    /// A frame came; `looms`: something in it may soon be told.
    pub(super) fn take(&mut self, looms: bool, now_ns: u64) {
        if looms {
            self.loomed_ns = Some(now_ns);
        } else if self.loomed_ns.is_some_and(|at_ns| now_ns >= at_ns.saturating_add(HURRIED_FOR_NS)) {
            self.loomed_ns = None;
        }
    }

    /// The same of the number of tasks; `grows`: they have become more by what may be a leak.
    pub(super) fn take_growth(&mut self, grows: bool, now_ns: u64) {
        if grows {
            self.grew_ns = Some(now_ns);
        } else if self.grew_ns.is_some_and(|at_ns| now_ns >= at_ns.saturating_add(GROWING_FOR_NS)) {
            self.grew_ns = None;
        }
    }

    /// Time between rows of groups; 0: with each frame.
    pub(super) fn groups_ns(&self, is_large: bool) -> u64 {
        match (is_large, self.grew_ns) {
            (false, _) => 0,
            (true, Some(_)) => GROWING_GROUPS_NS,
            (true, None) => CALM_GROUPS_NS,
        }
    }

    /// Time between frames.
    pub(super) fn interval_ns(&self, is_large: bool) -> u64 {
        match (self.loomed_ns, is_large) {
            (Some(_), _) => HURRIED_NS,
            (None, false) => CALM_NS,
            (None, true) => CALM_LARGE_NS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looms_is_looked_at_often_until_it_has_been_gone_for_a_while() {
        const S: u64 = 1_000_000_000;
        let mut pace = Pace::default();
        pace.take(false, 0);
        assert_eq!([false, true].map(|is_large| pace.interval_ns(is_large)), [CALM_NS, CALM_LARGE_NS]);
        pace.take(true, S);
        assert_eq!([false, true].map(|is_large| pace.interval_ns(is_large)), [HURRIED_NS; 2]);
        for second in 2..11 {
            pace.take(false, second * S);
            assert_eq!(pace.interval_ns(false), HURRIED_NS, "{second} s");
        }
        pace.take(true, 11 * S);
        pace.take(false, 20 * S);
        assert_eq!(pace.interval_ns(false), HURRIED_NS);
        pace.take(false, 21 * S);
        assert_eq!(pace.interval_ns(false), CALM_NS);
    }

    #[test]
    fn many_groups_come_seldom_until_tasks_become_more() {
        const S: u64 = 1_000_000_000;
        let mut pace = Pace::default();
        pace.take_growth(false, 0);
        assert_eq!(pace.groups_ns(false), 0, "few come with each frame");
        assert_eq!(pace.groups_ns(true), CALM_GROUPS_NS);
        pace.take_growth(true, S);
        for second in 2..61 {
            pace.take_growth(false, second * S);
            assert_eq!(pace.groups_ns(true), GROWING_GROUPS_NS, "{second} s");
        }
        pace.take_growth(false, 61 * S);
        assert_eq!(pace.groups_ns(true), CALM_GROUPS_NS);
    }
}
