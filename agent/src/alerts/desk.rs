//! The agent's desk, over which every notice of every target goes: what is silenced is held back there, and told when the
//! silence is over and it still fires. It is told the time of day and does no I/O.

use std::collections::BTreeMap;

use taskscope_proto::v1::{LabelMatcher, SilenceRequest, SilenceStatus};
use taskscope_proto::words::printable;

use super::labels::{Fingerprint, Labels};
use super::life::Transition;
use super::notice::Notice;
use crate::config::pattern::Pattern;

/// More are a mistake, or an attack.
const MOST_SILENCES: usize = 1000;
const MOST_MATCHERS: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Desk {
    silences: BTreeMap<String, Silence>,
    made: u64,
    /// What fires, and nobody was told of.
    held: BTreeMap<Fingerprint, Notice>,
    changed: bool,
}

#[derive(Debug)]
struct Silence {
    request: SilenceRequest,
    matchers: Vec<Matcher>,
}

#[derive(Debug)]
struct Matcher {
    name: String,
    wanted: Wanted,
    is_not: bool,
}

#[derive(Debug)]
enum Wanted {
    Text(String),
    Pattern(Pattern),
}

impl Matcher {
    fn new(said: &LabelMatcher) -> Result<Self, String> {
        if said.name.is_empty() {
            return Err("a matcher names no label\nhint: name one, such as alertname".to_owned());
        }
        let wanted = if said.is_regex {
            let told = |why| format!("the matcher of `{}`: {why}", printable(&said.name));
            Wanted::Pattern(Pattern::new(&said.value).map_err(told)?)
        } else {
            Wanted::Text(said.value.clone())
        };
        Ok(Self { name: said.name.clone(), wanted, is_not: said.is_not })
    }

    /// A label that is not there is an empty one, as for Alertmanager.
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.name).unwrap_or_default();
        let is = match &self.wanted {
            Wanted::Text(text) => value == text,
            Wanted::Pattern(pattern) => pattern.holds(value),
        };
        is != self.is_not
    }
}

impl Silence {
    fn holds(&self, labels: &Labels, unix_ns: u64) -> bool {
        unix_ns < self.request.ends_at_unix_ns && self.matchers.iter().all(|matcher| matcher.holds(labels))
    }
}

impl Desk {
    /// Whether the sinks are told of it now. The end of what they were told of always is.
    pub(crate) fn hear(&mut self, notice: &Notice, unix_ns: u64) -> bool {
        self.changed = true;
        let id = notice.alert.fingerprint;
        if notice.transition == Transition::Resolved {
            return self.held.remove(&id).is_none();
        }
        let is_silenced = self.is_silenced(&notice.alert.labels, unix_ns);
        if is_silenced && notice.transition == Transition::Firing {
            self.held.insert(id, notice.clone());
        }
        !is_silenced
    }

    /// What is no longer silenced, and still fires.
    pub(crate) fn tick(&mut self, unix_ns: u64) -> Vec<Notice> {
        let before = self.silences.len();
        self.silences.retain(|_, silence| unix_ns < silence.request.ends_at_unix_ns);
        self.changed |= self.silences.len() != before;
        let free: Vec<Fingerprint> = self
            .held
            .iter()
            .filter(|(_, notice)| !self.is_silenced(&notice.alert.labels, unix_ns))
            .map(|(id, _)| *id)
            .collect();
        self.changed |= !free.is_empty();
        free.iter().filter_map(|id| self.held.remove(id)).collect()
    }

