//! What is watched of one target: each rule with each of its settings, a life for whatever they read, and what is to be told.
//! It is given frames and the time, and does no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opentelemetry_proto::tonic::resource::v1::Resource;
use taskscope_proto::v1;

use super::at_work::AtWork;
use super::explain::{Evaluated, Evaluation, Explained};
use super::identity::Identity;
use super::inhibit::{self, About, Cause};
use super::labels::{Fingerprint, Labels};
use super::life::{Input, Life, Phase, Timing, Transition};
use super::memory::{EVENTS_NS, Memory};
use super::notice::{Alert, Notice};
use super::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Silence, Unit};
use super::timeline::Timeline;
use super::vitals::Vitals;
use crate::config::pattern::Match;
use crate::model::Model;
use pace::Pace;

mod known;
mod pace;
mod settled;
mod standing;

pub(crate) use standing::Standing;

/// Alerts of one rule that are pending or fire; past it there is one `AlertOverflow`.
const MOST_ACTIVE: usize = 100;
const OVERFLOW: &str = "AlertOverflow";
const OVERFLOW_TIMING: Timing = Timing { for_ns: 0, keep_firing_ns: 30_000_000_000, clear_ratio: 1.0 };
/// Of the ids of standing queries, so that they are told from another watcher's in a recording.
const FIRST_QUERY: u64 = 0x6172_7400;
/// Standing queries in one watch, and ids that can be kept in sight: what a probe takes.
const MOST_STANDING: usize = 64;
const MOST_KEPT: usize = 256;
/// More than any probe keeps apart: which are told is chosen here, for good.
const GROUPS: u32 = 1_000;
const NAMED: u32 = 20;
/// Where some of them may be none that the rule is about.
const NAMED_OF_SOME: u32 = 100;
/// Rows of the tasks that have used the most CPU since they began, for rules about what they use it for; beside those that are always
/// on a worker.
const BUSIEST: u32 = 32;
/// Past this many they come less often, and everything else a little.
const MANY_GROUPS: usize = 100;
/// Until an agent that was restarted has begun to listen and to deliver.
const RESTARTS_NS: u64 = 5_000_000_000;
/// A poll that has run for this long may get stuck.
const LONG_NS: u64 = 100_000_000;

/// For so long after the end of what was told, another sign of the same is no news.
const AFTERMATH_NS: u64 = 5_000_000_000;

/// The annotation that names the file with what was seen.
pub(crate) const EVIDENCE: &str = "evidence";

/// A rule with one of its settings.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) rule: &'static Rule,
    pub(crate) setting: Setting,
    /// Of what it reads, what it speaks about.
    pub(crate) about: Match,
}

impl Watched {
    /// Of the standing query that finds its tasks: of all that are in its state only those that it is about, as far as a filter can
    /// say that.
    fn filter(&self) -> Option<String> {
        let filter = (self.rule.standing?)(&self.setting);
        Some(filter + &self.about.terms().0)
    }

    /// How many tasks that query is to name.
    fn named(&self) -> u32 {
        if self.about.terms().1 { NAMED } else { NAMED_OF_SOME }
    }

    /// After a restart of the agent the rule cannot tell for so long that nothing is wrong: it has not looked back over its window, or
    /// not seen a silence last.
    fn learns_within_ns(&self) -> u64 {
        let Self { rule, setting, .. } = self;
        match rule.clock {
            // Its events come anew.
            Clock::Target if rule.remembers_ns >= EVENTS_NS => 0,
            Clock::Target => setting.window_ns,
            Clock::Agent | Clock::Own if rule.unit == Unit::Seconds => {
                setting.window_ns.max((setting.threshold * 1e9) as u64).saturating_add(RESTARTS_NS)
            }
            Clock::Agent | Clock::Own => setting.window_ns.saturating_add(RESTARTS_NS),
        }
    }
}

/// See [`Watcher::wants`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wants {
    settled: u64,
    keep: Vec<u64>,
    interval_ns: u64,
    groups_every_ns: u64,
}

