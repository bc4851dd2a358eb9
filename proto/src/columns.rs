//! Task rows to columns and back.

use crate::ids::{GroupId, RuntimeId, Sid, TaskId};
use crate::row::{CancelRequest, TaskRow, Wakes};
use crate::strings::Strings;
use crate::v1::{Outcome, TaskClass, TaskKind, TaskRows, TaskState};

/// One row whose texts are still ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawRow {
    pub id: TaskId,
    pub kind: TaskKind,
    pub state: TaskState,
    pub outcome: Outcome,
    pub name: Sid,
    pub label: Sid,
    pub group: GroupId,
    pub spawned_at: Sid,
    pub runtime: RuntimeId,
    pub polls: u64,
    pub busy_ns: u64,
    pub scheduled_ns: Option<u64>,
    pub idle_ns: Option<u64>,
    pub age_ns: u64,
    pub since_ns: u64,
    pub longest_poll_ns: u64,
    pub wakes: Option<Wakes>,
    pub cancel: Option<CancelRequest>,
    pub class: TaskClass,
    pub reason: Sid,
    pub fields: Sid,
}

/// Columns that do not fit together: a sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed task rows: column {column} holds {found} values for {expected} rows")]
pub struct Malformed {
    pub column: &'static str,
    pub found: usize,
    pub expected: usize,
}

fn plus_one(value: Option<u64>) -> u64 {
    value.map_or(0, |value| value.saturating_add(1))
}

/// Appends `row` to every column.
pub fn push(rows: &mut TaskRows, row: &RawRow) {
    rows.id.push(row.id.0);
    rows.kind.push(row.kind.into());
    rows.state.push(row.state.into());
    rows.outcome.push(row.outcome.into());
    rows.name_sid.push(row.name.0);
    rows.label_sid.push(row.label.0);
    rows.group_id.push(row.group.0);
    rows.spawned_at_sid.push(row.spawned_at.0);
    rows.runtime_id.push(row.runtime.0);
    rows.polls.push(row.polls);
    rows.busy_ns.push(row.busy_ns);
    rows.scheduled_ns_plus1.push(plus_one(row.scheduled_ns));
    rows.idle_ns_plus1.push(plus_one(row.idle_ns));
    rows.age_ns.push(row.age_ns);
    rows.since_ns.push(row.since_ns);
    rows.longest_poll_ns.push(row.longest_poll_ns);
    rows.wakes_plus1.push(plus_one(row.wakes.map(|wakes| wakes.total)));
    rows.self_wakes_plus1.push(plus_one(row.wakes.map(|wakes| wakes.by_itself)));
    rows.woken_by.push(row.wakes.and_then(|wakes| wakes.by).map_or(0, |task| task.0));
    rows.wakers_plus1.push(plus_one(row.wakes.map(|wakes| wakes.wakers)));
    rows.cancel_ns_plus1.push(plus_one(row.cancel.map(|cancel| cancel.since_ns)));
    rows.polls_since_cancel.push(row.cancel.map_or(0, |cancel| cancel.polls));
    rows.wakes_since_cancel.push(row.cancel.map_or(0, |cancel| cancel.wakes));
    rows.task_class.push(row.class.into());
    rows.reason_sid.push(row.reason.0);
    rows.fields_sid.push(row.fields.0);
}

/// Keeps the first `len` rows.
pub fn truncate(rows: &mut TaskRows, len: usize) {
    rows.id.truncate(len);
    rows.kind.truncate(len);
    rows.state.truncate(len);
    rows.outcome.truncate(len);
    rows.name_sid.truncate(len);
    rows.label_sid.truncate(len);
    rows.group_id.truncate(len);
    rows.spawned_at_sid.truncate(len);
    rows.runtime_id.truncate(len);
    rows.polls.truncate(len);
    rows.busy_ns.truncate(len);
    rows.scheduled_ns_plus1.truncate(len);
    rows.idle_ns_plus1.truncate(len);
    rows.age_ns.truncate(len);
    rows.since_ns.truncate(len);
    rows.longest_poll_ns.truncate(len);
    rows.wakes_plus1.truncate(len);
    rows.self_wakes_plus1.truncate(len);
    rows.woken_by.truncate(len);
    rows.wakers_plus1.truncate(len);
    rows.cancel_ns_plus1.truncate(len);
    rows.polls_since_cancel.truncate(len);
    rows.wakes_since_cancel.truncate(len);
    rows.task_class.truncate(len);
    rows.reason_sid.truncate(len);
    rows.fields_sid.truncate(len);
}

