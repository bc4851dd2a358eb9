//! Frames for one watcher: what it asked for, from what the sampler knows. Costs in proportion to what it can show; a
//! walk over the tasks copies nothing but the rows of the window.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

use prost::Message;
use taskscope_proto::columns::{self, RawRow};
use taskscope_proto::filter::{Filter, ParseError};
use taskscope_proto::ids::{GroupId, RuntimeId, Sid, TaskId};
use taskscope_proto::row::{CancelRequest, NumberField, Row, TextField, Wakes, sort_value};
use taskscope_proto::top::{Direction, Place, Top};
use taskscope_proto::v1::{self, Outcome, TaskClass, TaskKind, TaskState, loss::Reason};
use taskscope_proto::{MAX_MESSAGE_BYTES, REVISION};

use super::Engine;
use super::sampler::{Live, Sampler};
use super::windows::Window;
use crate::clock::Ticks;
use crate::registry::Registry;
use crate::registry::figures::Polls;
use crate::registry::slots::SlotView;
use crate::registry::stamp;

const MAX_ROWS: usize = 5_000;
const DEFAULT_ROWS: usize = 100;
const MAX_KEPT: usize = 256;
const MAX_GROUPS: usize = 1_000;
const DEFAULT_GROUPS: usize = 50;
const MAX_STANDING: usize = 64;
const MAX_NAMED: usize = 100;
const DEFAULT_NAMED: usize = 10;
const DEFAULT_INTERVAL_NS: u64 = 1_000_000_000;
const MIN_INTERVAL_NS: u64 = 50_000_000;
/// A walk over the tasks is made again after this many times what the last one took; until then its answer stands, and
/// its age is told.
const WALK_SHARE: u64 = 20;
/// Tasks whose match of one standing query is timed; more are only counted.
const MAX_TIMED: usize = 1_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A request that was understood.
pub(crate) struct Ask {
    request_id: u64,
    pub(crate) interval_ns: u64,
    tasks: Option<(Filter, v1::TaskQuery)>,
    keep: HashSet<u64>,
    groups: Option<v1::GroupQuery>,
    standing: Vec<Standing>,
    history_seconds: u32,
    pub(crate) once: bool,
}

struct Standing {
    query: v1::StandingQuery,
    filter: Filter,
}

