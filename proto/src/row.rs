//! What a task row can be asked. The probe implements [`Row`] on a registry slot, viewers on [`TaskRow`].

use crate::ids::{GroupId, RuntimeId, TaskId};
use crate::v1::{Outcome, SortKey, TaskClass, TaskKind, TaskState};

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
    /// A count, as the next one.
    Wakes,
    /// That are held somewhere.
    Wakers,
    /// Since it was asked to stop.
    Cancel,
}

/// A text of a row that filters search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextField {
    Name,
    Label,
    /// Where it was spawned.
    At,
    /// `key=value` pairs given at its spawn.
    Fields,
}

/// Wakes of a task whose wakes are seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Wakes {
    pub total: u64,
    /// Inside its own polls.
    pub by_itself: u64,
    /// The task whose poll woke it last; `None`: none did (a timer, the I/O driver, a thread).
    pub by: Option<TaskId>,
    /// Wakers that are held somewhere. An idle task without one is never woken again.
    pub wakers: u64,
}

/// A task was asked to stop, and what it did since.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CancelRequest {
    /// Since the first request.
    pub since_ns: u64,
    pub polls: u64,
    pub wakes: u64,
}

/// One task, however it is stored.
pub trait Row {
    fn id(&self) -> TaskId;
    fn kind(&self) -> TaskKind;
    fn state(&self) -> TaskState;
    fn outcome(&self) -> Outcome;
    /// `None` where it is not known; a comparison with it is false.
    fn number(&self, field: NumberField) -> Option<u64>;
    /// What its spawner said that it is for.
    fn class(&self) -> TaskClass;
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
    /// `None`: its wakes are not seen.
    pub wakes: Option<Wakes>,
    /// `None`: it was not asked to stop, or that is not seen.
    pub cancel: Option<CancelRequest>,
    pub class: TaskClass,
    /// Error or panic of an ended task; empty: none, or not known.
    pub reason: String,
    /// `key=value` pairs joined by spaces; empty: none.
    pub fields: String,
}

impl TaskRow {
    /// Whether nothing can wake it any more: it is idle, and nobody holds a waker of it.
    pub fn is_lost(&self) -> bool {
        self.state == TaskState::Idle && self.wakes.is_some_and(|wakes| wakes.wakers == 0)
    }
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
            NumberField::Wakes => self.wakes.map(|wakes| wakes.total),
            NumberField::Wakers => self.wakes.map(|wakes| wakes.wakers),
            NumberField::Cancel => self.cancel.map(|cancel| cancel.since_ns),
        }
    }
    fn class(&self) -> TaskClass {
        self.class
    }
    fn text(&self, field: TextField) -> &str {
        match field {
            TextField::Name => &self.name,
            TextField::Label => &self.label,
            TextField::At => &self.spawned_at,
            TextField::Fields => &self.fields,
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
        SortKey::SortWakes => NumberField::Wakes,
        SortKey::SortCancel => NumberField::Cancel,
    };
    row.number(field).map_or(0, |value| value.saturating_add(1))
}

/// Each sort key with the word that users type for it.
pub const SORT_KEYS: [(&str, SortKey); 10] = [
    ("age", SortKey::SortAge),
    ("id", SortKey::SortId),
    ("polls", SortKey::SortPolls),
    ("busy", SortKey::SortBusy),
    ("scheduled", SortKey::SortScheduled),
    ("idle", SortKey::SortIdle),
    ("since", SortKey::SortSince),
    ("longest", SortKey::SortLongestPoll),
    ("wakes", SortKey::SortWakes),
    ("cancel", SortKey::SortCancel),
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
        Outcome::Failed => Some("failed"),
        Outcome::Aborted => Some("aborted"),
    }
}

/// The word for a class, as in `--json` and in filters; `None` where none was said.
pub fn class_word(class: TaskClass) -> Option<&'static str> {
    match class {
        TaskClass::Unspecified => None,
        TaskClass::Ingress => Some("ingress"),
        TaskClass::Work => Some("work"),
        TaskClass::Daemon => Some("daemon"),
        TaskClass::Critical => Some("critical"),
    }
}