pub(crate) struct Watcher {
    watched: Vec<Arc<Watched>>,
    explained: Vec<Explained>,
    /// How many times the settings were replaced; the target echoes it in what it answers.
    settled: u64,
    /// What every alert of the target has.
    identity: Identity,
    /// It has said who it is; until then, its alerts may have fewer labels.
    is_identified: bool,
    instance: Option<String>,
    timeline: Timeline,
    pace: Pace,
    memory: Memory,
    at_work: AtWork,
    /// The target answers what is asked of it; a recording does not.
    asks: bool,
    /// Standing queries that it does not understand, by their filters, with what it says of each.
    refused: BTreeMap<String, String>,
    /// Causes that may be about to fire, as of the last frame.
    looming: Vec<Cause>,
    /// Ordered, so that what is told in one frame is told in the same order each time.
    lives: BTreeMap<Arc<Labels>, Entry>,
}

/// An alert that is pending, fires, or did.
struct Entry {
    life: Life,
    /// Its setting; `None`: the overflow of a rule.
    watched: Option<usize>,
    severity: Severity,
    fingerprint: Fingerprint,
    value: f64,
    threshold: f64,
    annotations: BTreeMap<String, String>,
    /// What it has held back.
    also: BTreeSet<String>,
    starts_at_unix_ns: u64,
    told: Option<Transition>,
    /// What is told instead of it, and its name.
    held_by: Option<(Fingerprint, String)>,
    /// It fired before the agent was restarted, and what its rule compares with is not there again until then.
    unknown_until_ns: u64,
    /// Where what was seen when it began to fire is kept.
    evidence: Option<String>,
    /// Whose it was when it was last read.
    resource: Option<Arc<Resource>>,
    /// Of this evaluation.
    changed: Option<Transition>,
}

impl Watcher {
    /// `name` is what the target is called by whoever watches it: its service, until it has said so itself, and the label `target`
    /// where that is another name, as of one of many that run the same. `labels` are added to each alert.
    pub(crate) fn new(watched: Vec<Watched>, name: &str, labels: &Labels) -> Self {
        let explained = watched.iter().map(|_| Explained::default()).collect();
        Self {
            watched: watched.into_iter().map(Arc::new).collect(),
            explained,
            settled: 0,
            identity: Identity::new(name, labels),
            is_identified: false,
            instance: None,
            timeline: Timeline::default(),
            pace: Pace::default(),
            memory: Memory::default(),
            at_work: AtWork::default(),
            asks: true,
            refused: BTreeMap::new(),
            looming: Vec::new(),
            lives: BTreeMap::new(),
        }
    }

    /// Of a recording, in which nobody asked for standing queries.
    #[must_use]
    pub(crate) fn of_recording(mut self) -> Self {
        self.asks = false;
        self
    }

    /// The target was asked, and does not understand these standing queries: its probe is older than the rules. Whatever they
    /// would find is not known.
    pub(crate) fn refused(&mut self, queries: BTreeMap<String, String>) {
        self.refused = queries;
    }

    /// Where what was seen when the alert began to fire is kept.
    pub(crate) fn keep_evidence(&mut self, id: Fingerprint, path: &str) {
        for entry in self.lives.values_mut().filter(|entry| entry.fingerprint == id) {
            entry.evidence = Some(path.to_owned());
        }
    }

