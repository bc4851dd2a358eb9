//! The same figures under OpenTelemetry's names, for a collector. Which family is called what is written out in [`NAMES`] and
//! translated from nothing: what one system's conventions ask for the other's checker rejects. docs/metrics.md lists both.
//!
//! A target has a resource of its own, so an export has a `ResourceMetrics` for each target and one for the agent. Instants of a
//! target's figures are its own clock's.

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::resource::{Process, text};
use super::{All, Family, Label, Seen, Series, Value, resource};
use crate::alerts::labels::Labels;
use crate::headless::LastReload;
use crate::sinks::Health;

/// What kind of instrument, in the words of OpenTelemetry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Instrument {
    Counter,
    UpDownCounter,
    Gauge,
    Histogram,
}

use Instrument::{Counter, Gauge as AsGauge, Histogram as AsHistogram, UpDownCounter};

/// Prometheus' family, and its name, unit and instrument here. A family that is not listed is not sent: alerts are log records.
const NAMES: [(&str, &str, &str, Instrument); 29] = [
    ("taskscope_build", "taskscope.build", "1", AsGauge),
    ("taskscope_agent_targets_turned_away", "taskscope.agent.targets.turned_away", "{target}", AsGauge),
    ("taskscope_target_up", "taskscope.target.up", "1", AsGauge),
    ("taskscope_tasks", "tokio.task.count", "{task}", UpDownCounter),
    ("taskscope_group_tasks", "tokio.task.group.count", "{task}", UpDownCounter),
    ("taskscope_tasks_spawned", "tokio.task.spawned", "{task}", Counter),
    ("taskscope_tasks_ended", "tokio.task.ended", "{task}", Counter),
    ("taskscope_tasks_panicked", "tokio.task.panicked", "{task}", Counter),
    ("taskscope_task_poll_duration", "tokio.task.poll.duration", "s", AsHistogram),
    ("taskscope_task_scheduled_duration", "tokio.task.scheduled.duration", "s", AsHistogram),
    ("taskscope_runtime_tasks", "tokio.runtime.task.count", "{task}", UpDownCounter),
    ("taskscope_runtime_ready_tasks", "tokio.runtime.queue.length", "{task}", UpDownCounter),
    ("taskscope_worker_busy", "tokio.worker.busy.time", "s", Counter),
    ("taskscope_blocking_threads", "tokio.blocking.thread.count", "{thread}", UpDownCounter),
    ("taskscope_blocking_threads_limit", "tokio.blocking.thread.limit", "{thread}", UpDownCounter),
    ("taskscope_blocking_queue_length", "tokio.blocking.queue.length", "{job}", UpDownCounter),
    // What is counted differs from pool to pool.
    ("taskscope_pool_in_use", "taskscope.pool.usage", "1", UpDownCounter),
    ("taskscope_pool_capacity", "taskscope.pool.limit", "1", UpDownCounter),
    ("taskscope_pool_queue_length", "taskscope.pool.queue.length", "1", UpDownCounter),
    ("taskscope_probe_events_dropped", "taskscope.probe.events.dropped", "{event}", Counter),
    ("taskscope_uninstrumented_tasks", "taskscope.probe.task.uninstrumented", "{task}", UpDownCounter),
    ("taskscope_probe_memory", "taskscope.probe.memory.usage", "By", UpDownCounter),
    ("taskscope_probe_memory_limit", "taskscope.probe.memory.limit", "By", UpDownCounter),
    ("taskscope_probe_cpu_ratio", "taskscope.probe.cpu.utilization", "1", AsGauge),
    ("taskscope_probe_watchers", "taskscope.probe.watcher.count", "{watcher}", UpDownCounter),
    ("taskscope_sink_up", "taskscope.sink.up", "1", AsGauge),
    ("taskscope_sink_notices", "taskscope.sink.notices", "{notice}", Counter),
    ("taskscope_config_last_reload_successful", "taskscope.config.reload.last.successful", "1", AsGauge),
    ("taskscope_config_last_reload_success_timestamp", "taskscope.config.reload.last.success", "s", AsGauge),
];

/// The agent itself, whose figures have a resource of their own.
pub(crate) struct Agent<'a> {
    pub(crate) process: &'a Process,
    /// Of every alert, and so of every resource.
    pub(crate) labels: &'a Labels,
    pub(crate) turned_away: usize,
    pub(crate) sinks: &'a [Health],
    pub(crate) reload: LastReload,
}

/// When the sums of a resource began and when its figures were taken.
#[derive(Clone, Copy)]
struct Span {
    start_unix_ns: u64,
    at_unix_ns: u64,
}

