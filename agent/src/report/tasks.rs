//! `taskscope tasks` and `taskscope pending`.

use serde::Serialize;
use taskscope_proto::row::{TaskRow, class_word, kind_word, outcome_word, state_word};
use taskscope_proto::v1::{self, SortKey};
use taskscope_proto::words;

use super::{json_line, table};
use crate::model::Model;

#[derive(Serialize)]
struct Task<'a> {
    id: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    label: &'a str,
    kind: &'static str,
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    spawned_at: &'a str,
    state: &'static str,
    polls: u64,
    busy_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_ns: Option<u64>,
    age_ns: u64,
    since_ns: u64,
    longest_poll_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// These four only where its wakes are seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    wakes: Option<u64>,
    /// By the task itself, inside its own polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    self_wakes: Option<u64>,
    /// The task whose poll woke it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    woken_by: Option<u64>,
    /// Held somewhere; 0 on an idle task: nothing can wake it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    wakers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel: Option<Cancel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    fields: &'a str,
    /// Of an ended task: message and place of its panic, or the text of its error.
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

/// It was asked to stop.
#[derive(Serialize)]
struct Cancel {
    since_ns: u64,
    /// Since then, as the wakes.
    polls: u64,
    /// Where its wakes are seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    wakes: Option<u64>,
}

/// Terms that leave only what waits.
const PENDING: &str = "state!=running state!=ended";