/// Keeps the rows whose position `keep` says yes to. Asked once for each row, in order.
pub fn retain(rows: &mut TaskRows, mut keep: impl FnMut(usize) -> bool) {
    let kept: Vec<bool> = (0..rows.id.len()).map(&mut keep).collect();
    fn column<T>(column: &mut Vec<T>, kept: &[bool]) {
        let mut kept = kept.iter();
        // A column may be empty, and one that is too long is malformed anyway.
        column.retain(|_| kept.next().copied().unwrap_or_default());
    }
    column(&mut rows.id, &kept);
    column(&mut rows.kind, &kept);
    column(&mut rows.state, &kept);
    column(&mut rows.outcome, &kept);
    column(&mut rows.name_sid, &kept);
    column(&mut rows.label_sid, &kept);
    column(&mut rows.group_id, &kept);
    column(&mut rows.spawned_at_sid, &kept);
    column(&mut rows.runtime_id, &kept);
    column(&mut rows.polls, &kept);
    column(&mut rows.busy_ns, &kept);
    column(&mut rows.scheduled_ns_plus1, &kept);
    column(&mut rows.idle_ns_plus1, &kept);
    column(&mut rows.age_ns, &kept);
    column(&mut rows.since_ns, &kept);
    column(&mut rows.longest_poll_ns, &kept);
    column(&mut rows.wakes_plus1, &kept);
    column(&mut rows.self_wakes_plus1, &kept);
    column(&mut rows.woken_by, &kept);
    column(&mut rows.wakers_plus1, &kept);
    column(&mut rows.cancel_ns_plus1, &kept);
    column(&mut rows.polls_since_cancel, &kept);
    column(&mut rows.wakes_since_cancel, &kept);
    column(&mut rows.task_class, &kept);
    column(&mut rows.reason_sid, &kept);
    column(&mut rows.fields_sid, &kept);
}

