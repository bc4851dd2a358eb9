//! The interned texts of one stream, as its receiver keeps them.

use std::collections::{BTreeSet, HashMap};

use crate::ids::Sid;
use crate::v1::{Frame, InternedString};

/// Texts by id. Id 0 is the empty text.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    texts: HashMap<u32, String>,
}

impl Strings {
    /// Takes in the texts of a frame.
    pub fn extend(&mut self, fresh: &[InternedString]) {
        for string in fresh.iter().filter(|string| string.sid != 0) {
            self.texts.insert(string.sid, string.text.clone());
        }
    }

    /// The text of `sid`; empty for 0 and for an id that was never sent.
    pub fn text(&self, sid: Sid) -> &str {
        // Most of a row's texts are empty.
        if sid.0 == 0 {
            return "";
        }
        self.texts.get(&sid.0).map_or("", String::as_str)
    }
}

/// The ids of all texts that a frame uses, and 0 where it uses none somewhere.
pub fn used(frame: &Frame) -> BTreeSet<u32> {
    let mut used: BTreeSet<u32> = BTreeSet::new();
    if let Some(rows) = frame.tasks.as_ref().and_then(|window| window.rows.as_ref()) {
        used.extend(rows.name_sid.iter().chain(&rows.label_sid).chain(&rows.spawned_at_sid));
        used.extend(rows.reason_sid.iter().chain(&rows.fields_sid));
    }
    if let Some(window) = &frame.groups {
        used.extend(window.groups.iter().flat_map(|group| [group.name_sid, group.spawned_at_sid]));
        used.extend(window.labels.iter().map(|label| label.label_sid));
    }
    let past = frame.history.iter();
    let events = frame.events.iter().chain(past.clone().flat_map(|chunk| &chunk.events));
    let workers = frame.runtimes.iter().flat_map(|runtime| &runtime.workers).filter_map(|w| w.poll.as_ref());
    let threads = frame.threads.iter().filter_map(|thread| thread.poll.as_ref());
    for poll in workers.chain(threads).chain(events.clone().filter_map(|event| event.poll.as_ref())) {
        used.extend([poll.name_sid, poll.label_sid, poll.spawned_at_sid]);
    }
    used.extend(events.map(|event| event.reason_sid));
    let groups = past.flat_map(|chunk| &chunk.groups);
    used.extend(groups.flat_map(|group| [group.name_sid, group.spawned_at_sid]));
    used
}
