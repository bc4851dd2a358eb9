//! The rules, one file each: its condition in prose, its defaults, what it reads, its sentence, its test. Adding one touches
//! that file and [`RULES`].

use std::collections::BTreeMap;

use taskscope_proto::row::TaskRow;
use taskscope_proto::v1::capability;
use taskscope_proto::{filter, v1, words};

use super::labels::Labels;
use super::life::Timing;
use super::rule::{Reading, Rule, Scene, Seen, Setting, Severity};
use crate::model::Model;
use crate::rules::{task_panic, who};

mod agent_degraded;
mod blocking_job_too_long;
mod loop_lag;
mod lost_waker;
mod pool_nearly_full;
mod pool_saturated;
mod probe_dropping;
mod ready_queue_growing;
mod resource_near_limit;
mod runtime_busy;
mod self_waking_loop;
mod sink_failing;
mod target_lost;
mod task_failed;
mod task_ignores_cancel;
mod task_leak;
mod task_never_yields;
mod task_panicked;
mod task_pending_too_long;
mod task_slow_poll;
mod task_stuck_in_poll;

/// In the order in which they are listed.
pub(crate) const RULES: [&Rule; 21] = [
    &task_stuck_in_poll::RULE,
    &task_slow_poll::RULE,
    &task_ignores_cancel::RULE,
    &task_panicked::RULE,
    &task_failed::RULE,
    &task_leak::RULE,
    &task_pending_too_long::RULE,
    &task_never_yields::RULE,
    &self_waking_loop::RULE,
    &lost_waker::RULE,
    &pool_saturated::RULE,
    &pool_nearly_full::RULE,
    &blocking_job_too_long::RULE,
    &resource_near_limit::RULE,
    &ready_queue_growing::RULE,
    &runtime_busy::RULE,
    &loop_lag::RULE,
    &target_lost::RULE,
    &probe_dropping::RULE,
    &sink_failing::RULE,
    &agent_degraded::RULE,
];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rule is called `{name}`\nhint: {hint}")]
pub(crate) struct UnknownRule {
    name: String,
    hint: String,
}

/// The rule of that name.
pub(crate) fn named(name: &str) -> Result<&'static Rule, UnknownRule> {
    let known = || RULES.iter().map(|rule| rule.name);
    RULES.into_iter().find(|rule| rule.name.eq_ignore_ascii_case(name)).ok_or_else(|| UnknownRule {
        name: words::printable(name),
        hint: match filter::nearest(name, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`taskscope rules list` lists them".to_owned(),
        },
    })
}

const S: u64 = 1_000_000_000;

/// What readings about tasks, groups, and everything else can be told apart by.
const TASKS: [&str; 4] = ["service", "task_group", "label", "class"];
const GROUPS: [&str; 2] = ["service", "task_group"];
const SERVICES: [&str; 1] = ["service"];
/// In seconds.
const MINUTE: f64 = 60.0;

/// A setting as most defaults are: it looks at the present, clears below four fifths, and stays for half a minute so that
/// what comes and goes is one alert.
const fn from(severity: Severity, threshold: f64) -> Setting {
    Setting {
        severity,
        threshold,
        window_ns: 0,
        min_count: None,
        timing: Timing { for_ns: 0, keep_firing_ns: 30 * S, clear_ratio: 0.8 },
    }
}

impl Setting {
    /// It must hold for this long.
    const fn holding(mut self, for_ns: u64) -> Self {
        self.timing.for_ns = for_ns;
        self
    }

    /// It looks back over a window; when that is over, so is the alert.
    const fn over(mut self, window_ns: u64) -> Self {
        self.window_ns = window_ns;
        self.timing.keep_firing_ns = 0;
        self
    }

    /// It counts events within a window. Its `read` asks [`Setting::is_enough`], or the like.
    const fn within(self, window_ns: u64, min_count: u64) -> Self {
        let mut setting = self.over(window_ns);
        setting.min_count = Some(min_count);
        setting
    }
}

