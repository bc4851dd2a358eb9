//! Holds the tool's words against the truth: which fault the demo has injected, and when the tool named it. Told the
//! time; performs no I/O.

use std::time::{Duration, Instant};

use taskscope_demo::{Announcement, Edge, Fault};
use taskscope_proto::words;
use taskscope_tui::StripView;

use crate::why::{Line, Why};

/// What became of each fault so far.
#[derive(Debug, Default)]
pub(crate) struct Tour {
    faults: Vec<Injected>,
    over: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub(crate) struct Injected {
    pub(crate) fault: Fault,
    truth: String,
    began: Instant,
    ended: Option<Instant>,
    /// The tool's sentence, and how long after the injection it stood there.
    pub(crate) named: Option<(Duration, String)>,
    /// The same, of the first one that told the guilty line.
    pub(crate) located: Option<(Duration, String)>,
}

/// What is new in what the tool says.
pub(crate) enum News {
    Named(Injected),
    /// Named before, without its line.
    Located(Injected),
}

/// Who tells a fault.
pub(crate) enum Told {
    /// What a sentence about it begins with, and what that has to name: another one may be about something older.
    ByWhy(&'static str, &'static str),
    /// Only the alerts do, by this rule: `why` says what is wrong at once, and this takes a while to be.
    ByRule(&'static str),
}

pub(crate) fn told(fault: Fault) -> Told {
    use Told::{ByRule, ByWhy};
    match fault {
        Fault::StuckPoll => ByWhy("STUCK", "POST /resize"),
        Fault::SlowPoll => ByWhy("SLOW", "POST /login"),
        Fault::Contention => ByWhy("STUCK", "POST /orders"),
        Fault::PoolFull => ByWhy("FULL", "blocking pool"),
        Fault::Panic => ByWhy("DIED SILENTLY", "audit-writer panicked at "),
        Fault::Leak => ByWhy("GROWING", "session-watch"),
        Fault::IgnoresCancel => ByWhy("IGNORES CANCEL", "newsletter"),
        Fault::Error => ByWhy("DIED SILENTLY", "stock-sync failed"),
        Fault::Files => ByWhy("FILE DESCRIPTORS", "open"),
        Fault::Pending => ByRule("TaskPendingTooLong"),
        Fault::NeverYields => ByRule("TaskNeverYields"),
        Fault::HotLoop => ByRule("SelfWakingLoop"),
        Fault::LostWaker => ByRule("LostWaker"),
        Fault::LongJob => ByRule("BlockingJobTooLong"),
        Fault::Queue => ByRule("ReadyQueueGrowing"),
        Fault::Busy => ByRule("RuntimeBusy"),
    }
}

/// The file in which the guilty line of a fault is; the others end where they begin, or nowhere in particular.
pub(crate) fn guilty_file(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::StuckPoll | Fault::PoolFull => Some("demo/src/storage.rs:"),
        Fault::SlowPoll => Some("demo/src/work.rs:"),
        Fault::Contention => Some("demo/src/prices.rs:"),
        Fault::Panic => Some("demo/src/audit.rs:"),
        Fault::Leak
        | Fault::IgnoresCancel
        | Fault::Error
        | Fault::Pending
        | Fault::NeverYields
        | Fault::HotLoop
        | Fault::LostWaker
        | Fault::LongJob
        | Fault::Files
        | Fault::Queue
        | Fault::Busy => None,
    }
}

impl Tour {
    pub(crate) fn announced(&mut self, announcement: Announcement, now: Instant) {
        match announcement {
            Announcement::Fault { name, state: Edge::Start, truth, .. } => {
                self.faults.push(Injected {
                    fault: name,
                    truth,
                    began: now,
                    ended: None,
                    named: None,
                    located: None,
                });
            }
            Announcement::Fault { name, state: Edge::End, .. } => {
                let open = self.faults.iter_mut().rev().find(|injected| injected.fault == name);
                if let Some(injected) = open {
                    injected.ended = Some(now);
                }
            }
            Announcement::Tour { .. } => {
                self.over = Some("the tour is over; the service runs on, healthy (q leaves)");
            }
            Announcement::Serving { .. } => {}
        }
    }

    /// The service has ended.
    pub(crate) fn ended(&mut self) {
        self.over = Some("the demo's service has ended (q leaves)");
    }

    /// What the tool says now. Gives back a fault that it names for the first time, or for the first time with its line.
    pub(crate) fn said(&mut self, why: &Why, now: Instant) -> Option<News> {
        let current = self.faults.last_mut().filter(|injected| injected.located.is_none())?;
        let Told::ByWhy(begins, names) = told(current.fault) else { return None };
        let is_named = |line: &&Line| {
            let text = line.text();
            matches!(line, Line::Finding(_)) && text.starts_with(begins) && text.contains(names)
        };
        let sentence = why.lines.iter().find(is_named)?.text().to_owned();
        let located = guilty_file(current.fault).is_some_and(|file| sentence.contains(file));
        let said = Some((now.duration_since(current.began), sentence));
        if located {
            current.located.clone_from(&said);
        }
        match (current.named.is_none(), located) {
            (true, _) => {
                current.named = said;
                Some(News::Named(current.clone()))
            }
            (false, true) => Some(News::Located(current.clone())),
            (false, false) => None,
        }
    }

