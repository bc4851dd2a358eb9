//! Targets that run the same: whose an alert is, over restarts of the target, of its agent, and after an agent that knew less.

use super::*;
use crate::metrics::resource::{Process, text};

/// What was told, with the host that it was told of.
fn told_of(notices: &[Notice]) -> Vec<String> {
    let of = |notice: &Notice| {
        format!("{} {} of {}", notice.transition.name(), notice.alert.name(), host(&notice.alert))
    };
    notices.iter().map(of).collect()
}

fn host(alert: &Alert) -> &str {
    alert.labels.get("host").unwrap_or("nowhere")
}

fn stuck() -> Shown {
    Shown { stuck_ns: Some(2 * S), ..Shown::default() }
}

fn frames(played: &mut Played, count: u64, shown: &Shown) -> Vec<Notice> {
    let mut notices = Vec::new();
    for _ in 0..count {
        played.pass(250 * MS);
        notices.extend(played.frame(shown));
    }
    notices
}

/// A poll of the service is stuck, and told.
fn fired(rules: &[&str]) -> (Played, Alert) {
    let mut played = Played::new(of_rules(rules));
    let notices = frames(&mut played, 2, &stuck());
    assert_eq!(told_of(&notices), ["firing TaskStuckInPoll of web-1"]);
    let alert = notices[0].alert.clone();
    (played, alert)
}

/// As an agent kept it that did not tell where its targets are.
fn of_before(alert: &Alert, target: &str) -> Alert {
    let labels = alert.labels.clone().with("host", "").with("target", target);
    Alert { fingerprint: labels.fingerprint(), labels, ..alert.clone() }
}

/// The agent is another one, and has this in its state.
fn restarted(before: &Played, rules: &[&str], kept: Vec<Alert>) -> Played {
    let mut after = Played::new(of_rules(rules));
    (after.unix_ns, after.run) = (before.unix_ns, before.run);
    assert_eq!(after.watcher.restore(kept, 0), []);
    after
}

fn silent(played: &mut Played, seconds: u64) -> Vec<Notice> {
    let silence = Silence { for_ns: seconds * S, reason: "it does not answer".into() };
    played.watcher.tick(&played.model, Some(&silence), seconds * S, played.unix_ns)
}

#[test]
fn replicas_on_other_machines_have_alerts_of_their_own_and_a_restart_keeps_them() {
    let on = |host: &'static str| {
        let mut played = Played::new(of_rules(&["TaskStuckInPoll"]));
        played.host = host;
        played.restart();
        let first = frames(&mut played, 1, &stuck()).remove(0).alert;
        frames(&mut played, 122, &Shown::default());
        played.restart();
        let again = frames(&mut played, 1, &stuck()).remove(0).alert;
        assert_eq!((first.fingerprint, host), (again.fingerprint, self::host(&again)));
        first.fingerprint
    };
    assert_ne!(on("web-1"), on("web-2"));
}

#[test]
fn what_an_older_agent_told_is_over_and_goes_on_with_all_of_its_labels() {
    let (before, alert) = fired(&["TaskStuckInPoll"]);
    for target in ["", "shop.1a2b3c4d"] {
        let mut after = restarted(&before, &["TaskStuckInPoll"], vec![of_before(&alert, target)]);
        let notices = frames(&mut after, 1, &stuck());
        assert_eq!(
            told_of(&notices),
            ["resolved TaskStuckInPoll of nowhere", "firing TaskStuckInPoll of web-1"]
        );
        assert_eq!(notices[0].alert.fingerprint, of_before(&alert, target).fingerprint);
        assert_eq!(
            (notices[1].alert.fingerprint, notices[1].alert.starts_at_unix_ns),
            (alert.fingerprint, alert.starts_at_unix_ns)
        );
        assert_eq!(told_of(&frames(&mut after, 8, &stuck())), Vec::<String>::new());
        let notices = frames(&mut after, 122, &Shown::default());
        assert_eq!(told_of(&notices), ["resolved TaskStuckInPoll of web-1"]);
    }
}

