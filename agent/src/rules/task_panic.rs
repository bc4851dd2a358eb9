//! A task died within the last [`RECENT_NS`]: by panic, or with an error that nobody awaited. That it died silently is said
//! only where it is known: of a task that was spawned without a handle.

use taskscope_proto::v1::{self, event::Kind};
use taskscope_proto::words;

use super::{Finding, Severity};
use crate::model::Model;

const RECENT_NS: u64 = 60_000_000_000;
/// Characters of a message that a sentence has room for.
const MESSAGE: usize = 120;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let is_death = |event: &&v1::Event| matches!(event.kind(), Kind::TaskPanic | Kind::TaskFailed);
    let is_recent = |event: &&v1::Event| event.at_ns + RECENT_NS > model.frame.at_ns;
    let died: Vec<&v1::Event> = model.events.iter().filter(is_death).filter(is_recent).collect();
    let Some(last) = died.last() else { return vec![] };
    let ago = words::duration(model.frame.at_ns.saturating_sub(last.at_ns));
    let others = match died.len() {
        1 => String::new(),
        n => format!(" {} more died in the last minute.", n - 1),
    };
    vec![Finding {
        severity: Severity::Warning,
        sentence: format!("{}.{others}", death(model, last, &format!(" {ago} ago"))),
    }]
}

/// `DIED SILENTLY 12 s ago: audit-writer panicked at src/audit.rs:88; nobody awaited it`, and what it said. `when` is empty or
/// begins with a space.
pub(crate) fn death(model: &Model, event: &v1::Event, when: &str) -> String {
    let reason = model.text(event.reason_sid);
    // An event of this kind tells of a detached task only.
    let failed = event.kind() == Kind::TaskFailed;
    let (silently, nobody) =
        if event.detached || failed { (" SILENTLY", "; nobody awaited it") } else { ("", "") };
    let poll = event.poll.clone().unwrap_or_default();
    let site = model.some_text(poll.spawned_at_sid);
    let (message, place) = if failed { (reason, None) } else { parts(reason) };
    let who = match (model.some_text(poll.name_sid), site) {
        (Some(name), Some(site)) if place.is_none() && !failed => format!("{name} (spawned at {site})"),
        (Some(name), _) => name.to_owned(),
        (None, Some(site)) => format!("a task spawned at {site}"),
        (None, None) => format!("task {}", poll.task_id),
    };
    let start = format!("DIED{silently}{when}: {who}");
    match (failed, place) {
        (true, _) if message.is_empty() => format!("{start} failed{nobody}"),
        (true, _) => format!("{start} failed: {}{nobody}", shortened(message)),
        (false, place) => {
            let at = place.map_or(String::new(), |place| format!(" at {}", without_column(place)));
            let said =
                if message.is_empty() { String::new() } else { format!(". It said: {}", shortened(message)) };
            format!("{start} panicked{at}{nobody}{said}")
        }
    }
}

/// Message and place of a panic's reason, which is `MESSAGE, at PLACE`, `at PLACE` or only a message.
fn parts(reason: &str) -> (&str, Option<&str>) {
    match reason.rsplit_once(", at ") {
        Some((message, place)) => (message, Some(place)),
        None => match reason.strip_prefix("at ") {
            Some(place) => ("", Some(place)),
            None => (reason, None),
        },
    }
}

/// `src/audit.rs:88:9` → `src/audit.rs:88`.
fn without_column(place: &str) -> &str {
    place.rsplit_once(':').map_or(place, |(line, _)| line)
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE) {
        Some((end, _)) => format!("{}…", message[..end].trim_end()),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{S, model, sentences};
    use super::*;

    const INDEX: u32 = 50;
    const ONLY_PLACE: u32 = 51;
    const REFUSED: u32 = 52;
    const LONG: u32 = 53;

    fn died(seq: u64, kind: Kind, name_sid: u32, reason_sid: u32, detached: bool) -> v1::Event {
        v1::Event {
            seq,
            at_ns: 88 * S,
            kind: kind.into(),
            poll: Some(v1::LivePoll { task_id: 17, name_sid, spawned_at_sid: 4, ..Default::default() }),
            reason_sid,
            detached,
            ..Default::default()
        }
    }

    fn said(events: Vec<v1::Event>) -> String {
        let long = format!("{}, at src/mail.rs:9:1", "é".repeat(200));
        let texts = [
            (INDEX, "index out of bounds: the len is 3 but the index is 7, at src/audit.rs:88:9"),
            (ONLY_PLACE, "at src/mail.rs:12:5"),
            (REFUSED, "connection refused, at least once"),
            (LONG, &long),
        ];
        let mut model = model(v1::Frame::default());
        let strings = texts.map(|(sid, text)| v1::InternedString { sid, text: text.into() }).to_vec();
        model.apply(v1::Frame { strings, events, at_ns: 100 * S, ..Default::default() });
        let found = check(&model);
        sentences(&found).join("\n")
    }

    #[test]
    fn a_detached_task_died_silently() {
        assert_eq!(
            said(vec![died(1, Kind::TaskPanic, 3, INDEX, true)]),
            "DIED SILENTLY 12 s ago: mailer panicked at src/audit.rs:88; nobody awaited it. It said: index out of \
             bounds: the len is 3 but the index is 7."
        );
        assert_eq!(
            said(vec![died(1, Kind::TaskPanic, 3, ONLY_PLACE, true)]),
            "DIED SILENTLY 12 s ago: mailer panicked at src/mail.rs:12; nobody awaited it."
        );
    }

    #[test]
    fn an_error_that_nobody_awaited_is_told_with_its_text() {
        assert_eq!(
            said(vec![died(1, Kind::TaskFailed, 3, REFUSED, false)]),
            "DIED SILENTLY 12 s ago: mailer failed: connection refused, at least once; nobody awaited it."
        );
        assert_eq!(
            said(vec![died(1, Kind::TaskFailed, 0, 0, false)]),
            "DIED SILENTLY 12 s ago: a task spawned at src/mail.rs:7:5 failed; nobody awaited it."
        );
    }

    #[test]
    fn where_a_handle_was_given_nothing_is_said_about_who_awaits() {
        assert_eq!(
            said(vec![died(1, Kind::TaskPanic, 0, ONLY_PLACE, false)]),
            "DIED 12 s ago: a task spawned at src/mail.rs:7:5 panicked at src/mail.rs:12."
        );
        assert_eq!(
            said(vec![died(1, Kind::TaskPanic, 3, 0, false)]),
            "DIED 12 s ago: mailer (spawned at src/mail.rs:7:5) panicked."
        );
    }

    #[test]
    fn a_long_message_is_shortened() {
        let said = said(vec![died(1, Kind::TaskPanic, 3, LONG, true)]);
        assert!(said.ends_with(&format!("It said: {}….", "é".repeat(MESSAGE))), "{said}");
    }

    #[test]
    fn deaths_are_told_for_a_minute() {
        let long_ago = v1::Event { at_ns: S, ..died(1, Kind::TaskPanic, 3, INDEX, true) };
        assert_eq!(said(vec![long_ago.clone()]), "");
        let both = said(vec![
            long_ago,
            died(2, Kind::TaskPanic, 3, INDEX, true),
            died(3, Kind::TaskFailed, 3, REFUSED, true),
        ]);
        assert!(
            both.contains("mailer failed") && both.ends_with("it. 1 more died in the last minute."),
            "{both}"
        );
    }
}
