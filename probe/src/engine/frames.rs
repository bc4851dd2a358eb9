//! Frames for one watcher: what it asked for, from what the sampler knows. They cost in proportion to what it can show; a
//! walk over the tasks goes on in slices beside them, and only where rows or standing queries need one.

use std::collections::HashSet;

use prost::Message;
use taskscope_proto::MAX_MESSAGE_BYTES;
use taskscope_proto::ids::{GroupId, Sid};
use taskscope_proto::strings;
use taskscope_proto::v1::{self, loss::Reason};

use super::Engine;
use super::credit::Purpose;
use super::history::Cursor;
use super::sampler::Sampler;
use super::schedule::Walking;

mod ask;
mod groups;
mod row;
mod stacks;
mod standing;
mod totals;
mod walk;
mod window;

pub(crate) use ask::Ask;
use stacks::SentStacks;
use standing::Found;
use walk::{Answer, Walk};
use window::Shown;

/// One stream.
pub(crate) struct Watcher {
    ask: Ask,
    seq: u64,
    resync: bool,
    /// Texts that the other end has.
    sent: HashSet<u32>,
    sent_stacks: SentStacks,
    /// The round of stacks that its frame waits for.
    round: stacks::Round,
    events_sent: u64,
    /// The first event that it was sent as news: history has those before. 0: no frame was sent yet.
    events_from: u64,
    /// How many seconds of history were asked for when they were begun to be sent, and what is left of them.
    history_sent: u32,
    history: Option<Cursor>,
    groups_at_ns: Option<u64>,
    capabilities_sent: Vec<v1::Capability>,
    found: Found,
    walk: Option<Walk>,
    /// What the last walk found, if it is about what is asked now.
    answer: Option<Answer>,
    shown: Shown,
}

impl Watcher {
    pub(crate) fn new(ask: Ask) -> Self {
        Self {
            ask,
            seq: 0,
            resync: true,
            sent: HashSet::new(),
            sent_stacks: SentStacks::default(),
            round: stacks::Round::default(),
            events_sent: 0,
            events_from: 0,
            history_sent: 0,
            history: None,
            groups_at_ns: None,
            capabilities_sent: Vec::new(),
            found: Found::default(),
            walk: None,
            answer: None,
            shown: Shown::default(),
        }
    }

    pub(crate) fn ask(&self) -> &Ask {
        &self.ask
    }

    /// A new request; the next frame stands alone.
    pub(crate) fn replace(&mut self, ask: Ask) {
        // What was found stands where it was looked for in the same words.
        if self.ask.tasks != ask.tasks || self.ask.standing != ask.standing || self.ask.keep != ask.keep {
            self.walk = None;
        }
        if self.ask.tasks != ask.tasks || self.ask.standing != ask.standing {
            self.answer = None;
        }
        self.found.replace(&self.ask.standing, &ask.standing);
        self.ask = ask;
        self.round = stacks::Round::default();
        self.resync();
    }

    /// The other end has lost frames or asked anew: the next one stands alone.
    pub(crate) fn resync(&mut self) {
        self.resync = true;
        self.shown.resync();
        self.found.resync();
    }

    /// Whether events wait that have not been sent.
    pub(crate) fn has_news(&self, sampler: &Sampler) -> bool {
        sampler.events_total() > self.events_sent
    }

    /// Whether more of the past waits to be sent.
    pub(crate) fn has_past(&self) -> bool {
        self.history.is_some()
    }

    /// Whether the next frame has everything that was asked for.
    pub(crate) fn has_answer(&self, sampler: &Sampler) -> bool {
        self.answer.is_some() || !self.needs_walk(sampler)
    }

    fn needs_walk(&self, sampler: &Sampler) -> bool {
        self.ask.tasks.is_some() || !self.ask.standing.is_empty() || !self.lost(sampler).is_empty()
    }

    fn lost(&self, sampler: &Sampler) -> Vec<u64> {
        self.shown.lost(&self.ask.keep, sampler)
    }

    /// What a slice of its walk is for.
    pub(crate) fn purpose(&self) -> Purpose {
        if self.answer.is_some() { Purpose::Again } else { Purpose::First }
    }

