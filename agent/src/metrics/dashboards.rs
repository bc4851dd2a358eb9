//! What `deploy/` makes of the metrics asks for names and labels that there are: a dashboard with a wrong one shows nothing, and
//! nobody learns why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use regex::Regex;
use serde_json::Value as Json;

use super::tests::shop;
use super::*;
use crate::alerts::labels::Labels;
use crate::alerts::life::Transition;
use crate::alerts::notice::Alert;
use crate::config::Config;
use crate::config::rules::untouched;

/// The labels of each name, as a scraper reads them.
type Names = BTreeMap<String, BTreeSet<String>>;

/// Everything that the agent may write.
fn names() -> Names {
    let mut model = shop();
    let frame = &mut model.frame;
    let runtime = &mut frame.runtimes[0];
    runtime.ready_tasks = Some(1);
    let blocking = &mut frame.pools[0];
    (blocking.queued, blocking.capacity, blocking.idle) = (Some(1), Some(512), Some(1));
    let user = Pool {
        kind: PoolKind::User.into(),
        name: "db".into(),
        busy: Some(1),
        capacity: Some(10),
        queued: Some(0),
        runtime_id: 1,
        ..Default::default()
    };
    frame.pools.push(user);
    let probe = frame.probe.as_mut().expect("it has some");
    probe.cpu_ratio = Some(0.01);
    let config = Config::read("", "", &|_| None, &untouched()).expect("nothing is right");
    let mut watcher = Watcher::new(config.watched(), "shop", &Labels::default());
    let labels = ALERT_LABELS.into_iter().fold(Labels::default(), |labels, name| labels.with(name, "a"));
    let labels = labels.with("alertname", "TargetLost").with("severity", "critical");
    let alert = Alert {
        fingerprint: labels.fingerprint(),
        labels,
        annotations: BTreeMap::new(),
        value: 20.0,
        threshold: 15.0,
        starts_at_unix_ns: 5,
        ends_at_unix_ns: None,
        state: Transition::Firing,
        resource: None,
    };
    assert_eq!(watcher.restore(vec![alert], 0), []);
    let mut shown = Shown::default();
    shown.take(&model);
    let seen = Seen {
        name: "shop",
        description: None,
        model: Some(&model),
        shown: Some(&shown),
        watcher: Some(&watcher),
    };
    let sink = Health {
        sink: "chat".into(),
        instance: "am-0:9093".into(),
        delivered: 3,
        dropped: 1,
        refused: 0,
        failing: None,
    };
    let own = Watcher::new(vec![], "taskscope-agent", &Labels::default());
    let itself = Itself { watcher: &own, reload: LastReload { is_good: true, good_unix_ns: 1 }, missed: &[] };
    let families = families([seen].into_iter(), 0, &[sink], &itself);
    // None is left out, or what follows would prove less than it says.
    let written: BTreeSet<&str> = families.iter().map(|family| family.name).collect();
    let all = All::new().into_families();
    assert_eq!(written, all.iter().map(|family| family.name).collect());

    let label = Regex::new(r#"([a-z_]+)="(?:[^"\\]|\\.)*""#).expect("it is one");
    let text: String = Form::Text.write(families).collect();
    let mut names = Names::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a value follows"));
        let labels = label.captures_iter(rest).map(|it| it[1].to_owned());
        names.entry(name.to_owned()).or_default().extend(labels);
    }
    names
}

/// What is wrong with an expression that is shown with these labels.
fn wrong(expr: &str, shown: &[String], names: &Names) -> Vec<String> {
    let asked = Regex::new(r"((?:[a-z_]+:)?taskscope_[a-z0-9_]+(?::[a-z0-9_]+)?)(?:\{([^}]*)\})?")
        .expect("it is one");
    let matcher = Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*""#).expect("it is one");
    let (mut wrong, mut known) = (Vec::new(), BTreeSet::new());
    for asked in asked.captures_iter(expr) {
        let Some(labels) = names.get(&asked[1]) else {
            wrong.push(format!("no metric {} in {expr}", &asked[1]));
            continue;
        };
        known.extend(labels.iter().cloned());
        let matched = asked.get(2).map_or("", |it| it.as_str());
        let unknown = matcher.captures_iter(matched).filter(|it| !labels.contains(&it[1]));
        wrong.extend(unknown.map(|it| format!("{} has no label {}", &asked[1], &it[1])));
    }
    let kept = by(expr);
    let unknown = kept.iter().chain(shown).filter(|name| !known.contains(*name));
    wrong.extend(unknown.map(|name| format!("no label {name} in {expr}")));
    // What an aggregation does not keep cannot be shown.
    let lost = shown.iter().filter(|name| !kept.is_empty() && !kept.contains(name));
    wrong.extend(lost.map(|name| format!("{name} is not kept by {expr}")));
    wrong
}

