//! Alertmanager's webhook of version 4, so that receivers that understand one understand the other; signed where there is a
//! secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;
use sha2::Sha256;

use super::post::{Outcome, Receiver};
use crate::alerts::labels::Labels;
use crate::alerts::life::Transition;
use crate::alerts::notice::{Notice, rfc3339};

const MOST_AT_ONCE: usize = 64;
/// What Alertmanager says while there is no end.
const NO_END: &str = "0001-01-01T00:00:00Z";

#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) receiver: Receiver,
    pub(super) secret_file: Option<PathBuf>,
    /// What the receiver is told it is called.
    pub(super) name: String,
}

impl Webhook {
    /// One request is about one rule, and says one thing of each alert.
    pub(super) fn belongs(before: &[Notice], next: &Notice) -> bool {
        before.len() < MOST_AT_ONCE
            && before.iter().all(|notice| {
                notice.alert.name() == next.alert.name() && notice.alert.fingerprint != next.alert.fingerprint
            })
    }

    pub(super) async fn deliver(&self, notices: &[Notice], unix_ns: u64) -> Outcome {
        let body = body(&self.name, notices);
        let mut headers = HeaderMap::new();
        if let Some(file) = &self.secret_file {
            // Each time anew: a secret may be replaced while the agent runs.
            let secret = match tokio::fs::read(file).await {
                Ok(secret) => secret.trim_ascii().to_vec(),
                Err(error) => return unsigned(&format!("cannot read {}: {error}", file.display())),
            };
            if secret.is_empty() {
                return unsigned(&format!("{} is empty", file.display()));
            }
            let timestamp = (unix_ns / 1_000_000_000).to_string();
            let signature = format!("sha256={}", signature(&secret, &timestamp, &body));
            for (name, value) in [("x-taskscope-timestamp", timestamp), ("x-taskscope-signature", signature)]
            {
                headers.insert(name, HeaderValue::from_str(&value).expect("digits and letters"));
            }
        }
        self.receiver.post("application/json", headers, body).await
    }
}

fn unsigned(why: &str) -> Outcome {
    let why = format!("it cannot be signed: {why}\nhint: `secret_file` names a file that the agent can read");
    Outcome::Later { why, asked: None, status: None }
}

/// Of the timestamp, a full stop and the body, in hexadecimal digits.
pub(super) fn signature(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in [timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    version: &'static str,
    group_key: String,
    truncated_alerts: u32,
    status: &'static str,
    receiver: &'a str,
    group_labels: BTreeMap<&'a str, &'a str>,
    common_labels: BTreeMap<&'a str, &'a str>,
    common_annotations: BTreeMap<&'a str, &'a str>,
    #[serde(rename = "externalURL")]
    external_url: &'static str,
    alerts: Vec<One<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    status: &'static str,
    labels: &'a Labels,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'static str,
    fingerprint: String,
}

/// Alertmanager itself never says `pending`: whoever switches `send_pending` on has a receiver that understands it.
fn status(notice: &Notice) -> &'static str {
    notice.transition.name()
}

/// Of a message: what the loudest of its alerts says.
fn status_of_all(notices: &[Notice]) -> &'static str {
    let say = |transition| notices.iter().any(|notice| notice.transition == transition);
    let loudest = [Transition::Firing, Transition::Pending].into_iter().find(|&transition| say(transition));
    loudest.unwrap_or(Transition::Resolved).name()
}

fn body(receiver: &str, notices: &[Notice]) -> Vec<u8> {
    let one = |notice: &'_ Notice| notice.alert.ends_at_unix_ns.map_or_else(|| NO_END.to_owned(), rfc3339);
    let name = notices.first().map_or("", |notice| notice.alert.name());
    let message = Message {
        version: "4",
        group_key: format!("{{}}:{{alertname={name:?}}}"),
        truncated_alerts: 0,
        status: status_of_all(notices),
        receiver,
        group_labels: BTreeMap::from([("alertname", name)]),
        common_labels: common(notices.iter().map(|notice| notice.alert.labels.iter())),
        common_annotations: common(
            notices
                .iter()
                .map(|notice| notice.alert.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
        ),
        external_url: "",
        alerts: notices
            .iter()
            .map(|notice| One {
                status: status(notice),
                labels: &notice.alert.labels,
                annotations: &notice.alert.annotations,
                starts_at: rfc3339(notice.alert.starts_at_unix_ns),
                ends_at: one(notice),
                generator_url: "",
                fingerprint: notice.alert.fingerprint.to_string(),
            })
            .collect(),
    };
    serde_json::to_vec(&message).expect("texts are always JSON")
}

/// What all of them say alike.
fn common<'a, I: Iterator<Item = (&'a str, &'a str)>>(
    mut all: impl Iterator<Item = I>,
) -> BTreeMap<&'a str, &'a str> {
    let mut common: BTreeMap<&str, &str> = all.next().map(Iterator::collect).unwrap_or_default();
    for next in all {
        let next: BTreeMap<&str, &str> = next.collect();
        common.retain(|name, value| next.get(name) == Some(value));
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::fixture::notice;

    #[test]
    fn it_has_the_shape_of_alertmanagers_own() {
        let firing = notice("TaskSlowPoll", "http.accept", Transition::Firing);
        let ended = notice("TaskSlowPoll", "\"q\"\n\u{1f980}\u{0}", Transition::Resolved);
        let body = body("hook", &[firing, ended]);
        let json: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
        insta::assert_snapshot!(serde_json::to_string_pretty(&json).expect("it is JSON"));
    }

    #[test]
    fn a_message_says_what_the_loudest_of_its_alerts_does() {
        let of = |transition: Transition| notice("A", transition.name(), transition);
        let all = [of(Transition::Resolved), of(Transition::Pending), of(Transition::Firing)];
        let said: Vec<&str> = (1..=3).map(|count| status_of_all(&all[..count])).collect();
        assert_eq!(said, ["resolved", "pending", "firing"]);
        let json: serde_json::Value = serde_json::from_slice(&body("hook", &all[..2])).expect("it is JSON");
        assert_eq!((&json["status"], &json["alerts"][1]["status"]), (&"pending".into(), &"pending".into()));
        assert_eq!(json["alerts"][1]["endsAt"], NO_END);
    }

    #[test]
    fn the_signature_is_of_the_timestamp_and_the_body() {
        // `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac s3cret`
        assert_eq!(
            signature(b"s3cret", "1700000000", b"{\"a\":1}"),
            "1698a50bc74d1ff1db85c4e0a5297c2ad9fdba245d5737cdb789e4cc6e098940"
        );
    }

    #[test]
    fn a_request_is_about_one_rule_and_each_alert_once() {
        let one = notice("A", "x", Transition::Firing);
        assert!(Webhook::belongs(std::slice::from_ref(&one), &notice("A", "y", Transition::Firing)));
        assert!(!Webhook::belongs(std::slice::from_ref(&one), &notice("A", "x", Transition::Resolved)));
        assert!(!Webhook::belongs(std::slice::from_ref(&one), &notice("B", "y", Transition::Firing)));
    }
}
