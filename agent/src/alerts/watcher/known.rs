//! What comes to be known of a target whose alerts stand already: those that fired before the agent was restarted, and whose they
//! are.

use std::collections::BTreeMap;
use std::sync::Arc;

use taskscope_proto::v1::Description;

use super::{Alert, Clock, EVIDENCE, Entry, Life, Notice, Transition, Watched, Watcher};
use crate::metrics::resource::Process;

impl Watcher {
    /// Of no target, but the agent itself.
    #[must_use]
    pub(crate) fn of_agent(mut self, process: &Process) -> Self {
        self.identity = self.identity.of_agent(process);
        self.is_identified = true;
        self
    }

    /// Of a target that is on the machine of this name.
    #[must_use]
    pub(crate) fn on(mut self, host: Option<&str>) -> Self {
        self.identity = self.identity.on(host);
        self
    }

    /// Alerts that fired when the agent was restarted, and of whose end nobody has been told. Those of rules that are no longer
    /// there are given back, and those that have other labels now: they go on under these.
    pub(crate) fn restore(&mut self, alerts: Vec<Alert>, now_ns: u64) -> Vec<Alert> {
        if !self.is_identified
            && let Some(alert) = alerts.iter().max_by_key(|alert| alert.name() == "TargetLost")
        {
            self.identity = self.identity.clone().kept(&alert.labels);
        }
        let mut over = Vec::new();
        for alert in alerts {
            let severity = alert.labels.get("severity").unwrap_or_default();
            let is_its =
                |it: &Arc<Watched>| it.rule.name == alert.name() && it.setting.severity.name() == severity;
            let Some(position) = self.watched.iter().position(is_its) else {
                over.push(alert);
                continue;
            };
            let complete = self.identity.complete(&alert.labels).filter(|_| self.is_identified);
            let labels = complete.unwrap_or_else(|| alert.labels.clone());
            let watched = &self.watched[position];
            let mut entry = Entry::new(&labels, Some(position), &watched.setting);
            entry.unknown_until_ns = now_ns.saturating_add(watched.learns_within_ns());
            entry.life = Life::fired_before(now_ns);
            entry.value = alert.value;
            entry.starts_at_unix_ns = alert.starts_at_unix_ns;
            entry.annotations.clone_from(&alert.annotations);
            entry.resource = self.identity.resource();
            // Its readings replace the others.
            entry.evidence = entry.annotations.remove(EVIDENCE);
            if labels == alert.labels {
                entry.told = Some(Transition::Firing);
                self.lives.insert(Arc::new(labels), entry);
            } else {
                self.lives.entry(Arc::new(labels)).or_insert(entry);
                over.push(alert);
            }
        }
        over
    }

    /// The target says what it is. An alert that was told when less was known of that, as by an agent of before, is over as that
    /// one and goes on as the other, so that one fault is one alert; one of another place ends by itself. Gives what is over.
    pub(super) fn identify(&mut self, description: &Description, unix_ns: u64) -> Vec<Notice> {
        let identity = self.identity.clone().said(description);
        let is_as_before = identity.labels() == self.identity.labels();
        self.identity = identity;
        if std::mem::replace(&mut self.is_identified, true) && is_as_before {
            return vec![];
        }
        let mut over = Vec::new();
        let (mut lives, mut others) = (BTreeMap::new(), Vec::new());
        for (known, mut entry) in std::mem::take(&mut self.lives) {
            let clock = entry.watched.map(|position| self.watched[position].rule.clock);
            let complete = self.identity.complete(&known).map(Arc::new);
            if complete.is_some() {
                entry.resource = self.identity.resource();
            }
            // That it is silent is over as what it was told to be: it speaks.
            let complete = complete.filter(|_| clock != Some(Clock::Agent));
            // Nothing reads the overflow of another place any more.
            let ends = clock.is_none() && complete.is_none();
            if !ends && complete.as_ref().is_none_or(|complete| *complete == known) {
                lives.insert(known, entry);
                continue;
            }
            if entry.told.take() == Some(Transition::Firing) {
                over.push(entry.notice(&known, Transition::Resolved, unix_ns));
            }
            if let Some(complete) = complete {
                entry.fingerprint = complete.fingerprint();
                others.push((complete, entry));
            }
        }
        for (complete, entry) in others {
            lives.entry(complete).or_insert(entry);
        }
        self.lives = lives;
        over
    }
}
