//! What single values of the configuration mean, and how they are written.

use std::time::Duration;

use taskscope_proto::filter::{duration_ns, nearest};
use taskscope_proto::words::printable;
use toml::de::DeValue;

use crate::alerts::rule::{Severity, Unit};

pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => {
            Err(format!("{} is no text\nhint: write it in quotes, as in \"{}\"", shown(other), shown(other)))
        }
    }
}

pub(super) fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let DeValue::Array(items) = value else {
        return Err(format!("{} is no list\nhint: write it as in [\"one\", \"two\"]", shown(value)));
    };
    items.iter().map(|item| text(item.get_ref())).collect()
}

pub(super) fn truth(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(truth) => Ok(*truth),
        other => Err(format!(
            "{} is neither true nor false\nhint: write true or false, without quotes",
            shown(other)
        )),
    }
}

pub(super) fn duration(value: &DeValue<'_>) -> Result<u64, String> {
    const HINT: &str = "hint: write a number and a unit in quotes, as in \"250ms\", \"30s\" or \"10m\"";
    match value {
        DeValue::String(text) => {
            let bare = text.parse::<f64>().is_ok();
            let why = if bare { "has no unit" } else { "is no duration" };
            duration_ns(text).ok_or_else(|| format!("\"{}\" {why}\n{HINT}", printable(text)))
        }
        DeValue::Integer(_) | DeValue::Float(_) => Err(format!("{} has no unit\n{HINT}", shown(value))),
        other => Err(format!("{} is no duration\n{HINT}", shown(other))),
    }
}

/// A duration that is not zero.
pub(super) fn period(value: &DeValue<'_>) -> Result<Duration, String> {
    match duration(value)? {
        0 => Err("it cannot be zero\nhint: write how long, as in \"10s\"".to_owned()),
        ns => Ok(Duration::from_nanos(ns)),
    }
}

/// `least` and `most` included.
pub(super) fn count(value: &DeValue<'_>, least: u64, most: u64) -> Result<u64, String> {
    let number = match value {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{} is no whole number from {least} to {most}", shown(value)))
}

/// `0.8` or `"80%"`.
pub(super) fn ratio(value: &DeValue<'_>) -> Result<f64, String> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) => number.as_str().parse().ok(),
        DeValue::String(text) => text
            .trim()
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
            .map(|percent| percent / 100.0),
        _ => None,
    };
    number.filter(|number: &f64| (0.0..=1.0).contains(number)).ok_or_else(|| {
        format!("{} is no share of a whole\nhint: write 0.8 or \"80%\"; 1 is the most", shown(value))
    })
}

/// A threshold in the rule's unit; never zero, which everything is past.
pub(super) fn threshold(value: &DeValue<'_>, unit: Unit) -> Result<f64, String> {
    let threshold = match unit {
        Unit::Seconds => duration(value)? as f64 / 1e9,
        Unit::Ratio => ratio(value)?,
        Unit::Count => count(value, 1, u64::from(u32::MAX))? as f64,
    };
    if threshold > 0.0 {
        return Ok(threshold);
    }
    Err("everything is at or past zero\nhint: to be told never, write enabled = false".to_owned())
}

pub(super) fn severity(value: &DeValue<'_>) -> Result<Severity, String> {
    let word = text(value)?;
    SEVERITIES.into_iter().find(|severity| severity.name() == word).ok_or_else(|| {
        let names = SEVERITIES.map(Severity::name);
        let hint = match nearest(&word, names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("it is one of {}", names.join(", ")),
        };
        format!("\"{}\" is no severity\nhint: {hint}", printable(&word))
    })
}

pub(super) const SEVERITIES: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

/// A value as it stands in the file, cut where it is long.
fn shown(value: &DeValue<'_>) -> String {
    let text = match value {
        DeValue::String(text) => format!("\"{}\"", printable(text)),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(when) => when.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    if text.chars().count() > 60 { text.chars().take(60).chain(['…']).collect() } else { text }
}

/// As `duration` reads it again, in the greatest unit that leaves a whole number.
pub(super) fn duration_text(ns: u64) -> String {
    let units = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ];
    match units.into_iter().find(|(unit, _)| ns >= *unit && ns.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ns / unit),
        None if ns == 0 => "0s".to_owned(),
        None => format!("{ns}ns"),
    }
}