/// What to ask for. `pending` leaves out what runs, and sorts by the time in the present state unless told otherwise.
pub(crate) fn request(
    filter: &str,
    sort: Option<SortKey>,
    ascending: bool,
    limit: u32,
    pending: bool,
) -> v1::WatchRequest {
    let default = if pending { SortKey::SortSince } else { SortKey::SortAge };
    let filter = if pending { format!("{PENDING} {filter}") } else { filter.to_owned() };
    v1::WatchRequest {
        tasks: Some(v1::TaskQuery {
            filter,
            sort: sort.unwrap_or(default).into(),
            ascending,
            limit,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The name of its group: the task's name, else its spawn site, else `other`.
fn group(row: &TaskRow) -> &str {
    [row.name.as_str(), row.spawned_at.as_str()].into_iter().find(|text| !text.is_empty()).unwrap_or("other")
}

pub(crate) fn json(model: &Model) -> anyhow::Result<String> {
    model.rows()?.into_iter().map(json_row).collect()
}

fn json_row(row: &TaskRow) -> anyhow::Result<String> {
    json_line(&Task {
        id: row.id.0,
        name: &row.name,
        label: &row.label,
        kind: kind_word(row.kind),
        group: group(row),
        spawned_at: &row.spawned_at,
        state: state_word(row.state),
        polls: row.polls,
        busy_ns: row.busy_ns,
        scheduled_ns: row.scheduled_ns,
        idle_ns: row.idle_ns,
        age_ns: row.age_ns,
        since_ns: row.since_ns,
        longest_poll_ns: row.longest_poll_ns,
        outcome: outcome_word(row.outcome),
        wakes: row.wakes.map(|wakes| wakes.total),
        self_wakes: row.wakes.map(|wakes| wakes.by_itself),
        woken_by: row.wakes.and_then(|wakes| wakes.by).map(|by| by.0),
        wakers: row.wakes.map(|wakes| wakes.wakers),
        cancel: row.cancel.map(|cancel| Cancel {
            since_ns: cancel.since_ns,
            polls: cancel.polls,
            wakes: row.wakes.map(|_| cancel.wakes),
        }),
        class: class_word(row.class),
        fields: &row.fields,
        reason: &row.reason,
    })
}

pub(crate) fn text(model: &Model) -> anyhow::Result<String> {
    let rows = model.rows()?;
    let titles =
        ["ID", "STATE", "FOR", "AGE", "POLLS", "BUSY", "SCHED", "LONGEST", "NAME", "LABEL", "SPAWNED AT"];
    let mut cells = vec![titles.map(str::to_owned).to_vec()];
    for row in &rows {
        let or_dash = |text: &str| if text.is_empty() { "–".to_owned() } else { words::printable(text) };
        cells.push(vec![
            id_words(row.id.0),
            outcome_word(row.outcome).unwrap_or(state_word(row.state)).to_owned(),
            words::duration(row.since_ns),
            words::duration(row.age_ns),
            words::count(row.polls),
            words::duration(row.busy_ns),
            row.scheduled_ns.map_or("–".to_owned(), words::duration),
            words::duration(row.longest_poll_ns),
            or_dash(&row.name),
            or_dash(&row.label),
            or_dash(&row.spawned_at),
        ]);
    }
    let mut out = table(&cells);
    let matching = model.matching();
    if matching > rows.len() as u64 {
        out.push_str(&format!("{} more match; hint: --limit\n", words::count(matching - rows.len() as u64)));
    }
    Ok(out)
}

/// The probe's own ids are told from Tokio's.
pub(super) fn id_words(id: u64) -> String {
    match id & taskscope_proto::ids::TaskId::OWN {
        0 => id.to_string(),
        own => format!("p{}", id & !own),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use taskscope_proto::ids::{GroupId, RuntimeId, TaskId};
    use taskscope_proto::row::{CancelRequest, Wakes};
    use taskscope_proto::v1::{Outcome, TaskClass, TaskKind, TaskState};

    use super::*;

    fn row() -> TaskRow {
        TaskRow {
            id: TaskId(7),
            kind: TaskKind::Task,
            state: TaskState::Idle,
            outcome: Outcome::Unspecified,
            name: String::new(),
            label: String::new(),
            group: GroupId(1),
            spawned_at: "src/mail.rs:7:5".to_owned(),
            runtime: RuntimeId(1),
            polls: 3,
            busy_ns: 5,
            scheduled_ns: None,
            idle_ns: None,
            age_ns: 90,
            since_ns: 60,
            longest_poll_ns: 4,
            wakes: None,
            cancel: None,
            class: TaskClass::Unspecified,
            reason: String::new(),
            fields: String::new(),
        }
    }

    fn shown(row: &TaskRow) -> Value {
        serde_json::from_str(&json_row(row).expect("it is written")).expect("it is JSON")
    }

    #[test]
    fn what_is_not_known_of_a_task_has_no_key() {
        let expected = json!({
            "id": 7, "kind": "task", "group": "src/mail.rs:7:5", "spawned_at": "src/mail.rs:7:5", "state": "idle",
            "polls": 3, "busy_ns": 5, "age_ns": 90, "since_ns": 60, "longest_poll_ns": 4,
        });
        assert_eq!(shown(&row()), expected);
    }

    #[test]
    fn wakes_a_request_to_stop_class_and_fields_are_told() {
        let wakes = Wakes { total: 12, by_itself: 0, by: Some(TaskId(9)), wakers: 0 };
        let wrapped = TaskRow {
            wakes: Some(wakes),
            cancel: Some(CancelRequest { since_ns: 50, polls: 0, wakes: 2 }),
            class: TaskClass::Critical,
            fields: "tenant=42".to_owned(),
            ..row()
        };
        let shown_row = shown(&wrapped);
        assert_eq!(
            (&shown_row["wakes"], &shown_row["self_wakes"], &shown_row["woken_by"], &shown_row["wakers"]),
            (&json!(12), &json!(0), &json!(9), &json!(0))
        );
        assert_eq!(shown_row["cancel"], json!({ "since_ns": 50, "polls": 0, "wakes": 2 }));
        assert_eq!((&shown_row["class"], &shown_row["fields"]), (&json!("critical"), &json!("tenant=42")));
        // Asked to stop through a handle, without its wakes being seen.
        let hooked = TaskRow { wakes: None, ..wrapped };
        assert_eq!(shown(&hooked)["cancel"], json!({ "since_ns": 50, "polls": 0 }));
    }
}
