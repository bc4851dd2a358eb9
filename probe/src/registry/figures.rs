//! Sums over groups, labels and threads, for the probe's thread.

use taskscope_proto::histogram::Sparse;
use taskscope_proto::ids::GroupId;

use super::Registry;
use super::groups::Group;
use super::histograms::{Counted, Histograms, Tally};
use super::labels::LabelIndex;
use super::unsorted::Unsorted;

/// Since the probe began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) spawned: u64,
    pub(crate) ended: u64,
    pub(crate) panicked: u64,
    /// Finished, jobs of the blocking pool among them.
    pub(crate) polls: u64,
}

/// What is known of the polls of a group, of the stretches of a label, or of the waits of a group's tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Polls {
    pub(crate) histogram: Sparse,
    pub(crate) polls: u64,
    pub(crate) busy_ns: u64,
    pub(crate) longest_ns: u64,
}

impl Polls {
    fn of(counted: Counted, unsorted: &Unsorted) -> Self {
        let (polls, busy_ns) = unsorted.totals();
        Self {
            histogram: counted.histogram,
            polls: counted.polls + polls,
            busy_ns: counted.busy_ns + busy_ns,
            longest_ns: unsorted.longest_ns(),
        }
    }

    /// Adds what no histogram counts of a group, or label, whose histogram went to that of `other`.
    fn add_unsorted(&mut self, folded: &Unsorted) {
        let (polls, busy_ns) = folded.totals();
        self.polls += polls;
        self.busy_ns += busy_ns;
        self.longest_ns = self.longest_ns.max(folded.longest_ns());
    }
}

impl Registry {
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts { polls: self.group_polls.polls(self.lines.groups()), ..Counts::default() };
        for (_, group) in self.groups.iter() {
            let (spawned, ended, panicked) = group.counts();
            counts.spawned += spawned;
            counts.ended += ended;
            counts.panicked += panicked;
            counts.polls += group.unsorted.totals().0;
        }
        counts
    }

    /// `None`: counted under `other`, the memory of histograms being used up.
    pub(crate) fn polls_of_group(&self, id: GroupId) -> Option<Polls> {
        self.of_group(id, &self.group_polls, self.lines.groups(), |group| &group.unsorted)
    }

    /// The waits for a worker of a group's tasks. `None`: counted under `other`, as polls are.
    pub(crate) fn waits_of_group(&self, id: GroupId) -> Option<Polls> {
        self.of_group(id, &self.group_waits, self.lines.waits(), |group| &group.unsorted_waits)
    }

    fn of_group(
        &self,
        id: GroupId,
        histograms: &Histograms,
        tallies: impl Iterator<Item = &'static Tally>,
        unsorted: fn(&Group) -> &Unsorted,
    ) -> Option<Polls> {
        let counted = histograms.read(tallies, u8::try_from(id.0).ok()?)?;
        let mut all = Polls::of(counted, unsorted(self.groups.entry(id)));
        if id == GroupId(0) {
            let folded = self.groups.iter().filter(|(id, _)| histograms.is_folded(id.0 as u8));
            folded.for_each(|(_, group)| all.add_unsorted(unsorted(group)));
        }
        Some(all)
    }

    /// Number and time of a group's polls since the probe began, without their histogram; of a folded one what was counted
    /// elsewhere.
    pub(crate) fn totals_of_group(&self, id: GroupId) -> (u64, u64) {
        let (polls, busy_ns) = self.groups.entry(id).unsorted.totals();
        let position = u8::try_from(id.0).unwrap_or(0);
        let sorted = self.group_polls.totals(self.lines.groups(), position);
        (polls + sorted.0, busy_ns + sorted.1)
    }

    /// As [`Registry::polls_of_group`].
    pub(crate) fn polls_of_label(&self, index: LabelIndex) -> Option<Polls> {
        let counted = self.label_polls.read(self.lines.labels(), u8::try_from(index.0).ok()?)?;
        let mut polls = Polls::of(counted, &self.labels.entry(index).unsorted);
        if index == LabelIndex(0) {
            let folded = self.labels.iter().filter(|(index, _)| self.label_polls.is_folded(index.0 as u8));
            folded.for_each(|(_, label)| polls.add_unsorted(&label.unsorted));
        }
        Some(polls)
    }
}
