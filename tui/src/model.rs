//! What the target has said so far, with its texts resolved. Nothing in here is drawn or asked for; it only takes in.
//!
//! Texts are interned per stream and a new stream begins them anew, so whatever outlives a frame keeps its texts and no
//! ids of texts.

pub(crate) mod code;
pub(crate) mod group;
pub(crate) mod history;
pub(crate) mod tasks;

use std::collections::BTreeMap;

use taskscope_proto::ids::{Sid, TaskId};
use taskscope_proto::strings::Strings;
use taskscope_proto::v1;

use crate::app::Sentence;
use code::Codes;
use group::Groups;
use history::History;
use tasks::TaskWindow;

/// Events kept; older ones are forgotten.
const EVENTS: usize = 256;
/// A text of a target is kept up to this many bytes: no screen shows more, and rows hold copies.
const TEXT_BYTES: usize = 1024;

/// One run of one target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) description: Option<v1::Description>,
    /// The target's clock at the last frame; `None` before the first.
    pub(crate) at_ns: Option<u64>,
    pub(crate) rows_age_ns: u64,
    pub(crate) totals: Option<v1::Totals>,
    pub(crate) runtimes: Vec<Runtime>,
    /// Threads inside a poll that are no worker.
    pub(crate) threads: Vec<Thread>,
    pub(crate) pools: Vec<v1::Pool>,
    /// By sequence number, so that the same event taken twice is one.
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) tasks: TaskWindow,
    pub(crate) groups: Groups,
    pub(crate) history: History,
    pub(crate) losses: Vec<v1::Loss>,
    pub(crate) capabilities: Vec<v1::Capability>,
    pub(crate) probe: Option<v1::ProbeHealth>,
    /// The plain words for all this, made by whoever drives the dashboard.
    pub(crate) sentences: Vec<Sentence>,
    /// Likewise, where in the code polls are.
    pub(crate) codes: Codes,
    /// What the last frame had that could not be read.
    pub(crate) fault: Option<String>,
    strings: Strings,
}

#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) id: u32,
    pub(crate) name: Option<String>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) ready_tasks: Option<u64>,
    pub(crate) oldest_ready_ns: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) index: u32,
    pub(crate) tid: Option<u32>,
    pub(crate) state: v1::worker::State,
    pub(crate) since_ns: Option<u64>,
    pub(crate) busy_ratio: Option<f64>,
    pub(crate) poll: Option<LivePoll>,
}

#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) tid: u32,
    pub(crate) poll: LivePoll,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct LivePoll {
    /// `None`: it belongs to no task that is followed.
    pub(crate) task: Option<TaskId>,
    pub(crate) kind: v1::TaskKind,
    /// These three are empty where there is none.
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) spawned_at: String,
    pub(crate) since_ns: u64,
    pub(crate) activity: Option<v1::ThreadActivity>,
    pub(crate) label_since_ns: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) at_ns: u64,
    pub(crate) kind: v1::event::Kind,
    pub(crate) tid: Option<u32>,
    pub(crate) poll: LivePoll,
    /// Of a pause of the process.
    pub(crate) paused_ns: Option<u64>,
    /// Message and place of a panic, or the text of an error; empty where there is none.
    pub(crate) reason: String,
}

impl Model {
    /// A model of the run that `description` names.
    pub(crate) fn of(description: v1::Description) -> Self {
        Self {
            capabilities: description.capabilities.clone(),
            description: Some(description),
            ..Self::default()
        }
    }

    /// Identity of the run; `None` until it was described.
    pub(crate) fn instance(&self) -> Option<&str> {
        self.description.as_ref().map(|description| description.instance.as_str())
    }

    /// A poll this long is slow; `None` until the target said so.
    pub(crate) fn slow_poll_ns(&self) -> Option<u64> {
        self.description.as_ref().map(|it| it.slow_poll_threshold_ns).filter(|&ns| ns > 0)
    }

