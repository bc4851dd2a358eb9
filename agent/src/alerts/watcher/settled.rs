//! Settings that are replaced while a target is watched: an alert goes on with its life where its rule is still there at its
//! severity, and is over where it is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Labels, Notice, Transition, Watched, Watcher};
use crate::alerts::explain::Explained;

impl Watcher {
    /// `labels` are those of the configuration: an alert that had others is another one, so it is told to be over as the one and to
    /// fire as the other. Gives what is over with that.
    pub(crate) fn settle(&mut self, watched: Vec<Watched>, labels: &Labels, unix_ns: u64) -> Vec<Notice> {
        let after = self.identity.clone().configured(labels);
        let before = std::mem::replace(&mut self.identity, after);
        let (before, labels) = (before.labels(), self.identity.labels());
        let watched: Vec<Arc<Watched>> = watched.into_iter().map(Arc::new).collect();
        let moved = moved(&self.watched, &watched);
        // What the target answers to the request of before is about other standing queries.
        self.settled += 1;
        self.looming.clear();
        let mut explained: Vec<Explained> = watched.iter().map(|_| Explained::default()).collect();
        for (from, to) in moved.iter().enumerate().filter_map(|(from, to)| Some((from, (*to)?))) {
            std::mem::swap(&mut self.explained[from], &mut explained[to]);
        }
        self.explained = explained;
        let is_watched = |name: Option<&str>, severity: Option<&str>| {
            watched
                .iter()
                .any(|it| name == Some(it.rule.name) && severity == Some(it.setting.severity.name()))
        };
        let mut over = Vec::new();
        let mut lives = BTreeMap::new();
        for (known, mut entry) in std::mem::take(&mut self.lives) {
            let goes_on = match entry.watched {
                Some(position) => {
                    entry.watched = moved[position];
                    entry.watched.is_some()
                }
                None => is_watched(known.get("rule"), known.get("severity")),
            };
            let anew = if before == labels { Arc::clone(&known) } else { relabelled(&known, before, labels) };
            let was_told = entry.told == Some(Transition::Firing);
            if was_told && (!goes_on || anew != known) {
                over.push(entry.notice(&known, Transition::Resolved, unix_ns));
            }
            if !goes_on {
                continue;
            }
            if let Some(position) = entry.watched {
                entry.threshold = watched[position].setting.threshold;
            }
            if anew != known {
                entry.fingerprint = anew.fingerprint();
                entry.told = None;
            }
            lives.insert(anew, entry);
        }
        self.lives = lives;
        self.watched = watched;
        over
    }
}

/// Where each setting is among the others; `None`: it is not. Two of one rule and severity keep their order.
fn moved(from: &[Arc<Watched>], to: &[Arc<Watched>]) -> Vec<Option<usize>> {
    let is_same =
        |a: &Watched, b: &Watched| std::ptr::eq(a.rule, b.rule) && a.setting.severity == b.setting.severity;
    let place = |(position, watched): (usize, &Arc<Watched>)| {
        let before = from[..position].iter().filter(|other| is_same(other, watched)).count();
        let same = to.iter().enumerate().filter(|(_, other)| is_same(other, watched));
        same.map(|(position, _)| position).nth(before)
    };
    from.iter().enumerate().map(place).collect()
}

