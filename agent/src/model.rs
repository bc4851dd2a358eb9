//! What is known of one target, from its description and frames.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use taskscope_proto::columns::Malformed;
use taskscope_proto::ids::{Sid, TaskId};
use taskscope_proto::row::TaskRow;
use taskscope_proto::strings::Strings;
use taskscope_proto::v1;
use taskscope_proto::window::Window;

use crate::interned::{self, Stacks};
use crate::stack::Thread;
use crate::stack::share::{self, Spent};
use crate::symbols::Symbols;

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
    /// The last groups and labels that were sent: not every frame has some.
    groups: v1::GroupWindow,
    /// They came with the last frame.
    pub(crate) groups_are_new: bool,
    rows: Window,
    /// What in the last frame's rows could not be read.
    fault: Option<Malformed>,
    /// Ids that standing queries have found, by query; `None`: the target has not looked yet.
    found: Option<BTreeMap<u64, Vec<u64>>>,
    strings: Strings,
    pub(crate) stacks: Stacks,
}

/// A job of a blocking pool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    /// `std::thread::sleep, src/mail.rs:7`
    pub(crate) on: String,
    pub(crate) since_ns: u64,
}

/// For how long a thread without a poll has been seen where it is.
pub(crate) fn seen_ns(thread: &v1::Thread) -> u64 {
    thread.stacks.iter().map(|share| share.covered_ns).fold(0, u64::saturating_add)
}

impl Model {
    pub(crate) fn new(description: v1::Description) -> Self {
        Self {
            capabilities: description.capabilities.clone(),
            description,
            frame: v1::Frame::default(),
            events: VecDeque::new(),
            groups: v1::GroupWindow::default(),
            groups_are_new: false,
            rows: Window::default(),
            fault: None,
            found: None,
            strings: Strings::default(),
            stacks: Stacks::default(),
        }
    }

    /// Takes in a frame of this target.
    pub(crate) fn apply(&mut self, mut frame: v1::Frame) {
        self.strings.extend(&frame.strings);
        self.stacks.extend(&frame);
        let groups = frame.groups.take();
        self.groups_are_new = groups.is_some();
        if let Some(groups) = groups {
            self.groups = groups;
        }
        self.fault = self.rows.take(&frame, &self.strings).err();
        self.find(&frame);
        let found: Vec<u64> = self.found.iter().flat_map(BTreeMap::values).flatten().copied().collect();
        self.rows.prune(&found);
        if !frame.capabilities.is_empty() {
            self.capabilities.clone_from(&frame.capabilities);
        }
        for event in &frame.events {
            if self.events.back().is_none_or(|last| event.seq > last.seq) {
                self.events.push_back(event.clone());
            }
        }
        while self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
        self.frame = frame;
    }

    /// A frame that stands alone has every finding that is not empty, as soon as it has rows: the same look found both.
    fn find(&mut self, frame: &v1::Frame) {
        if frame.resync {
            self.found = None;
        }
        if self.found.is_none() && frame.tasks.is_some() {
            self.found = Some(BTreeMap::new());
        }
        if let Some(found) = &mut self.found {
            let news = frame.findings.iter().map(|finding| (finding.query_id, finding.task_ids.clone()));
            found.extend(news);
        }
    }

    /// The tasks that match a standing query of the request, those that do so the longest first; `None`: the target has
    /// not looked yet.
    pub(crate) fn found(&self, query_id: u64) -> Option<&[u64]> {
        Some(self.found.as_ref()?.get(&query_id).map_or(&[], Vec::as_slice))
    }

    /// The row of a task, if it came.
    pub(crate) fn row(&self, id: u64) -> Option<&TaskRow> {
        self.rows.row(TaskId(id))
    }

    /// Names the stacks of this frame, of what has just happened, and those of `besides`, as far as names are known by now.
    /// True: all have theirs. Never waits.
    pub(crate) fn look_up(&mut self, symbols: &Symbols, besides: &[u32]) -> bool {
        let events = self.events.iter().flat_map(interned::of_event);
        let wanted: BTreeSet<u32> =
            interned::of_frame(&self.frame).chain(events).chain(besides.iter().copied()).collect();
        self.stacks.look_up(symbols, wanted.into_iter())
    }

