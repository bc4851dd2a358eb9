//! Prometheus' own text format, 0.0.4, for scrapers that do not ask for OpenMetrics.

use std::fmt::Write;

use super::{Family, Kind, Label, Value};

pub(super) fn write(families: &[Family]) -> String {
    let mut out = String::new();
    for family in families {
        let name = name(family);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Info => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing into a text cannot fail.
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
        for series in &family.series {
            match &series.value {
                Value::Count(count) => line(&mut out, &name, "", &series.labels, None, *count),
                Value::Number(number) => line(&mut out, &name, "", &series.labels, None, *number),
                Value::Durations { sum, buckets } => {
                    let mut total = 0;
                    for &(bound, count) in buckets {
                        total += count;
                        let bound =
                            if bound.is_infinite() { "+Inf".to_owned() } else { format!("{bound:?}") };
                        line(&mut out, &name, "_bucket", &series.labels, Some(bound), total);
                    }
                    line(&mut out, &name, "_sum", &series.labels, None, *sum);
                    line(&mut out, &name, "_count", &series.labels, None, total);
                }
            }
        }
    }
    out
}

/// As it stands before the labels.
fn name(family: &Family) -> String {
    let unit = family.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
    let suffix = match family.kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    };
    format!("{}{unit}{suffix}", family.name)
}

fn line(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[Label],
    le: Option<String>,
    value: impl std::fmt::Display,
) {
    let le = le.map(|bound| ("le", bound));
    let labels: Vec<String> =
        labels.iter().chain(&le).map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(out, "{name}{suffix}{labels} {value}");
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
