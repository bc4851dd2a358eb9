//! `[[sinks]]`: where alerts are delivered.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use taskscope_proto::filter::nearest;
use taskscope_proto::words::printable;

use super::section::{Document, Section};
use super::value;
use crate::alerts::rule::Severity;

/// One sink, its defaults filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sink {
    /// Unique in the configuration; its type unless it was given a name.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Alerts below it are not sent.
    pub(crate) min_severity: Severity,
    pub(crate) send_resolved: bool,
    pub(crate) send_pending: bool,
    /// Notices that wait at most; what has no room is counted and dropped, the oldest first.
    pub(crate) queue: usize,
    /// Of one attempt, the answer's body included.
    pub(crate) timeout: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A JSON line each.
    Stdout,
    /// Alertmanager's webhook of version 4. `repeat`: what still fires is told again after that long; `None`: never.
    Webhook { url: Url, secret_file: Option<PathBuf>, repeat: Option<Duration> },
    /// All instances of one Alertmanager.
    Alertmanager { urls: Vec<Url>, resend: Duration },
    /// OTLP over HTTP: alerts are posted as logs to `/v1/logs` below it, figures of the targets to `/v1/metrics`.
    Otlp {
        endpoint: Url,
        alerts: bool,
        /// How often; `None`: never.
        metrics: Option<Duration>,
    },
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Webhook { .. } => "webhook",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Otlp { .. } => "otlp",
        }
    }
}

const COMMON: [&str; 7] =
    ["type", "name", "min_severity", "send_resolved", "send_pending", "queue", "timeout"];
/// Each type with the keys that only it has.
const TYPES: [(&str, &[&str]); 4] = [
    ("stdout", &[]),
    ("webhook", &["url", "secret_file", "repeat"]),
    ("alertmanager", &["urls", "resend"]),
    ("otlp", &["endpoint", "alerts", "metrics"]),
];
const MOST_QUEUED: u64 = 100_000;
const TIMEOUT: Duration = Duration::from_secs(10);
const MOST_TIMEOUT: Duration = Duration::from_secs(120);
const REPEAT: Duration = Duration::from_secs(4 * 3600);
const LEAST_REPEAT: Duration = Duration::from_secs(1);
/// Between two exports of metrics.
const LEAST_EVERY: Duration = Duration::from_secs(1);
const MOST_EVERY: Duration = Duration::from_secs(3600);
const RESEND: Duration = Duration::from_secs(60);
/// Alertmanager resolves what was not sent again for its `resolve_timeout`, 5 minutes by default.
const MOST_RESEND: Duration = Duration::from_secs(240);

pub(super) fn stdout() -> Sink {
    Sink {
        name: "stdout".to_owned(),
        kind: Kind::Stdout,
        min_severity: Severity::Info,
        send_resolved: true,
        send_pending: false,
        queue: 1000,
        timeout: TIMEOUT,
    }
}

/// As configured; standard output alone where nothing is.
pub(super) fn read(document: &mut Document<'_>, root: &Section<'_>) -> Vec<Sink> {
    let every: Vec<&str> =
        COMMON.into_iter().chain(TYPES.iter().flat_map(|(_, own)| own.iter().copied())).collect();
    let sections = root.sections(document, "sinks", &every);
    if sections.is_empty() {
        return vec![stdout()];
    }
    let mut sinks: Vec<Sink> = Vec::new();
    for section in &sections {
        let Some(sink) = sink(document, section) else { continue };
        if sinks.iter().any(|other| other.name == sink.name) {
            let text = format!(
                "two sinks are called \"{}\"\nhint: give each a `name` of its own",
                printable(&sink.name)
            );
            document.tell(&section.span_of("name"), text);
        }
        sinks.push(sink);
    }
    sinks
}

