//! When the frames of one watcher leave, and when the walks that fill them go on. A pure machine; times are ns on the
//! probe's clock.
//!
//! ```text
//! Quiet --due--> Begin a walk --done----------> Send --> Quiet
//!                     |  \--no credit, or 20 ms are over--> Send the answer at hand; the walk goes on behind it
//!                     \--no answer yet--> wait for it, 500 ms at most; then Send without, and again once it is there
//! ```

/// Frames leave at once for events and new requests, but not more often than this.
const SOONEST_NS: u64 = 50_000_000;
/// A frame waits this long for rows that are fresher than the ones at hand.
const PATIENCE_NS: u64 = 20_000_000;
/// It waits this long for its first rows.
const FIRST_PATIENCE_NS: u64 = 500_000_000;
/// Between two frames that carry the past.
const CHUNKS_EVERY_NS: u64 = 5_000_000;

/// How the walk stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Walking {
    /// The watcher asks for nothing that needs one.
    Needless,
    /// None is under way.
    Done { has_answer: bool },
    /// The next slice may run after `wait_ns`.
    UnderWay { has_answer: bool, wait_ns: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Send,
    /// Begin a walk.
    Begin,
    /// Run a slice of it.
    Slice,
    /// Until this instant.
    Sleep(u64),
}

#[derive(Debug)]
pub(crate) struct Schedule {
    interval_ns: u64,
    once: bool,
    sent_ns: Option<u64>,
    due_ns: u64,
    /// A walk was begun for the frame that is due.
    begun: bool,
    /// The last frame was sent without the rows that it should have had.
    owing: bool,
}

impl Schedule {
    /// A first frame is due now.
    pub(crate) fn new(now_ns: u64, interval_ns: u64, once: bool) -> Self {
        Self { interval_ns, once, sent_ns: None, due_ns: now_ns, begun: false, owing: false }
    }

    /// A request has come: its answer is due now, but a flood of requests is answered as one.
    pub(crate) fn asked(&mut self, now_ns: u64, interval_ns: u64, once: bool) {
        (self.interval_ns, self.once, self.begun, self.owing) = (interval_ns, once, false, false);
        self.due_ns = self.soonest(now_ns);
    }

    /// There is something to tell at once.
    pub(crate) fn news(&mut self, now_ns: u64) {
        self.due_ns = self.due_ns.min(self.soonest(now_ns));
    }

    /// A walk has ended.
    pub(crate) fn walked(&mut self, now_ns: u64) {
        if self.owing {
            (self.due_ns, self.begun) = (now_ns, true);
        }
    }

    /// A frame was sent, or left out because the watcher does not read. `has_answer`: it had the rows asked for.
    pub(crate) fn sent(&mut self, now_ns: u64, has_answer: bool) {
        self.sent_ns = Some(now_ns);
        self.due_ns = now_ns.saturating_add(self.interval_ns);
        (self.begun, self.owing) = (false, !has_answer);
    }

    /// More of the past waits to be sent: no reason to look for rows again.
    pub(crate) fn more(&mut self, now_ns: u64) {
        (self.due_ns, self.begun) = (now_ns.saturating_add(CHUNKS_EVERY_NS), true);
    }

    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    /// What to do now.
    pub(crate) fn step(&mut self, now_ns: u64, walking: Walking) -> Step {
        let due = self.is_due(now_ns);
        let late_ns = now_ns.saturating_sub(self.due_ns);
        match walking {
            Walking::Needless if due => Step::Send,
            Walking::Done { .. } if due && !self.begun => {
                self.begun = true;
                Step::Begin
            }
            Walking::Done { .. } if due => Step::Send,
            Walking::Needless | Walking::Done { .. } => Step::Sleep(self.due_ns),
            Walking::UnderWay { has_answer: true, wait_ns }
                if due && (wait_ns > 0 || late_ns >= PATIENCE_NS) =>
            {
                Step::Send
            }
            Walking::UnderWay { has_answer: false, .. }
                if due && !self.once && late_ns >= FIRST_PATIENCE_NS =>
            {
                Step::Send
            }
            Walking::UnderWay { wait_ns: 0, .. } => Step::Slice,
            Walking::UnderWay { wait_ns, .. } => {
                let latest_ns = match (due, self.once) {
                    (false, _) => self.due_ns,
                    (true, false) => self.due_ns.saturating_add(FIRST_PATIENCE_NS),
                    (true, true) => u64::MAX,
                };
                Step::Sleep(now_ns.saturating_add(wait_ns).min(latest_ns))
            }
        }
    }

