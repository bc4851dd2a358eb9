//! The columns of task rows, on the tasks and on the pending screen.

use taskscope_proto::row::{TaskRow, state_word};
use taskscope_proto::v1::{Outcome, SortKey, TaskKind, TaskState};
use taskscope_proto::{row, words};

use super::{Align, Cell, Column, Context, Tone, Width, place_in_file};

type TaskColumn = Column<TaskRow, SortKey>;

const ID: TaskColumn = Column {
    title: "id",
    width: Width::Fixed(7),
    align: Align::Right,
    leaves: 0,
    cell: |row, _| if row.id.is_tokio() { Cell::new(row.id.to_string()) } else { Cell::new("own") },
    sort: Some(SortKey::SortId),
};

const NAME: TaskColumn = Column {
    title: "name",
    width: Width::Share { min: 16, weight: 4 },
    align: Align::Left,
    leaves: 0,
    cell: name,
    sort: None,
};

const STATE: TaskColumn = Column {
    title: "state",
    width: Width::Fixed(9),
    align: Align::Left,
    leaves: 1,
    cell: |row, _| state(row),
    sort: None,
};

const SINCE: TaskColumn = Column {
    title: "since",
    width: Width::Fixed(6),
    align: Align::Right,
    leaves: 4,
    cell: |row, cx| {
        let stuck = row.state == TaskState::Running && cx.is_slow(row.since_ns);
        Cell::duration(Some(row.since_ns)).tone_if(stuck, Tone::Critical)
    },
    sort: Some(SortKey::SortSince),
};

/// The same number on the pending screen, where it is what the screen is about.
const WAITING: TaskColumn = Column {
    title: "waiting",
    leaves: 0,
    cell: |row, _| Cell::duration(Some(row.since_ns)).tone(Tone::Strong),
    width: Width::Fixed(8),
    ..SINCE
};

const AGE: TaskColumn = Column {
    title: "age",
    width: Width::Fixed(6),
    align: Align::Right,
    leaves: 3,
    cell: |row, _| Cell::duration(Some(row.age_ns)),
    sort: Some(SortKey::SortAge),
};

const BUSY: TaskColumn = Column {
    title: "busy",
    width: Width::Fixed(6),
    align: Align::Right,
    leaves: 1,
    cell: |row, _| Cell::duration(Some(row.busy_ns)),
    sort: Some(SortKey::SortBusy),
};

const SCHEDULED: TaskColumn = Column {
    title: "sched",
    width: Width::Fixed(6),
    align: Align::Right,
    leaves: 7,
    cell: |row, _| Cell::duration(row.scheduled_ns),
    sort: Some(SortKey::SortScheduled),
};

const IDLE: TaskColumn = Column {
    title: "idle",
    width: Width::Fixed(6),
    align: Align::Right,
    leaves: 8,
    cell: |row, _| Cell::duration(row.idle_ns),
    sort: Some(SortKey::SortIdle),
};

const POLLS: TaskColumn = Column {
    title: "polls",
    width: Width::Fixed(6),
    align: Align::Right,
    leaves: 5,
    cell: |row, _| Cell::count(row.polls),
    sort: Some(SortKey::SortPolls),
};

const LONGEST: TaskColumn = Column {
    title: "longest",
    width: Width::Fixed(8),
    align: Align::Right,
    leaves: 6,
    cell: |row, cx| {
        if row.polls == 0 && row.longest_poll_ns == 0 {
            return Cell::unknown();
        }
        Cell::duration(Some(row.longest_poll_ns)).tone_if(cx.is_slow(row.longest_poll_ns), Tone::Warning)
    },
    sort: Some(SortKey::SortLongestPoll),
};

const WAKES: TaskColumn = Column {
    title: "wakes",
    width: Width::Fixed(6),
    align: Align::Right,
    leaves: 10,
    cell: |row, _| row.wakes.map_or_else(Cell::unknown, |wakes| Cell::new(words::count(wakes.total))),
    sort: Some(SortKey::SortWakes),
};

/// How long ago it was asked to stop.
const CANCEL: TaskColumn = Column {
    title: "cancel",
    width: Width::Fixed(6),
    align: Align::Right,
    leaves: 11,
    cell: |row, _| {
        Cell::duration(row.cancel.map(|it| it.since_ns)).tone_if(row.cancel.is_some(), Tone::Warning)
    },
    sort: Some(SortKey::SortCancel),
};