/// The rows in their order, texts resolved. An enum value of a newer sender reads as unspecified.
pub fn decode<'a>(
    rows: &'a TaskRows,
    strings: &'a Strings,
) -> Result<impl Iterator<Item = TaskRow> + 'a, Malformed> {
    let len = rows.id.len();
    let check = |column: &'static str, found: usize| {
        if found == len || found == 0 { Ok(()) } else { Err(Malformed { column, found, expected: len }) }
    };
    check("kind", rows.kind.len())?;
    check("state", rows.state.len())?;
    check("outcome", rows.outcome.len())?;
    check("name_sid", rows.name_sid.len())?;
    check("label_sid", rows.label_sid.len())?;
    check("group_id", rows.group_id.len())?;
    check("spawned_at_sid", rows.spawned_at_sid.len())?;
    check("runtime_id", rows.runtime_id.len())?;
    check("polls", rows.polls.len())?;
    check("busy_ns", rows.busy_ns.len())?;
    check("scheduled_ns_plus1", rows.scheduled_ns_plus1.len())?;
    check("idle_ns_plus1", rows.idle_ns_plus1.len())?;
    check("age_ns", rows.age_ns.len())?;
    check("since_ns", rows.since_ns.len())?;
    check("longest_poll_ns", rows.longest_poll_ns.len())?;
    check("wakes_plus1", rows.wakes_plus1.len())?;
    check("self_wakes_plus1", rows.self_wakes_plus1.len())?;
    check("woken_by", rows.woken_by.len())?;
    check("wakers_plus1", rows.wakers_plus1.len())?;
    check("cancel_ns_plus1", rows.cancel_ns_plus1.len())?;
    check("polls_since_cancel", rows.polls_since_cancel.len())?;
    check("wakes_since_cancel", rows.wakes_since_cancel.len())?;
    check("task_class", rows.task_class.len())?;
    check("reason_sid", rows.reason_sid.len())?;
    check("fields_sid", rows.fields_sid.len())?;
    let row = move |at: usize| {
        let small = |column: &[u32]| column.get(at).copied().unwrap_or_default();
        let large = |column: &[u64]| column.get(at).copied().unwrap_or_default();
        let choice = |column: &[i32]| column.get(at).copied().unwrap_or_default();
        TaskRow {
            id: TaskId(large(&rows.id)),
            kind: TaskKind::try_from(choice(&rows.kind)).unwrap_or_default(),
            state: TaskState::try_from(choice(&rows.state)).unwrap_or_default(),
            outcome: Outcome::try_from(choice(&rows.outcome)).unwrap_or_default(),
            name: strings.text(Sid(small(&rows.name_sid))).to_owned(),
            label: strings.text(Sid(small(&rows.label_sid))).to_owned(),
            group: GroupId(small(&rows.group_id)),
            spawned_at: strings.text(Sid(small(&rows.spawned_at_sid))).to_owned(),
            runtime: RuntimeId(small(&rows.runtime_id)),
            polls: large(&rows.polls),
            busy_ns: large(&rows.busy_ns),
            scheduled_ns: large(&rows.scheduled_ns_plus1).checked_sub(1),
            idle_ns: large(&rows.idle_ns_plus1).checked_sub(1),
            age_ns: large(&rows.age_ns),
            since_ns: large(&rows.since_ns),
            longest_poll_ns: large(&rows.longest_poll_ns),
            wakes: large(&rows.wakes_plus1).checked_sub(1).map(|total| Wakes {
                total,
                by_itself: large(&rows.self_wakes_plus1).saturating_sub(1),
                by: Some(TaskId(large(&rows.woken_by))).filter(|task| task.0 != 0),
                wakers: large(&rows.wakers_plus1).saturating_sub(1),
            }),
            cancel: large(&rows.cancel_ns_plus1).checked_sub(1).map(|since_ns| CancelRequest {
                since_ns,
                polls: large(&rows.polls_since_cancel),
                wakes: large(&rows.wakes_since_cancel),
            }),
            class: TaskClass::try_from(choice(&rows.task_class)).unwrap_or_default(),
            reason: strings.text(Sid(small(&rows.reason_sid))).to_owned(),
            fields: strings.text(Sid(small(&rows.fields_sid))).to_owned(),
        }
    };
    Ok((0..len).map(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::InternedString;

    #[test]
    fn absent_and_zero_stay_apart() {
        let mut rows = TaskRows::default();
        let row = RawRow {
            id: TaskId(9),
            kind: TaskKind::Wrapped,
            state: TaskState::Idle,
            outcome: Outcome::Unspecified,
            name: Sid(1),
            label: Sid(0),
            group: GroupId(2),
            spawned_at: Sid(0),
            runtime: RuntimeId(1),
            polls: 0,
            busy_ns: 0,
            scheduled_ns: Some(0),
            idle_ns: None,
            age_ns: 5,
            since_ns: 5,
            longest_poll_ns: 0,
            wakes: Some(Wakes { total: 3, by_itself: 0, by: None, wakers: 0 }),
            cancel: None,
            class: TaskClass::Daemon,
            reason: Sid(0),
            fields: Sid(0),
        };
        push(&mut rows, &row);
        let mut strings = Strings::default();
        strings.extend(&[InternedString { sid: 1, text: "mailer".into() }]);
        let decoded: Vec<TaskRow> = decode(&rows, &strings).expect("columns fit").collect();
        assert_eq!((decoded[0].scheduled_ns, decoded[0].idle_ns), (Some(0), None));
        assert_eq!((decoded[0].wakes, decoded[0].cancel), (row.wakes, None));
        assert_eq!((decoded[0].name.as_str(), decoded[0].spawned_at.as_str()), ("mailer", ""));
    }

    #[test]
    fn rows_that_are_kept_are_kept_in_every_column_that_is_there() {
        let mut rows = TaskRows { id: vec![1, 2, 3], polls: vec![10, 20, 30], ..TaskRows::default() };
        retain(&mut rows, |at| at != 1);
        assert_eq!(rows, TaskRows { id: vec![1, 3], polls: vec![10, 30], ..TaskRows::default() });
    }

    #[test]
    fn columns_that_do_not_fit_are_refused_by_name() {
        let rows = TaskRows { id: vec![1, 2], polls: vec![1], ..TaskRows::default() };
        let strings = Strings::default();
        let error = decode(&rows, &strings).err();
        assert_eq!(error, Some(Malformed { column: "polls", found: 1, expected: 2 }));
    }
}