    /// How its walk stands; `wait_ns` says when the next slice may run.
    pub(crate) fn walking(&self, sampler: &Sampler, wait_ns: impl FnOnce(Purpose) -> u64) -> Walking {
        let has_answer = self.answer.is_some();
        if self.walk.is_some() {
            Walking::UnderWay { has_answer, wait_ns: wait_ns(self.purpose()) }
        } else if self.needs_walk(sampler) {
            Walking::Done { has_answer }
        } else {
            Walking::Needless
        }
    }

    pub(crate) fn begin_walk(&mut self, sampler: &Sampler, now_ns: u64) {
        let registry = &sampler.engine.registry;
        let after = self.ask.tasks.as_ref().and_then(|tasks| self.shown.place_of(tasks, registry, now_ns));
        self.walk = Some(Walk::new(&self.ask, now_ns, after, self.lost(sampler)));
    }

    /// One slice of the walk, until `until_ns`. True: it has come to its end.
    pub(crate) fn advance(&mut self, sampler: &Sampler, until_ns: u64) -> bool {
        let Some(walk) = &mut self.walk else { return true };
        if !walk.advance(&self.ask, &self.found, &sampler.engine.registry, Some(sampler), until_ns) {
            return false;
        }
        if let Some(walk) = self.walk.take() {
            let finished = walk.finish(&self.ask, sampler);
            self.found.take(&self.ask.standing, finished.matches, sampler.now_ns());
            self.shown.searched(finished.lost, finished.found);
            self.answer = Some(finished.answer);
        }
        true
    }

    /// The next frame.
    pub(crate) fn frame(&mut self, sampler: &mut Sampler, watchers: u32) -> v1::Frame {
        let now_ns = sampler.now_ns();
        sampler.refresh(now_ns);
        // What a row says is as of after everything else: what is on the lines now may not be in the slots before.
        let now_ns = sampler.now_ns();
        let resync = std::mem::take(&mut self.resync);
        self.seq += 1;
        let tasks = self.shown.window(&self.ask, self.answer.as_ref(), sampler, now_ns);
        let groups = self.due_groups(sampler, now_ns, resync);
        let events = self.new_events(sampler);
        let mut runtimes = sampler.workers.describe(sampler.awake_ns(now_ns), &sampler.lines, &sampler.live);
        sampler.add_stacks_of_unseen(&mut runtimes);
        let answer = self.answer.as_ref();
        let scheduled = answer.and_then(|answer| answer.scheduled.as_deref());
        totals::count_tasks(sampler, &mut runtimes, scheduled);
        let mut frame = v1::Frame {
            seq: self.seq,
            request_id: self.ask.request_id,
            at_ns: now_ns,
            unix_ns: super::thread::unix_ns(),
            resync,
            rows_age_ns: answer.map_or(0, |answer| now_ns.saturating_sub(answer.began_ns)),
            totals: Some(totals::totals(sampler, scheduled)),
            threads: totals::threads(sampler, &runtimes, self.wants_other_threads()),
            runtimes,
            pools: sampler.all_pools(now_ns),
            tasks,
            groups,
            events,
            findings: self.findings(),
            history: self.next_of_the_past(sampler),
            losses: totals::losses(sampler),
            probe: Some(v1::ProbeHealth {
                memory_bytes: sampler.engine.bytes() as u64,
                memory_limit_bytes: sampler.engine.settings.memory_bytes as u64,
                cpu_ratio: sampler.cpu_ratio,
                watchers,
                memory_used_bytes: None,
            }),
            capabilities: self.changed_capabilities(sampler.engine),
            strings: Vec::new(),
            modules: Vec::new(),
            stacks: Vec::new(),
        };
        self.add_strings(&mut frame, sampler.engine);
        self.sent_stacks.add_to(&mut frame, sampler.engine);
        // Rows, groups and the past have their own limits, which leave room for all texts that there can be.
        debug_assert!(frame.encoded_len() <= MAX_MESSAGE_BYTES);
        frame
    }

    /// Until a walk has answered what is asked now, nothing: the other end takes a finding for a part of that answer.
    fn findings(&mut self) -> Vec<v1::StandingFinding> {
        if self.answer.is_some() { self.found.news() } else { Vec::new() }
    }