const LABEL: TaskColumn = Column {
    title: "label",
    width: Width::Share { min: 12, weight: 3 },
    align: Align::Left,
    leaves: 2,
    cell: |row, _| Cell::text(&row.label).tone_if(!row.label.is_empty(), Tone::Accent),
    sort: None,
};

const SPAWNED_AT: TaskColumn = Column {
    title: "spawned at",
    width: Width::Share { min: 14, weight: 4 },
    align: Align::Left,
    leaves: 9,
    cell: |row, _| Cell::place(place_in_file(&row.spawned_at)),
    sort: None,
};

pub(crate) const TASKS: &[TaskColumn] =
    &[ID, NAME, STATE, SINCE, AGE, BUSY, SCHEDULED, IDLE, POLLS, LONGEST, WAKES, CANCEL, LABEL, SPAWNED_AT];

pub(crate) const PENDING: &[TaskColumn] = &[WAITING, ID, NAME, STATE, AGE, BUSY, POLLS, LABEL, SPAWNED_AT];

/// Where the spawn site has no column of its own, it stands in for a name that is missing: marked as a place.
fn name(row: &TaskRow, cx: &Context<'_>) -> Cell {
    if !row.name.is_empty() {
        Cell::new(row.name.as_str()).tone(Tone::Strong)
    } else if row.kind == TaskKind::Main {
        Cell::new("main").tone(Tone::Strong)
    } else if cx.shows(SPAWNED_AT.title) || row.spawned_at.is_empty() {
        Cell::unknown()
    } else {
        Cell::at(&row.spawned_at)
    }
}

fn state(row: &TaskRow) -> Cell {
    match row.state {
        TaskState::Running => Cell::new("running").tone(Tone::Good),
        TaskState::Scheduled => Cell::new("scheduled").tone(Tone::Warning),
        TaskState::Ended if row.outcome == Outcome::Panicked => Cell::new("panicked").tone(Tone::Critical),
        TaskState::Ended => Cell::new(row::outcome_word(row.outcome).unwrap_or("ended")).tone(Tone::Quiet),
        TaskState::Idle => Cell::new("idle").tone(Tone::Quiet),
        TaskState::Unspecified => Cell::unknown(),
    }
}

/// Every field of a row, for the pane of details.
pub(crate) fn fields(row: &TaskRow, cx: &Context<'_>) -> Vec<(&'static str, Cell)> {
    let since = words::duration(row.since_ns);
    let state = match row::outcome_word(row.outcome) {
        Some(outcome) => format!("{} for {since}, {outcome}", state_word(row.state)),
        None => format!("{} for {since}", state_word(row.state)),
    };
    let id = if row.id.is_tokio() { row.id.to_string() } else { "of the probe's own".to_owned() };
    let share = |ns: u64| match row.age_ns {
        0 => String::new(),
        age => format!(", {:.0} % of age", ns as f64 / age as f64 * 100.0),
    };
    let known = |ns: Option<u64>| {
        ns.map_or_else(
            || Cell::new("– (wakes not seen)").tone(Tone::Quiet),
            |ns| Cell::new(format!("{}{}", words::duration(ns), share(ns))),
        )
    };
    let mut fields = vec![
        ("id", Cell::new(format!("{id}, {}", row::kind_word(row.kind)))),
        ("name", Cell::text(&row.name)),
        ("last label", Cell::text(&row.label)),
        ("spawned at", Cell::place(&row.spawned_at)),
        ("state", Cell::new(state)),
        ("age", Cell::duration(Some(row.age_ns))),
        ("busy", Cell::new(format!("{}{}", words::duration(row.busy_ns), share(row.busy_ns)))),
        ("scheduled", known(row.scheduled_ns)),
        ("idle", known(row.idle_ns)),
        ("polls", Cell::new(words::count(row.polls))),
        ("longest poll", (LONGEST.cell)(row, cx)),
        (
            "group",
            if row.group.0 == 0 { Cell::new("other") } else { Cell::new(format!("number {}", row.group)) },
        ),
        (
            "runtime",
            if row.runtime.0 == 0 { Cell::unknown() } else { Cell::new(format!("number {}", row.runtime)) },
        ),
    ];
    if let Some(wakes) = row.wakes {
        fields.extend([("wakes", wake_words(&wakes)), ("held wakers", wakers(row, wakes.wakers))]);
    }
    if let Some(cancel) = row.cancel {
        let wakes = row.wakes.map(|_| format!(", {} wakes", words::count(cancel.wakes))).unwrap_or_default();
        let since = format!(
            "{} ago; since then {} polls{wakes}",
            words::duration(cancel.since_ns),
            words::count(cancel.polls)
        );
        fields.insert(5, ("asked to stop", Cell::new(since).tone(Tone::Warning)));
    }
    if let Some(class) = row::class_word(row.class) {
        fields.push(("class", Cell::new(class)));
    }
    if !row.fields.is_empty() {
        fields.push(("fields", Cell::text(&row.fields)));
    }
    if !row.reason.is_empty() {
        fields.insert(5, ("reason", Cell::text(&row.reason).tone(Tone::Critical)));
    }
    fields
}