/// All that is known of all targets, the agent's own first.
pub(crate) fn export<'a>(
    agent: &Agent<'_>,
    seen: impl Iterator<Item = Seen<'a>>,
    unix_ns: u64,
) -> Vec<ResourceMetrics> {
    let mut own = All::new();
    own.turned_away.add(vec![], Value::Count(agent.turned_away as u64));
    agent.sinks.iter().for_each(|sink| own.sink(sink));
    own.reload(agent.reload);
    let span = Span { start_unix_ns: agent.process.started_unix_ns.min(unix_ns), at_unix_ns: unix_ns };
    let mut all = vec![of_resource(resource::of_agent(agent.process, agent.labels), own, span)];
    all.extend(seen.map(|seen| of_target(&seen, agent.labels, unix_ns)));
    all
}

fn of_target(seen: &Seen<'_>, labels: &Labels, unix_ns: u64) -> ResourceMetrics {
    let mut families = All::new();
    families.build.series.clear();
    families.target(seen);
    // Without a frame all there is to say is whether it answers, and that is the agent's to say.
    let at_unix_ns = seen.model.map(|model| model.frame.unix_ns).filter(|&at| at > 0).unwrap_or(unix_ns);
    let started = seen.description.map_or(at_unix_ns, |description| description.started_unix_ns);
    let span = Span { start_unix_ns: started.min(at_unix_ns), at_unix_ns };
    of_resource(resource::of_target(seen.name, seen.description, labels), families, span)
}

fn of_resource(resource: Resource, families: All, span: Span) -> ResourceMetrics {
    let scope = InstrumentationScope {
        name: "taskscope".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let metrics = families.into_families().into_iter().filter_map(|family| metric(family, span)).collect();
    ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }],
        ..Default::default()
    }
}

/// `None`: nothing is known of it, or it is not sent.
fn metric(family: Family, span: Span) -> Option<Metric> {
    let &(_, name, unit, instrument) = NAMES.iter().find(|(known, ..)| *known == family.name)?;
    if family.series.is_empty() {
        return None;
    }
    let series = family.series.into_iter();
    let temporality = AggregationTemporality::Cumulative as i32;
    let data = match instrument {
        AsGauge => Data::Gauge(Gauge {
            // What holds at a moment has no beginning.
            data_points: series.filter_map(|it| number(it, Span { start_unix_ns: 0, ..span })).collect(),
        }),
        Counter | UpDownCounter => Data::Sum(Sum {
            data_points: series.filter_map(|it| number(it, span)).collect(),
            aggregation_temporality: temporality,
            is_monotonic: instrument == Counter,
        }),
        AsHistogram => Data::Histogram(Histogram {
            data_points: series.filter_map(|it| durations(it, span)).collect(),
            aggregation_temporality: temporality,
        }),
    };
    Some(Metric {
        name: name.to_owned(),
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Default::default()
    })
}

fn number(series: Series, span: Span) -> Option<NumberDataPoint> {
    let value = match series.value {
        Value::Count(count) => Number::AsInt(i64::try_from(count).unwrap_or(i64::MAX)),
        Value::Number(number) => Number::AsDouble(number),
        Value::Durations { .. } => return None,
    };
    Some(NumberDataPoint {
        attributes: attributes(&series.labels),
        start_time_unix_nano: span.start_unix_ns,
        time_unix_nano: span.at_unix_ns,
        value: Some(value),
        ..Default::default()
    })
}

fn durations(series: Series, span: Span) -> Option<HistogramDataPoint> {
    let Value::Durations { sum, buckets } = series.value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(&series.labels),
        start_time_unix_nano: span.start_unix_ns,
        time_unix_nano: span.at_unix_ns,
        count: buckets.iter().map(|(_, count)| count).sum(),
        sum: Some(sum),
        bucket_counts: buckets.iter().map(|&(_, count)| count).collect(),
        // The last bucket is of what is longer than every bound.
        explicit_bounds: buckets.iter().map(|&(bound, _)| bound).filter(|it| it.is_finite()).collect(),
        ..Default::default()
    })
}