    /// Tasks that standing queries of the rule have found.
    pub(crate) fn found_by<'a>(&'a self, rule: &'a str, model: &'a Model) -> impl Iterator<Item = u64> + 'a {
        let of_rule = self.watched.iter().enumerate().filter(move |(_, watched)| watched.rule.name == rule);
        of_rule.filter_map(|(position, _)| model.found(query(position))).flatten().copied()
    }

    /// How many settings of rules are evaluated.
    pub(crate) fn settings(&self) -> usize {
        self.watched.len()
    }

    /// Settings whose rule has a standing query, as far as there is room in a request.
    fn standing_queries(&self) -> impl Iterator<Item = (usize, &Arc<Watched>)> {
        let all = self.watched.iter().enumerate();
        all.filter(|(_, watched)| watched.rule.standing.is_some()).take(MOST_STANDING)
    }

    /// What changes from frame to frame of what the target is to be asked for: rows of tasks that were found are wanted.
    pub(crate) fn wants(&self, model: &Model) -> Wants {
        let found = self.standing_queries().filter_map(|(position, _)| model.found(query(position)));
        let mut keep: Vec<u64> = found.flatten().copied().collect();
        keep.extend(self.at_work.tasks());
        keep.truncate(MOST_KEPT);
        keep.sort_unstable();
        keep.dedup();
        let is_large = model.groups().len() > MANY_GROUPS;
        Wants {
            settled: self.settled,
            keep,
            interval_ns: self.pace.interval_ns(is_large),
            groups_every_ns: self.pace.groups_ns(is_large),
        }
    }

    /// What to ask the target for. It is the same as long as [`Watcher::wants`] is.
    pub(crate) fn request(&self, model: &Model) -> v1::WatchRequest {
        let Wants { settled, keep, interval_ns, groups_every_ns } = self.wants(model);
        let standing = self.standing_queries().filter_map(|(position, watched)| {
            let (filter, limit) = (watched.filter()?, watched.named());
            Some(v1::StandingQuery { query_id: query(position), filter, for_ns: 0, limit })
        });
        v1::WatchRequest {
            request_id: settled,
            interval_ns,
            tasks: Some(v1::TaskQuery {
                filter: "state!=ended".into(),
                sort: v1::SortKey::SortBusy.into(),
                limit: BUSIEST,
                ..Default::default()
            }),
            keep_task_ids: keep,
            groups: Some(v1::GroupQuery { limit: GROUPS, every_ns: groups_every_ns, ..Default::default() }),
            standing: standing.collect(),
            ..Default::default()
        }
    }

    /// A frame of the target came and is in the model.
    pub(crate) fn frame(&mut self, model: &Model) -> Vec<Notice> {
        let (description, frame) = (&model.description, &model.frame);
        let mut notices = Vec::new();
        if self.instance.as_ref() != Some(&description.instance) {
            self.instance = Some(description.instance.clone());
            self.memory = Memory::default();
            self.at_work = AtWork::default();
            notices = self.identify(description, frame.unix_ns);
        }
        let now_ns = self.timeline.take(&description.instance, frame.at_ns, frame.unix_ns);
        self.memory.take(model);
        self.at_work.look(frame);
        notices.extend(self.evaluate(Clock::Target, model, (None, None), now_ns, frame.unix_ns));
        let is_pending = |entry: &Entry| matches!(entry.life.phase(), Phase::Pending { .. });
        self.pace.take(self.lives.values().any(is_pending) || runs_long(frame), now_ns);
        self.pace.take_growth(self.memory.grown() >= self.leaks_from(), now_ns);
        notices
    }

    /// Time has passed. `now_ns` and `unix_ns` are the agent's; `silence`: nothing comes from the target.
    pub(crate) fn tick(
        &mut self,
        model: &Model,
        silence: Option<&Silence>,
        now_ns: u64,
        unix_ns: u64,
    ) -> Vec<Notice> {
        self.evaluate(Clock::Agent, model, (silence, None), now_ns, unix_ns)
    }

    /// Time has passed for the agent, of which this is known; the watcher is of no target. `now_ns` and `unix_ns` are its own.
    pub(crate) fn own(&mut self, vitals: &Vitals, now_ns: u64, unix_ns: u64) -> Vec<Notice> {
        let nothing = Model::new(v1::Description::default());
        self.evaluate(Clock::Own, &nothing, (None, Some(vitals)), now_ns, unix_ns)
    }

    /// The last evaluations of a rule, by setting.
    pub(crate) fn explain(&self, rule: &str) -> Vec<(&Setting, Vec<&Evaluation>)> {
        let of_rule = |(watched, _): &(&Arc<Watched>, &Explained)| watched.rule.name == rule;
        let all = self.watched.iter().zip(&self.explained).filter(of_rule);
        all.map(|(watched, explained)| (&watched.setting, explained.evaluations().collect())).collect()
    }

    fn evaluate(
        &mut self,
        clock: Clock,
        model: &Model,
        (silence, vitals): (Option<&Silence>, Option<&Vitals>),
        now_ns: u64,
        unix_ns: u64,
    ) -> Vec<Notice> {
        let stuck_from = self.stuck_from();
        let mut looming = Vec::new();
        let mut looked: Vec<(usize, Option<String>)> = Vec::new();
        for position in 0..self.watched.len() {
            if self.watched[position].rule.clock != clock {
                continue;
            }
            let watched = Arc::clone(&self.watched[position]);
            let (rule, setting) = (watched.rule, &watched.setting);
            let filter = if self.refused.is_empty() { None } else { watched.filter() };
            let refused = filter.and_then(|filter| self.refused.get(&filter)).cloned();
            let is_answer = self.asks && model.frame.request_id == self.settled;
            let looks = rule.standing.is_some() && is_answer && refused.is_none();
            let found = if looks { model.found(query(position)) } else { None };
            let asked = rule.standing.is_some() && self.asks && refused.is_none();
            let memory = &self.memory;
            let matters_from = self.matters_from(position);
            let scene = Scene { model, memory, found, asked, stuck_from, silence, matters_from, vitals };
            let missing = match (rule.read)(&scene, setting) {
                Seen::Readings(readings) => {
                    looming.extend(self.apply(position, readings, &[], now_ns, unix_ns));
                    None
                }
                Seen::Partly { readings, unknown, why } => {
                    looming.extend(self.apply(position, readings, &unknown, now_ns, unix_ns));
                    Some(why)
                }
                Seen::Missing(why) => {
                    let of_setting = self.lives.values_mut().filter(|it| it.watched == Some(position));
                    of_setting.for_each(|entry| entry.read(None, &setting.timing, now_ns, unix_ns));
                    Some(refused.map_or(why, |said| {
                        format!("the target's probe is too old for what this rule asks it: {said}")
                    }))
                }
            };
            looked.push((position, missing));
        }
        if clock == Clock::Target {
            self.looming = looming;
        }
        self.hold_back();
        for (position, missing) in looked {
            self.note(position, missing, now_ns, unix_ns);
        }
        self.tell(unix_ns)
    }

    /// By how much a group has grown at least of which a leak may soon be told.
    fn leaks_from(&self) -> f64 {
        let leak = self.watched.iter().filter(|watched| watched.rule.name == "TaskLeak");
        let growths = leak.map(|it| it.setting.threshold * it.setting.timing.clear_ratio / 2.0);
        growths.min_by(f64::total_cmp).unwrap_or(f64::INFINITY)
    }

    /// From when on a running poll is told.
    fn stuck_from(&self) -> Option<f64> {
        let stuck = self.watched.iter().filter(|watched| watched.rule.name == "TaskStuckInPoll");
        stuck.map(|watched| watched.setting.threshold).min_by(f64::total_cmp)
    }

    /// Whether an alert of a setting is pending, fires, or recovers.
    fn stands(&self, position: usize) -> bool {
        self.lives.values().any(|entry| entry.watched == Some(position))
    }

    /// From when on a reading of a setting is an alert or the cause of one, or may end one.
    fn matters_from(&self, position: usize) -> f64 {
        let Watched { rule, setting, .. } = &*self.watched[position];
        if self.stands(position) {
            return 0.0;
        }
        setting.threshold * inhibit::matters_from(rule.name, rule.unit)
    }

    /// What an alert of a setting has, that is about this.
    fn labels(&self, watched: &Watched, about: &Labels) -> Labels {
        let mut labels = self.identity.labels().clone();
        about.iter().for_each(|(name, value)| labels.set(name, value));
        labels.with("alertname", watched.rule.name).with("severity", watched.setting.severity.name())
    }

    /// Readings of a setting. What is not among them reads zero, unless it is not known. Gives what is about to be a cause.
    fn apply(
        &mut self,
        position: usize,
        readings: Vec<Reading>,
        unknown: &[Labels],
        now_ns: u64,
        unix_ns: u64,
    ) -> Vec<Cause> {
        let watched = Arc::clone(&self.watched[position]);
        let Watched { rule, setting, about } = &*watched;
        let matters_from = self.matters_from(position);
        // Only of what fires it matters that it is not known.
        let unknown = if self.stands(position) { unknown } else { &[] };
        let unknown: BTreeSet<Labels> = unknown.iter().map(|it| self.labels(&watched, it)).collect();
        let mut greatest: BTreeMap<Labels, Reading> = BTreeMap::new();
        for reading in readings {
            // Most readings of a healthy target.
            if reading.value < matters_from {
                continue;
            }
            let labels = self.labels(&watched, &reading.labels);
            let named = |name: &'static str| {
                labels.get(name).or_else(|| reading.annotations.get(name).map(String::as_str))
            };
            if !about.holds(named) {
                continue;
            }
            let is_less = |known: &Reading| known.value < reading.value;
            if greatest.get(&labels).is_none_or(is_less) {
                greatest.insert(labels, reading);
            }
        }
        let mut causes = Vec::new();
        for (labels, reading) in &greatest {
            let wait_s = setting.timing.for_ns as f64 / 1e9;
            if inhibit::looms(labels, rule.unit, reading.value, setting.threshold, wait_s) {
                let fingerprint = labels.fingerprint();
                let (labels, severity) = (labels.clone(), setting.severity);
                causes.push(Cause { fingerprint, labels, severity, fires: false });
            }
        }
        for (labels, entry) in self.lives.iter_mut().filter(|(_, entry)| entry.watched == Some(position)) {
            let reading = greatest.remove(&**labels);
            entry.threshold = setting.threshold;
            let value = reading.as_ref().map_or(0.0, |reading| reading.value);
            let is_known = value >= setting.threshold
                || now_ns >= entry.unknown_until_ns && (reading.is_some() || !unknown.contains(&**labels));
            entry.read(Some(value).filter(|_| is_known), &setting.timing, now_ns, unix_ns);
            // What is over is told as it was last.
            if let Some(reading) = reading.filter(|it| it.value >= setting.threshold) {
                entry.resource = self.identity.resource();
                entry.describe(reading);
            }
        }
        let mut fresh: Vec<(Labels, Reading)> =
            greatest.into_iter().filter(|(_, reading)| reading.value >= setting.threshold).collect();
        fresh.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
        let room = MOST_ACTIVE.saturating_sub(self.active(rule));
        let past = fresh.len().saturating_sub(room);
        for (labels, reading) in fresh.into_iter().take(room) {
            let mut entry = Entry::new(&labels, Some(position), setting);
            entry.read(Some(reading.value), &setting.timing, now_ns, unix_ns);
            entry.resource = self.identity.resource();
            entry.describe(reading);
            self.lives.insert(Arc::new(labels), entry);
        }
        self.overflow(rule, setting, past, now_ns, unix_ns);
        causes
    }

    fn active(&self, rule: &Rule) -> usize {
        let of_rule = |entry: &&Entry| {
            entry.watched.is_some_and(|position| std::ptr::eq(self.watched[position].rule, rule))
        };
        self.lives.values().filter(of_rule).count()
    }

    /// One alert for all that have no room.
    fn overflow(&mut self, rule: &Rule, setting: &Setting, past: usize, now_ns: u64, unix_ns: u64) {
        if past == 0 && self.lives.values().all(|entry| entry.watched.is_some()) {
            return;
        }
        let labels = self.identity.labels().clone().with("alertname", OVERFLOW).with("rule", rule.name);
        let labels = labels.with("severity", setting.severity.name());
        if past == 0 && !self.lives.contains_key(&labels) {
            return;
        }
        let entry = self.lives.entry(Arc::new(labels)).or_insert_with_key(|labels| {
            let mut entry = Entry::new(labels, None, setting);
            entry.threshold = 1.0;
            entry
        });
        entry.read(Some(past as f64), &OVERFLOW_TIMING, now_ns, unix_ns);
        if past > 0 {
            entry.resource = self.identity.resource();
            let summary = format!(
                "{past} more alerts of {} than the {MOST_ACTIVE} that are told. Do: make its condition narrower, or give tasks \
                 names that do not hold ids.",
                rule.name
            );
            entry.annotations = BTreeMap::from([("summary".to_owned(), summary)]);
        }
    }

    /// Says of each alert what holds it back, and of each that holds others back which.
    fn hold_back(&mut self) {
        let mut causes: Vec<Cause> = Vec::new();
        for (labels, entry) in &self.lives {
            if entry.life.is_firing() && entry.held_by.is_none() {
                causes.push(entry.cause(labels));
            }
        }
        causes.extend(self.looming.iter().cloned());
        let mut told: Vec<Cause> = Vec::new();
        for (labels, entry) in self.lives.iter().filter(|(_, it)| it.told == Some(Transition::Firing)) {
            told.push(Cause { fires: entry.goes_on(), ..entry.cause(labels) });
        }
        let mut also: Vec<(Fingerprint, String)> = Vec::new();
        // Who is first among those that say the same.
        let mut entries: Vec<(&Arc<Labels>, &mut Entry)> = self.lives.iter_mut().collect();
        entries.sort_by(|a, b| {
            inhibit::rank(a.0)
                .cmp(&inhibit::rank(b.0))
                .then(b.1.severity.cmp(&a.1.severity))
                .then(b.1.value.total_cmp(&a.1.value))
        });
        for (labels, entry) in entries {
            let about = About { labels, severity: entry.severity, annotations: &entry.annotations };
            let is_told = entry.told == Some(Transition::Firing);
            let cause = inhibit::cause_of(&causes, &about).or_else(|| inhibit::told_by(&told, &about));
            let cause = cause.filter(|_| !is_told).cloned();
            also.extend(
                cause.iter().filter_map(|it| Some((it.fingerprint, inhibit::called(&it.labels, labels)?))),
            );
            if cause.is_none() && !is_told && entry.life.phase() == Phase::Firing {
                told.push(entry.cause(labels));
            }
            entry.held_by = cause.map(|cause| (cause.fingerprint, name(&cause.labels).to_owned()));
        }
        for entry in self.lives.values_mut() {
            let held = also.iter().filter(|(cause, _)| *cause == entry.fingerprint);
            entry.also.extend(held.map(|(_, name)| name.clone()));
        }
    }

    fn note(&mut self, position: usize, missing: Option<String>, now_ns: u64, unix_ns: u64) {
        let timing = &self.watched[position].setting.timing;
        let of_setting = self.lives.iter().filter(|(_, entry)| entry.watched == Some(position));
        // What is not among them is zero, and inactive.
        let readings = of_setting.map(|(labels, entry)| {
            let mut read = Evaluated::of(Arc::clone(labels), entry.value, &entry.life, timing);
            read.held_back = entry.held_by.as_ref().map(|(_, cause)| format!("inhibited by {cause}"));
            read
        });
        let readings = readings.collect();
        self.explained[position].take(Evaluation { at_unix_ns: unix_ns, readings, missing }, now_ns);
    }

    /// What has changed and is not held back.
    fn tell(&mut self, unix_ns: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (labels, entry) in &mut self.lives {
            let changed = entry.changed.take();
            let fires = entry.life.phase() == Phase::Firing;
            let was_told = entry.told == Some(Transition::Firing);
            let transition = match changed {
                Some(Transition::Resolved) if was_told => Transition::Resolved,
                Some(Transition::Pending) if entry.held_by.is_none() => Transition::Pending,
                _ if fires && !was_told && entry.held_by.is_none() => Transition::Firing,
                _ => continue,
            };
            entry.told = Some(transition);
            notices.push(entry.notice(labels, transition, unix_ns));
        }
        self.lives.retain(|_, entry| !entry.life.is_over());
        // A cause ends before what followed from it is told.
        notices.sort_by_key(|notice| notice.transition != Transition::Resolved);
        notices
    }
}

