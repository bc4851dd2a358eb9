//! What sinks are told: an alert, and what has become of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::resource::v1::Resource;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use time::OffsetDateTime;

use super::labels::{Fingerprint, Labels};
use super::life::Transition;

/// The annotation that says why an end was not seen.
const UNSEEN: &str = "not_seen_to_end";

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Alert {
    pub(crate) fingerprint: Fingerprint,
    /// `alertname`, `severity`, `service`, and what the reading is about.
    pub(crate) labels: Labels,
    /// `summary` always.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Both in the rule's unit: seconds, a ratio, a count.
    pub(crate) value: f64,
    pub(crate) threshold: f64,
    /// When it became pending, or fired where it never was.
    pub(crate) starts_at_unix_ns: u64,
    /// `None` until it is resolved.
    pub(crate) ends_at_unix_ns: Option<u64>,
    /// What was said of it last.
    pub(crate) state: Transition,
    /// Whose it is, as far as that is known beyond its labels: as the target said when it was last read.
    pub(crate) resource: Option<Arc<Resource>>,
}

/// One thing to tell of one alert. Serialises as the line of `taskscope alerts --json`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Notice {
    pub(crate) transition: Transition,
    pub(crate) alert: Alert,
}

impl Transition {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

impl Alert {
    pub(crate) fn name(&self) -> &str {
        self.labels.get("alertname").unwrap_or_default()
    }

    pub(crate) fn summary(&self) -> &str {
        self.annotations.get("summary").map_or("", String::as_str)
    }

    /// It is told to be over because nobody looks any more, and not because anybody has seen its end. `why` is a clause.
    #[must_use]
    pub(crate) fn unseen(mut self, why: &str) -> Self {
        let annotations = unseen(self.summary(), why).map(|(name, value)| (name.to_owned(), value));
        self.annotations.extend(annotations);
        self
    }
}

/// What an alert's annotations say instead of the summary that it had, or beside it, where its end was not seen.
pub(crate) fn unseen(summary: &str, why: &str) -> [(&'static str, String); 2] {
    [("summary", format!("NOT SEEN TO END: {why}. It was: {summary}")), (UNSEEN, why.to_owned())]
}

impl Notice {
    /// [`Alert::unseen`].
    #[must_use]
    pub(crate) fn unseen(self, why: &str) -> Self {
        Self { alert: self.alert.unseen(why), ..self }
    }
}

impl Serialize for Notice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let alert = &self.alert;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", self.transition.name())?;
        map.serialize_entry("alertname", alert.name())?;
        map.serialize_entry("labels", &alert.labels)?;
        map.serialize_entry("annotations", &alert.annotations)?;
        map.serialize_entry("value", &alert.value)?;
        map.serialize_entry("threshold", &alert.threshold)?;
        map.serialize_entry("starts_at", &rfc3339(alert.starts_at_unix_ns))?;
        if let Some(ends) = alert.ends_at_unix_ns {
            map.serialize_entry("ends_at", &rfc3339(ends))?;
        }
        map.serialize_entry("fingerprint", &alert.fingerprint.to_string())?;
        map.end()
    }
}

/// Of the wall clock, in UTC, to the millisecond: `2026-11-21T01:49:39.822Z`.
pub(crate) fn rfc3339(unix_ns: u64) -> String {
    // Whatever fits into 64 bits of nanoseconds is a year that has four digits.
    let at = OffsetDateTime::UNIX_EPOCH + time::Duration::nanoseconds_i128(i128::from(unix_ns));
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_milliseconds_and_says_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_225_779_822_999_999), "2026-11-21T01:49:39.822Z");
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33.709Z");
    }

    #[test]
    fn an_end_that_nobody_saw_says_so_wherever_it_is_read() {
        let seen = crate::sinks::fixture::notice("TaskSlowPoll", "a", Transition::Resolved);
        let unseen = seen.clone().unseen("nobody looks");
        assert_eq!(unseen.alert.summary(), "NOT SEEN TO END: nobody looks. It was: tasks of a are slow");
        assert_eq!(unseen.alert.annotations["not_seen_to_end"], "nobody looks");
        assert_eq!((unseen.alert.fingerprint, unseen.transition), (seen.alert.fingerprint, seen.transition));
    }

    #[test]
    fn a_notice_is_one_line_of_json() {
        let labels = Labels::default().with("alertname", "TaskSlowPoll").with("severity", "warning");
        let mut notice = Notice {
            transition: Transition::Firing,
            alert: Alert {
                fingerprint: labels.fingerprint(),
                labels,
                annotations: BTreeMap::from([("summary".to_owned(), "a poll \"took\" 412 ms".to_owned())]),
                value: 0.412,
                threshold: 0.1,
                starts_at_unix_ns: 1_795_225_779_822_000_000,
                ends_at_unix_ns: None,
                state: Transition::Firing,
                resource: None,
            },
        };
        let json = |notice: &Notice| serde_json::to_string(notice).expect("it is text");
        assert_eq!(
            json(&notice),
            r#"{"event":"firing","alertname":"TaskSlowPoll","labels":{"alertname":"TaskSlowPoll","severity":"warning"},"#
                .to_owned()
                + r#""annotations":{"summary":"a poll \"took\" 412 ms"},"value":0.412,"threshold":0.1,"#
                + r#""starts_at":"2026-11-21T01:49:39.822Z","fingerprint":"656208c45755e7d4"}"#
        );
        notice.alert.ends_at_unix_ns = Some(1_795_225_780_000_000_000);
        assert!(json(&notice).contains(r#","ends_at":"2026-11-21T01:49:40.000Z","fingerprint""#));
    }
}
