//! Evidence in the agent's loop: which files alerts name, and what becomes of a name whose file is not there.

use std::path::PathBuf;

use super::{Agent, Alert};
use crate::alerts::watcher::EVIDENCE;

impl Agent {
    /// Takes note of what of it is done.
    pub(super) fn tend_evidence(&mut self) {
        self.name_evidence();
        for path in self.evidence.tick() {
            let path = path.display().to_string();
            self.watched.values_mut().for_each(|watched| watched.watcher.forget_evidence(&path));
        }
    }

    /// Says which files are named by alerts that are not over: these make room last. Costs nothing while none is taken.
    pub(super) fn name_evidence(&self) {
        if !self.evidence.is_busy() {
            return;
        }
        let known = self.watched.values().flat_map(|watched| watched.watcher.evidence()).map(PathBuf::from);
        let missed = self.missed.values().flatten().cloned().map(Alert::from);
        let missed = missed.filter_map(|mut alert| alert.annotations.remove(EVIDENCE)).map(PathBuf::from);
        self.evidence.named(known.chain(missed).collect());
    }
}
