//! `taskscope rules list` and `rules explain`.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use taskscope_proto::{v1, words};

use super::{json_line, table};
use crate::alerts::explain::Evaluation;
use crate::alerts::identity::is_place;
use crate::alerts::notice::rfc3339;
use crate::alerts::rule::{Rule, Setting, Unit};
use crate::alerts::rules::RULES;
use crate::alerts::wire;

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
    let mut object = json!({
        "severity": setting.severity,
        "threshold": setting.threshold,
        "window_ns": setting.window_ns,
        "for_ns": setting.timing.for_ns,
        "clear_ratio": setting.timing.clear_ratio,
        "keep_firing_for_ns": setting.timing.keep_firing_ns,
    });
    // Absent where the rule counts no events.
    if let Some(min_count) = setting.min_count {
        object["min_count"] = min_count.into();
    }
    object
}

/// `warning: from 100 ms on, 3 within 1m00s`
fn words_of(rule: &Rule, setting: &Setting) -> String {
    let mut parts = vec![format!("{}: from {} on", setting.severity.name(), amount(rule, setting.threshold))];
    // One alone goes without saying.
    if let Some(min_count) = setting.min_count.filter(|&least| least > 1) {
        parts.push(format!("{min_count} of them"));
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

/// The last evaluations of one setting at one target, oldest first.
pub(crate) struct Explained {
    /// Where, where there is a choice, and with which setting.
    heading: String,
    evaluations: Vec<v1::Evaluation>,
}

/// What was evaluated here.
pub(crate) fn evaluated_here(rule: &Rule, explained: &[(&Setting, Vec<&Evaluation>)]) -> Vec<Explained> {
    let of = |(setting, evaluations): &(&Setting, Vec<&Evaluation>)| Explained {
        heading: words_of(rule, setting),
        evaluations: evaluations.iter().map(|it| wire::evaluation("", setting, it)).collect(),
    };
    explained.iter().map(of).collect()
}

/// What an agent has evaluated, by target and setting.
pub(crate) fn evaluated_there(rule: &Rule, evaluations: Vec<v1::Evaluation>) -> Vec<Explained> {
    let mut all: BTreeMap<(String, String), Vec<v1::Evaluation>> = BTreeMap::new();
    for evaluation in evaluations {
        let from = amount(rule, evaluation.threshold);
        let heading = format!("{}: from {from} on", words::printable(&evaluation.severity));
        all.entry((evaluation.target.clone(), heading)).or_default().push(evaluation);
    }
    let of = |((target, heading), evaluations): ((String, String), Vec<v1::Evaluation>)| {
        let heading = format!("{}, {heading}", words::printable(&target));
        Explained { heading, evaluations }
    };
    all.into_iter().map(of).collect()
}

/// The evaluations of each setting, oldest first, with what each would do next.
pub(crate) fn explained(rule: &Rule, explained: &[Explained]) -> String {
    let mut out = format!("{}: {}\n", rule.name, rule.about);
    if explained.is_empty() {
        out.push_str(
            "\nIt has not been evaluated: it is switched off there, or no target has been heard yet.\n",
        );
    }
    for Explained { heading, evaluations } in explained {
        out.push_str(&format!("\n{heading}\n"));
        let mut rows = vec![["AT", "VALUE", "PHASE", "NEXT", "ABOUT"].map(str::to_owned).to_vec()];
        for evaluation in evaluations {
            let at = rfc3339(evaluation.at_unix_ns);
            if !evaluation.missing.is_empty() {
                let why = words::printable(&evaluation.missing);
                rows.push(vec![at.clone(), "-".into(), String::new(), String::new(), why]);
            } else if evaluation.readings.is_empty() {
                rows.push(vec![at.clone(), "below".into(), "inactive".into()]);
            }
            for read in &evaluation.readings {
                // Which target it is was asked for, or stands above.
                let own = |name: &str| matches!(name, "alertname" | "severity" | "service") || is_place(name);
                let labels = sorted(&read.labels);
                let about = labels.iter().filter(|(name, _)| !own(name));
                let about: Vec<String> =
                    about.map(|(name, value)| format!("{name}={}", words::printable(value))).collect();
                let next = match (read.held_back.as_str(), read.remaining_ns, read.phase.as_str()) {
                    ("", Some(ns), "recovering") => format!("resolved in {}", words::duration(ns)),
                    ("", Some(ns), _) => format!("fires in {}", words::duration(ns)),
                    (why, ..) => words::printable(why),
                };
                rows.push(vec![
                    at.clone(),
                    amount(rule, read.value),
                    words::printable(&read.phase),
                    next,
                    about.join(" "),
                ]);
            }
        }
        out.push_str(&table(&rows));
    }
    out
}

pub(crate) fn explained_json(rule: &Rule, explained: &[Explained]) -> anyhow::Result<String> {
    let all = explained.iter().flat_map(|it| &it.evaluations);
    all.map(|evaluation| json_line(&evaluation_json(rule, evaluation))).collect()
}

fn evaluation_json(rule: &Rule, evaluation: &v1::Evaluation) -> serde_json::Value {
    let reading = |read: &v1::EvaluatedReading| {
        let mut object = json!({ "labels": sorted(&read.labels), "value": read.value, "phase": read.phase });
        if let Some(ns) = read.remaining_ns {
            object["remaining_ns"] = ns.into();
        }
        if !read.held_back.is_empty() {
            object["held_back"] = read.held_back.as_str().into();
        }
        object
    };
    let readings: Vec<serde_json::Value> = evaluation.readings.iter().map(reading).collect();
    let mut object = json!({
        "rule": rule.name,
        "severity": evaluation.severity,
        "threshold": evaluation.threshold,
        "at": rfc3339(evaluation.at_unix_ns),
        "readings": readings,
    });
    if !evaluation.target.is_empty() {
        object["target"] = evaluation.target.as_str().into();
    }
    if !evaluation.missing.is_empty() {
        object["missing"] = evaluation.missing.as_str().into();
    }
    object
}

fn sorted(labels: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::named;

    #[test]
    fn what_an_agent_evaluated_is_told_by_target_with_a_countdown() {
        let rule = named("TaskSlowPoll").expect("there is one");
        let reading = |phase: &str, remaining_ns, held_back: &str| v1::EvaluatedReading {
            labels: HashMap::from(
                [("task_group", "mailer"), ("service", "shop"), ("label", "a"), ("host", "web-1")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            ),
            value: 0.412,
            phase: phase.into(),
            remaining_ns,
            held_back: held_back.into(),
        };
        let evaluation = |target: &str, second: u64, readings, missing: &str| v1::Evaluation {
            target: target.into(),
            at_unix_ns: second * 1_000_000_000,
            severity: "warning".into(),
            threshold: 0.1,
            readings,
            missing: missing.into(),
        };
        let evaluations = vec![
            evaluation("shop", 1, vec![reading("pending", Some(2_000_000_000), "")], ""),
            evaluation("mail", 1, vec![], ""),
            evaluation("shop", 2, vec![reading("recovering", Some(9_000_000_000), "")], ""),
            evaluation("shop", 3, vec![reading("firing", None, "silenced")], ""),
            evaluation("mail", 2, vec![], "wakes are not seen"),
        ];
        let told = evaluated_there(rule, evaluations);
        let text = explained(rule, &told);
        let (_, text) = text.split_once('\n').expect("the rule's condition comes first");
        assert_eq!(
            text,
            "\nmail, warning: from 100 ms on\n\
             AT                        VALUE  PHASE     NEXT  ABOUT\n\
             1970-01-01T00:00:01.000Z  below  inactive\n\
             1970-01-01T00:00:02.000Z  -                      wakes are not seen\n\
             \nshop, warning: from 100 ms on\n\
             AT                        VALUE   PHASE       NEXT               ABOUT\n\
             1970-01-01T00:00:01.000Z  412 ms  pending     fires in 2.0 s     label=a task_group=mailer\n\
             1970-01-01T00:00:02.000Z  412 ms  recovering  resolved in 9.0 s  label=a task_group=mailer\n\
             1970-01-01T00:00:03.000Z  412 ms  firing      silenced           label=a task_group=mailer\n"
        );
        let json = explained_json(rule, &told).expect("it is text");
        assert!(
            json.starts_with(r#"{"at":"1970-01-01T00:00:01.000Z","readings":[],"rule":"TaskSlowPoll""#),
            "{json}"
        );
        assert!(
            json.contains(r#""remaining_ns":2000000000"#) && json.contains(r#""target":"shop""#),
            "{json}"
        );
        assert!(explained(rule, &[]).contains("has not been evaluated"));
    }
}
