//! Makes room for histograms: when a thread found none, the coldest group (or label) is folded into `other`.

use taskscope_proto::v1::loss::Reason;

use crate::registry::Registry;
use crate::registry::histograms::Folding;

/// A thread in the middle of counting has finished by then, or is not running at all.
const GRACE_NS: u64 = 1_000_000_000;

/// What is being folded, of groups or of labels.
#[derive(Default)]
pub(crate) struct Fold {
    begun: Option<(u64, Folding)>,
}

impl Fold {
    /// One step, once a second. `coldest` finds the position to fold, if there is one; `take` takes it away.
    pub(crate) fn step(
        &mut self,
        now_ns: u64,
        registry: &Registry,
        histograms: &crate::registry::histograms::Histograms,
        coldest: impl FnOnce() -> Option<u8>,
        take: impl FnOnce(u8) -> Folding,
    ) {
        if let Some((_, folding)) = self.begun.take_if(|(at, _)| now_ns >= *at + GRACE_NS) {
            histograms.finish(folding);
        }
        if self.begun.is_none()
            && histograms.is_short()
            && let Some(position) = coldest()
        {
            registry.losses.add(Reason::FoldedHistograms, 1);
            self.begun = Some((now_ns, take(position)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::registry::MIN_BUDGET;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_coldest_group_makes_room_after_a_grace() {
        let registry = Registry::with_budget(MIN_BUDGET, Clock::start(), 1);
        let line = registry.lines.claim(1).expect("there is room");
        let mut full = 0;
        for group in 1..=255u8 {
            for octave in 6..60 {
                full += u32::from(!registry.group_polls.add_first(&line.groups, group, 1 << octave));
            }
        }
        assert!(full > 0, "the smallest budget cannot hold all of this");
        let lines = || registry.lines.groups();
        let mut fold = Fold::default();
        let mut step = |now_ns| {
            fold.step(
                now_ns,
                &registry,
                &registry.group_polls,
                || Some(9),
                |position| registry.group_polls.fold(lines(), position),
            );
        };
        let before = registry.group_polls.polls(lines());
        step(S);
        assert_eq!(registry.losses.count(Reason::FoldedHistograms), 1);
        assert!(registry.group_polls.read(lines(), 9).is_none());
        step(S + S / 2);
        assert!(
            !registry.group_polls.add(&line.groups, 255, 1 << 59),
            "nothing is given out within the grace"
        );
        step(3 * S);
        assert_eq!(registry.group_polls.polls(lines()), before, "nothing is lost");
        let room =
            (6..60).filter(|octave| registry.group_polls.add_first(&line.groups, 255, 1 << octave)).count();
        assert!(room > 0);
    }
}
