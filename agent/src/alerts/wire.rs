//! Alerts and evaluations as an agent tells them to its viewers, and back.

use std::collections::{BTreeMap, HashMap};

use taskscope_proto::v1;
use v1::alert::State;

use super::explain::{Evaluated, Evaluation};
use super::labels::{Fingerprint, Labels};
use super::life::Transition;
use super::notice::{Alert, Notice};
use super::rule::Setting;

/// What is said of an alert beside what it says itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct HeldBack {
    pub(crate) silenced: bool,
    pub(crate) by: Option<Fingerprint>,
}

pub(crate) fn alert(alert: Alert, held_back: HeldBack) -> v1::Alert {
    let state = match alert.state {
        Transition::Pending => State::Pending,
        Transition::Firing => State::Firing,
        Transition::Resolved => State::Resolved,
    };
    v1::Alert {
        fingerprint: alert.fingerprint.0,
        state: state.into(),
        labels: of_labels(&alert.labels),
        annotations: alert.annotations.into_iter().collect(),
        value: alert.value,
        threshold: alert.threshold,
        starts_at_unix_ns: alert.starts_at_unix_ns,
        ends_at_unix_ns: alert.ends_at_unix_ns,
        silenced: held_back.silenced,
        inhibited_by: held_back.by.map(|id| id.0),
    }
}

/// `None`: an agent of another release says something of it that is not known here.
pub(crate) fn notice(alert: v1::Alert) -> Option<Notice> {
    let transition = match alert.state() {
        State::Pending => Transition::Pending,
        State::Firing => Transition::Firing,
        State::Resolved => Transition::Resolved,
        State::Unspecified => return None,
    };
    let mut labels = Labels::default();
    alert.labels.iter().for_each(|(name, value)| labels.set(name, value));
    let alert = Alert {
        fingerprint: Fingerprint(alert.fingerprint),
        labels,
        annotations: alert.annotations.into_iter().collect::<BTreeMap<_, _>>(),
        value: alert.value,
        threshold: alert.threshold,
        starts_at_unix_ns: alert.starts_at_unix_ns,
        ends_at_unix_ns: alert.ends_at_unix_ns,
        state: transition,
        resource: None,
    };
    Some(Notice { transition, alert })
}

/// `target` is where it looked; empty where there is no choice.
pub(crate) fn evaluation(target: &str, setting: &Setting, evaluation: &Evaluation) -> v1::Evaluation {
    v1::Evaluation {
        target: target.to_owned(),
        at_unix_ns: evaluation.at_unix_ns,
        severity: setting.severity.name().to_owned(),
        threshold: setting.threshold,
        readings: evaluation.readings.iter().map(reading).collect(),
        missing: evaluation.missing.clone().unwrap_or_default(),
    }
}

fn reading(read: &Evaluated) -> v1::EvaluatedReading {
    v1::EvaluatedReading {
        labels: of_labels(&read.labels),
        value: read.value,
        phase: read.phase.to_owned(),
        remaining_ns: read.remaining_ns,
        held_back: read.held_back.clone().unwrap_or_default(),
    }
}

fn of_labels(labels: &Labels) -> HashMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_arrives() {
        for transition in [Transition::Pending, Transition::Firing, Transition::Resolved] {
            let sent = crate::sinks::fixture::notice("TaskSlowPoll", "a \"b\"", transition);
            let held_back = HeldBack { silenced: true, by: Some(Fingerprint(7)) };
            let wire = alert(sent.alert.clone(), held_back);
            assert_eq!((wire.silenced, wire.inhibited_by), (true, Some(7)));
            assert_eq!(notice(wire), Some(sent));
        }
        assert_eq!(notice(v1::Alert::default()), None);
    }
}