impl Entry {
    fn new(labels: &Labels, watched: Option<usize>, setting: &Setting) -> Self {
        Self {
            life: Life::default(),
            watched,
            severity: setting.severity,
            fingerprint: labels.fingerprint(),
            value: 0.0,
            threshold: setting.threshold,
            annotations: BTreeMap::new(),
            also: BTreeSet::new(),
            starts_at_unix_ns: 0,
            told: None,
            held_by: None,
            unknown_until_ns: 0,
            evidence: None,
            resource: None,
            changed: None,
        }
    }

    /// What it is about goes on, or has only just ended.
    fn goes_on(&self) -> bool {
        match self.life.phase() {
            Phase::Firing => true,
            Phase::Recovering { below_ns } => below_ns < AFTERMATH_NS,
            Phase::Inactive | Phase::Pending { .. } => false,
        }
    }

    fn cause(&self, labels: &Labels) -> Cause {
        let (fingerprint, severity) = (self.fingerprint, self.severity);
        Cause { fingerprint, labels: labels.clone(), severity, fires: true }
    }

    /// `None`: it could not be read.
    fn read(&mut self, value: Option<f64>, timing: &Timing, now_ns: u64, unix_ns: u64) {
        let is_new = self.life.is_over();
        let threshold = self.threshold;
        let input = value.map_or(Input::Missing, |value| Input::Value { value, threshold });
        self.changed = self.life.apply(input, timing, now_ns);
        self.value = value.unwrap_or(self.value);
        if is_new {
            self.starts_at_unix_ns = unix_ns;
        }
    }