/// The target is the resource.
fn attributes(labels: &[Label]) -> Vec<KeyValue> {
    labels.iter().filter(|(name, _)| *name != "target").map(|(name, value)| text(name, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Shown;
    use crate::metrics::tests::shop;
    use crate::model::Model;
    use taskscope_proto::v1;

    fn exported(model: &Model, labels: &Labels) -> Vec<ResourceMetrics> {
        let mut shown = Shown::default();
        shown.take(model);
        let description = v1::Description {
            name: "shop".into(),
            pid: 42,
            instance: "3f9ac1d2".into(),
            started_unix_ns: 1_000,
            host: Some("web-1".into()),
            resource: vec![v1::ResourceAttribute { key: "k8s.pod.name".into(), value: "shop-7d9".into() }],
            ..Default::default()
        };
        let live = Seen {
            name: "shop",
            description: Some(&description),
            model: Some(model),
            shown: Some(&shown),
            watcher: None,
        };
        let gone = Seen { name: "gone", description: None, model: None, shown: None, watcher: None };
        let sink = Health {
            sink: "chat".into(),
            instance: String::new(),
            delivered: 3,
            dropped: 1,
            refused: 0,
            failing: None,
        };
        let process =
            Process { instance: "a1".into(), pid: 7, host: Some("web-1".into()), started_unix_ns: 500 };
        let reload = LastReload { is_good: true, good_unix_ns: 1_795_225_779_500_000_000 };
        let agent = Agent { process: &process, labels, turned_away: 2, sinks: &[sink], reload };
        export(&agent, [live, gone].into_iter(), 9_000)
    }

    /// A line for each point, as somebody would say it.
    fn said(all: &[ResourceMetrics]) -> String {
        let mut lines = Vec::new();
        let of = |attributes: &[KeyValue]| {
            let each = attributes.iter().map(|it| {
                let value = it.value.clone().and_then(|it| it.value);
                format!("{}={value:?}", it.key)
            });
            each.collect::<Vec<_>>().join(" ")
        };
        for it in all {
            lines.push(format!("\nresource {}", of(&it.resource.as_ref().expect("it has one").attributes)));
            for metric in it.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                let head = format!("{} [{}]", metric.name, metric.unit);
                let number = |point: &NumberDataPoint| {
                    let times = (point.start_time_unix_nano, point.time_unix_nano);
                    format!("{head} {{{}}} {:?} at {times:?}", of(&point.attributes), point.value)
                };
                match metric.data.as_ref().expect("it has some") {
                    Data::Gauge(it) => {
                        lines.extend(it.data_points.iter().map(|it| "gauge ".to_owned() + &number(it)));
                    }
                    Data::Sum(it) => {
                        let kind = if it.is_monotonic { "counter " } else { "updowncounter " };
                        lines.extend(it.data_points.iter().map(|it| kind.to_owned() + &number(it)));
                    }
                    Data::Histogram(it) => lines.extend(it.data_points.iter().map(|it| {
                        format!(
                            "histogram {head} {{{}}} {} in {:?} s, {:?} by {:?}",
                            of(&it.attributes),
                            it.count,
                            it.sum,
                            it.bucket_counts,
                            it.explicit_bounds
                        )
                    })),
                    other => panic!("{other:?}"),
                }
            }
        }
        lines.join("\n")
    }

    #[test]
    fn a_target_is_a_resource_and_its_figures_have_names_of_opentelemetrys_kind() {
        insta::assert_snapshot!(said(&exported(&shop(), &Labels::default())));
    }

    #[test]
    fn names_follow_the_conventions_and_name_families_that_there_are() {
        let families = All::new().into_families();
        let mut seen = std::collections::BTreeSet::new();
        for (family, name, unit, instrument) in NAMES {
            let family = families.iter().find(|it| it.name == family).unwrap_or_else(|| panic!("{family}"));
            assert!(seen.insert(name), "{name} is there twice");
            assert!(
                !name.contains("_total") && !name.ends_with("seconds") && !name.ends_with("bytes"),
                "{name}"
            );
            assert!(
                ["s", "By", "1"].contains(&unit) || (unit.starts_with('{') && unit.ends_with('}')),
                "{unit}"
            );
            // Sums that only grow do so in both sets.
            assert_eq!(family.kind == super::super::Kind::Counter, instrument == Counter, "{name}");
            assert_eq!(family.kind == super::super::Kind::Histogram, instrument == AsHistogram, "{name}");
        }
        let left_out: Vec<&str> = families
            .iter()
            .map(|it| it.name)
            .filter(|name| NAMES.iter().all(|(it, ..)| it != name))
            .collect();
        assert_eq!(left_out, ["taskscope_alerts"], "docs/metrics.md says what is not sent");
    }

    #[test]
    fn who_runs_the_agent_says_where_its_targets_are() {
        let labels =
            Labels::default().with("namespace", "eu").with("pod", "from-the-agent").with("team", "a");
        let all = exported(&shop(), &labels);
        let of = |at: usize, key: &str| -> Vec<KeyValue> {
            let attributes = all[at].resource.clone().expect("it has one").attributes;
            attributes.into_iter().filter(|it| it.key == key).collect()
        };
        assert_eq!(of(1, "k8s.namespace.name"), [text("k8s.namespace.name", "eu")]);
        // The target knows better.
        assert_eq!(of(1, "k8s.pod.name"), [text("k8s.pod.name", "shop-7d9")]);
        assert_eq!(of(2, "k8s.pod.name"), [text("k8s.pod.name", "from-the-agent")]);
        assert_eq!(of(1, "team"), []);
    }
}
