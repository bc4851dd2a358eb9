//! Receivers that refuse.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Answers with these, one after the other, and then always with the last.
async fn answers(all: &'static [&'static str]) -> Fake {
    let seen = Arc::new(AtomicU32::new(0));
    Fake::new(move |_| {
        let at = seen.fetch_add(1, Ordering::Relaxed) as usize;
        answered(all[at.min(all.len() - 1)], "", "")
    })
    .await
}

const WELL: &str = "200 OK";
const NO: &str = "400 Bad Request";

#[tokio::test]
async fn who_refuses_everything_fails_and_holds_nothing_up_until_something_is_taken() {
    let fake = answers(&[NO, NO, NO, NO, WELL]).await;
    let mut well = Fake::new(|_| answered(WELL, "", "")).await;
    let sinks = started(&[webhook("hook", fake.url()), webhook("well", well.url())]);
    let send = async |numbers: std::ops::Range<usize>, so: &dyn Fn(&[Health]) -> bool| {
        storm(numbers.end).skip(numbers.start).for_each(|notice| sinks.send(&notice));
        eventually(&sinks, so).await
    };
    // Two may be the fault of what they say.
    let health = send(0..2, &|health| health[0].refused == 2).await;
    assert_eq!(health[0].failing, None);
    let health = send(2..4, &|health| health[0].refused == 4 && health[0].failing.is_some()).await;
    assert_eq!(health[0].failing.as_deref(), Some("it refuses what it is sent: it answers 400 Bad Request"));
    assert_eq!(sinks.left().owing().iter().filter(|it| it.sink == "hook").count(), 0, "it is over with them");
    let health = send(4..5, &|health| health[0].delivered == 1 && health[1].delivered == 5).await;
    assert_eq!((health[0].failing.clone(), health[0].refused, health[0].dropped), (None, 4, 0));
    assert_eq!(health[1].failing, None);
    well.request().await;
}

#[tokio::test]
async fn one_refusal_of_what_was_taken_before_does_not_end_it() {
    let mut fake = answers(&[WELL, NO, WELL]).await;
    let kind = Kind::Alertmanager { urls: vec![fake.url()], resend: Duration::from_millis(50) };
    let sinks = started(&[sink("am", kind)]);
    sinks.send(&firing("a"));
    let health = eventually(&sinks, |health| health[0].delivered >= 3).await;
    assert_eq!((health[0].refused, health[0].failing.clone()), (1, None));
    let ends: Vec<String> = [fake.request().await, fake.request().await, fake.request().await]
        .map(|request| request.json()[0]["endsAt"].to_string())
        .into();
    assert!(ends.is_sorted() && ends[0] < ends[2], "{ends:?}");
}

#[tokio::test]
async fn an_alertmanager_that_takes_nothing_fails_and_is_told_when_it_takes_it() {
    let fake = answers(&[NO, NO, NO, NO, NO, WELL]).await;
    let kind = Kind::Alertmanager { urls: vec![fake.url()], resend: Duration::from_millis(200) };
    let sinks = started(&[sink("am", kind)]);
    sinks.send(&firing("a"));
    let health = eventually(&sinks, |health| health[0].failing.is_some()).await;
    // It is the same refusal each time.
    assert_eq!((health[0].refused, health[0].delivered), (1, 0));
    let health = eventually(&sinks, |health| health[0].delivered > 0).await;
    assert_eq!((health[0].refused, health[0].failing.clone()), (1, None));
}
