//! `taskscope tasks` and `taskscope pending`.

use serde::Serialize;
use taskscope_proto::row::{TaskRow, kind_word, outcome_word, state_word};
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
    /// Of an ended task: message and place of its panic, or the text of its error.
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
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
    let rows = model.rows()?;
    let line = |row: &TaskRow| {
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
            reason: &row.reason,
        })
    };
    rows.into_iter().map(line).collect()
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
fn id_words(id: u64) -> String {
    match id & taskscope_proto::ids::TaskId::OWN {
        0 => id.to_string(),
        own => format!("p{}", id & !own),
    }
}