    /// The groups, unless it is too soon after the last ones.
    fn due_groups(&mut self, sampler: &mut Sampler, now_ns: u64, resync: bool) -> Option<v1::GroupWindow> {
        let query = self.ask.groups?;
        let every_ns = query.every_ns.max(groups::EVERY_NS);
        let due = self.groups_at_ns.is_none_or(|at_ns| now_ns >= at_ns.saturating_add(every_ns));
        if !due && !resync {
            return None;
        }
        self.groups_at_ns = Some(now_ns);
        Some(groups::window(sampler, now_ns, &query, self.ask.histograms_total))
    }

    /// The next chunk of what happened before.
    fn next_of_the_past(&mut self, sampler: &Sampler) -> Option<v1::HistoryChunk> {
        if self.ask.history_seconds > self.history_sent {
            self.history = sampler.history.cursor(self.ask.history_seconds, self.events_from);
            // Before the first second there is nothing yet; it is asked again with the next frame.
            self.history.as_ref()?;
            self.history_sent = self.ask.history_seconds;
        }
        let cursor = self.history.as_mut()?;
        let chunk =
            if self.ask.once { sampler.history.last_chunk(cursor) } else { sampler.history.chunk(cursor) };
        if chunk.as_ref().is_none_or(|chunk| !chunk.more) {
            self.history = None;
        }
        let mut chunk = chunk?;
        for group in &mut chunk.groups {
            let entry = sampler.engine.registry.groups.entry(GroupId(group.group_id));
            (group.name_sid, group.spawned_at_sid) = (entry.name().0, entry.site().0);
        }
        Some(chunk)
    }

    fn new_events(&mut self, sampler: &Sampler) -> Vec<v1::Event> {
        let oldest = sampler.events.front().map_or(sampler.events_total() + 1, |event| event.seq);
        // At its first frame a watcher has missed nothing: it is sent what is remembered.
        if self.seq > 1 && oldest > self.events_sent + 1 {
            let lost = oldest - self.events_sent - 1;
            sampler.engine.registry.losses.add(Reason::DroppedEvents, lost);
        }
        let fresh: Vec<_> =
            sampler.events.iter().filter(|event| event.seq > self.events_sent).cloned().collect();
        self.events_sent = sampler.events_total();
        if self.events_from == 0 {
            self.events_from = oldest;
        }
        fresh
    }

    fn changed_capabilities(&mut self, engine: &Engine) -> Vec<v1::Capability> {
        let now = engine.capabilities();
        if now == self.capabilities_sent {
            return Vec::new();
        }
        self.capabilities_sent.clone_from(&now);
        now
    }

    /// Adds the texts that this frame is the first to use.
    fn add_strings(&mut self, frame: &mut v1::Frame, engine: &Engine) {
        for sid in strings::used(frame) {
            if sid != 0 && self.sent.insert(sid) {
                frame.strings.push(v1::InternedString { sid, text: engine.registry.texts.read(Sid(sid)) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standing::Matches;

    fn ask(filter: &str, for_ns: u64) -> Ask {
        let standing =
            vec![v1::StandingQuery { query_id: 1, filter: filter.into(), for_ns, ..Default::default() }];
        Ask::try_from(v1::WatchRequest { standing, ..Default::default() }).expect("it is understood")
    }

    /// A walk has come to its end, and has found the task.
    fn walked(watcher: &mut Watcher, task: u64) {
        let mut matches = Matches::default();
        matches.add(task, 0, None);
        watcher.found.take(&watcher.ask.standing, vec![matches], 10);
        watcher.answer = Some(Answer::default());
    }

    fn told(watcher: &mut Watcher) -> Vec<Vec<u64>> {
        watcher.findings().into_iter().map(|finding| finding.task_ids).collect()
    }

    #[test]
    fn a_finding_is_told_with_the_answer_that_it_is_a_part_of_and_not_before() {
        let mut watcher = Watcher::new(ask("state=idle", 0));
        walked(&mut watcher, 4);
        assert_eq!(told(&mut watcher), [[4]]);
        for other in [ask("wakers=0", 0), ask("wakers=0", 5)] {
            watcher.replace(other);
            assert!(told(&mut watcher).is_empty(), "the walk over a large target is not done yet");
            // It finds the same task: that is news all the same.
            walked(&mut watcher, 4);
            assert_eq!(told(&mut watcher), [[4]]);
        }
        // What was found stands where it is asked for in the same words, and is told anew.
        watcher.replace(ask("wakers=0", 5));
        assert_eq!(told(&mut watcher), [[4]]);
    }
}
