//! What stands of a target's alerts now, and how they end with it.

use super::{Alert, Fingerprint, Labels, Notice, Phase, Transition, Watcher};

/// An alert that is pending or fires.
pub(crate) struct Standing<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) fires: bool,
}

impl Watcher {
    /// Everything that is pending or fires; what another alert holds back is not told and not among them.
    pub(crate) fn standing(&self) -> impl Iterator<Item = Standing<'_>> {
        let told = self.lives.iter().filter(|(_, entry)| entry.held_by.is_none());
        told.filter_map(|(labels, entry)| match entry.life.phase() {
            Phase::Inactive => None,
            Phase::Pending { .. } => Some(Standing { labels, fires: false }),
            Phase::Firing | Phase::Recovering { .. } => Some(Standing { labels, fires: true }),
        })
    }

    /// Everything that is pending or fires as it is now, with what is told instead of it.
    pub(crate) fn alerts(&self) -> impl Iterator<Item = (Alert, Option<Fingerprint>)> {
        self.lives.iter().filter_map(|(labels, entry)| {
            let state = match entry.life.phase() {
                Phase::Inactive => return None,
                Phase::Pending { .. } => Transition::Pending,
                Phase::Firing | Phase::Recovering { .. } => Transition::Firing,
            };
            let cause = entry.held_by.as_ref().map(|(cause, _)| *cause);
            Some((entry.notice(labels, state, 0).alert, cause))
        })
    }

    /// What people were told that it fires, and not yet that it is over.
    pub(crate) fn fired(&self) -> impl Iterator<Item = Alert> {
        let told = self.lives.iter().filter(|(_, entry)| entry.told == Some(Transition::Firing));
        told.map(|(labels, entry)| entry.notice(labels, Transition::Firing, 0).alert)
    }

    /// Files with what was seen when an alert began to fire that is not over.
    pub(crate) fn evidence(&self) -> impl Iterator<Item = &str> {
        self.lives.values().filter_map(|entry| entry.evidence.as_deref())
    }

    /// Such a file is not there. The alert may have fired anew since, and have another one.
    pub(crate) fn forget_evidence(&mut self, path: &str) {
        for entry in self.lives.values_mut().filter(|entry| entry.evidence.as_deref() == Some(path)) {
            entry.evidence = None;
        }
    }

    /// Nobody watches the target any more: what was told to fire is over.
    pub(crate) fn close(self, unix_ns: u64) -> Vec<Notice> {
        let told = self.lives.iter().filter(|(_, entry)| entry.told == Some(Transition::Firing));
        told.map(|(labels, entry)| entry.notice(labels, Transition::Resolved, unix_ns)).collect()
    }
}