/// The labels of an alert, as they are where its target has other ones. What the alert has by itself stays.
fn relabelled(known: &Labels, before: &Labels, after: &Labels) -> Arc<Labels> {
    let mut labels = known.clone();
    for (name, value) in before.iter() {
        if known.get(name) == Some(value) {
            labels.set(name, "");
        }
    }
    for (name, value) in after.iter() {
        if labels.get(name).is_none() {
            labels.set(name, value);
        }
    }
    Arc::new(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::watcher::tests::{Played, Shown, of_rules, short};
    use crate::rules::fixture::{MS, S};

    fn labels(value: &str) -> Labels {
        Labels::default().with("cluster", value)
    }

    fn stuck() -> Shown {
        Shown { stuck_ns: Some(2 * S), ..Shown::default() }
    }

    /// In which a poll is stuck, and told.
    fn played() -> Played {
        let mut played = Played::new(of_rules(&["TaskStuckInPoll", "TaskPanicked"]));
        let told = played.frames(2, |_| stuck());
        assert_eq!(told, ["firing TaskStuckInPoll warning"]);
        played
    }

    fn settle(played: &mut Played, watched: Vec<Watched>, labels: &Labels) -> Vec<Notice> {
        played.watcher.settle(watched, labels, played.unix_ns)
    }

    #[test]
    fn an_alert_goes_on_where_its_rule_does() {
        let mut played = played();
        let fired: Vec<_> = played.watcher.fired().collect();
        // Others before it, another threshold, and without the rule that had come after it.
        let mut watched = of_rules(&["TaskSlowPoll", "TaskStuckInPoll"]);
        watched.rotate_right(1);
        let of_stuck = |it: &&mut Watched| it.rule.name == "TaskStuckInPoll";
        watched.iter_mut().filter(of_stuck).for_each(|it| it.setting.threshold *= 1.5);
        assert_eq!(settle(&mut played, watched, &labels("eu-1")), []);
        assert_eq!(played.watcher.settings(), of_rules(&["TaskSlowPoll", "TaskStuckInPoll"]).len());
        assert_eq!(played.frames(2, |_| stuck()), Vec::<String>::new());
        let after: Vec<_> = played.watcher.fired().collect();
        assert_eq!(
            after.iter().map(|it| (&it.labels, it.starts_at_unix_ns)).collect::<Vec<_>>(),
            fired.iter().map(|it| (&it.labels, it.starts_at_unix_ns)).collect::<Vec<_>>()
        );
        assert!((after[0].threshold - 1.5).abs() < 1e-9);
        let told = played.frames(122, |_| Shown::default());
        assert_eq!(told, ["resolved TaskStuckInPoll warning"]);
    }

    #[test]
    fn an_alert_is_over_where_its_rule_or_its_severity_is_gone() {
        for left in [&[][..], &["TaskPanicked"]] {
            let mut played = played();
            let over = settle(&mut played, of_rules(left), &labels("eu-1"));
            assert_eq!(over.iter().map(short).collect::<Vec<_>>(), ["resolved TaskStuckInPoll warning"]);
            assert!(over[0].alert.ends_at_unix_ns >= Some(over[0].alert.starts_at_unix_ns));
            assert_eq!(played.frames(4, |_| stuck()), Vec::<String>::new());
        }
        let mut played = played();
        let mut loud = of_rules(&["TaskStuckInPoll"]);
        loud.retain(|it| it.setting.severity.name() == "critical");
        assert_eq!(settle(&mut played, loud, &labels("eu-1")).len(), 1);
    }

    #[test]
    fn what_is_pending_goes_on_to_be_and_its_time_counts() {
        let mut rules = of_rules(&["TaskStuckInPoll"]);
        rules.iter_mut().for_each(|it| it.setting.timing.for_ns = 2 * S);
        let mut played = Played::new(rules.clone());
        assert_eq!(played.frames(5, |_| stuck()), ["pending TaskStuckInPoll warning"]);
        assert_eq!(settle(&mut played, rules.clone(), &labels("eu-1")), []);
        assert_eq!(played.frames(4, |_| stuck()), ["firing TaskStuckInPoll warning"]);
        // And what is pending and not watched any more was never told to fire.
        let mut played = Played::new(rules);
        played.frames(5, |_| stuck());
        assert_eq!(settle(&mut played, vec![], &labels("eu-1")), []);
    }

    #[test]
    fn another_label_makes_it_another_alert_that_began_when_it_did() {
        let mut played = played();
        let starts = played.watcher.fired().next().map(|it| it.starts_at_unix_ns);
        let rules = of_rules(&["TaskStuckInPoll"]);
        let over = settle(&mut played, rules, &labels("eu-2"));
        assert_eq!(over[0].alert.labels.get("cluster"), Some("eu-1"));
        played.pass(250 * MS);
        let told = played.frame(&stuck());
        assert_eq!(told.iter().map(short).collect::<Vec<_>>(), ["firing TaskStuckInPoll warning"]);
        let alert = &told[0].alert;
        assert_eq!((alert.labels.get("cluster"), alert.labels.get("service")), (Some("eu-2"), Some("shop")));
        assert_eq!((alert.fingerprint, Some(alert.starts_at_unix_ns)), (alert.labels.fingerprint(), starts));
        assert_eq!(played.frames(122, |_| Shown::default()), ["resolved TaskStuckInPoll warning"]);
    }

    #[test]
    fn an_answer_to_the_questions_of_before_is_none() {
        let mut played = Played::new(of_rules(&["LostWaker"]));
        let finding = |ids: Vec<u64>| taskscope_proto::v1::StandingFinding {
            query_id: super::super::query(0),
            task_ids: ids,
            ..Default::default()
        };
        let frame = |request_id, findings| taskscope_proto::v1::Frame {
            request_id,
            resync: true,
            tasks: Some(Default::default()),
            findings,
            ..Default::default()
        };
        let is_known = |played: &Played| {
            let (_, evaluations) = played.watcher.explain("TaskIgnoresCancel").remove(0);
            evaluations.last().is_some_and(|it| it.missing.is_none())
        };
        settle(&mut played, of_rules(&["TaskIgnoresCancel"]), &labels("eu-1"));
        let asked = played.watcher.request(&played.model);
        played.model.apply(frame(0, vec![finding(vec![7])]));
        played.watcher.frame(&played.model);
        assert!(!is_known(&played), "the target answered what it was asked before");
        played.model.apply(frame(asked.request_id, vec![]));
        played.watcher.frame(&played.model);
        assert!(is_known(&played));
    }
}