#[test]
fn what_an_older_agent_told_and_has_ended_since_is_over_once() {
    let (before, alert) = fired(&["TaskStuckInPoll"]);
    let mut after = restarted(&before, &["TaskStuckInPoll"], vec![of_before(&alert, "")]);
    let notices = frames(&mut after, 200, &Shown::default());
    assert_eq!(told_of(&notices), ["resolved TaskStuckInPoll of nowhere"]);
    assert!(after.watcher.lives.is_empty());
}

#[test]
fn where_both_are_kept_the_one_with_all_labels_goes_on() {
    let (before, alert) = fired(&["TaskStuckInPoll"]);
    for kept in [[of_before(&alert, ""), alert.clone()], [alert.clone(), of_before(&alert, "")]] {
        let mut after = restarted(&before, &["TaskStuckInPoll"], kept.to_vec());
        let notices = frames(&mut after, 4, &stuck());
        assert_eq!(told_of(&notices), ["resolved TaskStuckInPoll of nowhere"]);
        let notices = frames(&mut after, 122, &Shown::default());
        assert_eq!(told_of(&notices), ["resolved TaskStuckInPoll of web-1"]);
    }
}

#[test]
fn an_alert_of_another_place_ends_as_what_it_was() {
    let (before, alert) = fired(&["TaskStuckInPoll"]);
    let mut after = restarted(&before, &["TaskStuckInPoll"], vec![alert.clone()]);
    after.host = "web-2";
    after.restart();
    let notices = frames(&mut after, 1, &stuck());
    assert_eq!(told_of(&notices), ["firing TaskStuckInPoll of web-2"]);
    let notices = frames(&mut after, 122, &stuck());
    assert_eq!(told_of(&notices), ["resolved TaskStuckInPoll of web-1"]);
    assert_eq!(notices[0].alert.fingerprint, alert.fingerprint);
}

#[test]
fn that_a_target_is_lost_has_the_labels_that_it_had() {
    let rules = ["TargetLost", "TaskStuckInPoll"];
    let (mut played, _) = fired(&rules);
    let lost = silent(&mut played, 20);
    assert_eq!(told_of(&lost), ["firing TargetLost of web-1"]);
    // The agent is restarted, and the target has not come back.
    let kept: Vec<Alert> = played.watcher.fired().collect();
    assert_eq!(kept.len(), 2);
    let mut after = restarted(&played, &rules, kept.clone());
    assert_eq!(silent(&mut after, 20), []);
    // Nor where one of before kept it.
    let mut older = restarted(&played, &rules, kept.iter().map(|alert| of_before(alert, "")).collect());
    assert_eq!(silent(&mut older, 20), []);
    // It is there again, on another machine.
    for (mut agent, place) in [(after, "web-1"), (older, "nowhere")] {
        agent.host = "web-2";
        agent.restart();
        let mut notices = frames(&mut agent, 1, &Shown::default());
        let silence = Silence { for_ns: 0, reason: String::new() };
        notices.extend(agent.watcher.tick(&agent.model, Some(&silence), 21 * S, agent.unix_ns));
        let lost = notices.iter().filter(|it| it.alert.name() == "TargetLost").cloned();
        assert_eq!(told_of(&lost.collect::<Vec<_>>()), [format!("resolved TargetLost of {place}")]);
        let notices = frames(&mut agent, 200, &Shown::default());
        assert!(notices.iter().all(|it| it.transition == Transition::Resolved), "{:?}", told_of(&notices));
        assert!(agent.watcher.lives.is_empty());
    }
}

#[test]
fn what_had_no_room_at_another_place_is_over_with_it() {
    let timing = Timing { for_ns: 0, keep_firing_ns: 0, clear_ratio: 0.8 };
    let mut played = Played::new(vec![crowded(timing)]);
    let crowd = Shown { level: Some(101), ..Shown::default() };
    assert_eq!(frames(&mut played, 1, &crowd).len(), 101);
    played.host = "web-2";
    played.restart();
    let notices = frames(&mut played, 4, &Shown { level: Some(0), ..Shown::default() });
    let over = |name: &str| {
        let is_it = |it: &&Notice| it.alert.name() == name && host(&it.alert) == "web-1";
        notices.iter().filter(is_it).count()
    };
    assert_eq!((over(OVERFLOW), over("RuntimeBusy"), notices.len()), (1, 100, 101));
    assert!(played.watcher.lives.is_empty());
}

