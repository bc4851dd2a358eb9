//! A poll of at least [`STALL_NS`] ended within the last [`RECENT_NS`]: nothing is wrong now, but something was.

use taskscope_proto::v1::{self, event::Kind};
use taskscope_proto::words;

use super::{Finding, Severity, doing, what};
use crate::model::Model;

const STALL_NS: u64 = 500_000_000;
const RECENT_NS: u64 = 60_000_000_000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let stalls: Vec<(&v1::Event, &v1::LivePoll)> = model
        .events
        .iter()
        .filter(|event| event.kind() == Kind::PollSlow && event.at_ns + RECENT_NS > model.frame.at_ns)
        .filter_map(|event| Some((event, event.poll.as_ref()?)))
        .filter(|(_, poll)| poll.since_ns >= STALL_NS)
        .collect();
    let Some((event, longest)) = stalls.iter().max_by_key(|(_, poll)| poll.since_ns) else { return vec![] };
    let ago = words::duration(model.frame.at_ns.saturating_sub(event.at_ns));
    let polls = if stalls.len() == 1 { "1 poll".to_owned() } else { format!("{} polls", stalls.len()) };
    let doing = doing(model, longest).map_or(String::new(), |doing| format!(", {doing}"));
    let line = model.line(longest).map_or(String::new(), |line| format!(", {line}"));
    let sentence = format!(
        "earlier: {polls} of half a second or more in the last minute; the longest took {}, in {}{doing}{line}, and ended {ago} \
         ago.",
        words::duration(longest.since_ns),
        what(model, longest)
    );
    vec![Finding { severity: Severity::Note, sentence }]
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MS, S, model, poll, sentences};
    use super::*;

    #[test]
    fn a_stall_that_is_over_is_a_note() {
        let slow = |seq, at_ns, since_ns| v1::Event {
            seq,
            at_ns,
            kind: Kind::PollSlow.into(),
            poll: Some(poll(since_ns)),
            ..Default::default()
        };
        let events = vec![slow(1, 2 * S, 9 * S), slow(2, 80 * S, 200 * MS), slow(3, 88 * S, 5 * S)];
        let found = check(&model(v1::Frame { events, ..Default::default() }));
        assert_eq!(
            sentences(&found),
            [
                "earlier: 1 poll of half a second or more in the last minute; the longest took 5.0 s, in POST /resize, \
              asleep in clock_nanosleep, and ended 12 s ago."
            ]
        );
        assert_eq!(found[0].severity, Severity::Note);
    }
}