/// `None` where it cannot be known what it is; why has been told.
fn sink(document: &mut Document<'_>, section: &Section<'_>) -> Option<Sink> {
    let types = TYPES.map(|(name, _)| name);
    let known = |it: &toml::de::DeValue<'_>| {
        let word = value::text(it)?;
        types.into_iter().find(|name| *name == word).ok_or_else(|| {
            let hint = match nearest(&word, types) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("it is one of {}", types.join(", ")),
            };
            format!("no sink is of type \"{}\"\nhint: {hint}", printable(&word))
        })
    };
    if !section.has("type") {
        document
            .tell(&section.span, format!("a sink has no type\nhint: add type = one of {}", types.join(", ")));
    }
    let kind_name = section.take(document, "type", known)?;
    let own: Vec<&str> = TYPES
        .iter()
        .filter(|(name, _)| *name == kind_name)
        .flat_map(|(_, own)| own.iter().copied())
        .collect();
    for (_, foreign) in TYPES.iter().filter(|(name, _)| *name != kind_name) {
        for key in foreign.iter().filter(|key| section.has(key)) {
            let mut keys = own.clone();
            keys.extend(COMMON);
            let text = format!(
                "a sink of type \"{kind_name}\" has no `{key}`\nhint: it may have {}",
                keys.join(", ")
            );
            document.tell(&section.span_of(key), text);
        }
    }
    let untouched = stdout();
    let name = section.take(document, "name", name).unwrap_or_else(|| kind_name.to_owned());
    let min_severity = section.take(document, "min_severity", value::severity);
    let send_resolved = section.take(document, "send_resolved", value::truth);
    let send_pending = section.take(document, "send_pending", value::truth);
    let queue = section.take(document, "queue", |it| value::count(it, 1, MOST_QUEUED));
    let timeout = section.take(document, "timeout", |it| limited(it, MOST_TIMEOUT));
    let kind = match kind_name {
        "stdout" => Some(Kind::Stdout),
        "webhook" => {
            let secret_file = section.take(document, "secret_file", |it| value::text(it).map(PathBuf::from));
            let repeat = section.take(document, "repeat", repeat).unwrap_or(Some(REPEAT));
            required(document, section, "url", url).map(|url| Kind::Webhook { url, secret_file, repeat })
        }
        "alertmanager" => {
            let resend = section.take(document, "resend", |it| limited(it, MOST_RESEND)).unwrap_or(RESEND);
            required(document, section, "urls", urls).map(|urls| Kind::Alertmanager { urls, resend })
        }
        _ => {
            let alerts = section.take(document, "alerts", value::truth).unwrap_or(true);
            let metrics = section.take(document, "metrics", exported).flatten();
            if !alerts && metrics.is_none() {
                let text = "this sink is sent nothing\nhint: add metrics = \"30s\", or leave `alerts` out";
                document.tell(&section.span_of("alerts"), text);
            }
            required(document, section, "endpoint", url).map(|endpoint| Kind::Otlp {
                endpoint,
                alerts,
                metrics,
            })
        }
    };
    if kind_name == "alertmanager" && send_resolved == Some(false) {
        let text = "an Alertmanager resolves what is not sent again\nhint: leave `send_resolved` out; whom it tells of an \
                    end, its own configuration says";
        document.tell(&section.span_of("send_resolved"), text);
    }
    if kind_name == "alertmanager" && send_pending == Some(true) {
        let text = "what an Alertmanager is sent cannot say that an alert is pending\nhint: leave `send_pending` out, or use a \
                    sink of another type";
        document.tell(&section.span_of("send_pending"), text);
    }
    Some(Sink {
        name,
        kind: kind?,
        min_severity: min_severity.unwrap_or(untouched.min_severity),
        send_resolved: send_resolved.unwrap_or(untouched.send_resolved),
        send_pending: send_pending.unwrap_or(untouched.send_pending),
        queue: queue.and_then(|queue| usize::try_from(queue).ok()).unwrap_or(untouched.queue),
        timeout: timeout.unwrap_or(untouched.timeout),
    })
}

fn required<T>(
    document: &mut Document<'_>,
    section: &Section<'_>,
    key: &str,
    understand: impl FnOnce(&toml::de::DeValue<'_>) -> Result<T, String>,
) -> Option<T> {
    if !section.has(key) {
        let example = if key == "urls" { "[\"http://127.0.0.1:9093\"]" } else { "\"http://127.0.0.1:4318\"" };
        document.tell(&section.span, format!("this sink has no `{key}`\nhint: add {key} = {example}"));
    }
    section.take(document, key, understand)
}

fn name(it: &toml::de::DeValue<'_>) -> Result<String, String> {
    let name = value::text(it)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(name);
    }
    Err("it is a label of metrics\nhint: use 1 to 64 letters, digits, `-`, `_` and `.`".to_owned())
}

