//! Prometheus' own text format, 0.0.4, for scrapers that do not ask for OpenMetrics.

use std::fmt::Write;
use std::vec;

use super::page::{PIECE, piece};
use super::{Family, Kind, Label, Series, Value};

/// Writes a piece when it is asked for one.
pub(super) struct Writer {
    families: vec::IntoIter<Family>,
    /// The rest of one whose head is written, and its name.
    family: Option<(String, vec::IntoIter<Series>)>,
    /// Of each series, as they stand in each of its lines.
    labels: String,
    bounds: Bounds,
}

impl Writer {
    pub(super) fn of(families: Vec<Family>) -> Self {
        Self {
            families: families.into_iter(),
            family: None,
            labels: String::new(),
            bounds: Bounds::default(),
        }
    }

    /// The next series, or the head of the next family; false where there is none.
    fn write(&mut self, out: &mut String) -> bool {
        if let Some((name, series)) = &mut self.family
            && let Some(next) = series.next()
        {
            self.labels.clear();
            write_labels(&mut self.labels, &next.labels);
            write_series(out, name, &self.labels, &next.value, &mut self.bounds);
            return true;
        }
        let Some(family) = self.families.next() else { return false };
        let name = name(&family);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Info => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing into a text cannot fail, here and below.
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
        self.family = Some((name, family.series.into_iter()));
        true
    }
}

impl Iterator for Writer {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut out = piece();
        while out.len() < PIECE && self.write(&mut out) {}
        (!out.is_empty()).then_some(out)
    }
}

fn write_series(out: &mut String, name: &str, labels: &str, value: &Value, bounds: &mut Bounds) {
    match value {
        Value::Count(count) => {
            head(out, name, "", labels, "");
            whole(out, *count);
        }
        Value::Number(number) => {
            head(out, name, "", labels, "");
            let _ = writeln!(out, "{number}");
        }
        Value::Durations { sum, buckets } => {
            let mut total = 0;
            for (position, &(bound, count)) in buckets.iter().enumerate() {
                total += count;
                head(out, name, "_bucket", labels, bounds.label(position, bound));
                whole(out, total);
            }
            head(out, name, "_sum", labels, "");
            let _ = writeln!(out, "{sum}");
            head(out, name, "_count", labels, "");
            whole(out, total);
        }
    }
}

/// The label `le` by the position of its bucket: those of one histogram are most often those of the next.
#[derive(Default)]
struct Bounds(Vec<(f64, String)>);

impl Bounds {
    fn label(&mut self, position: usize, bound: f64) -> &str {
        let is_known = self.0.get(position).is_some_and(|(known, _)| known.to_bits() == bound.to_bits());
        if !is_known {
            self.0.truncate(position);
            let text = if bound.is_infinite() { "+Inf".to_owned() } else { format!("{bound:?}") };
            self.0.push((bound, format!("le=\"{text}\"")));
        }
        self.0.get(position).map_or("", |(_, label)| label)
    }
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

fn write_labels(out: &mut String, labels: &[Label]) {
    for (label, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(label);
        out.push_str("=\"");
        escape(out, value);
        out.push('"');
    }
}

/// A line up to its value; `labels` and `last` are written already.
fn head(out: &mut String, name: &str, suffix: &str, labels: &str, last: &str) {
    out.push_str(name);
    out.push_str(suffix);
    let between = if labels.is_empty() || last.is_empty() { "" } else { "," };
    if !labels.is_empty() || !last.is_empty() {
        for part in ["{", labels, between, last, "}"] {
            out.push_str(part);
        }
    }
    out.push(' ');
}

/// A value and the end of its line. A scrape has tens of thousands.
fn whole(out: &mut String, value: u64) {
    let mut digits = [0; 20];
    let (mut first, mut rest) = (digits.len(), value);
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[first..]).unwrap_or_default());
    out.push('\n');
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
        let (mut labels, mut out) = (String::new(), String::new());
        let kinds = [("a", "say \"hi\"\\now\nthen".to_owned()), ("b", String::new()), ("c", "\\".to_owned())];
        write_labels(&mut labels, &kinds);
        head(&mut out, "x", "_bucket", &labels, "le=\"+Inf\"");
        whole(&mut out, 3);
        head(&mut out, "y", "", "", "");
        whole(&mut out, 0);
        assert_eq!(
            out,
            "x_bucket{a=\"say \\\"hi\\\"\\\\now\\nthen\",b=\"\",c=\"\\\\\",le=\"+Inf\"} 3\ny 0\n"
        );
    }

    #[test]
    fn nothing_is_lost_or_told_twice_between_pieces() {
        let family = |name, series: u64| {
            let mut family = Family::new(Kind::Gauge, name, None, "Some");
            (0..series).for_each(|number| family.add(vec![("n", number.to_string())], Value::Count(number)));
            family
        };
        let pieces: Vec<String> =
            Writer::of(vec![family("a", 9_000), family("b", 0), family("c", 3)]).collect();
        assert!(
            pieces.len() > 2 && pieces.iter().all(|piece| piece.len() < PIECE + (4 << 10)),
            "{}",
            pieces.len()
        );
        let head = |name| format!("# HELP {name} Some\n# TYPE {name} gauge\n");
        let lines = |name: &str, series: u64| -> String {
            (0..series).map(|number| format!("{name}{{n=\"{number}\"}} {number}\n")).collect()
        };
        let whole = [head("a"), lines("a", 9_000), head("b"), head("c"), lines("c", 3)].concat();
        assert_eq!(pieces.concat(), whole);
    }

    #[test]
    fn whole_numbers_are_written_as_they_are() {
        for value in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut out = String::new();
            whole(&mut out, value);
            assert_eq!(out, format!("{value}\n"));
        }
    }

    #[test]
    fn histograms_with_bounds_of_their_own_have_them() {
        let mut bounds = Bounds::default();
        let mut said = |buckets: &[f64]| {
            let each =
                buckets.iter().enumerate().map(|(position, &bound)| bounds.label(position, bound).to_owned());
            each.collect::<Vec<_>>().join(" ")
        };
        for _ in 0..2 {
            assert_eq!(said(&[0.5, 1.0, f64::INFINITY]), r#"le="0.5" le="1.0" le="+Inf""#);
        }
        assert_eq!(said(&[0.5, 2.0, 3.0]), r#"le="0.5" le="2.0" le="3.0""#);
        assert_eq!(said(&[0.5]), r#"le="0.5""#);
        assert_eq!(said(&[0.5, 2.0, 3.0]), r#"le="0.5" le="2.0" le="3.0""#);
    }
}
