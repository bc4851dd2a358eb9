//! Collectors that do not take what they are sent.

use std::sync::atomic::{AtomicU32, Ordering};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;

use super::*;

/// It rejects one record, and says so as OTLP has it.
const REJECTS_ONE: &str = "\n\u{5}\u{8}\u{1}\u{12}\u{1}x";

fn logs(endpoint: Url) -> Sink {
    sink("logs", Kind::Otlp { endpoint, alerts: true, metrics: None })
}

/// The groups of tasks that its records are about, in order.
fn groups(request: &Request) -> Vec<String> {
    let export = ExportLogsServiceRequest::decode(request.body.as_slice()).expect("it is protobuf");
    let records = export.resource_logs.iter().flat_map(|it| &it.scope_logs).flat_map(|it| &it.log_records);
    let group = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| {
        let value = attributes.iter().find(|it| it.key == "alert.task_group")?.value.clone()?.value?;
        if let any_value::Value::StringValue(text) = value { Some(text) } else { None }
    };
    records.map(|record| group(&record.attributes).expect("it has a group")).collect()
}

/// All that has come so far.
fn asked(fake: &mut Fake) -> Vec<Vec<String>> {
    std::iter::from_fn(|| fake.requests.try_recv().ok()).map(|request| groups(&request)).collect()
}

#[tokio::test]
async fn what_a_collector_takes_in_part_is_not_sent_again() {
    let seen = Arc::new(AtomicU32::new(0));
    let first_in_part = move |_: &Request| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => answered("200 OK", "", REJECTS_ONE),
        _ => answered("200 OK", "", ""),
    };
    let mut fake = Fake::new(first_in_part).await;
    let sinks = started(&[logs(fake.url())]);
    // Nothing of the sink runs before this awaits something: they go together.
    ["a", "b", "c"].iter().for_each(|group| sinks.send(&firing(group)));
    let health = eventually(&sinks, |health| health[0].delivered + health[0].refused == 3).await;
    assert_eq!((health[0].delivered, health[0].refused, health[0].failing.clone()), (2, 1, None));
    sinks.send(&firing("d"));
    let health = sinks.close(WITHIN).await;
    assert_eq!((health[0].delivered, health[0].refused, health[0].dropped), (3, 1, 0));
    assert_eq!(asked(&mut fake), [vec!["a", "b", "c"], vec!["d"]]);
}

#[tokio::test]
async fn a_record_that_a_collector_refuses_holds_back_no_other() {
    let picky = |request: &Request| match groups(request).iter().any(|group| group == "bad") {
        true => answered("400 Bad Request", "", ""),
        false => answered("200 OK", "", ""),
    };
    let (mut fake, mut hook) = (Fake::new(picky).await, Fake::new(|_| answered("200 OK", "", "")).await);
    let sinks = started(&[logs(fake.url()), webhook("hook", hook.url())]);
    ["a", "bad", "c", "d"].iter().for_each(|group| sinks.send(&firing(group)));
    let mut others = Vec::new();
    while others.len() < 4 {
        others.extend(hook.request().await.groups());
    }
    let health = eventually(&sinks, |health| health[0].delivered == 3).await;
    assert_eq!((health[0].refused, health[0].dropped, health[0].failing.clone()), (1, 0, None));
    let asked = asked(&mut fake);
    let mut taken: Vec<&str> =
        asked.iter().filter(|it| !it.contains(&"bad".to_owned())).flatten().map(String::as_str).collect();
    taken.sort_unstable();
    assert_eq!(taken, ["a", "c", "d"], "each once: {asked:?}");
    assert_eq!(asked.iter().filter(|it| it[..] == ["bad"]).count(), 1, "{asked:?}");
}

#[tokio::test]
async fn only_what_may_be_sent_again_is() {
    for (status, is_sent_again) in [
        ("429 Too Many Requests", true),
        ("502 Bad Gateway", true),
        ("503 Service Unavailable", true),
        ("504 Gateway Timeout", true),
        ("401 Unauthorized", false),
        ("404 Not Found", false),
        ("500 Internal Server Error", false),
    ] {
        let seen = Arc::new(AtomicU32::new(0));
        let first_not = move |_: &Request| match seen.fetch_add(1, Ordering::Relaxed) {
            0 => answered(status, "", "no"),
            _ => answered("200 OK", "", ""),
        };
        let mut fake = Fake::new(first_not).await;
        let sinks = started(&[logs(fake.url())]);
        sinks.send(&firing("a"));
        let health = eventually(&sinks, |health| health[0].failing.is_some()).await;
        assert_eq!(health[0].failing, Some(format!("it answers {status}: no")));
        assert_eq!(health[0].refused, u64::from(!is_sent_again), "{status}");
        sinks.send(&firing("b"));
        let wanted = if is_sent_again { 2 } else { 1 };
        let health = eventually(&sinks, |health| health[0].delivered == wanted).await;
        assert_eq!((health[0].failing.clone(), health[0].dropped), (None, 0), "{status}");
        let all: Vec<String> = asked(&mut fake).into_iter().flatten().collect();
        assert_eq!(all, if is_sent_again { vec!["a", "a", "b"] } else { vec!["a", "b"] }, "{status}");
    }
}