    /// Where the time of a poll went, by line, the most first.
    pub(crate) fn spent(&self, poll: &v1::LivePoll) -> Vec<Spent> {
        self.stacks.by_line(&poll.stacks)
    }

    /// `2.9 of 3.1 s in bcrypt::hash, src/login.rs:40`; `None` where no stack was taken, or nothing of it has a name.
    pub(crate) fn line(&self, poll: &v1::LivePoll) -> Option<String> {
        share::words(&self.spent(poll), poll.since_ns)
    }

    /// What jobs of the blocking pools are doing, the oldest first; those of which no stack was taken are left out.
    pub(crate) fn jobs(&self) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.frame.threads.iter().filter_map(|thread| self.job(thread)).collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.since_ns));
        jobs
    }

    /// No thread of the last frame came with a stack of a job.
    pub(crate) fn jobs_untold(&self) -> bool {
        let has_stacks = |thread: &v1::Thread| match &thread.poll {
            Some(poll) => poll.kind() == v1::TaskKind::Blocking && !poll.stacks.is_empty(),
            None => !thread.stacks.is_empty(),
        };
        !self.frame.threads.iter().any(has_stacks)
    }

    fn job(&self, thread: &v1::Thread) -> Option<Job> {
        let (shares, since_ns) = match &thread.poll {
            Some(poll) if poll.kind() == v1::TaskKind::Blocking => (&poll.stacks, poll.since_ns),
            Some(_) => return None,
            None => (&thread.stacks, seen_ns(thread)),
        };
        let spent = self.stacks.by_line(shares);
        let first = spent.first()?;
        let is_job = thread.poll.is_some() || spent.iter().any(|spent| spent.stack.thread == Thread::Job);
        is_job.then(|| Job { on: first.on.clone(), since_ns })
    }

    pub(crate) fn text(&self, sid: u32) -> &str {
        self.strings.text(Sid(sid))
    }

    /// A text, or `None` where there is none.
    pub(crate) fn some_text(&self, sid: u32) -> Option<&str> {
        Some(self.text(sid)).filter(|text| !text.is_empty())
    }

    /// The rows as of the last frame, in their order; kept rows come last.
    pub(crate) fn rows(&self) -> Result<Vec<&TaskRow>, Malformed> {
        self.fault.clone().map_or_else(|| Ok(self.rows.ordered_and_kept()), Err)
    }

    /// Tasks matching the request's filter, in the window or not.
    pub(crate) fn matching(&self) -> u64 {
        self.rows.matching().unwrap_or(0)
    }

    pub(crate) fn totals(&self) -> v1::Totals {
        self.frame.totals.unwrap_or_default()
    }

    pub(crate) fn groups(&self) -> &[v1::Group] {
        &self.groups.groups
    }

    pub(crate) fn labels(&self) -> &[v1::Label] {
        &self.groups.labels
    }

    /// The name of a system call of the target's architecture.
    pub(crate) fn syscall(&self, activity: &v1::ThreadActivity) -> Option<&'static str> {
        crate::syscalls::name(&self.description.arch, activity.syscall?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frame_leaves_out_stands_and_ages() {
        let mut model = Model::new(v1::Description::default());
        let columns = v1::TaskRows { id: vec![7, 8], age_ns: vec![10, 20], ..v1::TaskRows::default() };
        let window = |rows| v1::TaskWindow { order: vec![8, 7], rows, matching: 2, ..Default::default() };
        let groups = v1::GroupWindow { total: 1, groups: vec![v1::Group::default()], labels: vec![] };
        model.apply(v1::Frame {
            resync: true,
            at_ns: 100,
            tasks: Some(window(Some(columns))),
            groups: Some(groups),
            ..v1::Frame::default()
        });
        model.apply(v1::Frame { at_ns: 105, tasks: Some(window(None)), ..v1::Frame::default() });
        let rows = model.rows().expect("they were read");
        assert_eq!(rows.iter().map(|row| (row.id.0, row.age_ns)).collect::<Vec<_>>(), [(8, 25), (7, 15)]);
        assert_eq!((model.groups().len(), model.matching()), (1, 2));
    }
}
