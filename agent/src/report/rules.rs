//! `taskscope rules list` and `rules explain`.

use serde_json::json;
use taskscope_proto::words;

use super::{json_line, table};
use crate::alerts::explain::Evaluation;
use crate::alerts::notice::rfc3339;
use crate::alerts::rule::{Rule, Setting, Unit};
use crate::alerts::rules::RULES;

/// Each rule with its condition, and a line for each setting.
pub(crate) fn text() -> String {
    let mut out = String::new();
    for rule in RULES {
        let opt_in = if rule.opt_in { " (only where configured)" } else { "" };
        out.push_str(&format!("{}{opt_in}\n  {}\n", rule.name, rule.about));
        for setting in rule.defaults {
            out.push_str(&format!("  {}\n", words_of(rule, setting)));
        }
    }
    out
}

pub(crate) fn json() -> anyhow::Result<String> {
    RULES.into_iter().map(|rule| json_line(&rule_json(rule))).collect()
}

fn rule_json(rule: &Rule) -> serde_json::Value {
    let settings: Vec<serde_json::Value> = rule.defaults.iter().map(setting_json).collect();
    let unit = match rule.unit {
        Unit::Seconds => "seconds",
        Unit::Ratio => "ratio",
        Unit::Count => "count",
    };
    json!({ "name": rule.name, "about": rule.about, "unit": unit, "enabled": !rule.opt_in, "settings": settings })
}

fn setting_json(setting: &Setting) -> serde_json::Value {
    json!({
        "severity": setting.severity,
        "threshold": setting.threshold,
        "window_ns": setting.window_ns,
        "min_count": setting.min_count,
        "for_ns": setting.timing.for_ns,
        "clear_ratio": setting.timing.clear_ratio,
        "keep_firing_for_ns": setting.timing.keep_firing_ns,
    })
}

/// `warning: from 100 ms on, 3 within 1m00s`
fn words_of(rule: &Rule, setting: &Setting) -> String {
    let mut parts = vec![format!("{}: from {} on", setting.severity.name(), amount(rule, setting.threshold))];
    if setting.min_count > 1 {
        parts.push(format!("{} of them", setting.min_count));
    }
    if setting.window_ns > 0 {
        parts.push(format!("within {}", words::duration(setting.window_ns)));
    }
    if setting.timing.for_ns > 0 {
        parts.push(format!("for {}", words::duration(setting.timing.for_ns)));
    }
    if setting.timing.keep_firing_ns > 0 {
        parts.push(format!("over {} after", words::duration(setting.timing.keep_firing_ns)));
    }
    parts.join(", ")
}

/// A value in the rule's unit.
fn amount(rule: &Rule, value: f64) -> String {
    match rule.unit {
        Unit::Seconds => words::duration((value * 1e9) as u64),
        Unit::Ratio => format!("{:.0} %", value * 100.0),
        Unit::Count => words::count(value as u64),
    }
}

/// The evaluations of each setting, oldest first, with what each would do next.
pub(crate) fn explained(rule: &Rule, explained: &[(&Setting, Vec<&Evaluation>)]) -> String {
    let mut out = format!("{}: {}\n", rule.name, rule.about);
    for (setting, evaluations) in explained {
        out.push_str(&format!("\n{}\n", words_of(rule, setting)));
        let mut rows = vec![["AT", "VALUE", "PHASE", "NEXT", "ABOUT"].map(str::to_owned).to_vec()];
        for evaluation in evaluations {
            let at = rfc3339(evaluation.at_unix_ns);
            if let Some(why) = &evaluation.missing {
                rows.push(vec![at.clone(), "-".into(), String::new(), String::new(), why.clone()]);
            } else if evaluation.readings.is_empty() {
                rows.push(vec![at.clone(), "below".into(), "inactive".into()]);
            }
            for read in &evaluation.readings {
                let own = |name: &str| matches!(name, "alertname" | "severity" | "service");
                let about: Vec<String> = read
                    .labels
                    .iter()
                    .filter(|(name, _)| !own(name))
                    .map(|(name, value)| format!("{name}={}", words::printable(value)))
                    .collect();
                let next = match (&read.held_back, read.remaining_ns, read.phase) {
                    (Some(why), ..) => why.clone(),
                    (_, Some(ns), "recovering") => format!("resolved in {}", words::duration(ns)),
                    (_, Some(ns), _) => format!("fires in {}", words::duration(ns)),
                    _ => String::new(),
                };
                rows.push(vec![
                    at.clone(),
                    amount(rule, read.value),
                    read.phase.into(),
                    next,
                    about.join(" "),
                ]);
            }
        }
        out.push_str(&table(&rows));
    }
    out
}

pub(crate) fn explained_json(
    rule: &Rule,
    explained: &[(&Setting, Vec<&Evaluation>)],
) -> anyhow::Result<String> {
    let mut out = String::new();
    for (setting, evaluations) in explained {
        for evaluation in evaluations {
            let readings: Vec<serde_json::Value> = evaluation
                .readings
                .iter()
                .map(|read| {
                    let mut object =
                        json!({ "labels": *read.labels, "value": read.value, "phase": read.phase });
                    if let Some(ns) = read.remaining_ns {
                        object["remaining_ns"] = ns.into();
                    }
                    if let Some(why) = &read.held_back {
                        object["held_back"] = why.as_str().into();
                    }
                    object
                })
                .collect();
            let mut object = json!({
                "rule": rule.name,
                "severity": setting.severity,
                "threshold": setting.threshold,
                "at": rfc3339(evaluation.at_unix_ns),
                "readings": readings,
            });
            if let Some(why) = &evaluation.missing {
                object["missing"] = why.as_str().into();
            }
            out.push_str(&json_line(&object)?);
        }
    }
    Ok(out)
}
