//! What one agent could not deliver, the next one does.

use super::*;
use crate::store::{Owed, Owing};

fn resolved(group: &str) -> Notice {
    notice("TaskSlowPoll", group, Transition::Resolved)
}

/// What was left, by sink: `a firing`.
fn said(owing: &[Owing]) -> Vec<(String, Vec<String>)> {
    let one = |owed: &Owed| {
        let group = owed.0.alert.labels.get("task_group").unwrap_or_default();
        format!("{group} {}", owed.0.transition.name())
    };
    owing.iter().map(|it| (it.sink.clone(), it.notices.iter().map(one).collect())).collect()
}

fn left(sink: &str, notices: &[&str]) -> (String, Vec<String>) {
    (sink.to_owned(), notices.iter().map(|&it| it.to_owned()).collect())
}

#[tokio::test]
async fn what_waits_and_what_is_under_way_is_told_by_the_next_one_in_order_and_before_all_else() {
    let mut silent = Fake::new(|_| None).await;
    let mut sinks = started(&[webhook("hook", silent.url()), webhook("gone", silent.url())]);
    assert_eq!(sinks.take_up(vec![]), Vec::<String>::new());
    sinks.send(&firing("a"));
    // Under way at both; what comes now waits.
    silent.request().await;
    silent.request().await;
    sinks.send(&resolved("a"));
    sinks.send(&firing("b"));
    assert!(sinks.take_changed());
    let all = ["a firing", "a resolved", "b firing"];
    assert_eq!(said(&sinks.left().owing()), [left("hook", &all), left("gone", &all)]);
    // The same, whether it is killed over it or ends as it should; and nothing counts as lost.
    let at_the_end = sinks.left();
    let health = sinks.close(Duration::from_millis(50)).await;
    assert_eq!(health.iter().map(|it| (it.delivered, it.dropped)).collect::<Vec<_>>(), [(0, 0), (0, 0)]);
    let owing = at_the_end.owing();
    assert_eq!(said(&owing), [left("hook", &all), left("gone", &all)]);

    let mut well = Fake::new(|_| answered("200 OK", "", "")).await;
    let mut sinks = started(&[webhook("hook", well.url())]);
    let lines = sinks.take_up(owing);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("sink gone ") && lines[0].contains(" 3 notices "), "{lines:?}");
    sinks.send(&resolved("b"));
    let mut told = Vec::new();
    while told.len() < 4 {
        for alert in well.request().await.json()["alerts"].as_array().expect("a list") {
            told.push(format!("{} {}", alert["labels"]["task_group"], alert["status"]).replace('"', ""));
        }
    }
    assert_eq!(told, ["a firing", "a resolved", "b firing", "b resolved"]);
    let health = eventually(&sinks, |health| health[0].delivered == 4).await;
    assert_eq!(health[0].dropped, 0);
    assert!(sinks.take_changed());
    assert_eq!(sinks.left().owing(), []);
}

#[tokio::test]
async fn an_alertmanager_is_told_the_end_by_the_next_one() {
    let down = Fake::new(|_| answered("503 Service Unavailable", "", "")).await;
    let of = |port: u16| {
        let url = Url::parse(&format!("http://127.0.0.1:{port}/")).expect("a URL");
        sink("am", Kind::Alertmanager { urls: vec![url], resend: Duration::from_secs(60) })
    };
    let sinks = started(&[of(down.port)]);
    sinks.send(&firing("a"));
    sinks.send(&firing("b"));
    sinks.send(&resolved("a"));
    eventually(&sinks, |health| health[0].failing.is_some()).await;
    // That the other one fires is told it anyway.
    let mut owing = sinks.left().owing();
    assert_eq!(said(&owing), [left("am", &["a resolved"])]);
    assert_eq!(owing[0].instance, format!("127.0.0.1:{}", down.port));

    let mut well = Fake::new(|_| answered("200 OK", "", "")).await;
    owing[0].instance = format!("127.0.0.1:{}", well.port);
    let mut sinks = started(&[of(well.port)]);
    assert_eq!(sinks.take_up(owing), Vec::<String>::new());
    sinks.resume(&firing("b"));
    let json = well.request().await.json();
    let ended = json.as_array().expect("a list").iter().find(|it| it["labels"]["task_group"] == "a");
    let ended = ended.expect("it is told");
    assert_eq!(
        (&ended["startsAt"], &ended["endsAt"]),
        (&"2026-11-21T01:49:39.822Z".into(), &"2026-11-21T01:50:39.822Z".into())
    );
    eventually(&sinks, |health| health[0].delivered == 2).await;
    let told = async {
        let mut again = tokio::time::interval(Duration::from_millis(10));
        while !sinks.left().owing().is_empty() {
            again.tick().await;
        }
    };
    tokio::time::timeout(WITHIN, told).await.expect("it was told, and is owed no more");
}

#[tokio::test]
async fn what_waits_where_a_sink_is_changed_is_left_once_and_what_leaves_is_left_too() {
    let silent = Fake::new(|_| None).await;
    let (hook, gone) = (webhook("hook", silent.url()), webhook("gone", silent.url()));
    let mut sinks = started(&[hook.clone(), gone]);
    sinks.send(&firing("a"));
    let after = Sink { timeout: Duration::from_secs(7), ..hook };
    sinks.settle(&prepared(&[after]), &[firing("a")], |_| false);
    sinks.send(&resolved("a"));
    let all = [left("hook", &["a firing", "a resolved"]), left("gone", &["a firing"])];
    assert_eq!(said(&sinks.left().owing()), all);
}
