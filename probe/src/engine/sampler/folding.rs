//! Makes room for histograms: when a thread found none, the coldest group (or label) is folded into `other`.

use taskscope_proto::v1::loss::Reason;

use super::GroupWindows;
use crate::registry::Registry;
use crate::registry::histograms::Folding;

/// A thread in the middle of counting has finished by then, or is not running at all.
const GRACE_NS: u64 = 1_000_000_000;

/// What is being folded, of groups' polls, of their waits, or of labels.
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

/// The group whose waits are folded first. Of waits there is no window: tasks that are seldom polled seldom wait.
pub(super) fn coldest_waits(registry: &Registry, groups: &[GroupWindows]) -> Option<u8> {
    let counted = registry.groups.iter().skip(1).filter_map(|(id, _)| {
        registry.waits_of_group(id).filter(|waits| waits.polls > 0)?;
        let window = groups.get(id.0 as usize).map(|windows| &windows.polls);
        let polled = window.zip(registry.polls_of_group(id));
        let recent = polled.map_or(0, |(window, polls)| window.recent(&polls.histogram).total());
        Some((recent, id.0 as u8))
    });
    counted.min().map(|(_, position)| position)
}

#[cfg(test)]
mod tests {
    use taskscope_proto::ids::{GroupId, Sid};

    use super::*;
    use crate::clock::Clock;
    use crate::registry::MIN_BUDGET;

    const S: u64 = 1_000_000_000;

    #[test]
    fn waits_of_a_folded_group_are_those_of_other_and_its_polls_stay_its_own() {
        let registry = Registry::with_budget(MIN_BUDGET, Clock::start(), 1);
        let line = registry.lines.claim(1).expect("there is room");
        let known = [3u32, 4].map(|n| registry.groups.find(Sid(n), Sid(0)).expect("there is room"));
        let waits = |group: GroupId| registry.waits_of_group(group).map(|it| (it.polls, it.busy_ns));
        for group in known {
            assert!(registry.group_waits.add_first(&line.waits, group.0 as u8, 5_000));
        }
        assert!(registry.group_polls.add_first(&line.groups, known[1].0 as u8, 100));
        let mut windows: Vec<GroupWindows> = Vec::new();
        windows.resize_with(3, GroupWindows::default);
        windows[known[1].0 as usize].polls.snapshot(S, taskscope_proto::histogram::Sparse::default());
        let coldest = coldest_waits(&registry, &windows);
        assert_eq!(coldest, Some(known[0].0 as u8), "nothing of it was polled");
        let folding = registry.group_waits.fold(registry.lines.waits(), known[0].0 as u8);
        assert_eq!(waits(known[0]), None);
        registry.group_waits.finish(folding);
        assert_eq!((waits(GroupId(0)), waits(known[1])), (Some((1, 5_000)), Some((1, 5_000))));
        assert!(
            registry.polls_of_group(known[0]).is_some(),
            "what is folded of one kind is not of the other"
        );
    }

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
