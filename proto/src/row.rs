//! What a task row can be asked. The probe implements [`Row`] on a registry slot, viewers on [`TaskRow`].

use crate::ids::{GroupId, RuntimeId, TaskId};
use crate::v1::{Outcome, SortKey, TaskKind, TaskState};

/// A number of a row that filters compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NumberField {
    Id,
    Polls,
    /// Nanoseconds, as all below.
    Age,
    Busy,
    Scheduled,
    Idle,
    Since,
    LongestPoll,
}

/// A text of a row that filters search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextField {
    Name,
    Label,
    /// Where it was spawned.
    At,
}

/// One task, however it is stored.
pub trait Row {
    fn id(&self) -> TaskId;
    fn kind(&self) -> TaskKind;
    fn state(&self) -> TaskState;
    fn outcome(&self) -> Outcome;
    /// `None` where it is not known; a comparison with it is false.
    fn number(&self, field: NumberField) -> Option<u64>;
    /// Empty where there is none.
    fn text(&self, field: TextField) -> &str;
}

/// A decoded row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    pub id: TaskId,
    pub kind: TaskKind,
    pub state: TaskState,
    pub outcome: Outcome,
    /// Empty: none was given.
    pub name: String,
    /// Empty: none was ever set.
    pub label: String,
    pub group: GroupId,
    /// `file:line:column`; empty: not known.
    pub spawned_at: String,
    pub runtime: RuntimeId,
    pub polls: u64,
    pub busy_ns: u64,
    /// `None`: wakes of this task are not seen.
    pub scheduled_ns: Option<u64>,
    /// `None`: not known because `scheduled_ns` is not.
    pub idle_ns: Option<u64>,
    pub age_ns: u64,
    pub since_ns: u64,
    pub longest_poll_ns: u64,
}

impl Row for TaskRow {
    fn id(&self) -> TaskId {
        self.id
    }
    fn kind(&self) -> TaskKind {
        self.kind
    }
    fn state(&self) -> TaskState {
        self.state
    }
    fn outcome(&self) -> Outcome {
        self.outcome
    }
    fn number(&self, field: NumberField) -> Option<u64> {
        match field {
            NumberField::Id => Some(self.id.0),
            NumberField::Polls => Some(self.polls),
            NumberField::Age => Some(self.age_ns),
            NumberField::Busy => Some(self.busy_ns),
            NumberField::Scheduled => self.scheduled_ns,
            NumberField::Idle => self.idle_ns,
            NumberField::Since => Some(self.since_ns),
            NumberField::LongestPoll => Some(self.longest_poll_ns),
        }
    }
    fn text(&self, field: TextField) -> &str {
        match field {
            TextField::Name => &self.name,
            TextField::Label => &self.label,
            TextField::At => &self.spawned_at,
        }
    }
}

/// The number by which `key` sorts; an absent one sorts as the smallest.
pub fn sort_value(row: &impl Row, key: SortKey) -> u64 {
    let field = match key {
        SortKey::SortUnspecified | SortKey::SortAge => NumberField::Age,
        SortKey::SortId => NumberField::Id,
        SortKey::SortPolls => NumberField::Polls,
        SortKey::SortBusy => NumberField::Busy,
        SortKey::SortScheduled => NumberField::Scheduled,
        SortKey::SortIdle => NumberField::Idle,
        SortKey::SortSince => NumberField::Since,
        SortKey::SortLongestPoll => NumberField::LongestPoll,
    };
    row.number(field).map_or(0, |value| value.saturating_add(1))
}

/// Each sort key with the word that users type for it.
pub const SORT_KEYS: [(&str, SortKey); 8] = [
    ("age", SortKey::SortAge),
    ("id", SortKey::SortId),
    ("polls", SortKey::SortPolls),
    ("busy", SortKey::SortBusy),
    ("scheduled", SortKey::SortScheduled),
    ("idle", SortKey::SortIdle),
    ("since", SortKey::SortSince),
    ("longest", SortKey::SortLongestPoll),
];

/// The word for a state, as in `--json` and in filters.
pub fn state_word(state: TaskState) -> &'static str {
    match state {
        TaskState::Unspecified => "unknown",
        TaskState::Running => "running",
        TaskState::Scheduled => "scheduled",
        TaskState::Idle => "idle",
        TaskState::Ended => "ended",
    }
}

/// The word for a kind, as in `--json` and in filters.
pub fn kind_word(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Unspecified => "unknown",
        TaskKind::Task => "task",
        TaskKind::Wrapped => "wrapped",
        TaskKind::Main => "main",
        TaskKind::Blocking => "blocking",
    }
}

/// The word for an outcome; `None` while it is not known.
pub fn outcome_word(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Unspecified => None,
        Outcome::Completed => Some("completed"),
        Outcome::Cancelled => Some("cancelled"),
        Outcome::Panicked => Some("panicked"),
        Outcome::Shutdown => Some("shutdown"),
    }
}
