//! Another configuration, while the agent runs: what goes on with it as it was, what ends, and what begins.

use std::time::Instant;

use super::{Agent, Asked, Config, FOLDER_EVERY, Notice, Transition, fleet, tell, unix_ns};
use crate::alerts::notice::Alert;
use crate::complain;
use crate::config::{Folder, Targets};
use crate::fleet::{Listed, Source};
use crate::settings::Reloaded;
use crate::sinks::Prepared;

/// How the last attempt to read the configuration again went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastReload {
    pub(crate) is_good: bool,
    /// When one was last read that holds.
    pub(crate) good_unix_ns: u64,
}

impl Agent {
    pub(super) fn reloaded(&mut self, reloaded: Reloaded, now: Instant) {
        let Reloaded::Taken { config, prepared, change, file } = reloaded else {
            self.reload.is_good = false;
            return;
        };
        self.settle(&config, &prepared, now);
        self.reload = LastReload { is_good: true, good_unix_ns: unix_ns() };
        change.told(&file).iter().for_each(|line| complain(line));
    }

    /// All of it holds from now on.
    fn settle(&mut self, config: &Config, prepared: &Prepared, now: Instant) {
        self.labels = config.labels();
        self.watched_rules = config.watched();
        self.histograms = config.wants_histograms();
        let mut notices = Vec::new();
        for watched in self.watched.values_mut() {
            let rules = self.watched_rules.clone();
            notices.extend(watched.watcher.settle(rules, &self.labels, unix_ns()));
            watched.next_ask = now;
            watched.ask_anew(self.histograms, now);
        }
        let own = self.own.watcher_mut();
        notices.extend(own.settle(config.watched_of_agent(), &self.labels, unix_ns()));
        tell(&mut self.desk, &self.sinks, &notices);
        self.aim(&config.targets, now);
        let told = self.told();
        let is_silenced = |notice: &Notice| self.desk.is_silenced(&notice.alert.labels, unix_ns());
        self.sinks.settle(prepared, &told, is_silenced);
    }

    /// Watches these, and no others.
    pub(super) fn aim(&mut self, targets: &Targets, now: Instant) {
        let Targets { fixed, folder, dns, refresh } = targets;
        let mut wanted: Vec<(Source, _)> =
            dns.iter().map(|host| (Source::Dns(host.clone()), *refresh)).collect();
        let folder = match folder {
            Folder::None => None,
            Folder::Usual => Some(None),
            Folder::At(path) => Some(Some(path.clone())),
        };
        wanted.extend(folder.map(|path| (Source::Folder(path), FOLDER_EVERY.min(*refresh))));
        let mut before = std::mem::take(&mut self.sources);
        for (source, every) in wanted {
            let known = before.iter().position(|asked| asked.source == source);
            let known = known.map(|at| before.swap_remove(at));
            let fresh = || Asked { source, every, due: now, waiting: false, trouble: None };
            self.sources.push(known.map_or_else(fresh, |asked| Asked { every, due: now, ..asked }));
        }
        let sources = self.sources.iter().map(|asked| asked.source.clone());
        let sources = sources.chain([Source::Fixed]).collect();
        let fixed = fixed.iter().cloned().map(Listed::Named).collect();
        self.list(fleet::Input::Configured { sources, fixed }, now);
    }

    /// Everything that people were told that it fires, and that is not over.
    pub(super) fn told(&self) -> Vec<Notice> {
        let watchers = self.watched.values().map(|watched| &watched.watcher).chain([self.own.watcher()]);
        let known = watchers.flat_map(|watcher| watcher.fired());
        let missed = self.missed.values().flatten().cloned().map(Alert::from);
        let told = known.chain(missed).filter(|alert| !self.desk.holds(alert.fingerprint));
        told.map(|alert| Notice { transition: Transition::Firing, alert }).collect()
    }

    /// The agent's own turn: what it has to say of itself, and what still fires and is to be told again.
    pub(super) fn turn(&mut self, now: Instant) {
        let notices = self.own.turn(self.sinks.health(), super::TICK, now, unix_ns());
        tell(&mut self.desk, &self.sinks, &notices);
        self.sinks.repeat(|| {
            let is_heard = |notice: &Notice| !self.desk.is_silenced(&notice.alert.labels, unix_ns());
            self.told().into_iter().filter(is_heard).collect()
        });
    }
}
