//! Sinks against receivers that misbehave.

use std::collections::BTreeMap;
use std::path::PathBuf;

use prost::Message;
use reqwest::Url;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::fixture::notice;
use super::*;

mod alertmanager;
mod otlp;
mod refusals;
mod restarts;

const WITHIN: Duration = Duration::from_secs(20);

struct Request {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    at: Instant,
}

impl Request {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The groups of tasks that it is about, in order.
    fn groups(&self) -> Vec<String> {
        let json = self.json();
        let alerts = if json.is_array() { &json } else { &json["alerts"] };
        let group =
            |alert: &Value| alert["labels"]["task_group"].as_str().expect("it has a group").to_owned();
        alerts.as_array().expect("a list").iter().map(group).collect()
    }
}

/// A receiver on a port of its own. `answer` is given each request and says what is answered; `None`: nothing, ever.
struct Fake {
    port: u16,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl Fake {
    async fn new(answer: impl Fn(&Request) -> Option<String> + Send + Clone + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        let (tell, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tell.clone(), answer.clone()));
            }
        });
        Self { port, requests }
    }

    async fn request(&mut self) -> Request {
        tokio::time::timeout(WITHIN, self.requests.recv())
            .await
            .expect("a request in time")
            .expect("it listens")
    }

    fn url(&self) -> Url {
        Url::parse(&format!("http://127.0.0.1:{}/hook", self.port)).expect("a URL")
    }
}

