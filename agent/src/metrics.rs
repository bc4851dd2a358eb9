//! What the targets say, as metrics for Prometheus, and by [`otlp`] for OpenTelemetry. Built when somebody asks, from the last
//! frames: what is not known of a target, or of one that is not live, is absent. docs/metrics.md lists the names.
//!
//! Names are written out here and translated from nothing: Prometheus' own checker rejects those that OpenTelemetry's would
//! become. No label holds a task id or a process id, and [`groups`] bounds how many there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::pool::Kind as PoolKind;
use taskscope_proto::v1::{self, Pool};

use crate::alerts::labels::Labels;
use crate::alerts::notice::Alert;
use crate::alerts::watcher::{Standing, Watcher};
use crate::headless::LastReload;
use crate::model::Model;
use crate::sinks::Health;

pub(crate) mod groups;
mod openmetrics;
pub(crate) mod otlp;
mod page;
pub(crate) mod resource;
mod states;
mod text;

pub(crate) use groups::Shown;
pub(crate) use page::Pieces;
use states::States;

const SECOND: f64 = 1e9;
/// Of an alert, in a metric. A series is one alert of a target: they are all that rules set. Where the target runs, whoever
/// scrapes knows.
pub(crate) const ALERT_LABELS: [&str; 11] = [
    "alertname",
    "severity",
    "service",
    "runtime",
    "task_group",
    "label",
    "pool",
    "rule",
    "sink",
    "instance_address",
    "resource",
];
/// Pools and runtimes of one target; more are left out.
const MOST_POOLS: usize = 100;
const MOST_RUNTIMES: usize = 32;

/// One target, for a scrape.
pub(crate) struct Seen<'a> {
    pub(crate) name: &'a str,
    /// What it said of itself, live or not; `None`: it never did.
    pub(crate) description: Option<&'a v1::Description>,
    /// `None`: it is not live.
    pub(crate) model: Option<&'a Model>,
    pub(crate) shown: Option<&'a Shown>,
    pub(crate) watcher: Option<&'a Watcher>,
}

/// The agent, for a scrape.
pub(crate) struct Itself<'a> {
    pub(crate) watcher: &'a Watcher,
    pub(crate) reload: LastReload,
    /// What fired before it was started, by the name of a target that has not been seen since.
    pub(crate) missed: &'a [(String, Alert)],
}

/// Which of the two formats a client reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Prometheus' text, 0.0.4.
    Text,
    OpenMetrics,
}