/// How often metrics are sent.
fn exported(it: &toml::de::DeValue<'_>) -> Result<Option<Duration>, String> {
    if value::text(it).is_ok_and(|text| text == "off") {
        return Ok(None);
    }
    let every = limited(it, MOST_EVERY)
        .map_err(|text| if text.contains("is no duration") { format!("{text}, or \"off\"") } else { text })?;
    if every < LEAST_EVERY {
        return Err(format!(
            "targets say something once a second\nhint: write \"{}\" or more",
            value::duration_text(LEAST_EVERY.as_nanos() as u64)
        ));
    }
    Ok(Some(every))
}

fn limited(it: &toml::de::DeValue<'_>, most: Duration) -> Result<Duration, String> {
    let period = value::period(it)?;
    if period > most {
        return Err(format!(
            "it is at most {}\nhint: write less",
            value::duration_text(most.as_nanos() as u64)
        ));
    }
    Ok(period)
}

fn repeat(it: &toml::de::DeValue<'_>) -> Result<Option<Duration>, String> {
    if value::text(it).is_ok_and(|text| text == "off") {
        return Ok(None);
    }
    match value::period(it)? {
        period if period < LEAST_REPEAT => Err(format!(
            "it is at least {}\nhint: write more, or \"off\"",
            value::duration_text(LEAST_REPEAT.as_nanos() as u64)
        )),
        period => Ok(Some(period)),
    }
}

fn urls(it: &toml::de::DeValue<'_>) -> Result<Vec<Url>, String> {
    let texts = value::texts(it).map_err(
        |_| "it is no list of URLs\nhint: write it as in [\"http://am-0:9093\", \"http://am-1:9093\"]",
    )?;
    let urls: Vec<Url> = texts.iter().map(|text| parsed(text)).collect::<Result<_, _>>()?;
    if urls.is_empty() {
        return Err(
            "it is empty\nhint: list every instance, as in [\"http://am-0:9093\", \"http://am-1:9093\"]"
                .to_owned(),
        );
    }
    Ok(urls)
}

fn url(it: &toml::de::DeValue<'_>) -> Result<Url, String> {
    let text =
        value::text(it).map_err(|_| "it is no text\nhint: write it as in \"http://127.0.0.1:9093\"")?;
    parsed(&text)
}

/// What is wrong is said without the text: there may be a token in it.
fn parsed(text: &str) -> Result<Url, String> {
    const HINT: &str = "hint: write it as in \"http://127.0.0.1:9093\"";
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}\n{HINT}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("it is no http or https URL with a host\n{HINT}"));
    }
    if url.password().is_some() || !url.username().is_empty() {
        return Err(
            "a user or a password in a URL ends up in logs\nhint: let a proxy on this machine add it"
                .to_owned(),
        );
    }
    Ok(url)
}

/// A URL as people may see it: a query is often a token, and so is the path of a webhook.
pub(super) fn shown(url: &Url, is_webhook: bool) -> String {
    let place = url.origin().ascii_serialization();
    let has_more = url.query().is_some() || url.fragment().is_some();
    match (is_webhook, has_more) {
        (true, more) if more || url.path() != "/" => format!("{place}/***"),
        (false, true) => format!("{place}{}?***", url.path()),
        _ => url.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_wrong_is_not_told_with_what_is_in_it() {
        for text in [
            "hooks.example/services/s3cret",
            "s3cret://hooks.example/",
            "ftp://hooks.example/s3cret",
            "http://[s3cret/",
            "http://s3cret@hooks.example/",
            "http://:s3cret@hooks.example/",
            "http://u:s3cret@hooks.example/",
        ] {
            let why = parsed(text).expect_err(text);
            assert!(!why.contains("s3cret") && why.contains("\nhint: "), "{text}: {why}");
        }
        assert!(parsed("https://hooks.example/s3cret?s3cret").is_ok());
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_a_token() {
        let at = |text, is_webhook| shown(&Url::parse(text).expect("a URL"), is_webhook);
        assert_eq!(at("https://hooks.example/services/s3cret", true), "https://hooks.example/***");
        assert_eq!(at("https://hooks.example:8443/?s3cret", true), "https://hooks.example:8443/***");
        assert_eq!(at("http://[::1]:80/#s3cret", true), "http://[::1]/***");
        assert_eq!(at("http://hooks.example:8443", true), "http://hooks.example:8443/");
        assert_eq!(at("http://am:9093/am", false), "http://am:9093/am");
        assert_eq!(at("http://am:9093/am?s3cret", false), "http://am:9093/am?***");
    }
}
