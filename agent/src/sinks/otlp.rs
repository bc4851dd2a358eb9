//! Alerts as OpenTelemetry's log records, over HTTP: an event each, whose resource is the service that it is about. [`metrics`]
//! sends what the targets say beside them.

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};

use super::post::{Outcome, Receiver};
use crate::alerts::notice::{Notice, rfc3339};
use crate::metrics::resource::{keyed, of_alert, text};

pub(super) mod metrics;

const MOST_AT_ONCE: usize = 64;

/// Where logs are posted of an endpoint.
pub(super) fn logs_url(endpoint: &Url) -> Url {
    below(endpoint, "/v1/logs")
}

/// The endpoint may be written with the path of a signal.
fn below(endpoint: &Url, signal: &str) -> Url {
    let mut url = endpoint.clone();
    let path = url.path().trim_end_matches('/');
    let base = ["/v1/logs", "/v1/metrics"].into_iter().find_map(|it| path.strip_suffix(it)).unwrap_or(path);
    let path = format!("{base}{signal}");
    url.set_path(&path);
    url
}

pub(super) fn belongs(before: &[Notice], _: &Notice) -> bool {
    before.len() < MOST_AT_ONCE
}

pub(super) async fn deliver(receiver: &Receiver, notices: &[Notice], unix_ns: u64) -> Outcome {
    let body = request(notices, unix_ns).encode_to_vec();
    let outcome = once(receiver.post("application/x-protobuf", HeaderMap::new(), body).await);
    let Outcome::Delivered(answer) = &outcome else { return outcome };
    // An answer that cannot be understood says nothing about what was refused.
    let partly = ExportLogsServiceResponse::decode(answer.as_slice()).ok().and_then(|it| it.partial_success);
    match partly {
        // The rest has arrived: sent again, it would be there twice.
        Some(partly) if partly.rejected_log_records > 0 => Outcome::Rejected {
            why: format!(
                "it rejects {} of {} records: {}",
                partly.rejected_log_records,
                notices.len(),
                taskscope_proto::words::printable(&partly.error_message)
            ),
            count: u64::try_from(partly.rejected_log_records).ok(),
        },
        _ => outcome,
    }
}

/// The protocol names the answers after which records may be sent again, and forbids it after all others.
fn once(outcome: Outcome) -> Outcome {
    let may_be_sent_again = |status: StatusCode| {
        let is_error = status.is_client_error() || status.is_server_error();
        !is_error || matches!(status.as_u16(), 429 | 502 | 503 | 504)
    };
    match outcome {
        Outcome::Later { why, status: Some(status), .. } if !may_be_sent_again(status) => {
            Outcome::Rejected { why, count: None }
        }
        outcome => outcome,
    }
}

fn request(notices: &[Notice], unix_ns: u64) -> ExportLogsServiceRequest {
    let mut resource_logs: Vec<ResourceLogs> = Vec::new();
    for notice in notices {
        let resource = resource(notice);
        let record = record(notice, unix_ns);
        let same = resource_logs.iter_mut().find(|logs| logs.resource.as_ref() == Some(&resource));
        match same.and_then(|logs| logs.scope_logs.first_mut()) {
            Some(scope) => scope.log_records.push(record),
            None => resource_logs.push(ResourceLogs {
                resource: Some(resource),
                scope_logs: vec![ScopeLogs {
                    scope: Some(InstrumentationScope {
                        name: "taskscope".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..Default::default()
                    }),
                    log_records: vec![record],
                    ..Default::default()
                }],
                ..Default::default()
            }),
        }
    }
    ExportLogsServiceRequest { resource_logs }
}

/// The same as of what is measured of its target.
fn resource(notice: &Notice) -> Resource {
    let alert = &notice.alert;
    alert.resource.as_deref().cloned().unwrap_or_else(|| of_alert(&alert.labels))
}

