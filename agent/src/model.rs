//! What is known of one target, from its description and frames.

use std::collections::VecDeque;

use taskscope_proto::columns::{self, Malformed};
use taskscope_proto::ids::Sid;
use taskscope_proto::row::TaskRow;
use taskscope_proto::strings::Strings;
use taskscope_proto::v1;

/// Events remembered for the sentences about what has just been.
const EVENTS_KEPT: usize = 512;

/// A target as of its last frame.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) description: v1::Description,
    /// The last frame; default before the first.
    pub(crate) frame: v1::Frame,
    pub(crate) capabilities: Vec<v1::Capability>,
    /// Of this instance, oldest first.
    pub(crate) events: VecDeque<v1::Event>,
    strings: Strings,
}

impl Model {
    pub(crate) fn new(description: v1::Description) -> Self {
        Self {
            capabilities: description.capabilities.clone(),
            description,
            frame: v1::Frame::default(),
            events: VecDeque::new(),
            strings: Strings::default(),
        }
    }

    /// Takes in a frame of this target.
    pub(crate) fn apply(&mut self, frame: v1::Frame) {
        self.strings.extend(&frame.strings);
        if !frame.capabilities.is_empty() {
            self.capabilities.clone_from(&frame.capabilities);
        }
        for event in &frame.events {
            if self.events.back().is_none_or(|last| event.seq > last.seq) {
                self.events.push_back(*event);
            }
        }
        while self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
        self.frame = frame;
    }

    pub(crate) fn text(&self, sid: u32) -> &str {
        self.strings.text(Sid(sid))
    }

    /// A text, or `None` where there is none.
    pub(crate) fn some_text(&self, sid: u32) -> Option<&str> {
        Some(self.text(sid)).filter(|text| !text.is_empty())
    }

    /// The rows of the last frame in their order; kept rows come last.
    pub(crate) fn rows(&self) -> Result<Vec<TaskRow>, Malformed> {
        let rows = self.frame.tasks.as_ref().and_then(|window| window.rows.as_ref());
        rows.map_or(Ok(vec![]), |rows| columns::decode(rows, &self.strings))
    }

    pub(crate) fn totals(&self) -> v1::Totals {
        self.frame.totals.unwrap_or_default()
    }

    pub(crate) fn groups(&self) -> &[v1::Group] {
        self.frame.groups.as_ref().map_or(&[], |window| &window.groups)
    }

    pub(crate) fn labels(&self) -> &[v1::Label] {
        self.frame.groups.as_ref().map_or(&[], |window| &window.labels)
    }

    /// The name of a system call of the target's architecture.
    pub(crate) fn syscall(&self, activity: &v1::ThreadActivity) -> Option<&'static str> {
        crate::syscalls::name(&self.description.arch, activity.syscall?)
    }
}
