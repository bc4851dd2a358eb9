//! The whole process stood still within the last [`RECENT_NS`]: nothing is wrong with its code, but whoever waited for it
//! wants to know.

use taskscope_proto::v1::{self, event::Kind};
use taskscope_proto::words;

use super::{Finding, Severity};
use crate::model::Model;

const RECENT_NS: u64 = 60_000_000_000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let pauses: Vec<(&v1::Event, u64)> = model
        .events
        .iter()
        .filter(|event| event.kind() == Kind::ProcessPaused && event.at_ns + RECENT_NS > model.frame.at_ns)
        .filter_map(|event| Some((event, event.paused_ns?)))
        .collect();
    let Some(&(last, paused_ns)) = pauses.last() else { return vec![] };
    let ago = words::duration(model.frame.at_ns.saturating_sub(last.at_ns));
    let before = match pauses.len() {
        1 => String::new(),
        n => {
            let total = words::duration(pauses.iter().map(|(_, ns)| ns).sum());
            format!("; {n} pauses of {total} in all in the last minute")
        }
    };
    vec![Finding {
        severity: Severity::Note,
        sentence: format!(
            "earlier: process paused {}, until {ago} ago (SIGSTOP, a debugger, a paused machine or suspend){before}; no \
             poll is blamed for it.",
            words::duration(paused_ns)
        ),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MS, S, model, sentences};
    use super::*;

    fn paused(seq: u64, at_ns: u64, paused_ns: u64) -> v1::Event {
        v1::Event {
            seq,
            at_ns,
            kind: Kind::ProcessPaused.into(),
            paused_ns: Some(paused_ns),
            ..Default::default()
        }
    }

    #[test]
    fn a_pause_is_a_note_for_a_minute() {
        let one = model(v1::Frame { events: vec![paused(1, 70 * S, 12 * S)], ..Default::default() });
        let found = check(&one);
        assert_eq!(
            sentences(&found),
            [
                "earlier: process paused 12 s, until 30 s ago (SIGSTOP, a debugger, a paused machine or suspend); no poll is \
              blamed for it."
            ]
        );
        assert_eq!(found[0].severity, Severity::Note);
        let old = model(v1::Frame { events: vec![paused(1, 40 * S, 12 * S)], ..Default::default() });
        assert!(check(&old).is_empty());
    }

    #[test]
    fn several_are_told_as_one() {
        let events = vec![paused(1, 70 * S, 2 * S), paused(2, 95 * S, 300 * MS)];
        let found = check(&model(v1::Frame { events, ..Default::default() }));
        assert_eq!(
            sentences(&found),
            [
                "earlier: process paused 300 ms, until 5.0 s ago (SIGSTOP, a debugger, a paused machine or suspend); 2 \
              pauses of 2.3 s in all in the last minute; no poll is blamed for it."
            ]
        );
    }
}