impl Reading {
    fn new(labels: Labels, value: f64, summary: String) -> Self {
        Self { labels, value, summary, annotations: BTreeMap::new() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.annotations.insert(name, value.to_string());
        self
    }

    /// Of a task of that class.
    fn of_class(self, class: v1::TaskClass) -> Self {
        match class {
            v1::TaskClass::Unspecified => self,
            v1::TaskClass::Ingress => self.with("class", "ingress"),
            v1::TaskClass::Work => self.with("class", "work"),
            v1::TaskClass::Daemon => self.with("class", "daemon"),
            v1::TaskClass::Critical => self.with("class", "critical"),
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What a task is one of: its name, or where it was spawned.
fn group(name: Option<&str>, site: Option<&str>) -> Labels {
    Labels::default().with("task_group", name.or(site).unwrap_or_default())
}

/// What a poll is about.
fn about(model: &Model, poll: &v1::LivePoll) -> Labels {
    let labels = match poll.kind() {
        v1::TaskKind::Main => Labels::default().with("task_group", "main"),
        _ => group(model.some_text(poll.name_sid), model.some_text(poll.spawned_at_sid)),
    };
    labels.with("label", model.text(poll.label_sid))
}

fn about_runtime(scene: &Scene<'_>, runtime: &v1::Runtime) -> Labels {
    Labels::default().with("runtime", scene.runtime(runtime.id))
}

/// The runtime was asked and has no task: nothing of it waits, and its workers have nothing to do.
fn rests(runtime: &v1::Runtime) -> bool {
    runtime.alive_tasks == Some(0)
}

fn about_pool(scene: &Scene<'_>, pool: &v1::Pool) -> Labels {
    Labels::default().with("pool", &pool.name).with("runtime", scene.runtime(pool.runtime_id))
}

fn about_row(row: &TaskRow, runtime: &str) -> Labels {
    let text = |text| Some(text).filter(|text: &&str| !text.is_empty());
    group(text(&row.name), text(&row.spawned_at)).with("label", &row.label).with("runtime", runtime)
}

/// Rows by what an alert about them is about, those with the greatest value first.
fn by_labels<'a>(
    scene: &Scene<'_>,
    rows: impl Iterator<Item = (&'a TaskRow, u64)>,
) -> BTreeMap<Labels, Vec<(&'a TaskRow, u64)>> {
    let mut all: BTreeMap<Labels, Vec<(&TaskRow, u64)>> = BTreeMap::new();
    for (row, value) in rows {
        all.entry(about_row(row, scene.runtime(row.runtime.0))).or_default().push((row, value));
    }
    all.values_mut().for_each(|rows| rows.sort_by_key(|(_, value)| std::cmp::Reverse(*value)));
    all
}

/// What a reading about a task says beside its labels.
fn noted(reading: Reading, row: &TaskRow) -> Reading {
    reading.with("task_id", row.id.0).with("spawned_at", &row.spawned_at).of_class(row.class)
}

/// The filter of a standing query whose last term is a duration: `terms` and the setting's threshold.
fn filter_of(terms: &str, setting: &Setting) -> String {
    format!("{terms}>={}ns", (setting.threshold * 1e9) as u64)
}

/// Nobody has looked for single tasks, or the target cannot.
fn not_looked(scene: &Scene<'_>, needs: capability::Kind) -> Seen {
    let told = scene.model.capabilities.iter().find(|it| it.kind() == needs);
    Seen::Missing(match told.filter(|it| it.coverage() == capability::Coverage::None) {
        Some(capability) => capability.reason.clone(),
        None => "the target has not looked through its tasks yet, or was not asked to".to_owned(),
    })
}

/// Of a rule about the agent itself.
fn not_the_agent() -> Seen {
    Seen::Missing("it is about the agent itself, and not about a target".to_owned())
}

/// Deaths of one kind, by group.
fn deaths(model: &Model, kind: v1::event::Kind, setting: &Setting) -> Seen {
    let mut died: BTreeMap<Labels, Vec<&v1::Event>> = BTreeMap::new();
    for event in model.events.iter().filter(|event| event.kind() == kind) {
        if event.at_ns + setting.window_ns > model.frame.at_ns {
            let poll = event.poll.clone().unwrap_or_default();
            died.entry(about(model, &poll)).or_default().push(event);
        }
    }
    died.retain(|_, events| setting.is_enough(events.len() as u64));
    let reading = |(labels, events): (Labels, Vec<&v1::Event>)| {
        let last = *events.last()?;
        let many = match events.len() {
            1 => String::new(),
            n => format!(" {n} died in the last {}.", words::duration(setting.window_ns)),
        };
        let summary = format!("{}.{many}", task_panic::death(model, last, ""));
        let mut reading = Reading::new(labels, events.len() as f64, summary);
        if let Some(reason) = model.some_text(last.reason_sid) {
            reading = reading.with("reason", reason);
        }
        let site = last.poll.as_ref().and_then(|poll| model.some_text(poll.spawned_at_sid));
        if let Some(site) = site {
            reading = reading.with("spawned_at", site);
        }
        let class = last.poll.as_ref().map_or(v1::TaskClass::Unspecified, v1::LivePoll::task_class);
        Some(reading.of_class(class))
    };
    Seen::Readings(died.into_iter().filter_map(reading).collect())
}

#[cfg(test)]
mod fixture {
    //! What a rule reads of a frame, as tests write it.

    use super::*;
    use crate::alerts::memory::Memory;
    use crate::alerts::vitals::Vitals;
    pub(super) use crate::rules::fixture::S;

    pub(super) fn scene_of(frame: v1::Frame) -> Model {
        crate::rules::fixture::model(frame)
    }

    /// Of which this is all that was seen.
    pub(super) fn memory_of(model: &Model) -> Memory {
        let mut memory = Memory::default();
        memory.take(model);
        memory
    }

    /// Of what a rule can say nothing.
    pub(super) fn unknown_to(rule: &Rule, scene: &Scene<'_>) -> Vec<Labels> {
        match (rule.read)(scene, &rule.defaults[0]) {
            Seen::Partly { unknown, .. } => unknown,
            seen => panic!("it can say something: {seen:?}"),
        }
    }

    pub(super) fn readings(rule: &Rule, model: &Model) -> Vec<Reading> {
        readings_of(rule, &rule.defaults[0], model)
    }

    pub(super) fn readings_of(rule: &Rule, setting: &Setting, model: &Model) -> Vec<Reading> {
        readings_in(rule, setting, &Scene::of(model, &memory_of(model)))
    }

    /// What the first setting reads of the last of these frames, all of which it has seen.
    pub(super) fn readings_after(rule: &Rule, frames: impl Iterator<Item = v1::Frame>) -> Vec<Reading> {
        readings_of_after(rule, &rule.defaults[0], frames)
    }

    pub(super) fn readings_of_after(
        rule: &Rule,
        setting: &Setting,
        frames: impl Iterator<Item = v1::Frame>,
    ) -> Vec<Reading> {
        let mut model = scene_of(v1::Frame::default());
        let mut memory = Memory::default();
        for frame in frames {
            model.apply(frame);
            memory.take(&model);
        }
        readings_in(rule, setting, &Scene::of(&model, &memory))
    }

    /// A model with these rows, in their order.
    pub(super) fn rows(columns: v1::TaskRows) -> Model {
        let window = v1::TaskWindow { order: columns.id.clone(), rows: Some(columns), ..Default::default() };
        scene_of(v1::Frame { resync: true, tasks: Some(window), ..Default::default() })
    }

    /// What a rule with a standing query reads that has found these tasks.
    pub(super) fn found_in(rule: &Rule, model: &Model, ids: &[u64]) -> Vec<Reading> {
        let memory = memory_of(model);
        let scene = Scene { found: Some(ids), asked: true, ..Scene::of(model, &memory) };
        readings_in(rule, &rule.defaults[0], &scene)
    }

    /// Two tasks, `mailer` and `session-watch`, for 20 s.
    pub(super) fn task_frames(columns: impl Fn(u64) -> v1::TaskRows) -> impl Iterator<Item = v1::Frame> {
        (0..=20).map(move |second| {
            let rows = v1::TaskRows {
                id: vec![7, 8],
                name_sid: vec![3, 5],
                state: vec![v1::TaskState::Running.into(); 2],
                ..columns(second)
            };
            let window = v1::TaskWindow { order: vec![7, 8], rows: Some(rows), ..Default::default() };
            v1::Frame { at_ns: second * S, tasks: Some(window), ..Default::default() }
        })
    }

    /// What the first setting of a rule about the agent itself reads.
    pub(super) fn of_the_agent(rule: &Rule, vitals: &Vitals) -> Vec<Reading> {
        let (model, memory) = (scene_of(v1::Frame::default()), Memory::default());
        let scene = Scene { vitals: Some(vitals), ..Scene::of(&model, &memory) };
        readings_in(rule, &rule.defaults[0], &scene)
    }

    pub(super) fn readings_in(rule: &Rule, setting: &Setting, scene: &Scene<'_>) -> Vec<Reading> {
        match (rule.read)(scene, setting) {
            Seen::Readings(readings) | Seen::Partly { readings, .. } => readings,
            Seen::Missing(why) => panic!("{why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_rules_has_each_of_them_with_an_example() {
        let page = include_str!("../../../docs/alerts.md");
        let told: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        assert_eq!(told, RULES.map(|rule| rule.name));
        for part in page.split("\n### ").skip(1) {
            assert!(part.lines().any(|line| line.starts_with("> ")), "{part}");
        }
    }

    #[test]
    fn rules_leave_out_what_does_not_matter_and_nothing_else() {
        use v1::pool::Kind;
        // Something for each rule that leaves anything out.
        let tasks = |second: u64| v1::TaskRows {
            polls: vec![second, second * 2_000],
            busy_ns: vec![second * S * 9 / 10, second * S / 10],
            wakes_plus1: vec![second + 1, second * 2_000 + 1],
            self_wakes_plus1: vec![1, second * 2_000 + 1],
            ..Default::default()
        };
        let poll =
            |kind: v1::TaskKind, since_ns| v1::LivePoll { kind: kind.into(), since_ns, ..Default::default() };
        let thread = |kind, since_ns| v1::Thread { poll: Some(poll(kind, since_ns)), ..Default::default() };
        let pool = |kind: Kind, busy| v1::Pool {
            kind: kind.into(),
            busy: Some(busy),
            capacity: Some(100),
            ..Default::default()
        };
        let frames = fixture::task_frames(tasks).map(|frame| {
            let of_task = Some(poll(v1::TaskKind::Task, 2 * S));
            let worker = v1::Worker { busy_ratio: Some(0.7), poll: of_task, ..Default::default() };
            let runtime = v1::Runtime {
                id: 1,
                workers: vec![worker],
                ready_tasks: Some((frame.at_ns / S).pow(2)),
                oldest_ready_ns: Some(3 * S),
                ..Default::default()
            };
            let pools =
                vec![pool(Kind::FileDescriptors, 40), pool(Kind::Memory, 50), pool(Kind::Blocking, 60)];
            let threads = vec![thread(v1::TaskKind::Blocking, 4 * S), thread(v1::TaskKind::Main, 5 * S)];
            v1::Frame { runtimes: vec![runtime], pools, threads, ..frame }
        });
        let mut model = fixture::scene_of(v1::Frame::default());
        let mut memory = crate::alerts::memory::Memory::default();
        for frame in frames {
            model.apply(frame);
            memory.take(&model);
        }
        let silence = crate::alerts::rule::Silence { for_ns: 7 * S, reason: "it is silent".to_owned() };
        let mut leave_out = Vec::new();
        for rule in RULES {
            let setting = Setting { window_ns: 10 * S, ..rule.defaults[0].clone() };
            let readings = |matters_from| {
                let scene = Scene { silence: Some(&silence), matters_from, ..Scene::of(&model, &memory) };
                match (rule.read)(&scene, &setting) {
                    Seen::Readings(readings) | Seen::Partly { readings, .. } => readings,
                    Seen::Missing(_) => vec![],
                }
            };
            let all = readings(0.0);
            for from in all.iter().flat_map(|it| [it.value, it.value * 1.001]) {
                let matter = |readings: Vec<Reading>| {
                    readings.into_iter().filter(|it| it.value >= from).collect::<Vec<_>>()
                };
                let seen = readings(from);
                if seen != all && !leave_out.contains(&rule.name) {
                    leave_out.push(rule.name);
                }
                assert_eq!(matter(seen), matter(all.clone()), "{} from {from}", rule.name);
            }
        }
        let known = [
            "TaskStuckInPoll",
            "TaskNeverYields",
            "SelfWakingLoop",
            "PoolNearlyFull",
            "BlockingJobTooLong",
            "ResourceNearLimit",
            "ReadyQueueGrowing",
            "RuntimeBusy",
            "LoopLag",
            "TargetLost",
        ];
        assert_eq!(leave_out, known);
    }

    #[test]
    fn an_unknown_rule_is_answered_with_the_nearest() {
        assert_eq!(named("taskleak").map(|rule| rule.name), Ok("TaskLeak"));
        let said = |name| named(name).map(|rule| rule.name).expect_err("there is none").to_string();
        assert_eq!(said("TaskLeek"), "no rule is called `TaskLeek`\nhint: did you mean `TaskLeak`?");
        assert!(said("\u{1b}").ends_with("hint: `taskscope rules list` lists them"));
    }
}