    /// Tasks alive: as the runtimes count them, else the ones that have a row.
    pub(crate) fn alive(&self) -> Option<u64> {
        self.totals.as_ref().map(|totals| totals.alive.unwrap_or(totals.followed))
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.runtimes.iter().flat_map(|runtime| &runtime.workers)
    }

    /// Mean busy share of the workers that know theirs.
    pub(crate) fn busy_ratio(&self) -> Option<f64> {
        let known: Vec<f64> = self.workers().filter_map(|worker| worker.busy_ratio).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// Takes in a frame. Those of one stream must come in their order.
    pub(crate) fn take(&mut self, mut frame: v1::Frame) {
        if frame.seq <= 1 {
            self.strings = Strings::default();
        }
        let texts: Vec<_> = frame
            .strings
            .drain(..)
            .map(|it| v1::InternedString { sid: it.sid, text: shortened(it.text) })
            .collect();
        self.strings.extend(&texts);
        self.at_ns = Some(frame.at_ns);
        self.rows_age_ns = frame.rows_age_ns;
        self.totals = frame.totals.or(self.totals.take());
        self.runtimes = frame.runtimes.drain(..).map(|runtime| self.runtime(runtime)).collect();
        self.threads = frame.threads.drain(..).map(|thread| self.thread(thread)).collect();
        self.pools = std::mem::take(&mut frame.pools);
        for event in frame.events.drain(..) {
            let event = self.event(event);
            self.events.insert(event.seq, event);
        }
        while self.events.len() > EVENTS {
            self.events.pop_first();
        }
        if let Some((&oldest, _)) = self.events.first_key_value() {
            self.codes.forget_before(oldest);
        }
        self.losses = std::mem::take(&mut frame.losses);
        self.probe = frame.probe.or(self.probe.take());
        if !frame.capabilities.is_empty() {
            self.capabilities = std::mem::take(&mut frame.capabilities);
        }
        if let Some(chunk) = &frame.history {
            self.history.take_chunk(chunk);
        }
        self.take_sample(frame.at_ns);
        if let Some(groups) = &frame.groups {
            self.groups.take(groups, frame.at_ns, &self.strings);
        }
        self.fault = self.tasks.take(&frame, &self.strings).err().map(|malformed| malformed.to_string());
    }

    /// Adds what this frame says to the history that began before it.
    fn take_sample(&mut self, at_ns: u64) {
        let Some(totals) = &self.totals else { return };
        let slow_ns = self.slow_poll_ns().unwrap_or(u64::MAX);
        let stuck = self
            .workers()
            .filter(|worker| worker.poll.as_ref().is_some_and(|poll| poll.since_ns >= slow_ns))
            .count();
        let live = history::Live {
            alive: totals.alive.unwrap_or(totals.followed),
            polls_total: totals.polls_total,
            requests_total: totals.requests_total,
            busy_permille: self.busy_ratio().map(|ratio| (ratio * 1000.0).clamp(0.0, 1000.0) as u32),
            stuck: stuck as u32,
        };
        self.history.take_live(at_ns, live);
    }

    fn text(&self, sid: u32) -> String {
        self.strings.text(Sid(sid)).to_owned()
    }

    fn runtime(&self, runtime: v1::Runtime) -> Runtime {
        Runtime {
            id: runtime.id,
            name: runtime.name.map(shortened),
            ready_tasks: runtime.ready_tasks,
            oldest_ready_ns: runtime.oldest_ready_ns,
            workers: runtime
                .workers
                .into_iter()
                .map(|worker| Worker {
                    index: worker.index,
                    tid: worker.tid,
                    state: worker.state(),
                    since_ns: worker.since_ns,
                    busy_ratio: worker.busy_ratio.filter(|ratio| ratio.is_finite()),
                    poll: worker.poll.map(|poll| self.live_poll(&poll)),
                })
                .collect(),
        }
    }

    fn thread(&self, thread: v1::Thread) -> Thread {
        Thread { tid: thread.tid, poll: self.live_poll(&thread.poll.unwrap_or_default()) }
    }

    fn event(&self, event: v1::Event) -> Event {
        Event {
            seq: event.seq,
            at_ns: event.at_ns,
            kind: event.kind(),
            tid: event.tid,
            poll: self.live_poll(&event.poll.unwrap_or_default()),
            paused_ns: event.paused_ns,
            reason: self.text(event.reason_sid),
        }
    }

    fn live_poll(&self, poll: &v1::LivePoll) -> LivePoll {
        LivePoll {
            task: (poll.task_id != 0).then_some(TaskId(poll.task_id)),
            kind: poll.kind(),
            name: self.text(poll.name_sid),
            label: self.text(poll.label_sid),
            spawned_at: self.text(poll.spawned_at_sid),
            since_ns: poll.since_ns,
            activity: poll.activity,
            label_since_ns: poll.label_since_ns,
        }
    }
}

/// At most [`TEXT_BYTES`] of `text`, ending in `…` where it was longer.
fn shortened(mut text: String) -> String {
    if text.len() > TEXT_BYTES {
        let mut end = TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, label_sid: u32) -> v1::Event {
        let poll = v1::LivePoll { label_sid, ..v1::LivePoll::default() };
        v1::Event { seq, at_ns: seq, poll: Some(poll), ..v1::Event::default() }
    }

    fn text(sid: u32, text: &str) -> v1::InternedString {
        v1::InternedString { sid, text: text.into() }
    }

    #[test]
    fn texts_of_an_older_stream_are_not_read_with_the_ids_of_a_newer_one() {
        let mut model = Model::default();
        model.take(v1::Frame {
            seq: 1,
            strings: vec![text(1, "GET /old")],
            events: vec![event(7, 1)],
            ..v1::Frame::default()
        });
        model.take(v1::Frame { seq: 1, events: vec![event(8, 1)], ..v1::Frame::default() });
        let labels: Vec<_> = model.events.values().map(|event| event.poll.label.as_str()).collect();
        assert_eq!(labels, ["GET /old", ""]);
    }

    #[test]
    fn an_event_that_comes_again_is_kept_once_and_the_oldest_go_first() {
        let mut model = Model::default();
        for _ in 0..2 {
            model.take(v1::Frame { seq: 1, events: vec![event(1, 0)], ..v1::Frame::default() });
        }
        assert_eq!(model.events.len(), 1);
        model.take(v1::Frame {
            seq: 2,
            events: (2..400).map(|seq| event(seq, 0)).collect(),
            ..v1::Frame::default()
        });
        assert_eq!(
            (model.events.len(), model.events.first_key_value().map(|(&seq, _)| seq)),
            (EVENTS, Some(144))
        );
    }

    #[test]
    fn a_megabyte_of_name_is_kept_short() {
        let mut model = Model::default();
        let huge = "é".repeat(1 << 19);
        model.take(v1::Frame {
            seq: 1,
            strings: vec![text(1, &huge)],
            events: vec![event(1, 1)],
            ..v1::Frame::default()
        });
        assert_eq!(model.events[&1].poll.label.len(), TEXT_BYTES + '…'.len_utf8());
    }

    #[test]
    fn a_malformed_window_is_a_fault_until_the_next_frame() {
        let rows = v1::TaskRows { id: vec![1, 2], polls: vec![1], ..v1::TaskRows::default() };
        let window = v1::TaskWindow { order: vec![1, 2], rows: Some(rows), ..v1::TaskWindow::default() };
        let mut model = Model::default();
        model.take(v1::Frame { seq: 1, tasks: Some(window), ..v1::Frame::default() });
        assert_eq!(
            model.fault.as_deref(),
            Some("malformed task rows: column polls holds 1 values for 2 rows")
        );
        model.take(v1::Frame { seq: 2, ..v1::Frame::default() });
        assert_eq!(model.fault, None);
    }
}
