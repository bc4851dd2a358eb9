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
        // Writing into a text cannot fail, here and below.
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
        for series in &family.series {
            match &series.value {
                Value::Count(count) => line(&mut out, &name, "", &series.labels, None, *count),
                Value::Number(number) => line(&mut out, &name, "", &series.labels, None, *number),
                Value::Durations { sum, buckets } => {
                    let mut total = 0;
                    let mut le = String::new();
                    for &(bound, count) in buckets {
                        total += count;
                        le.clear();
                        let _ =
                            if bound.is_infinite() { le.write_str("+Inf") } else { write!(le, "{bound:?}") };
                        line(&mut out, &name, "_bucket", &series.labels, Some(&le), total);
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
    le: Option<&str>,
    value: impl std::fmt::Display,
) {
    out.push_str(name);
    out.push_str(suffix);
    let mut before = '{';
    for (label, value) in
        labels.iter().map(|(label, value)| (*label, value.as_str())).chain(le.map(|le| ("le", le)))
    {
        out.push(before);
        out.push_str(label);
        out.push_str("=\"");
        escape(out, value);
        out.push('"');
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

fn escape(out: &mut String, value: &str) {
    for part in value.split_inclusive(['\\', '"', '\n']) {
        let plain = part.strip_suffix(['\\', '"', '\n']).unwrap_or(part);
        out.push_str(plain);
        match part.as_bytes().get(plain.len()) {
            Some(b'\n') => out.push_str("\\n"),
            Some(b'\\') => out.push_str("\\\\"),
            Some(_) => out.push_str("\\\""),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_text_stays_within_its_quotes() {
        let mut out = String::new();
        let labels =
            [("a", "say \"hi\"\\now\nthen".to_owned()), ("b", String::new()), ("c", "\\".to_owned())];
        line(&mut out, "x", "_bucket", &labels, Some("+Inf"), 3);
        line(&mut out, "y", "", &[], None, 0.5);
        assert_eq!(
            out,
            "x_bucket{a=\"say \\\"hi\\\"\\\\now\\nthen\",b=\"\",c=\"\\\\\",le=\"+Inf\"} 3\ny 0.5\n"
        );
    }
}
