//! Instances of an Alertmanager that have too much to do, or say nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

fn of(urls: Vec<Url>, resend: Duration) -> Sink {
    sink("am", Kind::Alertmanager { urls, resend })
}

#[tokio::test]
async fn a_busy_alertmanager_is_tried_again_before_it_would_end_what_fires() {
    let seen = Arc::new(AtomicU32::new(0));
    let busy_once = move |_: &Request| match seen.fetch_add(1, Ordering::Relaxed) {
        1 => answered("429 Too Many Requests", "retry-after: 3600\r\n", "busy"),
        _ => answered("200 OK", "", ""),
    };
    let mut fake = Fake::new(busy_once).await;
    let resend = Duration::from_secs(2);
    let sinks = started(&[of(vec![fake.url()], resend)]);
    sinks.send(&firing("a"));
    let first = fake.request().await;
    let refused = fake.request().await;
    let health = eventually(&sinks, |health| health[0].failing.is_some()).await;
    assert_eq!(health[0].failing.as_deref(), Some("it answers 429 Too Many Requests: busy"));
    let again = fake.request().await;
    // It is left alone for longer than it would be by itself, and not until it has ended the alert.
    assert!(again.at - refused.at >= resend * 2, "{:?}", again.at - refused.at);
    assert!(again.at - first.at < resend * 4, "{:?}", again.at - first.at);
    assert_eq!(again.json()[0]["startsAt"], first.json()[0]["startsAt"]);
    let health = eventually(&sinks, |health| health[0].delivered == 2).await;
    assert_eq!((health[0].failing.clone(), health[0].dropped, health[0].refused), (None, 0, 0));
}

#[tokio::test]
async fn a_silent_instance_delays_no_other_and_is_told_the_same_when_it_is_well() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well_later = is_well.clone();
    let mut silent = Fake::new(move |_| match well_later.load(Ordering::Relaxed) {
        true => answered("200 OK", "", ""),
        false => None,
    })
    .await;
    let mut well = Fake::new(|_| answered("200 OK", "", "")).await;
    let mut hook = Fake::new(|_| answered("200 OK", "", "")).await;
    let mut alertmanager = of(vec![silent.url(), well.url()], Duration::from_millis(300));
    alertmanager.timeout = Duration::from_secs(1);
    let sinks = started(&[alertmanager, webhook("hook", hook.url())]);
    let begun = tokio::time::Instant::now();
    sinks.send(&firing("a"));
    let told = well.request().await.json();
    assert_eq!(hook.request().await.groups(), ["a"]);
    well.request().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(silent.request().await.groups(), ["a"], "it is asked, and says nothing");
    let health = eventually(&sinks, |health| health[0].failing.is_some()).await;
    assert_eq!(health[0].failing.as_deref(), Some("it does not answer in time"));
    assert_eq!((health[1].failing.clone(), health[2].failing.clone()), (None, None));
    is_well.store(true, Ordering::Relaxed);
    let health = eventually(&sinks, |health| health[0].delivered > 0).await;
    assert_eq!((health[0].failing.clone(), health[0].dropped), (None, 0));
    while let Ok(request) = silent.requests.try_recv() {
        for key in ["labels", "startsAt"] {
            assert_eq!(request.json()[0][key], told[0][key]);
        }
    }
}

#[tokio::test]
async fn what_fires_is_sent_again_however_often_that_is() {
    let fake = Fake::new(|_| answered("200 OK", "", "")).await;
    let sinks = started(&[of(vec![fake.url()], Duration::from_millis(20))]);
    let begun = tokio::time::Instant::now();
    sinks.send(&firing("a"));
    // A webhook would have been sent thirty at once, and then one in two seconds.
    eventually(&sinks, |health| health[0].delivered >= 60).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