/// A request that cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error(transparent)]
    Filter(#[from] ParseError),
    #[error("{asked} {what} were asked for\nhint: at most {most} are served")]
    TooMany { what: &'static str, asked: usize, most: usize },
}

impl TryFrom<v1::WatchRequest> for Ask {
    type Error = BadRequest;

    fn try_from(request: v1::WatchRequest) -> Result<Self, BadRequest> {
        let too_many = |what, asked, most| {
            if asked > most { Err(BadRequest::TooMany { what, asked, most }) } else { Ok(()) }
        };
        too_many("kept ids", request.keep_task_ids.len(), MAX_KEPT)?;
        too_many("standing queries", request.standing.len(), MAX_STANDING)?;
        let tasks = match request.tasks {
            Some(query) => Some((query.filter.parse()?, query)),
            None => None,
        };
        let standing = request
            .standing
            .into_iter()
            .map(|query| Ok(Standing { filter: query.filter.parse()?, query }))
            .collect::<Result<_, ParseError>>()?;
        let interval_ns = if request.interval_ns == 0 { DEFAULT_INTERVAL_NS } else { request.interval_ns };
        Ok(Self {
            request_id: request.request_id,
            interval_ns: interval_ns.max(MIN_INTERVAL_NS),
            tasks,
            keep: request.keep_task_ids.into_iter().collect(),
            groups: request.groups,
            standing,
            history_seconds: request.history_seconds,
            once: request.once,
        })
    }
}

/// One stream.
pub(crate) struct Watcher {
    ask: Ask,
    seq: u64,
    resync: bool,
    /// Texts that the other end has.
    sent: HashSet<u32>,
    events_sent: u64,
    history_sent: u32,
    capabilities_sent: Vec<v1::Capability>,
    /// By standing query: since when each task has matched it, ns, up to [`MAX_TIMED`] of them.
    matching: HashMap<u64, HashMap<u64, u64>>,
    /// By standing query: tasks that match it past those.
    untimed: HashMap<u64, u64>,
    findings_sent: HashMap<u64, (u64, Vec<u64>)>,
    walked: Option<Walked>,
}

/// What the last walk found.
#[derive(Clone)]
struct Walked {
    at_ns: u64,
    took_ns: u64,
    window: Option<v1::TaskWindow>,
    scheduled: Option<u64>,
    findings: Vec<v1::StandingFinding>,
}

impl Watcher {
    pub(crate) fn new(ask: Ask) -> Self {
        Self {
            ask,
            seq: 0,
            resync: true,
            sent: HashSet::new(),
            events_sent: 0,
            history_sent: 0,
            capabilities_sent: Vec::new(),
            matching: HashMap::new(),
            untimed: HashMap::new(),
            findings_sent: HashMap::new(),
            walked: None,
        }
    }

    pub(crate) fn ask(&self) -> &Ask {
        &self.ask
    }

    /// A new request; the next frame stands alone.
    pub(crate) fn replace(&mut self, ask: Ask) {
        // What has matched goes on matching only under the same words.
        let same = |id: &u64| {
            let text = |ask: &Ask| {
                let query = ask.standing.iter().find(|standing| standing.query.query_id == *id);
                query.map(|standing| standing.query.filter.clone())
            };
            text(&self.ask) == text(&ask)
        };
        self.matching.retain(|id, _| same(id));
        self.ask = ask;
        self.resync();
    }

    /// The other end has lost frames or asked anew: the next one stands alone.
    pub(crate) fn resync(&mut self) {
        self.resync = true;
        self.walked = None;
        self.findings_sent.clear();
    }

    /// Whether events wait that have not been sent.
    pub(crate) fn has_news(&self, sampler: &Sampler) -> bool {
        sampler.events_total() > self.events_sent
    }

    /// The next frame.
    pub(crate) fn frame(&mut self, sampler: &mut Sampler, watchers: u32) -> v1::Frame {
        let now_ns = sampler.now_ns();
        sampler.refresh(now_ns);
        let walked = self.walk(sampler, now_ns);
        let resync = std::mem::take(&mut self.resync);
        self.seq += 1;
        let mut frame = v1::Frame {
            seq: self.seq,
            request_id: self.ask.request_id,
            at_ns: now_ns,
            unix_ns: super::thread::unix_ns(),
            resync,
            rows_age_ns: now_ns.saturating_sub(walked.at_ns),
            totals: Some(totals(sampler, walked.scheduled)),
            runtimes: sampler.workers.describe(sampler.awake_ns(now_ns), &sampler.lines, &sampler.live),
            threads: other_threads(sampler),
            pools: sampler.all_pools(now_ns),
            tasks: walked.window,
            groups: self.ask.groups.map(|query| group_window(sampler, now_ns, &query)),
            events: self.new_events(sampler),
            findings: self.new_findings(walked.findings),
            history: None,
            losses: losses(sampler),
            probe: Some(v1::ProbeHealth {
                memory_bytes: sampler.engine.registry.bytes() as u64,
                memory_limit_bytes: sampler.engine.settings.memory_bytes as u64,
                cpu_ratio: sampler.cpu_ratio,
                watchers,
                memory_used_bytes: None,
            }),
            capabilities: self.changed_capabilities(sampler.engine),
            strings: Vec::new(),
        };
        if self.ask.history_seconds > self.history_sent {
            // After the first frame, so that it is not delayed; but a watcher of one frame gets no second.
            if self.seq > 1 || self.ask.once {
                frame.history = sampler.history.chunk(self.ask.history_seconds);
                if frame.history.is_some() {
                    self.history_sent = self.ask.history_seconds;
                }
            }
        }
        fit(&mut frame);
        self.add_strings(&mut frame, sampler.engine);
        frame
    }

    fn new_events(&mut self, sampler: &Sampler) -> Vec<v1::Event> {
        let oldest = sampler.events.front().map_or(sampler.events_total() + 1, |event| event.seq);
        // At its first frame a watcher has missed nothing: it is sent what is remembered.
        if self.events_sent > 0 && oldest > self.events_sent + 1 {
            let lost = oldest - self.events_sent - 1;
            sampler.engine.registry.losses.add(Reason::DroppedEvents, lost);
        }
        let fresh = sampler.events.iter().filter(|event| event.seq > self.events_sent).copied().collect();
        self.events_sent = sampler.events_total();
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

    fn new_findings(&mut self, found: Vec<v1::StandingFinding>) -> Vec<v1::StandingFinding> {
        let mut fresh = Vec::new();
        for finding in found {
            let before = self.findings_sent.get(&finding.query_id);
            let same = before.is_some_and(|(_, ids)| *ids == finding.task_ids);
            if same || before.is_none() && finding.task_ids.is_empty() {
                continue;
            }
            self.findings_sent.insert(finding.query_id, (finding.matching, finding.task_ids.clone()));
            fresh.push(finding);
        }
        fresh
    }

    /// One walk over the tasks, for everything that needs it; the last one again where there are too many to walk often.
    fn walk(&mut self, sampler: &Sampler, now_ns: u64) -> Walked {
        if let Some(walked) = &self.walked
            && now_ns < walked.at_ns.saturating_add(walked.took_ns.saturating_mul(WALK_SHARE))
        {
            return walked.clone();
        }
        let mut walked = self.walk_now(sampler, now_ns);
        walked.took_ns = sampler.now_ns().saturating_sub(now_ns);
        self.walked = Some(walked.clone());
        walked
    }

    fn walk_now(&mut self, sampler: &Sampler, now_ns: u64) -> Walked {
        let mut texts = Texts::new(&sampler.engine.registry);
        let mut window = self.ask.tasks.as_ref().map(|(_, query)| {
            let limit = if query.limit == 0 { DEFAULT_ROWS } else { query.limit as usize };
            let direction = if query.ascending { Direction::Ascending } else { Direction::Descending };
            Top::new(limit.min(MAX_ROWS), direction, query.after.as_ref().map(Place::from))
        });
        let mut kept: HashMap<u64, RawRow> = HashMap::new();
        let (mut scheduled, mut all_see_wakes, mut any) = (0, true, false);
        let mut still_matching: HashMap<u64, HashMap<u64, u64>> = HashMap::new();
        self.untimed.clear();

        let running: Running =
            sampler.live.iter().map(|live| (live.poll.task_id, (live.start, live.poll.since_ns))).collect();
        let now = sampler.engine.registry.clock.now();
        let live = sampler.engine.registry.slots.iter().map(|view| (view, None));
        let ended = sampler.ended.iter().map(|(view, at_ns)| (*view, Some(*at_ns)));
        for (view, ended_ns) in live.chain(ended) {
            let row = SlotRow::new(sampler, view, ended_ns, (now, now_ns), &running, &mut texts);
            if ended_ns.is_none() {
                any = true;
                all_see_wakes &= view.wakes.is_some();
                scheduled += u64::from(row.raw.state == TaskState::Scheduled);
                for standing in &self.ask.standing {
                    if standing.filter.matches(&row) {
                        let (query, task) = (standing.query.query_id, row.raw.id.0);
                        let before = self.matching.get(&query).and_then(|timed| timed.get(&task)).copied();
                        let timed = still_matching.entry(query).or_default();
                        if timed.len() < MAX_TIMED {
                            timed.insert(task, before.unwrap_or(now_ns));
                        } else {
                            *self.untimed.entry(query).or_default() += 1;
                        }
                    }
                }
            }
            if let Some((filter, query)) = &self.ask.tasks
                && let Some(window) = &mut window
                && (ended_ns.is_none() || query.include_ended || filter.asks_for_ended())
                && filter.matches(&row)
            {
                let place = Place { value: sort_value(&row, query.sort()), id: row.raw.id };
                window.offer(place, || row.raw);
            }
            if self.ask.keep.contains(&row.raw.id.0) {
                kept.insert(row.raw.id.0, row.raw);
            }
        }
        self.matching = still_matching;

        let keeps = !self.ask.keep.is_empty();
        let window = (window.is_some() || keeps).then(|| {
            let mut out = v1::TaskWindow::default();
            let mut rows = v1::TaskRows::default();
            if let Some(window) = window {
                out.matching = window.matching();
                for (place, raw) in window.into_sorted() {
                    out.order.push(place.id.0);
                    columns::push(&mut rows, &raw);
                    kept.remove(&place.id.0);
                }
            }
            let known: HashSet<u64> = rows.id.iter().chain(kept.keys()).copied().collect();
            out.unknown_ids = self.ask.keep.iter().copied().filter(|id| !known.contains(id)).collect();
            kept.values().for_each(|raw| columns::push(&mut rows, raw));
            out.rows = Some(rows);
            out
        });
        Walked {
            at_ns: now_ns,
            took_ns: 0,
            window,
            scheduled: (any && all_see_wakes).then_some(scheduled),
            findings: self.findings(now_ns),
        }
    }

    /// Tasks that have matched long enough, by query; the ids that matched longest are named.
    fn findings(&self, now_ns: u64) -> Vec<v1::StandingFinding> {
        let find = |standing: &Standing| {
            let v1::StandingQuery { query_id, for_ns, limit, .. } = standing.query;
            let mut due: Vec<(u64, u64)> = self
                .matching
                .get(&query_id)
                .into_iter()
                .flatten()
                .filter(|&(_, &since_ns)| now_ns.saturating_sub(since_ns) >= for_ns)
                .map(|(&task, &since_ns)| (since_ns, task))
                .collect();
            due.sort_unstable();
            // Of those past the limit it is not known since when they match.
            let untimed = if for_ns == 0 { self.untimed.get(&query_id).copied().unwrap_or(0) } else { 0 };
            let named = if limit == 0 { DEFAULT_NAMED } else { (limit as usize).min(MAX_NAMED) };
            v1::StandingFinding {
                query_id,
                matching: due.len() as u64 + untimed,
                task_ids: due.iter().take(named).map(|&(_, task)| task).collect(),
            }
        };
        self.ask.standing.iter().map(find).collect()
    }

    /// Adds the texts that this frame is the first to use.
    fn add_strings(&mut self, frame: &mut v1::Frame, engine: &Engine) {
        let mut used: BTreeSet<u32> = BTreeSet::new();
        if let Some(rows) = frame.tasks.as_ref().and_then(|window| window.rows.as_ref()) {
            used.extend(rows.name_sid.iter().chain(&rows.label_sid).chain(&rows.spawned_at_sid));
            used.extend(rows.reason_sid.iter().chain(&rows.fields_sid));
        }
        if let Some(window) = &frame.groups {
            used.extend(window.groups.iter().flat_map(|group| [group.name_sid, group.spawned_at_sid]));
            used.extend(window.labels.iter().map(|label| label.label_sid));
        }
        let workers =
            frame.runtimes.iter().flat_map(|runtime| &runtime.workers).filter_map(|w| w.poll.as_ref());
        let threads = frame.threads.iter().filter_map(|thread| thread.poll.as_ref());
        let events = frame.events.iter().filter_map(|event| event.poll.as_ref());
        for poll in workers.chain(threads).chain(events) {
            used.extend([poll.name_sid, poll.label_sid, poll.spawned_at_sid]);
        }
        used.extend(frame.events.iter().map(|event| event.reason_sid));
        if let Some(history) = &frame.history {
            used.extend(history.groups.iter().flat_map(|group| [group.name_sid, group.spawned_at_sid]));
            used.extend(history.events.iter().map(|event| event.reason_sid));
        }
        for sid in used {
            if sid != 0 && self.sent.insert(sid) {
                frame.strings.push(v1::InternedString { sid, text: engine.registry.texts.read(Sid(sid)) });
            }
        }
    }
}

/// Keeps a frame within the limit of the wire, leaving room for its texts: histograms go first, then rows from the end
/// of the window (`matching` tells how many there are).
fn fit(frame: &mut v1::Frame) {
    const ROOM: usize = MAX_MESSAGE_BYTES / 2;
    if frame.encoded_len() <= ROOM {
        return;
    }
    if let Some(window) = &mut frame.groups {
        window
            .groups
            .iter_mut()
            .filter_map(|group| group.polls.as_mut())
            .for_each(|polls| polls.histogram = None);
        window
            .labels
            .iter_mut()
            .filter_map(|label| label.polls.as_mut())
            .for_each(|polls| polls.histogram = None);
    }
    while frame.encoded_len() > ROOM {
        let Some(window) = &mut frame.tasks else { return };
        let Some(rows) = &mut window.rows else { return };
        if rows.id.is_empty() {
            return;
        }
        let keep = rows.id.len() / 2;
        window.order.truncate(keep);
        columns::truncate(rows, keep);
    }
}

/// Texts of the rows in one walk, each read out once.
struct Texts<'a> {
    registry: &'a Registry,
    read: HashMap<u32, std::rc::Rc<str>>,
}

impl<'a> Texts<'a> {
    fn new(registry: &'a Registry) -> Self {
        Self { registry, read: HashMap::new() }
    }

    fn text(&mut self, sid: Sid) -> std::rc::Rc<str> {
        let registry = self.registry;
        std::rc::Rc::clone(self.read.entry(sid.0).or_insert_with(|| registry.texts.read(sid).into()))
    }
}

/// By task: start and length of its live poll.
type Running = HashMap<u64, (Ticks, u64)>;

/// A slot as filters and sorts see it.
struct SlotRow {
    raw: RawRow,
    name: std::rc::Rc<str>,
    label: std::rc::Rc<str>,
    at: std::rc::Rc<str>,
}

impl SlotRow {
    fn new(
        sampler: &Sampler,
        view: SlotView,
        ended_ns: Option<u64>,
        now: (Ticks, u64),
        running: &Running,
        texts: &mut Texts<'_>,
    ) -> Self {
        // A poll that ended after the sampler saw it is counted in the slot already.
        let still = |&&(start, _): &&(Ticks, u64)| ended_ns.is_none() && view.poll_end < start;
        let running_ns = running.get(&view.id.0).filter(still).map(|&(_, since_ns)| since_ns);
        let raw = raw_row(sampler, &view, ended_ns, now, running_ns);
        Self { name: texts.text(raw.name), label: texts.text(raw.label), at: texts.text(raw.spawned_at), raw }
    }
}

fn raw_row(
    sampler: &Sampler,
    view: &SlotView,
    ended_ns: Option<u64>,
    (now, now_ns): (Ticks, u64),
    running_ns: Option<u64>,
) -> RawRow {
    let registry = &sampler.engine.registry;
    let group = registry.groups.entry(view.group);
    let spawned_ns = sampler.at(view.spawned);
    let age_ns = ended_ns.unwrap_or(now_ns).saturating_sub(spawned_ns);
    let woken = view.wakes.map(|wakes| wakes.woken).filter(|&woken| stamp::is_of(woken, view.id));
    let (state, since_ns) = match (ended_ns, running_ns, woken) {
        (Some(at_ns), _, _) => (TaskState::Ended, now_ns.saturating_sub(at_ns)),
        (None, Some(running_ns), _) => (TaskState::Running, running_ns),
        (None, None, Some(woken)) => {
            (TaskState::Scheduled, registry.clock.between(0, stamp::elapsed(woken, now)))
        }
        (None, None, None) if view.poll_end == 0 => (TaskState::Scheduled, age_ns),
        (None, None, None) => (TaskState::Idle, sampler.awake_since(view.poll_end, now_ns)),
    };
    // The slot counts polls as they begin.
    let polls = view.polls - u64::from(running_ns.is_some()).min(view.polls);
    let running_ns = running_ns.unwrap_or(0);
    let (busy_ns, longest_ns) = sampler.without_pauses(view.id.0, view.busy_ns, view.longest_ns);
    let busy_ns = busy_ns + running_ns;
    let scheduled_ns =
        view.wakes.map(|wakes| wakes.scheduled_ns + if state == TaskState::Scheduled { since_ns } else { 0 });
    RawRow {
        id: view.id,
        kind: view.flags.kind(),
        state,
        outcome: view.flags.outcome(),
        name: group.name(),
        label: view.label.map_or(Sid(0), |label| registry.labels.entry(label).sid()),
        group: view.group,
        spawned_at: group.site(),
        runtime: RuntimeId(view.flags.runtime()),
        polls,
        busy_ns,
        scheduled_ns,
        idle_ns: scheduled_ns.map(|scheduled| age_ns.saturating_sub(busy_ns).saturating_sub(scheduled)),
        age_ns,
        since_ns,
        longest_poll_ns: longest_ns.max(running_ns),
        wakes: view.wakes.filter(|_| ended_ns.is_none()).map(|wakes| Wakes {
            total: wakes.total,
            by_itself: wakes.by_itself.into(),
            by: Some(TaskId(wakes.by)).filter(|by| by.0 != 0),
            wakers: wakes.wakers.into(),
        }),
        cancel: view.flags.is_asked().then(|| registry.cancellations.find(view.id)).flatten().map(|asked| {
            CancelRequest {
                since_ns: now_ns.saturating_sub(sampler.at(asked.since)),
                polls: view.polls.saturating_sub(asked.polls),
                wakes: view.wakes.map_or(0, |wakes| wakes.total.saturating_sub(asked.wakes)),
            }
        }),
        class: view.flags.class(),
        reason: view.reason,
        fields: view.fields,
    }
}

impl Row for SlotRow {
    fn id(&self) -> TaskId {
        self.raw.id
    }
    fn kind(&self) -> TaskKind {
        self.raw.kind
    }
    fn state(&self) -> TaskState {
        self.raw.state
    }
    fn outcome(&self) -> Outcome {
        self.raw.outcome
    }
    fn number(&self, field: NumberField) -> Option<u64> {
        match field {
            NumberField::Id => Some(self.raw.id.0),
            NumberField::Polls => Some(self.raw.polls),
            NumberField::Age => Some(self.raw.age_ns),
            NumberField::Busy => Some(self.raw.busy_ns),
            NumberField::Scheduled => self.raw.scheduled_ns,
            NumberField::Idle => self.raw.idle_ns,
            NumberField::Since => Some(self.raw.since_ns),
            NumberField::LongestPoll => Some(self.raw.longest_poll_ns),
            NumberField::Wakes => self.raw.wakes.map(|wakes| wakes.total),
            NumberField::Cancel => self.raw.cancel.map(|cancel| cancel.since_ns),
        }
    }
    fn class(&self) -> TaskClass {
        self.raw.class
    }
    fn text(&self, field: TextField) -> &str {
        match field {
            TextField::Name => &self.name,
            TextField::Label => &self.label,
            TextField::At => &self.at,
            TextField::Fields => "",
        }
    }
}

fn totals(sampler: &Sampler, scheduled: Option<u64>) -> v1::Totals {
    let counts = sampler.engine.registry.counts();
    let recent = sampler.history.chunk(10);
    let (window_ns, polls, requests) = recent.map_or((0, 0, 0), |chunk| {
        let seconds = chunk.polls.len() as u64;
        (seconds * SECOND_NS, chunk.polls.iter().sum(), chunk.requests.iter().sum())
    });
    let requests_total = sampler.requests_total();
    v1::Totals {
        followed: sampler.followed(),
        alive: sampler.alive(&sampler.engine.runtimes()),
        running: sampler.live.iter().filter(|live| live.poll.kind() != TaskKind::Unspecified).count() as u64,
        scheduled,
        spawned_total: counts.spawned,
        ended_total: counts.ended,
        polls_total: counts.polls,
        panicked_total: counts.panicked,
        requests_total,
        window_ns,
        polls_window: polls,
        requests_window: requests_total.map(|_| requests),
    }
}

/// Threads that run something and are no worker of a runtime.
fn other_threads(sampler: &Sampler) -> Vec<v1::Thread> {
    let runtimes = sampler.workers.describe(0, &sampler.lines, &sampler.live);
    let workers: HashSet<u32> =
        runtimes.iter().flat_map(|runtime| &runtime.workers).filter_map(|worker| worker.tid).collect();
    let is_other = |live: &&Live| !workers.contains(&live.tid);
    sampler
        .live
        .iter()
        .filter(is_other)
        .map(|live| v1::Thread { tid: live.tid, poll: Some(live.poll) })
        .collect()
}

fn losses(sampler: &Sampler) -> Vec<v1::Loss> {
    let counted = &sampler.engine.registry.losses;
    let reasons = (1..=18).filter_map(|n| Reason::try_from(n).ok());
    let mut losses: Vec<v1::Loss> = reasons
        .map(|reason| v1::Loss { reason: reason.into(), count: counted.count(reason) })
        .filter(|loss| loss.count > 0)
        .collect();
    let uninstrumented: u64 = sampler
        .engine
        .runtimes()
        .iter()
        .filter_map(|runtime| {
            let alive = runtime.facts()?.metrics.num_alive_tasks() as u64;
            Some(alive.saturating_sub(followed_on(
                sampler,
                runtime.id,
                runtime.has_hooks(),
                &runtime.followed,
            )))
        })
        .sum();
    let evicted = counted.count(Reason::EvictedTasks);
    if uninstrumented > 0 && evicted == 0 {
        losses.push(v1::Loss { reason: Reason::UninstrumentedTasks.into(), count: uninstrumented });
    }
    losses
}

/// Tasks of a runtime that have a row: counted by the hooks, or, without hooks, all that the wrapper follows.
fn followed_on(
    sampler: &Sampler,
    runtime: u32,
    has_hooks: bool,
    by_hooks: &std::sync::atomic::AtomicU64,
) -> u64 {
    if has_hooks {
        return by_hooks.load(Relaxed);
    }
    let slots = sampler.engine.registry.slots.iter();
    slots.filter(|view| view.flags.runtime() == runtime && view.flags.kind() == TaskKind::Wrapped).count()
        as u64
}

fn poll_stats(
    window: &Window,
    polls: &Polls,
    now_ns: u64,
    threshold_ns: u64,
    histograms: bool,
) -> v1::PollStats {
    v1::PollStats {
        polls_total: polls.polls,
        busy_ns_total: window.busy(polls.busy_ns),
        longest_ns: window.longest(polls.longest_ns, &polls.histogram),
        histogram: histograms.then(|| v1::Histogram::from(&window.recent(&polls.histogram))),
        ..window.stats(now_ns, 0, &polls.histogram, threshold_ns)
    }
}

fn group_window(sampler: &mut Sampler, now_ns: u64, query: &v1::GroupQuery) -> v1::GroupWindow {
    let limit = if query.limit == 0 { DEFAULT_GROUPS } else { (query.limit as usize).min(MAX_GROUPS) };
    let registry = &sampler.engine.registry;
    let threshold_ns = registry.slow_poll_threshold_ns;
    let mut groups: Vec<v1::Group> = Vec::new();
    for (id, group) in registry.groups.iter() {
        let (spawned, ended, panicked) = group.counts();
        if spawned == 0 && id != GroupId(0) {
            continue;
        }
        let windows = super::sampler::at(&mut sampler.groups, id.0 as usize);
        let polls = registry
            .polls_of_group(id)
            .map(|polls| poll_stats(&windows.polls, &polls, now_ns, threshold_ns, query.histograms));
        groups.push(v1::Group {
            id: id.0,
            name_sid: group.name().0,
            spawned_at_sid: group.site().0,
            live: spawned.saturating_sub(ended),
            peak_live: group.peak(),
            spawned_total: spawned,
            ended_total: ended,
            panicked_total: panicked,
            polls,
            trend: Some(windows.size.trend(now_ns, spawned, ended)),
            queue_wait: group.waits().map(|(started_total, wait_ns_total, longest_ns)| v1::QueueWait {
                started_total,
                wait_ns_total,
                longest_ns,
            }),
        });
    }
    groups.retain(|group| group.id != 0 || group.spawned_total > 0);
    let total = groups.len() as u64;
    let weight = |polls: &Option<v1::PollStats>| polls.as_ref().map_or(0, |polls| polls.busy_ns_total);
    // A group that grows is shown however little it does.
    let growth = |group: &v1::Group| group.trend.map_or(0, |trend| trend.spawned.saturating_sub(trend.ended));
    groups.sort_by_key(|group| std::cmp::Reverse((growth(group) >= 100, weight(&group.polls))));
    groups.truncate(limit);

    let mut labels: Vec<v1::Label> = Vec::new();
    for (index, label) in registry.labels.iter() {
        let window = super::sampler::at(&mut sampler.labels, index.0 as usize);
        let Some(polls) = registry.polls_of_label(index).filter(|polls| polls.polls > 0) else { continue };
        let polls = poll_stats(window, &polls, now_ns, threshold_ns, query.histograms);
        labels.push(v1::Label {
            label_sid: label.sid().0,
            requests_total: label.requests(),
            polls: Some(polls),
        });
    }
    labels.sort_by_key(|label| std::cmp::Reverse(weight(&label.polls)));
    labels.truncate(limit);
    v1::GroupWindow { total, groups, labels }
}

impl Engine {
    pub(crate) fn describe(&self) -> v1::Description {
        v1::Description {
            revision: REVISION,
            probe_version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.settings.name.clone(),
            pid: std::process::id(),
            instance: self.instance.clone(),
            started_unix_ns: self.started_unix_ns,
            host: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .map(|host| host.trim().to_owned()),
            arch: std::env::consts::ARCH.to_owned(),
            capabilities: self.capabilities(),
            slow_poll_threshold_ns: self.registry.slow_poll_threshold_ns,
        }
    }
}
