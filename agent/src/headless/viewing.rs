//! What the agent answers to viewers of its alerts: what stands, what changes, and why a rule does or does not fire.

use std::collections::BTreeSet;

use prost::Message;
use taskscope_proto::{MAX_MESSAGE_BYTES, filter, v1, words};
use tokio::sync::mpsc;

use super::{Agent, unix_ns};
use crate::alerts::notice::Alert;
use crate::alerts::watcher::Watcher;
use crate::alerts::wire::{self, HeldBack};
use crate::alerts::{labels::Labels, rules};
use crate::own::SERVICE;
use crate::viewers::Told;

/// Evaluations and readings of an answer are left out until it is this small.
const ANSWER_BYTES: usize = MAX_MESSAGE_BYTES - (64 << 10);
/// Of each setting at all targets together, so that the loop is not held up; but of each target so many.
const EVALUATIONS: usize = 600;
const LAST_OF_EACH: usize = 3;

/// Why a viewer is not answered; each with a hint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// There is no such target, or no such rule.
    Unknown(String),
    TooMany(String),
}

/// For one viewer.
pub(crate) struct Shown {
    pub(crate) standing: Vec<v1::Alert>,
    /// `None`: it does not want them.
    pub(crate) changes: Option<mpsc::Receiver<Told>>,
}

impl Agent {
    pub(super) fn watch_alerts(&mut self, request: &v1::WatchAlertsRequest) -> Result<Shown, Refused> {
        let target = self.wanted(&request.target)?;
        if request.once {
            let names = self.names();
            let of_it = names.iter().filter(|name| target.is_none_or(|target| target == **name));
            let standing = of_it.flat_map(|name| self.standing(name)).collect();
            return Ok(Shown { standing, changes: None });
        }
        // What the viewers before this one know is brought up to date first, so that all know the same.
        self.look_at_all();
        let (standing, changes) = self.viewers.add(target).map_err(Refused::TooMany)?;
        Ok(Shown { standing, changes: Some(changes) })
    }

    /// `None`: all targets.
    fn wanted<'a>(&self, target: &'a str) -> Result<Option<&'a str>, Refused> {
        if target.is_empty() {
            return Ok(None);
        }
        let is_known = self.names().contains(target);
        if is_known { Ok(Some(target)) } else { Err(Refused::Unknown(self.no_target(target))) }
    }

    /// What is said where there is no target of that name.
    pub(super) fn no_target(&self, name: &str) -> String {
        let hint = match filter::nearest(name, self.names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => self.choice(),
        };
        format!("this agent has no target `{}`\nhint: {hint}", words::printable(name))
    }

    /// What is said where one has to be named.
    pub(super) fn which_target(&self) -> String {
        format!("this agent has {} targets\nhint: {}", self.fleet.members().count(), self.choice())
    }

    fn choice(&self) -> String {
        let mut names: Vec<&str> = self.fleet.members().map(|(_, member)| member.name.as_str()).collect();
        names.sort_unstable();
        match names.as_slice() {
            [] => "it watches nothing yet; `taskscope ls` lists the targets on its machine".to_owned(),
            names => format!("name one of them: {}", names.join(", ")),
        }
    }

    /// Of all that may have alerts: the targets, and the agent itself.
    fn names(&self) -> BTreeSet<&str> {
        let members = self.fleet.members().map(|(_, member)| member.name.as_str());
        members.chain(self.missed.keys().map(String::as_str)).chain([SERVICE]).collect()
    }

    /// What watches the agent itself, if that is its name.
    fn own(&self, name: &str) -> Option<&Watcher> {
        (name == SERVICE).then(|| self.own.watcher())
    }

    /// Everything that is pending or fires at a target, or about the agent itself.
    fn standing(&self, name: &str) -> Vec<v1::Alert> {
        let missed = self.missed.get(name).into_iter().flatten();
        let missed = missed.map(|fired| (Alert::from(fired.clone()), None));
        let watched = self.fleet.named(name).and_then(|(id, _)| self.watched.get(&id));
        let watchers = watched.map(|watched| &watched.watcher).into_iter().chain(self.own(name));
        let alerts = watchers.flat_map(Watcher::alerts);
        let now = unix_ns();
        let told = alerts.chain(missed).map(|(alert, by)| {
            let silenced = self.desk.is_silenced(&alert.labels, now);
            wire::alert(alert, HeldBack { silenced, by })
        });
        told.collect()
    }

    /// Viewers are told what has changed at all targets.
    pub(super) fn look(&mut self) {
        if !self.viewers.is_empty() {
            self.look_at_all();
        }
    }

    fn look_at_all(&mut self) {
        let names: Vec<String> = self.names().into_iter().map(str::to_owned).collect();
        for name in &names {
            let standing = self.standing(name);
            self.viewers.look(name, standing, unix_ns());
        }
        self.viewers.retain(&names.iter().map(String::as_str).collect(), unix_ns());
    }

    /// Viewers are told what has changed at one target.
    pub(super) fn look_at(&mut self, name: &str) {
        if !self.viewers.is_empty() {
            let standing = self.standing(name);
            self.viewers.look(name, standing, unix_ns());
        }
    }

    pub(super) fn explain(&self, request: &v1::ExplainRequest) -> Result<Vec<v1::Evaluation>, Refused> {
        let rule = rules::named(&request.rule).map_err(|error| Refused::Unknown(error.to_string()))?;
        let target = self.wanted(&request.target)?;
        let now = unix_ns();
        let mut all: Vec<Vec<v1::Evaluation>> = Vec::new();
        let targets = if target.is_some() { 1 } else { self.fleet.members().count().max(1) };
        let of_each = (EVALUATIONS / targets).max(LAST_OF_EACH);
        let members = self
            .fleet
            .members()
            .filter_map(|(id, member)| Some((member.name.as_str(), &self.watched.get(&id)?.watcher)));
        let own = (SERVICE, self.own.watcher());
        for (name, watcher) in members.chain([own]).filter(|(it, _)| target.is_none_or(|name| name == *it)) {
            for (setting, evaluations) in watcher.explain(rule.name) {
                let older = evaluations.len().saturating_sub(of_each);
                let evaluations =
                    evaluations.into_iter().skip(older).map(|it| wire::evaluation(name, setting, it));
                let mut evaluations: Vec<v1::Evaluation> = evaluations.collect();
                // Silences are as of now, and so is the last evaluation.
                for read in evaluations.last_mut().into_iter().flat_map(|last| &mut last.readings) {
                    let mut labels = Labels::default();
                    read.labels.iter().for_each(|(name, value)| labels.set(name, value));
                    if read.held_back.is_empty() && self.desk.is_silenced(&labels, now) {
                        read.held_back = "silenced".to_owned();
                    }
                }
                all.push(evaluations);
            }
        }
        Ok(bounded(all, ANSWER_BYTES))
    }
}

