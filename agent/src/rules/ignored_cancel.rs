//! A task was asked to stop, at least [`LONG_NS`] ago, and has not finished. Seen of tasks whose rows came: [`mod@crate::why`] asks
//! for those of such tasks.

use std::collections::BTreeMap;

use taskscope_proto::row::TaskRow;
use taskscope_proto::v1::TaskState;
use taskscope_proto::words;

use super::{Finding, Severity, who};
use crate::model::Model;

/// A task that ends something in good order may take a while.
pub(crate) const LONG_NS: u64 = 5_000_000_000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    // Rows that cannot be read are told by whoever shows them.
    let rows = model.rows().unwrap_or_default();
    let deaf = rows.into_iter().filter(|row| row.state != TaskState::Ended);
    let mut groups: BTreeMap<(&str, &str), Vec<(&TaskRow, u64)>> = BTreeMap::new();
    for (row, since_ns) in deaf.filter_map(|row| Some((row, row.cancel?.since_ns))) {
        if since_ns >= LONG_NS {
            groups.entry((&row.name, &row.spawned_at)).or_default().push((row, since_ns));
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.iter_mut().for_each(|rows| rows.sort_by_key(|(_, since_ns)| std::cmp::Reverse(*since_ns)));
    groups.sort_by_key(|rows| std::cmp::Reverse(rows[0].1));
    let finding = |rows: Vec<_>| Finding { severity: Severity::Warning, sentence: sentence(&rows) };
    groups.into_iter().map(finding).collect()
}

/// Of tasks of one kind, with how long ago each was asked, the longest first. There is one at least.
pub(crate) fn sentence(rows: &[(&TaskRow, u64)]) -> String {
    let (row, since_ns) = rows[0];
    let others = match rows.len() {
        1 => String::new(),
        n => format!(" {} more of them do the same.", n - 1),
    };
    format!(
        "IGNORES CANCEL {}: {} was asked to stop and goes on: {}.{others} Do: let it await what the request cancels, or end its \
         loop when it is asked to stop.",
        words::duration(since_ns),
        who(row),
        verdict(row)
    )
}

/// What it did since it was asked.
fn verdict(row: &TaskRow) -> String {
    let Some(asked) = row.cancel else { return String::new() };
    let times = |n: u64| if n == 1 { "once".to_owned() } else { format!("{} times", words::count(n)) };
    let in_poll = row.state == TaskState::Running && row.since_ns >= asked.since_ns;
    match (asked.polls, asked.wakes) {
        _ if in_poll => "it has been in one poll since before".to_owned(),
        (0, 0) => "it was neither woken nor polled since".to_owned(),
        (0, wakes) => format!("it was woken {} and not polled since", times(wakes)),
        (polls, 0) => format!("it was polled {} since", times(polls)),
        (polls, wakes) => format!("it was woken {} and polled {} since", times(wakes), times(polls)),
    }
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::super::fixture::{S, model, sentences};
    use super::*;

    #[test]
    fn a_task_that_goes_on_for_five_seconds_is_told_and_one_that_ended_or_may_still_end_is_not() {
        let (idle, ended) = (TaskState::Idle.into(), TaskState::Ended.into());
        let columns = v1::TaskRows {
            id: vec![7, 8, 9, 10, 11],
            state: vec![idle, idle, idle, ended, idle],
            name_sid: vec![3, 3, 5, 5, 5],
            cancel_ns_plus1: vec![6 * S + 1, 9 * S + 1, 4 * S + 1, 30 * S + 1, 0],
            polls_since_cancel: vec![25; 5],
            wakes_since_cancel: vec![24; 5],
            ..Default::default()
        };
        let window = v1::TaskWindow { order: columns.id.clone(), rows: Some(columns), ..Default::default() };
        let found = check(&model(v1::Frame { resync: true, tasks: Some(window), ..Default::default() }));
        assert_eq!(
            sentences(&found),
            [
                "IGNORES CANCEL 9.0 s: task mailer was asked to stop and goes on: it was woken 24 times and polled 25 times \
                 since. 1 more of them do the same. Do: let it await what the request cancels, or end its loop when it is asked \
                 to stop."
            ]
        );
        assert_eq!(check(&model(v1::Frame::default())), []);
    }
}