    pub(crate) fn faults(&self) -> &[Injected] {
        &self.faults
    }

    /// Whether the last fault was injected and undone, and nothing more will be.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// The two lines at the bottom; `None` before anything was injected.
    pub(crate) fn strip(&self, now: Instant) -> Option<StripView> {
        let Some(last) = self.faults.last() else {
            let truth = self.over.unwrap_or("healthy: nothing is injected yet").to_owned();
            return Some(StripView { truth, said: None });
        };
        let ago = |at: Instant| words::duration(now.duration_since(at).as_nanos() as u64);
        let truth = match (last.ended, self.over) {
            (Some(_), Some(over)) => over.to_owned(),
            (Some(ended), None) => format!("{} ended {} ago: healthy until the next", last.fault, ago(ended)),
            (None, _) => format!("{} injected {} ago: {}", last.fault, ago(last.began), last.truth),
        };
        let after = |after: &Duration| words::duration(after.as_nanos() as u64);
        let said = match (&last.named, &last.located) {
            (Some((named, _)), Some((located, sentence))) if named != located => {
                Some(format!("named after {}, its line after {}: {sentence}", after(named), after(located)))
            }
            (Some((named, sentence)), _) => Some(format!("named after {}: {sentence}", after(named))),
            (None, _) => match told(last.fault) {
                Told::ByWhy(..) => None,
                Told::ByRule(rule) => Some(format!("`taskscope alerts` tells it, as {rule}")),
            },
        };
        Some(StripView { truth, said })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
mod tests {
    use super::*;
    use crate::rules::{Finding, Severity};

    fn why(text: &str) -> Why {
        let finding = Finding { severity: Severity::Critical, sentence: text.into() };
        Why { lines: vec![Line::Finding(finding)] }
    }

    #[test]
    fn a_fault_is_named_once_with_its_delay() {
        let t0 = Instant::now();
        let mut tour = Tour::default();
        let start =
            |name| Announcement::Fault { name, state: Edge::Start, truth: "it sleeps".into(), at_ms: 0 };
        tour.announced(start(Fault::StuckPoll), t0);
        let at = |ms| t0 + Duration::from_millis(ms);
        assert!(tour.said(&why("STUCK 9 s: something older"), at(100)).is_none());
        assert!(tour.said(&why("STUCK 1 s: POST /resize"), at(600)).is_some());
        assert!(tour.said(&why("STUCK 2 s: POST /resize"), at(900)).is_none());
        let strip = tour.strip(at(1500)).expect("a fault was injected");
        assert_eq!(strip.truth, "stuck-poll injected 1.5 s ago: it sleeps");
        assert_eq!(strip.said.as_deref(), Some("named after 600 ms: STUCK 1 s: POST /resize"));
        let located = why("STUCK 2 s: POST /resize, in std::thread::sleep, demo/src/storage.rs:37");
        assert!(matches!(tour.said(&located, at(1600)), Some(News::Located(_))));
        assert!(tour.said(&located, at(1700)).is_none());
        let strip = tour.strip(at(1800)).expect("a fault was injected");
        assert!(
            strip
                .said
                .is_some_and(|said| said.starts_with("named after 600 ms, its line after 1.6 s: STUCK 2 s"))
        );
        tour.announced(
            Announcement::Fault { name: Fault::StuckPoll, state: Edge::End, truth: String::new(), at_ms: 1 },
            at(2000),
        );
        assert_eq!(
            tour.strip(at(3000)).map(|strip| strip.truth),
            Some("stuck-poll ended 1.0 s ago: healthy until the next".into())
        );
    }

    #[test]
    fn a_fault_that_only_a_rule_tells_is_said_to_be_one() {
        for fault in Fault::ALL {
            if let Told::ByRule(rule) = told(fault) {
                assert_eq!(crate::alerts::rules::named(rule).map(|rule| rule.name), Ok(rule), "{fault}");
            }
        }
        let t0 = Instant::now();
        let mut tour = Tour::default();
        let name = Fault::HotLoop;
        let truth = name.truth().to_owned();
        tour.announced(Announcement::Fault { name, state: Edge::Start, truth, at_ms: 0 }, t0);
        assert!(tour.said(&why("STUCK 1 s: POST /resize"), t0).is_none());
        let said = tour.strip(t0).and_then(|strip| strip.said);
        assert_eq!(said.as_deref(), Some("`taskscope alerts` tells it, as SelfWakingLoop"));
    }
}