#[test]
fn the_agent_itself_says_where_it_runs() {
    let process = Process { instance: "a1".into(), pid: 7, host: Some("web-1".into()), started_unix_ns: 5 };
    let config = Config::read("", "", &|_| None, &untouched()).expect("nothing is right");
    let own =
        || Watcher::new(config.watched_of_agent(), "taskscope-agent", &Labels::default()).of_agent(&process);
    let failing = |since: u64| {
        let mut vitals = Vitals::default();
        vitals.turn(0, since * S);
        vitals.sinks([crate::alerts::vitals::Told {
            sink: "chat".into(),
            instance: String::new(),
            delivered: 0,
            dropped: 1,
            failing: Some("it does not answer".into()),
        }]);
        vitals
    };
    let mut watcher = own();
    let notices = watcher.own(&failing(1), S, 7 * S);
    let resource = notices[0].alert.resource.clone().expect("it is known");
    assert!(resource.attributes.contains(&text("service.instance.id", "a1")), "{resource:?}");
    assert_eq!(told_of(&notices), ["firing SinkFailing of web-1"]);
    // Kept by an agent of before: given back to be told as over, and told anew while it holds.
    let kept = of_before(&notices[0].alert, "");
    let mut after = own();
    assert_eq!(after.restore(vec![kept.clone()], 0), [kept]);
    let again = after.own(&failing(1), S, 9 * S);
    assert_eq!(told_of(&again), ["firing SinkFailing of web-1"]);
    assert_eq!(again[0].alert.starts_at_unix_ns, 7 * S);
    // And by one like this.
    let mut last = own();
    assert_eq!(last.restore(vec![again[0].alert.clone()], 0), []);
    assert_eq!(last.own(&failing(1), S, 9 * S), []);
}

#[test]
fn an_alert_has_the_resource_of_the_run_that_it_was_last_seen_in() {
    let instance = |notice: &Notice| {
        let resource = notice.alert.resource.clone()?;
        let id = resource.attributes.iter().find(|it| it.key == "service.instance.id")?;
        Some(id.value.clone())
    };
    let of = |run: &str| Some(text("service.instance.id", run).value);
    let (mut played, alert) = fired(&["TaskStuckInPoll"]);
    let rest = text("host.name", "web-1");
    assert!(alert.resource.as_ref().is_some_and(|it| it.attributes.contains(&rest)), "{alert:?}");
    // It is over in the next run, and was a fault of the one before.
    played.restart();
    let over = frames(&mut played, 122, &Shown::default());
    assert_eq!((over.len(), instance(&over[0])), (1, of("run-1")));
    // It is of a run that the agent has not seen before: what was kept of it says no more than labels.
    let kept = Alert { resource: None, ..alert };
    let mut after = restarted(&played, &["TaskStuckInPoll"], vec![kept]);
    assert_eq!(after.watcher.fired().next().and_then(|alert| alert.resource), None);
    after.restart();
    let over = frames(&mut after, 122, &Shown::default());
    assert_eq!((over.len(), instance(&over[0])), (1, of("run-3")));
}

#[test]
fn a_target_on_this_machine_that_never_speaks_is_told_apart_from_others_by_it() {
    let mut played = Played::new(of_rules(&["TargetLost", "TaskStuckInPoll"]));
    let watched = of_rules(&["TargetLost", "TaskStuckInPoll"]);
    played.watcher = Watcher::new(watched, "shop", &Labels::default()).on(Some("agent-1"));
    assert_eq!(told_of(&silent(&mut played, 20)), ["firing TargetLost of agent-1"]);
    // It speaks, and is elsewhere, as in another container.
    let mut notices = frames(&mut played, 1, &stuck());
    let silence = Silence { for_ns: 0, reason: String::new() };
    notices.extend(played.watcher.tick(&played.model, Some(&silence), 21 * S, played.unix_ns));
    assert_eq!(told_of(&notices), ["firing TaskStuckInPoll of web-1", "resolved TargetLost of agent-1"]);
}