/// The labels that aggregations keep.
fn by(expr: &str) -> Vec<String> {
    let by = Regex::new(r"\bby\s*\(([^)]*)\)").expect("it is one");
    let lists: Vec<String> = by.captures_iter(expr).map(|it| it[1].to_owned()).collect();
    lists.iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect()
}

fn placeholders(text: &str) -> Vec<String> {
    let placeholder = Regex::new(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}").expect("it is one");
    placeholder.captures_iter(text).map(|it| it[1].to_owned()).collect()
}

/// Each expression of a dashboard, with its legend.
fn expressions(json: &Json, found: &mut Vec<(String, String)>) {
    match json {
        Json::Object(fields) => {
            if let Some(Json::String(expr)) = fields.get("expr") {
                let legend = fields.get("legendFormat").and_then(Json::as_str).unwrap_or_default();
                found.push((expr.clone(), legend.to_owned()));
            }
            // Of a variable: `label_values(NAME, LABEL)`, whose label is shown.
            if let Some(query) = fields.get("query").and_then(Json::as_str)
                && let Some(list) = query.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')'))
                && let Some((expr, label)) = list.rsplit_once(',')
            {
                found.push((expr.to_owned(), format!("{{{{{}}}}}", label.trim())));
            }
            fields.values().for_each(|it| expressions(it, found));
        }
        Json::Array(items) => items.iter().for_each(|it| expressions(it, found)),
        _ => {}
    }
}

fn deploy(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).join(path)
}

#[test]
fn dashboards_ask_for_metrics_and_labels_that_there_are() {
    let names = names();
    let mut asked = 0;
    for file in std::fs::read_dir(deploy("grafana")).expect("it is there") {
        let path = file.expect("it can be listed").path();
        let json = std::fs::read_to_string(&path).expect("it can be read");
        let mut found = Vec::new();
        expressions(&serde_json::from_str(&json).expect("it is JSON"), &mut found);
        assert!(found.len() > 5, "{} shows something", path.display());
        asked += found.iter().filter(|(expr, _)| expr.contains("taskscope_")).count();
        let wrong: Vec<String> =
            found.iter().flat_map(|(expr, legend)| wrong(expr, &placeholders(legend), &names)).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", path.display());
    }
    assert!(asked > 5, "{asked}");
}

#[test]
fn prometheus_rules_ask_for_metrics_and_labels_that_there_are() {
    let mut names = names();
    let text = std::fs::read_to_string(deploy("prometheus/rules.yaml")).expect("it can be read");
    let mut rules = 0;
    for rule in text.split("\n  - ").skip(1) {
        let lines: Vec<&str> = rule.lines().map(str::trim).collect();
        let said = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key));
        let expr = said("expr: ").expect("each has one");
        assert_eq!(wrong(expr, &placeholders(rule), &names), Vec::<String>::new());
        if let Some(name) = said("record: ") {
            names.insert(name.to_owned(), by(expr).into_iter().filter(|it| it != "le").collect());
        }
        rules += 1;
    }
    assert!(rules > 5, "{rules}");
}

#[test]
fn a_wrong_name_or_label_is_seen() {
    let names = names();
    let wrong = |expr: &str, shown: &str| wrong(expr, &placeholders(shown), &names).join("; ");
    assert_eq!(wrong("sum by (target) (taskscope_tasks{state=\"idle\"})", "{{target}}"), "");
    assert!(wrong("rate(taskscope_task_total[5m])", "").starts_with("no metric taskscope_task_total"));
    assert_eq!(wrong("taskscope_tasks{status=\"idle\"}", ""), "taskscope_tasks has no label status");
    assert!(wrong("taskscope_tasks", "{{task_group}}").starts_with("no label task_group"));
    assert!(wrong("sum by (target) (taskscope_tasks)", "{{state}}").starts_with("state is not kept"));
}