    fn soonest(&self, now_ns: u64) -> u64 {
        self.sent_ns.map_or(now_ns, |sent_ns| now_ns.max(sent_ns.saturating_add(SOONEST_NS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    fn done(has_answer: bool) -> Walking {
        Walking::Done { has_answer }
    }

    fn under_way(has_answer: bool, wait_ns: u64) -> Walking {
        Walking::UnderWay { has_answer, wait_ns }
    }

    #[test]
    fn a_watcher_of_totals_gets_frames_at_its_interval_and_no_walk() {
        let mut schedule = Schedule::new(0, S, false);
        assert_eq!(schedule.step(0, Walking::Needless), Step::Send);
        schedule.sent(0, true);
        assert_eq!(schedule.step(1, Walking::Needless), Step::Sleep(S));
        assert_eq!(schedule.step(S, Walking::Needless), Step::Send);
    }

    #[test]
    fn a_frame_waits_for_its_walk_if_that_is_quick() {
        let mut schedule = Schedule::new(0, S, false);
        assert_eq!(schedule.step(0, done(false)), Step::Begin);
        assert_eq!(schedule.step(0, under_way(false, 0)), Step::Slice);
        schedule.walked(MS);
        assert_eq!(schedule.step(MS, done(true)), Step::Send);
        schedule.sent(MS, true);
        // The next one takes longer than a frame waits: the answer at hand is sent, and the walk goes on behind it.
        assert_eq!(schedule.step(S + MS, done(true)), Step::Begin);
        assert_eq!(schedule.step(S + 20 * MS, under_way(true, 0)), Step::Slice);
        assert_eq!(schedule.step(S + 21 * MS, under_way(true, 0)), Step::Send);
        schedule.sent(S + 21 * MS, true);
        assert_eq!(schedule.step(S + 22 * MS, under_way(true, 0)), Step::Slice);
        assert_eq!(schedule.step(S + 22 * MS, under_way(true, 30 * MS)), Step::Sleep(S + 52 * MS));
        assert_eq!(schedule.step(S + 22 * MS, under_way(true, 3 * S)), Step::Sleep(2 * S + 21 * MS));
    }

    #[test]
    fn without_credit_an_answer_at_hand_is_not_held_back() {
        let mut schedule = Schedule::new(0, S, false);
        schedule.sent(0, true);
        assert_eq!(schedule.step(S, done(true)), Step::Begin);
        assert_eq!(schedule.step(S, under_way(true, 1)), Step::Send);
    }

    #[test]
    fn first_rows_are_waited_for_and_sent_as_soon_as_they_are_there() {
        let mut schedule = Schedule::new(0, 10 * S, false);
        assert_eq!(schedule.step(0, done(false)), Step::Begin);
        assert_eq!(schedule.step(0, under_way(false, 2 * S)), Step::Sleep(500 * MS));
        assert_eq!(schedule.step(500 * MS, under_way(false, 2 * S)), Step::Send);
        schedule.sent(500 * MS, false);
        assert_eq!(schedule.step(600 * MS, under_way(false, 0)), Step::Slice);
        schedule.walked(700 * MS);
        assert_eq!(schedule.step(700 * MS, done(true)), Step::Send);
        schedule.sent(700 * MS, true);
        assert_eq!(schedule.step(701 * MS, done(true)), Step::Sleep(10 * S + 700 * MS));
    }

    #[test]
    fn a_watcher_of_one_frame_gets_it_with_rows_however_long_that_takes() {
        let mut schedule = Schedule::new(0, S, true);
        assert_eq!(schedule.step(0, done(false)), Step::Begin);
        assert_eq!(schedule.step(4 * S, under_way(false, 2 * S)), Step::Sleep(6 * S));
        assert_eq!(schedule.step(6 * S, under_way(false, 0)), Step::Slice);
        assert_eq!(schedule.step(6 * S, done(true)), Step::Send);
    }

    #[test]
    fn requests_and_news_are_answered_at_once_but_not_in_a_flood() {
        let mut schedule = Schedule::new(0, S, false);
        schedule.sent(0, true);
        schedule.news(10 * MS);
        assert_eq!(schedule.step(10 * MS, Walking::Needless), Step::Sleep(50 * MS));
        schedule.asked(300 * MS, 2 * S, false);
        assert_eq!(schedule.step(300 * MS, Walking::Needless), Step::Send);
        schedule.sent(300 * MS, true);
        assert_eq!(schedule.step(300 * MS, Walking::Needless), Step::Sleep(2_300 * MS));
    }

    #[test]
    fn the_past_follows_at_once_and_without_a_walk() {
        let mut schedule = Schedule::new(0, S, false);
        schedule.sent(0, true);
        schedule.more(0);
        assert_eq!(schedule.step(0, done(true)), Step::Sleep(5 * MS));
        assert_eq!(schedule.step(5 * MS, done(true)), Step::Send);
    }
}