#[allow(clippy::disallowed_methods, reason = "the receiver notes when it was asked")]
async fn serve(
    mut stream: TcpStream,
    tell: mpsc::UnboundedSender<Request>,
    answer: impl Fn(&Request) -> Option<String>,
) {
    let mut read = Vec::new();
    loop {
        let request = loop {
            if let Some(request) = parsed(&mut read) {
                break request;
            }
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let answer = answer(&request);
        let _ = tell.send(Request { at: Instant::now(), ..request });
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the receiver notes when it was asked")]
fn parsed(read: &mut Vec<u8>) -> Option<Request> {
    let end = read.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    if read.len() < end + 4 + length {
        return None;
    }
    let body = read[end + 4..end + 4 + length].to_vec();
    read.drain(..end + 4 + length);
    Some(Request { path, headers, body, at: Instant::now() })
}

fn answered(status: &str, more: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n{body}", body.len()))
}

pub(super) fn sink(name: &str, kind: Kind) -> Sink {
    Sink {
        name: name.to_owned(),
        kind,
        min_severity: Severity::Info,
        send_resolved: true,
        send_pending: false,
        queue: 100,
        timeout: Duration::from_secs(5),
    }
}

fn webhook(name: &str, url: Url) -> Sink {
    sink(name, Kind::Webhook { url, secret_file: None, repeat: None })
}

fn started(sinks: &[Sink]) -> Sinks {
    Sinks::start(&prepared(sinks), None)
}

fn prepared(sinks: &[Sink]) -> Prepared {
    Prepared::of(sinks, &Prepared::default()).expect("they can be made")
}

fn firing(group: &str) -> Notice {
    notice("TaskSlowPoll", group, Transition::Firing)
}

/// Asks until it is so.
async fn eventually(sinks: &Sinks, so: impl Fn(&[Health]) -> bool) -> Vec<Health> {
    let asked = async {
        let mut again = tokio::time::interval(Duration::from_millis(10));
        loop {
            again.tick().await;
            let health = sinks.health();
            if so(&health) {
                return health;
            }
        }
    };
    match tokio::time::timeout(WITHIN, asked).await {
        Ok(health) => health,
        Err(_) => panic!("it is still {:?}", sinks.health()),
    }
}

#[tokio::test]
async fn garbage_with_a_200_is_an_answer() {
    let mut fake = Fake::new(|_| answered("200 OK", "content-type: image/png\r\n", "\0\u{1f980}<x")).await;
    let sinks = started(&[webhook("hook", fake.url())]);
    sinks.send(&firing("a"));
    assert_eq!(fake.request().await.groups(), ["a"]);
    let health = eventually(&sinks, |health| health[0].delivered == 1).await;
    assert_eq!((health[0].failing.clone(), health[0].refused), (None, 0));
}

#[tokio::test]
async fn a_receiver_that_fails_for_ever_delays_no_other() {
    let down = Fake::new(|_| answered("500 Internal Server Error", "", "oh")).await;
    let silent = Fake::new(|_| None).await;
    let mut well = Fake::new(|_| answered("200 OK", "", "")).await;
    let mut quick = webhook("silent", silent.url());
    quick.timeout = Duration::from_millis(300);
    let sinks = started(&[webhook("down", down.url()), quick, webhook("well", well.url())]);
    for group in ["a", "b", "c"] {
        sinks.send(&firing(group));
    }
    let mut groups = Vec::new();
    while groups.len() < 3 {
        groups.extend(well.request().await.groups());
    }
    assert_eq!(groups, ["a", "b", "c"]);
    let failing = |health: &[Health]| health[0].failing.is_some() && health[1].failing.is_some();
    let health = eventually(&sinks, failing).await;
    assert_eq!(health[0].failing.as_deref(), Some("it answers 500 Internal Server Error: oh"));
    assert_eq!(health[1].failing.as_deref(), Some("it does not answer in time"));
    assert_eq!(health[2].failing, None);
    let closed = sinks.close(Duration::from_millis(1)).await;
    assert_eq!([closed[0].dropped, closed[1].dropped, closed[2].dropped], [3, 3, 0]);
}

#[tokio::test]
async fn what_is_too_much_at_once_is_sent_in_parts() {
    let few = |request: &Request| match request.groups().len() {
        1 => answered("200 OK", "", ""),
        _ => answered("413 Payload Too Large", "", ""),
    };
    let mut fake = Fake::new(few).await;
    let sinks = started(&[webhook("hook", fake.url())]);
    // The first one goes alone or with others, whichever comes first.
    for group in ["a", "b", "c", "d", "e"] {
        sinks.send(&firing(group));
    }
    let mut alone = Vec::new();
    while alone.len() < 5 {
        let groups = fake.request().await.groups();
        if groups.len() == 1 {
            alone.extend(groups);
        }
    }
    assert_eq!(alone, ["a", "b", "c", "d", "e"]);
    eventually(&sinks, |health| health[0].delivered == 5 && health[0].refused == 0).await;
}

#[tokio::test]
async fn one_alert_that_an_alertmanager_refuses_does_not_hold_back_the_others() {
    let picky = |request: &Request| match request.groups().iter().any(|group| group == "bad") {
        true => answered("400 Bad Request", "", "\"invalid label set\""),
        false => answered("200 OK", "", ""),
    };
    let mut fake = Fake::new(picky).await;
    let kind = Kind::Alertmanager { urls: vec![fake.url()], resend: Duration::from_millis(200) };
    let sinks = started(&[sink("am", kind)]);
    for group in ["a", "bad", "c"] {
        sinks.send(&firing(group));
    }
    eventually(&sinks, |health| health[0].delivered >= 6 && health[0].refused == 1).await;
    let first = fake.request().await;
    assert_eq!(first.path, "/hook/api/v2/alerts");
    // It is not sent again as it is, and its end is not sent without end either.
    sinks.send(&notice("TaskSlowPoll", "bad", Transition::Resolved));
    eventually(&sinks, |health| health[0].refused == 2 && health[0].delivered >= 12).await;
    assert_eq!(sinks.health()[0].failing, None);
}

#[tokio::test]
async fn an_alertmanager_is_told_again_until_after_the_end() {
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let kind = Kind::Alertmanager { urls: vec![fake.url()], resend: Duration::from_millis(100) };
    let sinks = started(&[sink("am", kind)]);
    sinks.send(&firing("a"));
    for _ in 0..3 {
        let json = fake.request().await.json();
        assert_eq!(json[0]["startsAt"], "2026-11-21T01:49:39.822Z");
        assert!(json[0]["endsAt"].as_str() > Some("2026-11-21T01:49:39.822Z"), "{json}");
    }
    sinks.send(&notice("TaskSlowPoll", "a", Transition::Resolved));
    let mut ends = 0;
    while ends < 3 {
        let json = fake.request().await.json();
        assert_eq!(json[0]["startsAt"], "2026-11-21T01:49:39.822Z");
        ends += u32::from(json[0]["endsAt"] == "2026-11-21T01:50:39.822Z");
    }
}

#[tokio::test]
async fn each_instance_of_an_alertmanager_has_its_own_state() {
    let down = Fake::new(|_| answered("503 Service Unavailable", "", "")).await;
    let mut well = Fake::new(|_| answered("200 OK", "", "")).await;
    let urls = vec![down.url(), well.url()];
    let sinks = started(&[sink("am", Kind::Alertmanager { urls, resend: Duration::from_secs(60) })]);
    sinks.send(&firing("a"));
    assert_eq!(well.request().await.groups(), ["a"]);
    let health = eventually(&sinks, |health| health[0].failing.is_some() && health[1].delivered == 1).await;
    assert_eq!(health[0].instance, format!("127.0.0.1:{}", down.port));
}

#[tokio::test]
async fn a_receiver_is_left_alone_for_as_long_as_it_asks() {
    comes_two_seconds_later("retry-after: 2\r\n").await;
}

/// Whom the first answer, with these headers, asks to wait for 2 s, does so.
async fn comes_two_seconds_later(headers: &'static str) {
    let seen = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let first_not = move |_: &Request| match seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => answered("429 Too Many Requests", headers, ""),
        _ => answered("200 OK", "", ""),
    };
    let mut fake = Fake::new(first_not).await;
    let sinks = started(&[webhook("hook", fake.url())]);
    sinks.send(&firing("a"));
    let (first, second) = (fake.request().await, fake.request().await);
    assert!(second.at - first.at >= Duration::from_secs(2), "{:?}", second.at - first.at);
    eventually(&sinks, |health| health[0].delivered == 1 && health[0].failing.is_none()).await;
}

#[tokio::test]
async fn a_redirect_to_another_host_is_told_and_not_followed() {
    let mut other = Fake::new(|_| answered("200 OK", "", "")).await;
    let to = format!("location: http://localhost:{}/\r\n", other.port);
    let fake = Fake::new(move |_| answered("307 Temporary Redirect", &to, "")).await;
    let sinks = started(&[webhook("hook", fake.url())]);
    sinks.send(&firing("a"));
    let health = eventually(&sinks, |health| health[0].failing.is_some()).await;
    let why = health[0].failing.clone().unwrap_or_default();
    assert!(why.starts_with("it redirects to another host, localhost, which is not followed"), "{why}");
    assert!(other.requests.try_recv().is_err());
}

#[tokio::test]
async fn where_there_is_no_room_the_oldest_goes_and_is_counted() {
    let fake = Fake::new(|_| None).await;
    let mut small = webhook("hook", fake.url());
    small.queue = 2;
    let sinks = started(&[small]);
    // Nothing of the sink runs before this awaits something.
    for group in ["a", "b", "c", "d", "e"] {
        sinks.send(&firing(group));
    }
    assert_eq!(sinks.health()[0].dropped, 3);
    let health = sinks.close(Duration::ZERO).await;
    assert_eq!(health[0].dropped, 5);
}

#[tokio::test]
async fn a_sink_gets_what_it_wants() {
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let mut critical = webhook("critical", fake.url());
    critical.min_severity = Severity::Critical;
    let mut begins = webhook("begins", fake.url());
    begins.send_resolved = false;
    let sinks = started(&[critical, begins]);
    sinks.send(&notice("A", "a", Transition::Pending));
    sinks.send(&notice("A", "a", Transition::Firing));
    sinks.send(&notice("A", "a", Transition::Resolved));
    sinks.send(&notice("A", "b", Transition::Firing));
    let mut groups = Vec::new();
    while groups.len() < 2 {
        let request = fake.request().await;
        assert_eq!(request.json()["receiver"], "begins");
        groups.extend(request.groups());
    }
    assert_eq!(groups, ["a", "b"]);
    let health = sinks.close(WITHIN).await;
    assert_eq!((health[0].delivered, health[1].delivered), (0, 2));
}

#[tokio::test]
async fn every_kind_of_text_arrives_unharmed_and_signed() {
    let texts = [
        "\u{0}\u{7f}",
        "a\r\nb: c",
        "\"\\",
        "\u{1f980}e\u{301}",
        "{{ .Labels }}",
        "\u{202e}x",
        &"z".repeat(4096),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("secret");
    std::fs::write(&file, "s3cret\n").expect("it is written");
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let mut logs = Fake::new(|_| answered("200 OK", "", "")).await;
    let signed = Kind::Webhook { url: fake.url(), secret_file: Some(file), repeat: None };
    let sinks = started(&[
        sink("hook", signed),
        sink("logs", Kind::Otlp { endpoint: logs.url(), alerts: true, metrics: None }),
    ]);
    for text in texts {
        sinks.send(&firing(text));
    }
    let mut groups = Vec::new();
    while groups.len() < texts.len() {
        let request = fake.request().await;
        let (timestamp, signature) =
            (&request.headers["x-taskscope-timestamp"], &request.headers["x-taskscope-signature"]);
        assert_eq!(*signature, format!("sha256={}", webhook::signature(b"s3cret", timestamp, &request.body)));
        for alert in request.json()["alerts"].as_array().expect("a list") {
            let group = alert["labels"]["task_group"].as_str().expect("it has one").to_owned();
            assert_eq!(alert["fingerprint"], firing(&group).alert.fingerprint.to_string());
            groups.push(group);
        }
    }
    assert_eq!(groups, texts);
    let mut summaries = Vec::new();
    while summaries.len() < texts.len() {
        let request = logs.request().await;
        assert_eq!(request.path, "/hook/v1/logs");
        type Export = opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
        let export = Export::decode(request.body.as_slice()).expect("it is protobuf");
        let records =
            export.resource_logs.iter().flat_map(|logs| &logs.scope_logs).flat_map(|it| &it.log_records);
        summaries.extend(records.map(|record| format!("{:?}", record.body)));
    }
    for (text, summary) in texts.iter().zip(&summaries) {
        let said = format!("{:?}", format!("tasks of {text} are slow"));
        assert!(summary.contains(&said), "{summary} does not say {said}");
    }
}

#[tokio::test]
async fn without_its_secret_nothing_is_sent() {
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let kind = Kind::Webhook { url: fake.url(), secret_file: Some("/nowhere/secret".into()), repeat: None };
    let sinks = started(&[sink("hook", kind)]);
    sinks.send(&firing("a"));
    let health = eventually(&sinks, |health| health[0].failing.is_some()).await;
    let why = health[0].failing.clone().unwrap_or_default();
    assert!(why.contains("cannot read /nowhere/secret") && why.contains("\nhint: "), "{why}");
    assert!(fake.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_webhook_is_refused_one_alert_and_told_the_others() {
    let picky = |request: &Request| match request.groups().iter().any(|group| group == "bad") {
        true => answered("400 Bad Request", "", "no"),
        false => answered("200 OK", "", ""),
    };
    let fake = Fake::new(picky).await;
    let sinks = started(&[webhook("hook", fake.url())]);
    for group in ["a", "bad", "c"] {
        sinks.send(&firing(group));
    }
    let health = eventually(&sinks, |health| health[0].delivered == 2 && health[0].refused == 1).await;
    assert_eq!((health[0].failing.clone(), health[0].dropped), (None, 0));
}

#[tokio::test]
async fn a_receiver_may_ask_with_a_date_by_its_own_clock() {
    // Its clock is years behind ours.
    comes_two_seconds_later(
        "date: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2015 07:28:02 GMT\r\n",
    )
    .await;
}

#[tokio::test]
async fn pending_is_told_to_who_asks_for_it() {
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let mut asks = webhook("asks", fake.url());
    asks.send_pending = true;
    let sinks = started(&[asks, webhook("does not", fake.url())]);
    sinks.send(&notice("A", "a", Transition::Pending));
    let json = fake.request().await.json();
    assert_eq!((&json["receiver"], &json["status"]), (&"asks".into(), &"pending".into()));
    let health = sinks.close(WITHIN).await;
    assert_eq!((health[0].delivered, health[1].delivered), (1, 0));
}

/// Each about a rule of its own, so that each is a message of its own.
fn storm(count: usize) -> impl Iterator<Item = Notice> {
    (0..count).map(|number| notice(&format!("Rule{number}"), "a", Transition::Firing))
}

#[tokio::test]
async fn a_storm_of_alerts_is_thirty_messages_and_then_one_in_two_seconds() {
    let fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let sinks = started(&[webhook("hook", fake.url())]);
    let begun = tokio::time::Instant::now();
    storm(32).for_each(|notice| sinks.send(&notice));
    eventually(&sinks, |health| health[0].delivered == 30).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "thirty go at once");
    eventually(&sinks, |health| health[0].delivered == 31).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    // What waits is not lost at the end.
    let health = sinks.close(WITHIN).await;
    assert_eq!((health[0].delivered, health[0].dropped), (32, 0));
}

#[tokio::test]
async fn an_alertmanager_is_never_held_back() {
    let fake = Fake::new(|request| {
        // One at a time, so that each is a request of its own.
        match request.groups().len() {
            1 => answered("200 OK", "", ""),
            _ => answered("413 Payload Too Large", "", ""),
        }
    });
    let fake = fake.await;
    let kind = Kind::Alertmanager { urls: vec![fake.url()], resend: Duration::from_secs(60) };
    let sinks = started(&[sink("am", kind)]);
    let begun = tokio::time::Instant::now();
    storm(60).for_each(|notice| sinks.send(&notice));
    eventually(&sinks, |health| health[0].delivered == 60).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_still_fires_is_told_again() {
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let every = Some(Duration::from_millis(300));
    let kind = Kind::Webhook { url: fake.url(), secret_file: None, repeat: every };
    let sinks = started(&[sink("again", kind), webhook("once", fake.url())]);
    let (a, b) = (firing("a"), firing("b"));
    sinks.send(&a);
    sinks.send(&b);
    sinks.send(&notice("TaskSlowPoll", "b", Transition::Resolved));
    let still = || vec![a.clone()];
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    // Both receive what fires and what is over; three times more only the one, and only what still fires.
    let told = async {
        loop {
            tick.tick().await;
            sinks.repeat(still);
            let health = sinks.health();
            if health[0].delivered >= 6 {
                return health;
            }
        }
    };
    let health = tokio::time::timeout(WITHIN, told).await.expect("it is told again");
    assert_eq!(health[1].delivered, 3);
    let mut again = Vec::new();
    while again.len() < 9 {
        let request = fake.request().await;
        let json = request.json();
        for alert in json["alerts"].as_array().expect("a list") {
            again.push(format!("{} {} {}", json["receiver"], alert["labels"]["task_group"], alert["status"]));
        }
    }
    let count = |what: &str| again.iter().filter(|it| it.as_str() == what).count();
    assert_eq!(count("\"again\" \"a\" \"firing\""), 4, "{again:?}");
    assert_eq!(count("\"once\" \"a\" \"firing\""), 1, "{again:?}");
}

#[tokio::test]
async fn a_sink_that_stays_keeps_its_queue_one_that_goes_delivers_it_and_one_that_comes_begins_with_what_fires()
 {
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let (stays, goes) = (webhook("stays", fake.url()), webhook("goes", fake.url()));
    let mut sinks = started(&[stays.clone(), goes]);
    let (a, b) = (firing("a"), firing("b"));
    sinks.send(&a);
    sinks.send(&b);
    // Nothing of them has run yet: both have two in their queues.
    let comes = webhook("comes", fake.url());
    sinks.settle(&prepared(&[comes, stays]), &[a, b], |_| false);
    let mut told = Vec::new();
    while told.len() < 6 {
        let request = fake.request().await;
        let receiver = request.json()["receiver"].as_str().unwrap_or_default().to_owned();
        told.extend(request.groups().into_iter().map(|group| format!("{receiver} {group}")));
    }
    told.sort();
    assert_eq!(told, ["comes a", "comes b", "goes a", "goes b", "stays a", "stays b"]);
    let health = sinks.close(WITHIN).await;
    assert_eq!(health.iter().map(|it| it.sink.as_str()).collect::<Vec<_>>(), ["comes", "stays"]);
    assert_eq!(health.iter().map(|it| it.delivered).collect::<Vec<_>>(), [2, 2]);
}

#[tokio::test]
async fn a_sink_with_other_settings_takes_on_what_was_not_delivered_and_tells_nothing_twice() {
    let is_well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let well = is_well.clone();
    let mut fake = Fake::new(move |request| {
        match request.groups()[0] == "a" || well.load(std::sync::atomic::Ordering::Relaxed) {
            true => answered("200 OK", "", ""),
            false => answered("500 Internal Server Error", "", ""),
        }
    })
    .await;
    let before = webhook("hook", fake.url());
    let mut sinks = started(std::slice::from_ref(&before));
    sinks.send(&firing("a"));
    assert_eq!(fake.request().await.groups(), ["a"]);
    sinks.send(&firing("b"));
    eventually(&sinks, |health| health[0].failing.is_some()).await;
    let after = Sink { timeout: Duration::from_secs(7), ..before };
    sinks.settle(&prepared(&[after]), &[firing("a"), firing("b")], |_| false);
    sinks.send(&firing("c"));
    is_well.store(true, std::sync::atomic::Ordering::Relaxed);
    let health = eventually(&sinks, |health| health[0].delivered == 3).await;
    assert_eq!((health[0].failing.clone(), health[0].dropped), (None, 0));
    sinks.close(WITHIN).await;
    let mut told = Vec::new();
    while let Ok(request) = fake.requests.try_recv() {
        told.extend(request.groups());
    }
    told.dedup();
    assert_eq!(told, ["b", "c"], "in their order, and the first one not again");
}

#[tokio::test]
async fn an_instance_that_stays_is_not_touched_by_one_that_comes() {
    let mut first = Fake::new(|_| answered("200 OK", "", "")).await;
    let mut second = Fake::new(|_| answered("200 OK", "", "")).await;
    let resend = Duration::from_secs(60);
    let of = |urls: Vec<Url>| sink("am", Kind::Alertmanager { urls, resend });
    let mut sinks = started(&[of(vec![first.url()])]);
    sinks.send(&firing("a"));
    assert_eq!(first.request().await.groups(), ["a"]);
    sinks.settle(&prepared(&[of(vec![first.url(), second.url()])]), &[firing("a")], |_| false);
    assert_eq!(second.request().await.groups(), ["a"]);
    eventually(&sinks, |health| health[0].delivered == 1 && health[1].delivered == 1).await;
    assert!(first.requests.try_recv().is_err(), "it knows, and it is not a minute later");
}

/// An agent's loop that answers with one target's figures, as many times as it is asked.
fn figures_of(name: &'static str) -> mpsc::Sender<Question> {
    use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
    let (questions, mut asked) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(Question::Figures { answer }) = asked.recv().await {
            let _ = answer.send(vec![ResourceMetrics { schema_url: name.to_owned(), ..Default::default() }]);
        }
    });
    questions
}

fn exporting(endpoint: Url, alerts: bool) -> Sink {
    // Less than a configuration may ask for.
    sink("otlp", Kind::Otlp { endpoint, alerts, metrics: Some(Duration::from_millis(50)) })
}

#[tokio::test]
async fn figures_that_could_not_be_sent_are_taken_anew() {
    let seen = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let first_not = move |_: &Request| match seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => answered("503 Service Unavailable", "", "later"),
        1 => answered("200 OK", "", "\0<html>"),
        // It rejects one figure, and says so as OTLP has it.
        2 => answered("200 OK", "", "\n\u{5}\u{8}\u{1}\u{12}\u{1}x"),
        _ => answered("200 OK", "", ""),
    };
    let mut fake = Fake::new(first_not).await;
    let sinks = Sinks::start(&prepared(&[exporting(fake.url(), false)]), Some(&figures_of("shop")));
    assert_eq!(sinks.health().len(), 1);
    assert_eq!(sinks.health()[0].sink, "otlp/metrics");
    // It is told of figures alone.
    sinks.send(&firing("a"));
    let failing = eventually(&sinks, |health| health[0].failing.is_some()).await;
    assert_eq!(failing[0].failing.as_deref(), Some("it answers 503 Service Unavailable: later"));
    let health = eventually(&sinks, |health| health[0].delivered >= 3).await;
    assert_eq!((health[0].dropped, health[0].refused, health[0].failing.clone()), (1, 1, None));
    type Export = opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    for _ in 0..4 {
        let request = fake.request().await;
        assert_eq!(request.path, "/hook/v1/metrics");
        assert_eq!(request.headers["content-type"], "application/x-protobuf");
        let export = Export::decode(request.body.as_slice()).expect("it is protobuf");
        assert_eq!(export.resource_metrics[0].schema_url, "shop");
    }
    assert_eq!(sinks.close(WITHIN).await[0].dropped, 1);
}

#[tokio::test]
async fn a_loop_that_does_not_answer_holds_up_no_end_and_no_alert() {
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let (questions, mut asked) = mpsc::channel(4);
    let sinks = Sinks::start(&prepared(&[exporting(fake.url(), true)]), Some(&questions));
    let asked = tokio::time::timeout(WITHIN, asked.recv()).await.expect("it asks");
    sinks.send(&firing("a"));
    assert_eq!(fake.request().await.path, "/hook/v1/logs");
    let began = tokio::time::Instant::now();
    let closed = sinks.close(WITHIN).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!((closed[0].delivered, closed[1].delivered, closed[1].dropped), (1, 0, 0));
    drop(asked);
}

#[tokio::test]
async fn who_has_no_loop_to_ask_sends_no_figures() {
    let fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let sinks = started(&[exporting(fake.url(), true)]);
    assert_eq!(sinks.health().iter().map(|it| it.sink.as_str()).collect::<Vec<_>>(), ["otlp"]);
}

#[tokio::test]
async fn a_sink_that_wants_more_is_told_what_fires_and_one_that_wants_less_that_it_is_over() {
    let mut fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let url = fake.url();
    let of = |name: &str, min_severity| Sink { min_severity, ..webhook(name, url.clone()) };
    let before = [of("more", Severity::Critical), of("less", Severity::Info)];
    let mut sinks = started(&before);
    let fires = firing("a");
    sinks.send(&fires);
    let request = fake.request().await.json();
    assert_eq!((&request["receiver"], &request["status"]), (&"less".into(), &"firing".into()));
    eventually(&sinks, |health| health[1].delivered == 1).await;
    let after = [of("more", Severity::Info), of("less", Severity::Critical)];
    sinks.settle(&prepared(&after), std::slice::from_ref(&fires), |_| false);
    let mut told = Vec::new();
    for _ in 0..2 {
        let request = fake.request().await.json();
        told.push(format!("{} {}", request["receiver"], request["status"]));
    }
    told.sort();
    assert_eq!(told, ["\"less\" \"resolved\"", "\"more\" \"firing\""]);
    // What is silenced waits for the end of that.
    sinks.settle(&prepared(&[webhook("new", url)]), &[fires], |_| true);
    assert_eq!(sinks.close(WITHIN).await[0].delivered, 0);
}

#[tokio::test]
async fn what_waits_for_a_sink_that_was_changed_or_has_gone_is_counted_at_the_end_too() {
    let mut silent = Fake::new(|_| None).await;
    let resend = Duration::from_secs(60);
    let am = sink("am", Kind::Alertmanager { urls: vec![silent.url()], resend });
    let (hook, gone) = (webhook("hook", silent.url()), webhook("gone", silent.url()));
    let mut sinks = started(&[hook.clone(), gone, am.clone()]);
    let fires = [firing("a"), firing("b")];
    fires.iter().for_each(|notice| sinks.send(notice));
    for _ in 0..3 {
        // Each has something under way.
        silent.request().await;
    }
    // Two changes, so that the last one waits for one that waits itself; with the second one the Alertmanager goes.
    for seconds in [7, 8] {
        let timeout = Duration::from_secs(seconds);
        let mut after = vec![Sink { timeout, ..hook.clone() }];
        after.extend((seconds == 7).then(|| Sink { timeout, ..am.clone() }));
        sinks.settle(&prepared(&after), &fires, |_| false);
        tokio::task::yield_now().await;
    }
    let health = sinks.close(Duration::from_millis(50)).await;
    let mut dropped: Vec<_> = health.iter().map(|it| (it.sink.as_str(), it.delivered, it.dropped)).collect();
    dropped.sort_unstable();
    assert_eq!(dropped, [("am", 0, 2), ("gone", 0, 2), ("hook", 0, 2)]);
}

#[tokio::test]
async fn what_an_alertmanager_was_not_told_at_the_end_is_counted() {
    let mut silent = Fake::new(|_| None).await;
    let resend = Duration::from_secs(60);
    let sinks = started(&[sink("am", Kind::Alertmanager { urls: vec![silent.url()], resend })]);
    sinks.send(&firing("a"));
    silent.request().await;
    sinks.send(&firing("b"));
    let health = sinks.close(Duration::from_millis(50)).await;
    assert_eq!((health[0].delivered, health[0].dropped), (0, 2));
}