/// `12, 3 by itself, last by task 42`.
fn wake_words(wakes: &row::Wakes) -> Cell {
    let itself = match wakes.by_itself {
        0 => String::new(),
        some => format!(", {} by itself", words::count(some)),
    };
    let by = match wakes.by {
        Some(by) if by.is_tokio() => format!(", last by task {by}"),
        Some(_) => ", last by a task".to_owned(),
        None if wakes.total > 0 => ", last by no task".to_owned(),
        None => String::new(),
    };
    Cell::new(format!("{}{itself}{by}", words::count(wakes.total)))
}

fn wakers(row: &TaskRow, held: u64) -> Cell {
    if row.is_lost() {
        return Cell::new("lost waker: nothing can wake it any more").tone(Tone::Critical);
    }
    Cell::new(words::count(held))
}

#[cfg(test)]
mod tests {
    use taskscope_proto::columns;
    use taskscope_proto::ids::TaskId;
    use taskscope_proto::row::{CancelRequest, Wakes};
    use taskscope_proto::strings::Strings;
    use taskscope_proto::v1::TaskClass;

    use super::*;
    use crate::fixture;

    fn task_row() -> TaskRow {
        let mut strings = Strings::default();
        strings.extend(&fixture::frame().strings);
        let rows = fixture::task_window(1, 1).rows.expect("there is one");
        columns::decode(&rows, &strings).expect("columns fit").next().expect("it is there")
    }

    fn said(row: &TaskRow) -> Vec<(&'static str, String)> {
        let context = Context { shown: &[], slow_poll_ns: None, workers: None };
        fields(row, &context).into_iter().map(|(name, cell)| (name, cell.text)).collect()
    }

    #[test]
    fn what_is_known_of_a_wrapped_task_is_told_and_nothing_of_another() {
        let row = TaskRow {
            state: TaskState::Idle,
            wakes: Some(Wakes { total: 12, by_itself: 3, by: Some(TaskId(42)), wakers: 0 }),
            cancel: Some(CancelRequest { since_ns: 12_000_000_000, polls: 4, wakes: 5 }),
            class: TaskClass::Daemon,
            fields: "tenant=42".to_owned(),
            ..task_row()
        };
        let told = said(&row);
        let of = |name: &str| told.iter().find(|(it, _)| *it == name).map(|(_, text)| text.as_str());
        assert_eq!(of("wakes"), Some("12, 3 by itself, last by task 42"));
        assert_eq!(of("held wakers"), Some("lost waker: nothing can wake it any more"));
        assert_eq!(of("asked to stop"), Some("12 s ago; since then 4 polls, 5 wakes"));
        assert_eq!((of("class"), of("fields")), (Some("daemon"), Some("tenant=42")));
        let waits = TaskRow { wakes: row.wakes.map(|wakes| Wakes { wakers: 1, ..wakes }), ..row.clone() };
        assert!(said(&waits).contains(&("held wakers", "1".to_owned())));
        let hooked = TaskRow {
            wakes: None,
            cancel: None,
            class: TaskClass::Unspecified,
            fields: String::new(),
            ..row
        };
        let told = said(&hooked);
        for name in ["wakes", "held wakers", "asked to stop", "class", "fields"] {
            assert!(told.iter().all(|(it, _)| *it != name), "{name}");
        }
    }
}