    /// Whether what fires or is silenced may be another since this was last asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn is_silenced(&self, labels: &Labels, unix_ns: u64) -> bool {
        self.silences.values().any(|silence| silence.holds(labels, unix_ns))
    }

    /// The new silence's id; the error says what is wrong with the request.
    pub(crate) fn silence(&mut self, request: SilenceRequest, unix_ns: u64) -> Result<String, String> {
        let id = (self.made + 1).to_string();
        self.resume(&id, request, unix_ns)?;
        Ok(id)
    }

    /// A silence that has its id from before a restart; the error says what is wrong with the request.
    pub(crate) fn resume(&mut self, id: &str, request: SilenceRequest, unix_ns: u64) -> Result<(), String> {
        if request.ends_at_unix_ns <= unix_ns {
            return Err("a silence ends, and not in the past\nhint: say until when".to_owned());
        }
        if request.matchers.is_empty() || request.matchers.len() > MOST_MATCHERS {
            return Err(format!(
                "a silence has 1 to {MOST_MATCHERS} matchers\nhint: name a label, such as alertname"
            ));
        }
        let matchers = request.matchers.iter().map(Matcher::new).collect::<Result<Vec<_>, _>>()?;
        if matchers.iter().all(|matcher| matcher.holds(&Labels::default())) {
            return Err(
                "this silence would hold back every alert\nhint: name a value that a label must have"
                    .to_owned(),
            );
        }
        if self.silences.len() >= MOST_SILENCES {
            return Err(format!("there are {MOST_SILENCES} silences already\nhint: end some of them"));
        }
        self.changed = true;
        // No id is given out twice while it stands.
        self.made = self.made.max(id.parse().unwrap_or_default());
        self.silences.insert(id.to_owned(), Silence { request, matchers });
        Ok(())
    }

    /// Whether people have not been told of it.
    pub(crate) fn holds(&self, id: Fingerprint) -> bool {
        self.held.contains_key(&id)
    }

    /// Every silence that has not ended, by its id.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&str, &SilenceRequest)> {
        self.silences.iter().map(|(id, silence)| (id.as_str(), &silence.request))
    }

    /// Ends a silence before its time; whether there was one.
    pub(crate) fn unsilence(&mut self, id: &str) -> bool {
        self.changed = true;
        self.silences.remove(id).is_some()
    }

    pub(crate) fn silences(&self, unix_ns: u64) -> Vec<SilenceStatus> {
        let status = |(id, silence): (&String, &Silence)| {
            let holds =
                self.held.values().filter(|notice| silence.holds(&notice.alert.labels, unix_ns)).count();
            SilenceStatus {
                id: id.clone(),
                silence: Some(silence.request.clone()),
                holds: u32::try_from(holds).unwrap_or(u32::MAX),
            }
        };
        self.silences.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::fixture::notice;

    fn request(matchers: &[(&str, &str, bool, bool)], ends_at_unix_ns: u64) -> SilenceRequest {
        let matcher = |&(name, value, is_regex, is_not): &(&str, &str, bool, bool)| LabelMatcher {
            name: name.to_owned(),
            value: value.to_owned(),
            is_regex,
            is_not,
        };
        SilenceRequest {
            matchers: matchers.iter().map(matcher).collect(),
            ends_at_unix_ns,
            ..Default::default()
        }
    }

    #[test]
    fn what_is_silenced_is_told_when_the_silence_is_over_and_it_still_fires() {
        let mut desk = Desk::default();
        desk.silence(request(&[("task_group", "a|b", true, false)], 100), 0).expect("it is right");
        let of = |group, transition| notice("TaskSlowPoll", group, transition);
        assert!(!desk.hear(&of("a", Transition::Firing), 1));
        assert!(!desk.hear(&of("b", Transition::Firing), 1));
        assert!(desk.hear(&of("c", Transition::Firing), 1));
        assert_eq!(desk.silences(2)[0].holds, 2);
        assert!(!desk.hear(&of("b", Transition::Resolved), 3), "nobody knows that it fired");
        assert!(desk.hear(&of("c", Transition::Resolved), 3));
        assert_eq!(desk.tick(99), []);
        assert_eq!(desk.tick(100), [of("a", Transition::Firing)]);
        assert!(desk.hear(&of("a", Transition::Resolved), 101));
        assert!(desk.silences(101).is_empty());
    }

    #[test]
    fn the_end_of_what_was_told_is_told_in_a_silence_too() {
        let mut desk = Desk::default();
        let of = |transition| notice("A", "a", transition);
        assert!(desk.hear(&of(Transition::Firing), 1));
        let id = desk.silence(request(&[("alertname", "A", false, false)], 100), 1).expect("it is right");
        assert!(desk.hear(&of(Transition::Resolved), 2));
        assert!(!desk.hear(&of(Transition::Firing), 3));
        assert!(desk.unsilence(&id) && !desk.unsilence(&id));
        assert_eq!(desk.tick(4).len(), 1);
    }

    #[test]
    fn a_silence_of_before_a_restart_keeps_its_id_and_no_other_gets_it() {
        let a = || request(&[("alertname", "A", false, false)], 100);
        let mut desk = Desk::default();
        let ids: Vec<String> = (0..3).map(|_| desk.silence(a(), 1).expect("it is right")).collect();
        assert!(desk.unsilence(&ids[0]));
        let mut after = Desk::default();
        for (id, request) in desk.requests() {
            after.resume(id, request.clone(), 1).expect("it is right");
        }
        let id = after.silence(a(), 1).expect("it is right");
        let known: Vec<&str> = after.requests().map(|(id, _)| id).collect();
        assert_eq!(known, [&ids[1], &ids[2], &id]);
        assert!(after.resume("9", request(&[], 100), 1).is_err());
    }

    #[test]
    fn a_silence_that_never_ends_or_holds_back_everything_is_refused() {
        let mut desk = Desk::default();
        for wrong in [
            request(&[("alertname", "A", false, false)], 0),
            request(&[("alertname", "A", false, false)], 5),
            request(&[], 100),
            request(&[("", "A", false, false)], 100),
            request(&[("alertname", "(", true, false)], 100),
            request(&[("alertname", ".*", true, false)], 100),
            request(&[("alertname", "A", false, true)], 100),
        ] {
            assert!(desk.silence(wrong, 5).is_err_and(|why| why.contains("\nhint: ")));
        }
        desk.silence(request(&[("a", "b", false, true), ("alertname", "A", false, false)], 100), 5)
            .expect("it is right");
    }
}