fn record(notice: &Notice, unix_ns: u64) -> LogRecord {
    let alert = &notice.alert;
    let (severity, severity_text) = match alert.labels.get("severity") {
        Some("critical") => (SeverityNumber::Fatal, "critical"),
        Some("warning") => (SeverityNumber::Warn, "warning"),
        _ => (SeverityNumber::Info, "info"),
    };
    let mut attributes: Vec<KeyValue> =
        alert.labels.iter().map(|(name, value)| text(&format!("alert.{name}"), value)).collect();
    for (name, value) in &alert.annotations {
        attributes.push(text(&format!("alert.annotation.{name}"), value));
    }
    attributes.push(text("alert.fingerprint", &alert.fingerprint.to_string()));
    attributes.push(text("alert.starts_at", &rfc3339(alert.starts_at_unix_ns)));
    attributes.push(keyed("alert.value", Value::DoubleValue(alert.value)));
    attributes.push(keyed("alert.threshold", Value::DoubleValue(alert.threshold)));
    LogRecord {
        time_unix_nano: alert.ends_at_unix_ns.unwrap_or(alert.starts_at_unix_ns),
        observed_time_unix_nano: unix_ns,
        severity_number: severity as i32,
        severity_text: severity_text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(alert.summary().to_owned())) }),
        attributes,
        event_name: format!("alert.{}", notice.transition.name()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::alerts::life::Transition;
    use crate::sinks::fixture::notice;

    #[test]
    fn an_event_says_whose_it_is_and_how_bad() {
        let notices = ["a", "b"].map(|group| notice("TaskSlowPoll", group, Transition::Firing));
        let request = request(&notices, 9);
        assert_eq!(request.resource_logs.len(), 1, "both are of one service");
        let logs = &request.resource_logs[0];
        let resource = logs.resource.as_ref().expect("it has one");
        assert_eq!(resource.attributes, [text("service.name", "checkout")]);
        let record = &logs.scope_logs[0].log_records[1];
        assert_eq!((record.event_name.as_str(), record.severity_number), ("alert.firing", 13));
        assert!(record.attributes.contains(&text("alert.task_group", "b")), "{record:?}");
    }

    #[test]
    fn an_event_has_the_resource_of_its_target_and_what_its_labels_say_where_that_is_not_known() {
        let mut known = notice("TaskSlowPoll", "a", Transition::Firing);
        let labels = known.alert.labels.clone().with("host", "web-1").with("pod", "checkout-7d9");
        known.alert.labels = labels.with("target", "checkout-2");
        let unknown = known.clone();
        let attributes = vec![text("service.name", "checkout"), text("service.instance.id", "1a2b")];
        known.alert.resource =
            Some(Arc::new(Resource { attributes: attributes.clone(), ..Default::default() }));
        let request = request(&[known.clone(), unknown, known], 9);
        let said = |at: usize| request.resource_logs[at].resource.clone().expect("it has one").attributes;
        assert_eq!(said(0), attributes);
        let wanted = [
            ("service.name", "checkout"),
            ("taskscope.target.name", "checkout-2"),
            ("k8s.pod.name", "checkout-7d9"),
            ("host.name", "web-1"),
        ];
        assert_eq!(said(1), wanted.map(|(key, value)| text(key, value)));
        let counts = request.resource_logs.iter().map(|logs| logs.scope_logs[0].log_records.len());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn each_signal_has_its_path_below_the_endpoint() {
        for (endpoint, base) in [
            ("http://a:4318", "http://a:4318"),
            ("http://a:4318/otlp/", "http://a:4318/otlp"),
            ("http://a:4318/v1/logs", "http://a:4318"),
            ("http://a:4318/x/v1/metrics/", "http://a:4318/x"),
        ] {
            let endpoint = Url::parse(endpoint).expect("a URL");
            assert_eq!(logs_url(&endpoint).as_str(), format!("{base}/v1/logs"));
            assert_eq!(metrics::url(&endpoint).as_str(), format!("{base}/v1/metrics"));
        }
    }
}