    fn describe(&mut self, reading: Reading) {
        let annotations = reading.annotations.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.annotations = annotations.collect();
        self.annotations.insert("summary".into(), taskscope_proto::words::printable(&reading.summary));
    }

    fn notice(&self, labels: &Labels, transition: Transition, unix_ns: u64) -> Notice {
        let mut annotations = self.annotations.clone();
        if !self.also.is_empty() {
            let also: Vec<&str> = self.also.iter().map(String::as_str).collect();
            annotations.insert("also".into(), also.join(", "));
        }
        if let Some(path) = &self.evidence {
            annotations.insert(EVIDENCE.into(), path.clone());
        }
        let ends_at_unix_ns =
            (transition == Transition::Resolved).then_some(unix_ns.max(self.starts_at_unix_ns));
        let alert = Alert {
            fingerprint: self.fingerprint,
            labels: labels.clone(),
            annotations,
            value: self.value,
            threshold: self.threshold,
            starts_at_unix_ns: self.starts_at_unix_ns,
            ends_at_unix_ns,
            state: transition,
            resource: self.resource.clone(),
        };
        Notice { transition, alert }
    }
}

/// A poll may be about to be stuck; a job of the blocking pool may take its time.
fn runs_long(frame: &v1::Frame) -> bool {
    let on_workers =
        frame.runtimes.iter().flat_map(|runtime| &runtime.workers).filter_map(|it| it.poll.as_ref());
    let elsewhere = frame.threads.iter().filter_map(|thread| thread.poll.as_ref());
    on_workers.chain(elsewhere).any(|poll| poll.kind() != v1::TaskKind::Blocking && poll.since_ns >= LONG_NS)
}

fn query(position: usize) -> u64 {
    FIRST_QUERY + position as u64
}

fn name(labels: &Labels) -> &str {
    labels.get("alertname").unwrap_or_default()
}

#[cfg(test)]
mod incidents;
#[cfg(test)]
mod long_runs;
#[cfg(test)]
mod tests;
