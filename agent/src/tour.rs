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

/// What a sentence about this fault begins with, and what it has to name: another one may be about something older.
fn marks(fault: Fault) -> (&'static str, &'static str) {
    match fault {
        Fault::StuckPoll => ("STUCK", "POST /resize"),
        Fault::SlowPoll => ("SLOW", "POST /login"),
        Fault::Contention => ("STUCK", "POST /orders"),
        Fault::PoolFull => ("FULL", "blocking pool"),
        Fault::Panic => ("DIED SILENTLY", "audit-writer panicked at "),
        Fault::Leak => ("GROWING", "session-watch"),
        Fault::IgnoresCancel => ("IGNORES CANCEL", "newsletter"),
    }
}

/// The file in which the guilty line of a fault is; the others end where they begin, or nowhere in particular.
pub(crate) fn guilty_file(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::StuckPoll | Fault::PoolFull => Some("demo/src/storage.rs:"),
        Fault::SlowPoll => Some("demo/src/work.rs:"),
        Fault::Contention => Some("demo/src/prices.rs:"),
        Fault::Panic => Some("demo/src/audit.rs:"),
        Fault::Leak | Fault::IgnoresCancel => None,
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
        let (begins, names) = marks(current.fault);
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
            (None, _) => None,
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
}