impl Form {
    /// By the header `Accept`.
    pub(crate) fn wanted(accept: Option<&str>) -> Self {
        // Who takes both, as Prometheus does, is served the standard.
        let takes = |accept: &str| accept.contains("application/openmetrics-text");
        if accept.is_some_and(takes) { Self::OpenMetrics } else { Self::Text }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    pub(crate) fn write(self, families: Vec<Family>) -> Pieces {
        match self {
            Self::Text => Box::new(text::Writer::of(families)),
            Self::OpenMetrics => openmetrics::write(families),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// Series of one name. The name has neither the unit nor `_total`, `_info`, `_bucket`: each format adds its own.
#[derive(Debug)]
pub(crate) struct Family {
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    kind: Kind,
    series: Vec<Series>,
}

pub(crate) type Label = (&'static str, String);

#[derive(Debug)]
pub(crate) struct Series {
    /// Series of several families have the same.
    labels: Arc<[Label]>,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Count(u64),
    Number(f64),
    /// Each bucket's upper bound in seconds and its own count; the last bound is infinite.
    Durations {
        sum: f64,
        buckets: Vec<(f64, u64)>,
    },
}

impl Family {
    fn new(kind: Kind, name: &'static str, unit: Option<&'static str>, help: &'static str) -> Self {
        Self { name, unit, help, kind, series: Vec::new() }
    }

    fn add(&mut self, labels: Vec<Label>, value: Value) {
        self.share(&labels.into(), value);
    }

    /// A series whose labels another family has, too.
    fn share(&mut self, labels: &Arc<[Label]>, value: Value) {
        self.series.push(Series { labels: Arc::clone(labels), value });
    }

    /// One series, or none where the value is not known.
    fn count(&mut self, labels: Vec<Label>, count: Option<u64>) {
        if let Some(count) = count {
            self.add(labels, Value::Count(count));
        }
    }
}

/// All that is known of all targets.
pub(crate) fn families<'a>(
    seen: impl Iterator<Item = Seen<'a>>,
    turned_away: usize,
    sinks: &[Health],
    itself: &Itself<'_>,
) -> Vec<Family> {
    let mut all = All::new();
    all.itself(itself);
    sinks.iter().for_each(|sink| all.sink(sink));
    all.turned_away.add(vec![], Value::Count(turned_away as u64));
    for seen in seen {
        all.target(&seen);
    }
    let families = all.into_families();
    families.into_iter().filter(|family| !family.series.is_empty()).collect()
}

/// Every family by name, in the order in which they are written.
struct All {
    build: Family,
    turned_away: Family,
    reload_good: Family,
    reload_time: Family,
    up: Family,
    alerts: Family,
    sink_notices: Family,
    sink_up: Family,
    tasks: Family,
    runtime_tasks: Family,
    ready: Family,
    poll_duration: Family,
    scheduled_duration: Family,
    group_tasks: Family,
    spawned: Family,
    ended: Family,
    panicked: Family,
    worker_busy: Family,
    threads: Family,
    threads_limit: Family,
    blocking_queue: Family,
    pool_used: Family,
    pool_capacity: Family,
    pool_queue: Family,
    dropped: Family,
    uninstrumented: Family,
    memory: Family,
    memory_limit: Family,
    probe_cpu: Family,
    watchers: Family,
}

impl All {
    fn new() -> Self {
        use Kind::{Counter, Gauge, Histogram, Info};
        let seconds = Some("seconds");
        let bytes = Some("bytes");
        let mut build = Family::new(Info, "taskscope_build", None, "Version of this agent");
        build.add(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], Value::Count(1));
        Self {
            build,
            turned_away: Family::new(
                Gauge,
                "taskscope_agent_targets_turned_away",
                None,
                "Targets that are not watched, because there are too many",
            ),
            reload_good: Family::new(
                Gauge,
                "taskscope_config_last_reload_successful",
                None,
                "Whether the configuration was right when it was last read",
            ),
            reload_time: Family::new(
                Gauge,
                "taskscope_config_last_reload_success_timestamp",
                seconds,
                "When the configuration was last read and was right",
            ),
            up: Family::new(Gauge, "taskscope_target_up", None, "Whether the target says something"),
            alerts: Family::new(Gauge, "taskscope_alerts", None, "Alerts that are pending or fire"),
            sink_notices: Family::new(
                Counter,
                "taskscope_sink_notices",
                None,
                "What a sink was told, by what became of it: delivered, dropped, refused",
            ),
            sink_up: Family::new(Gauge, "taskscope_sink_up", None, "Whether what a sink is told arrives"),
            tasks: Family::new(
                Gauge,
                "taskscope_tasks",
                None,
                "Tasks that have a row, by runtime and state; waiting is scheduled or idle",
            ),
            runtime_tasks: Family::new(
                Gauge,
                "taskscope_runtime_tasks",
                None,
                "Tasks alive, as Tokio counts them",
            ),
            ready: Family::new(
                Gauge,
                "taskscope_runtime_ready_tasks",
                None,
                "Tasks in the run queues of a runtime",
            ),
            poll_duration: Family::new(
                Histogram,
                "taskscope_task_poll_duration",
                seconds,
                "Length of polls, by the group of their task",
            ),
            scheduled_duration: Family::new(
                Histogram,
                "taskscope_task_scheduled_duration",
                seconds,
                "How long tasks whose wakes are seen waited for a worker, from a wake to the poll, by their group",
            ),
            group_tasks: Family::new(Gauge, "taskscope_group_tasks", None, "Tasks alive, by group"),
            spawned: Family::new(Counter, "taskscope_tasks_spawned", None, "Tasks that began, by group"),
            ended: Family::new(Counter, "taskscope_tasks_ended", None, "Tasks that ended, by group"),
            panicked: Family::new(
                Counter,
                "taskscope_tasks_panicked",
                None,
                "Tasks that a panic ended, by group",
            ),
            worker_busy: Family::new(
                Counter,
                "taskscope_worker_busy",
                seconds,
                "Time in which a worker was not parked",
            ),
            threads: Family::new(Gauge, "taskscope_blocking_threads", None, "Threads of the blocking pool"),
            threads_limit: Family::new(
                Gauge,
                "taskscope_blocking_threads_limit",
                None,
                "Most threads of the blocking pool, once it has been seen full",
            ),
            blocking_queue: Family::new(
                Gauge,
                "taskscope_blocking_queue_length",
                None,
                "Jobs that wait for a thread of the blocking pool",
            ),
            pool_used: Family::new(Gauge, "taskscope_pool_in_use", None, "What of a pool is taken"),
            pool_capacity: Family::new(Gauge, "taskscope_pool_capacity", None, "What a pool has in all"),
            pool_queue: Family::new(Gauge, "taskscope_pool_queue_length", None, "What waits for a pool"),
            dropped: Family::new(
                Counter,
                "taskscope_probe_events_dropped",
                None,
                "What the probe could not keep or not see, by reason",
            ),
            uninstrumented: Family::new(
                Gauge,
                "taskscope_uninstrumented_tasks",
                None,
                "Tasks alive in a runtime that have no row",
            ),
            memory: Family::new(
                Gauge,
                "taskscope_probe_memory",
                bytes,
                "Memory that the probe holds for data",
            ),
            memory_limit: Family::new(
                Gauge,
                "taskscope_probe_memory_limit",
                bytes,
                "Most memory that the probe may hold",
            ),
            probe_cpu: Family::new(
                Gauge,
                "taskscope_probe_cpu_ratio",
                None,
                "CPU of the probe's thread, 1 is a core",
            ),
            watchers: Family::new(Gauge, "taskscope_probe_watchers", None, "Watchers attached to the probe"),
        }
    }

    fn into_families(self) -> Vec<Family> {
        vec![
            self.build,
            self.turned_away,
            self.reload_good,
            self.reload_time,
            self.up,
            self.alerts,
            self.sink_notices,
            self.sink_up,
            self.tasks,
            self.runtime_tasks,
            self.ready,
            self.poll_duration,
            self.scheduled_duration,
            self.group_tasks,
            self.spawned,
            self.ended,
            self.panicked,
            self.worker_busy,
            self.threads,
            self.threads_limit,
            self.blocking_queue,
            self.pool_used,
            self.pool_capacity,
            self.pool_queue,
            self.dropped,
            self.uninstrumented,
            self.memory,
            self.memory_limit,
            self.probe_cpu,
            self.watchers,
        ]
    }

    fn itself(&mut self, itself: &Itself<'_>) {
        self.reload(itself.reload);
        self.standing(itself.watcher, &|labels| labels.to_vec());
        let series = |(target, alert): &(String, Alert)| {
            let labels = vec![("target", target.clone()), ("alertstate", "firing".to_owned())];
            series_of(labels, &alert.labels)
        };
        self.add_alerts(itself.missed.iter().map(series));
    }

    fn reload(&mut self, LastReload { is_good, good_unix_ns }: LastReload) {
        self.reload_good.add(vec![], Value::Count(u64::from(is_good)));
        self.reload_time.add(vec![], Value::Number(good_unix_ns as f64 / SECOND));
    }

    fn sink(&mut self, health: &Health) {
        let mut labels = vec![("sink", health.sink.clone())];
        if !health.instance.is_empty() {
            labels.push(("instance_address", health.instance.clone()));
        }
        self.sink_up.add(labels.clone(), Value::Count(u64::from(health.failing.is_none())));
        let results =
            [("delivered", health.delivered), ("dropped", health.dropped), ("refused", health.refused)];
        for (result, count) in results {
            let labels = labels.iter().cloned().chain([("result", result.to_owned())]).collect();
            self.sink_notices.add(labels, Value::Count(count));
        }
    }

    fn target(&mut self, seen: &Seen<'_>) {
        let of = |labels: &[Label]| {
            let target = [("target", seen.name.to_owned())];
            target.into_iter().chain(labels.iter().cloned()).collect::<Vec<Label>>()
        };
        // Described, and no frame yet: it is there, and nothing is known.
        let model = seen.model.filter(|model| model.frame.seq > 0);
        self.up.add(of(&[]), Value::Count(u64::from(seen.model.is_some())));
        self.alerts(seen, &of);
        let Some(model) = model else { return };
        self.states(model, &of);
        self.runtimes(model, &of);
        self.pools(model, &of);
        self.probe(model, &of);
        if let Some(shown) = seen.shown {
            for group in shown.groups(model) {
                let labels: Arc<[Label]> = of(&[("task_group", group.name.to_owned())]).into();
                self.group_tasks.share(&labels, Value::Count(group.live));
                self.spawned.share(&labels, Value::Count(group.spawned));
                self.ended.share(&labels, Value::Count(group.ended));
                self.panicked.share(&labels, Value::Count(group.panicked));
                if let Some(waits) = group.waits {
                    self.scheduled_duration.share(&labels, waits);
                }
                if let Some(polls) = group.polls {
                    self.poll_duration.share(&labels, polls);
                }
            }
        }
    }

    /// Labels of the target's own may not stand in for ours.
    fn alerts(&mut self, seen: &Seen<'_>, of: &impl Fn(&[Label]) -> Vec<Label>) {
        if let Some(watcher) = seen.watcher {
            self.standing(watcher, of);
        }
    }

    fn standing(&mut self, watcher: &Watcher, of: &impl Fn(&[Label]) -> Vec<Label>) {
        let series = |alert: Standing<'_>| {
            let state = if alert.fires { "firing" } else { "pending" };
            series_of(of(&[("alertstate", state.to_owned())]), alert.labels)
        };
        self.add_alerts(watcher.standing().map(series));
    }

    /// Of a target that is somewhere else now, an alert may be there twice until the one of before ends: they are one series.
    fn add_alerts(&mut self, series: impl Iterator<Item = Vec<Label>>) {
        let mut seen = BTreeSet::new();
        for labels in series {
            if seen.insert(labels.clone()) {
                self.alerts.add(labels, Value::Count(1));
            }
        }
    }

    fn states(&mut self, model: &Model, of: &impl Fn(&[Label]) -> Vec<Label>) {
        let Some(totals) = &model.frame.totals else { return };
        let all = States { tasks: totals.followed, running: totals.running, scheduled: totals.scheduled };
        let (told, rest) = states::by_runtime(model, all);
        let named = told.into_iter().map(|(name, states)| (Some(name), states));
        // Of no runtime in particular, or the probe does not tell of which.
        for (runtime, states) in named.chain([(None, rest)]) {
            let runtime = runtime.map(|name| ("runtime", name));
            for (state, count) in states.told() {
                let labels: Vec<Label> =
                    runtime.iter().cloned().chain([("state", state.to_owned())]).collect();
                self.tasks.add(of(&labels), Value::Count(count));
            }
        }
    }

    fn runtimes(&mut self, model: &Model, of: &impl Fn(&[Label]) -> Vec<Label>) {
        for runtime in model.frame.runtimes.iter().take(MOST_RUNTIMES) {
            let name = runtime_name(model, runtime.id);
            let labels = of(&[("runtime", name.clone())]);
            self.runtime_tasks.count(labels.clone(), runtime.alive_tasks);
            self.ready.count(labels, runtime.ready_tasks);
            for worker in &runtime.workers {
                let labels = of(&[("runtime", name.clone()), ("worker", worker.index.to_string())]);
                if let Some(busy_ns) = worker.busy_ns_total {
                    self.worker_busy.add(labels, Value::Number(busy_ns as f64 / SECOND));
                }
            }
        }
    }

    fn pools(&mut self, model: &Model, of: &impl Fn(&[Label]) -> Vec<Label>) {
        let mut told = std::collections::BTreeSet::new();
        for pool in model.frame.pools.iter().take(MOST_POOLS) {
            let runtime = (pool.runtime_id != 0).then(|| ("runtime", runtime_name(model, pool.runtime_id)));
            let runtime: Vec<Label> = runtime.into_iter().collect();
            if pool.kind() == PoolKind::Blocking {
                self.blocking(pool, &runtime, of);
                continue;
            }
            let labels = of(&[vec![("pool", pool.name.clone())], runtime].concat());
            // Two of one name cannot be told apart.
            if told.insert(labels.clone()) {
                self.pool_used.count(labels.clone(), pool.busy);
                self.pool_capacity.count(labels.clone(), pool.capacity);
                self.pool_queue.count(labels, pool.queued);
            }
        }
    }

    fn blocking(&mut self, pool: &Pool, runtime: &[Label], of: &impl Fn(&[Label]) -> Vec<Label>) {
        let with = |state: &str| of(&[runtime.to_vec(), vec![("state", state.to_owned())]].concat());
        self.threads.count(with("busy"), pool.busy);
        self.threads.count(with("idle"), pool.idle);
        self.threads_limit.count(of(runtime), pool.capacity);
        self.blocking_queue.count(of(runtime), pool.queued);
    }

    fn probe(&mut self, model: &Model, of: &impl Fn(&[Label]) -> Vec<Label>) {
        // A reason that is not listed has not happened.
        let lost = |reason| {
            let loss = model.frame.losses.iter().find(|loss| loss.reason() == reason);
            Value::Count(loss.map_or(0, |loss| loss.count))
        };
        for number in 1.. {
            let Ok(reason) = Reason::try_from(number) else { break };
            if reason == Reason::UninstrumentedTasks {
                self.uninstrumented.add(of(&[]), lost(reason));
            } else {
                let word = reason.as_str_name().to_ascii_lowercase();
                self.dropped.add(of(&[("reason", word)]), lost(reason));
            }
        }
        let Some(probe) = &model.frame.probe else { return };
        self.memory.add(of(&[]), Value::Count(probe.memory_bytes));
        self.memory_limit.add(of(&[]), Value::Count(probe.memory_limit_bytes));
        if let Some(ratio) = probe.cpu_ratio {
            self.probe_cpu.add(of(&[]), Value::Number(ratio));
        }
        self.watchers.add(of(&[]), Value::Count(probe.watchers.into()));
    }
}

/// What an alert has as labels of a metric, after those.
fn series_of(mut labels: Vec<Label>, of: &Labels) -> Vec<Label> {
    for name in ALERT_LABELS {
        labels.extend(of.get(name).map(|value| (name, value.to_owned())));
    }
    labels
}

/// Its name, with its number where it has none or another one has the same.
fn runtime_name(model: &Model, id: u32) -> String {
    let named = |runtime: &&v1::Runtime| runtime.id == id;
    let name = model.frame.runtimes.iter().find(named).and_then(|runtime| runtime.name.as_deref());
    let Some(name) = name else { return id.to_string() };
    let same = model.frame.runtimes.iter().filter(|runtime| runtime.name.as_deref() == Some(name)).count();
    if same > 1 { format!("{name}-{id}") } else { name.to_owned() }
}

#[cfg(test)]
mod dashboards;
#[cfg(test)]
mod tests;
