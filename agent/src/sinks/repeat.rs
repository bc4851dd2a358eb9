//! When a receiver is told again of what still fires, as a machine that is told the time: whoever overlooked the first message
//! sees another.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alerts::labels::Fingerprint;
use crate::alerts::life::Transition;
use crate::alerts::notice::Notice;

/// What is silenced when it is due is looked at again after this long.
const LATER_NS: u64 = 60_000_000_000;

#[derive(Clone, Debug)]
pub(super) struct Repeat {
    every_ns: u64,
    /// What was told to fire, by when it is due to be told again.
    due: BTreeMap<Fingerprint, u64>,
}

impl Repeat {
    pub(super) fn new(every: Duration) -> Self {
        Self { every_ns: u64::try_from(every.as_nanos()).unwrap_or(u64::MAX), due: BTreeMap::new() }
    }

    /// The same things, another time between them.
    pub(super) fn every(mut self, every: Duration) -> Self {
        let before_ns = self.every_ns;
        self.every_ns = Self::new(every).every_ns;
        let every_ns = self.every_ns;
        self.due.values_mut().for_each(|due| *due = due.saturating_sub(before_ns).saturating_add(every_ns));
        self
    }

    /// The receiver is told this.
    pub(super) fn told(&mut self, notice: &Notice, now_ns: u64) {
        match notice.transition {
            Transition::Pending => {}
            Transition::Firing => {
                self.due.insert(notice.alert.fingerprint, now_ns.saturating_add(self.every_ns));
            }
            Transition::Resolved => {
                self.due.remove(&notice.alert.fingerprint);
            }
        }
    }

    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.due.values().any(|&due| due <= now_ns)
    }

    /// What is due of all that fires and is not silenced.
    pub(super) fn take(&mut self, firing: &[Notice], now_ns: u64) -> Vec<Notice> {
        let mut again = Vec::new();
        for (id, due) in self.due.iter_mut().filter(|(_, due)| **due <= now_ns) {
            let notice = firing.iter().find(|notice| notice.alert.fingerprint == *id);
            *due = now_ns.saturating_add(if notice.is_some() { self.every_ns } else { LATER_NS });
            again.extend(notice.cloned());
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::fixture::notice;

    const H: u64 = 3_600_000_000_000;

    fn of(group: &str, transition: Transition) -> Notice {
        notice("TaskSlowPoll", group, transition)
    }

    #[test]
    fn what_fires_is_told_every_four_hours_until_it_is_over() {
        let mut repeat = Repeat::new(Duration::from_nanos(4 * H));
        let (a, b) = (of("a", Transition::Firing), of("b", Transition::Firing));
        repeat.told(&a, 0);
        repeat.told(&b, H);
        let both = [a.clone(), b.clone()];
        assert!(!repeat.is_due(4 * H - 1));
        assert_eq!(repeat.take(&both, 4 * H), std::slice::from_ref(&a));
        assert!(!repeat.is_due(4 * H));
        repeat.told(&of("a", Transition::Resolved), 5 * H);
        assert_eq!(repeat.take(std::slice::from_ref(&b), 5 * H), [b]);
        repeat.told(&of("b", Transition::Resolved), 6 * H);
        assert!(!repeat.is_due(u64::MAX));
    }

    #[test]
    fn what_is_silenced_is_told_after_the_silence() {
        let mut repeat = Repeat::new(Duration::from_nanos(4 * H));
        let a = of("a", Transition::Firing);
        repeat.told(&a, 0);
        assert_eq!(repeat.take(&[], 4 * H), []);
        assert!(!repeat.is_due(4 * H + LATER_NS - 1));
        assert_eq!(repeat.take(std::slice::from_ref(&a), 4 * H + LATER_NS), [a]);
    }

    #[test]
    fn another_time_counts_from_the_last_time_that_it_was_told() {
        let mut repeat = Repeat::new(Duration::from_nanos(4 * H));
        repeat.told(&of("a", Transition::Firing), H);
        let repeat = repeat.every(Duration::from_nanos(2 * H));
        assert!(repeat.is_due(3 * H) && !repeat.is_due(3 * H - 1));
    }
}
