//! A configuration as a TOML file, each value with where it came from; what may be a token in a URL is left out.

use std::fmt::Write;

use taskscope_proto::words::printable;
use toml::Value;

use super::rules::{Ruled, Ruling};
use super::sinks::{Kind, Sink, shown};
use super::{Config, Folder, Origin, value};
use crate::address::Target;
use crate::alerts::rule::Unit;
use crate::config::pattern::Match;

/// Comments begin here where there is room.
const COLUMN: usize = 56;

struct Page<'a> {
    config: &'a Config,
    text: String,
}

impl Page<'_> {
    /// `paths`: the value came from the first of them that is known.
    fn line(&mut self, key: &str, value: &Value, paths: &[String]) {
        let origin = match paths.iter().find_map(|path| self.config.origins.get(path)) {
            Some(Origin::Line { file, line }) => format!("{file}:{line}"),
            Some(Origin::Environment(name)) => format!("environment: {name}"),
            None => "default".to_owned(),
        };
        let said = format!("{key} = {value}");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{said:COLUMN$} # {}", printable(&origin));
    }

    fn title(&mut self, title: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}{title}");
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

fn texts(texts: impl IntoIterator<Item = impl ToString>) -> Value {
    Value::Array(texts.into_iter().map(|it| text(it.to_string())).collect())
}

fn count(count: u64) -> Value {
    i64::try_from(count).map_or_else(|_| text(count.to_string()), Value::Integer)
}

pub(super) fn printed(config: &Config) -> String {
    let mut page = Page { config, text: String::new() };
    page.title("[agent]");
    let at = |section: &str, key: &str| [format!("{section}.{key}")];
    page.line("listen", &text(config.listen.to_string()), &at("agent", "listen"));
    let metrics = config.metrics.map_or_else(|| "off".to_owned(), |at| at.to_string());
    page.line("metrics", &text(metrics), &at("agent", "metrics"));
    page.line("state", &text(config.state.display().to_string()), &at("agent", "state"));
    if !config.labels.is_empty() {
        page.title("[agent.labels]");
        for (name, value) in &config.labels {
            page.line(name, &text(value), &at("agent.labels", name));
        }
    }
    page.title("[targets]");
    let targets = &config.targets;
    page.line("fixed", &texts(targets.fixed.iter().map(Target::to_string)), &at("targets", "fixed"));
    let folder = match &targets.folder {
        Folder::None => Value::Boolean(false),
        Folder::Usual => Value::Boolean(true),
        Folder::At(path) => text(path.display().to_string()),
    };
    page.line("folder", &folder, &at("targets", "folder"));
    page.line("dns", &texts(&targets.dns), &at("targets", "dns"));
    page.line("refresh", &period(targets.refresh), &at("targets", "refresh"));
    for (name, ruled) in &config.rules {
        rule(&mut page, name, ruled);
    }
    for (index, it) in config.sinks.iter().enumerate() {
        sink(&mut page, index, it);
    }
    page.text
}

fn rule(page: &mut Page<'_>, name: &str, ruled: &Ruled) {
    let own = format!("rules.{name}");
    page.title(&format!("[{own}]"));
    page.line("enabled", &Value::Boolean(!ruled.rulings.is_empty()), &[format!("{own}.enabled")]);
    for ruling in &ruled.rulings {
        severity(page, &own, ruled.unit, ruling);
    }
    // A severity that is switched off has to be said to be, or it would be on again.
    let is_off = |path: &&String| {
        path.starts_with(&format!("{own}.")) && path.ends_with(".enabled") && path.matches('.').count() == 3
    };
    let said: Vec<String> = page.config.origins.keys().filter(is_off).cloned().collect();
    for path in said {
        let section = path.trim_end_matches(".enabled");
        let name = section.rsplit('.').next().unwrap_or_default();
        if !ruled.rulings.iter().any(|ruling| ruling.setting.severity.name() == name) {
            page.title(&format!("[{section}]"));
            page.line("enabled", &Value::Boolean(false), &[path]);
        }
    }
}

fn severity(page: &mut Page<'_>, own: &str, unit: Unit, ruling: &Ruling) {
    let Ruling { setting, about } = ruling;
    let section = format!("{own}.{}", setting.severity.name());
    let paths = |key: &str| [format!("{section}.{key}"), format!("{own}.{key}")];
    page.title(&format!("[{section}]"));
    page.line("enabled", &Value::Boolean(true), &paths("enabled"));
    let threshold = match unit {
        Unit::Seconds => text(value::duration_text((setting.threshold * 1e9).round() as u64)),
        Unit::Ratio => Value::Float(setting.threshold),
        Unit::Count => count(setting.threshold as u64),
    };
    page.line("threshold", &threshold, &paths("threshold"));
    page.line("for", &text(value::duration_text(setting.timing.for_ns)), &paths("for"));
    if let Some(min_count) = setting.min_count {
        page.line("min_count", &count(min_count), &paths("min_count"));
    }
    if setting.window_ns > 0 {
        page.line("window", &text(value::duration_text(setting.window_ns)), &paths("window"));
    }
    page.line("clear_ratio", &Value::Float(setting.timing.clear_ratio), &paths("clear_ratio"));
    let keep = text(value::duration_text(setting.timing.keep_firing_ns));
    page.line("keep_firing_for", &keep, &paths("keep_firing_for"));
    for key in Match::KEYS {
        if let Some(pattern) = about.of(key) {
            page.line(&format!("match.{key}"), &text(pattern.text()), &paths(&format!("match.{key}")));
        }
    }
}

fn sink(page: &mut Page<'_>, index: usize, sink: &Sink) {
    let paths = |key: &str| [format!("sinks.{index}.{key}")];
    page.title("[[sinks]]");
    page.line("type", &text(sink.kind.name()), &paths("type"));
    page.line("name", &text(&sink.name), &paths("name"));
    match &sink.kind {
        Kind::Stdout => {}
        Kind::Webhook { url, secret_file, repeat } => {
            page.line("url", &text(shown(url, true)), &paths("url"));
            if let Some(file) = secret_file {
                page.line("secret_file", &text(file.display().to_string()), &paths("secret_file"));
            }
            page.line("repeat", &repeat.map_or_else(|| text("off"), period), &paths("repeat"));
        }
        Kind::Alertmanager { urls, resend } => {
            page.line("urls", &texts(urls.iter().map(|url| shown(url, false))), &paths("urls"));
            page.line("resend", &period(*resend), &paths("resend"));
        }
        Kind::Otlp { endpoint, alerts, metrics } => {
            page.line("endpoint", &text(shown(endpoint, false)), &paths("endpoint"));
            page.line("alerts", &Value::Boolean(*alerts), &paths("alerts"));
            page.line("metrics", &metrics.map_or_else(|| text("off"), period), &paths("metrics"));
        }
    }
    page.line("min_severity", &text(sink.min_severity.name()), &paths("min_severity"));
    page.line("send_resolved", &Value::Boolean(sink.send_resolved), &paths("send_resolved"));
    page.line("send_pending", &Value::Boolean(sink.send_pending), &paths("send_pending"));
    page.line("queue", &count(sink.queue as u64), &paths("queue"));
    page.line("timeout", &period(sink.timeout), &paths("timeout"));
}

fn period(period: std::time::Duration) -> Value {
    text(value::duration_text(u64::try_from(period.as_nanos()).unwrap_or(u64::MAX)))
}