/// The last evaluations of each, oldest first, as many of each as there is room for.
fn bounded(mut all: Vec<Vec<v1::Evaluation>>, room: usize) -> Vec<v1::Evaluation> {
    let bytes = |it: &v1::Evaluation| it.encoded_len() + 8;
    while all.iter().flatten().map(bytes).sum::<usize>() > room {
        let most = all.iter().map(Vec::len).max().unwrap_or_default();
        if most > 1 {
            all.iter_mut().for_each(|it| drop(it.drain(..it.len().saturating_sub(most / 2))));
            continue;
        }
        let readings = all.iter().flatten().map(|it| it.readings.len()).max().unwrap_or_default();
        if readings > 0 {
            all.iter_mut().flatten().for_each(|it| it.readings.truncate(readings / 2));
        } else {
            all.pop();
        }
    }
    let mut all: Vec<v1::Evaluation> = all.into_iter().flatten().collect();
    all.sort_by_key(|evaluation| evaluation.at_unix_ns);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluations(target: &str, count: u64) -> Vec<v1::Evaluation> {
        let reading = v1::EvaluatedReading { phase: "firing".repeat(10), ..Default::default() };
        let evaluation = |at_unix_ns| v1::Evaluation {
            target: target.to_owned(),
            at_unix_ns,
            readings: vec![reading.clone(); 10],
            ..Default::default()
        };
        (0..count).map(evaluation).collect()
    }

    #[test]
    fn an_explanation_keeps_the_last_evaluations_of_each_that_there_is_room_for() {
        let all = || vec![evaluations("a", 60), evaluations("b", 3)];
        assert_eq!(bounded(all(), usize::MAX).len(), 63);
        let some = bounded(all(), 20_000);
        let count = |target: &str| some.iter().filter(|it| it.target == target).count();
        assert!(count("a") > 3 && count("a") < 60 && count("b") == 3, "{} {}", count("a"), count("b"));
        assert_eq!(some.last().map(|it| it.at_unix_ns), Some(59), "the last one stays");
        assert!(some.is_sorted_by_key(|it| it.at_unix_ns));
        // Each is there, with fewer readings, before one of them is not.
        let few = bounded(all(), 400);
        assert_eq!(few.len(), 2);
        assert!(few.iter().all(|it| it.readings.len() < 10));
        assert_eq!(bounded(all(), 10), []);
    }
}
