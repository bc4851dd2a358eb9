//! How a row goes on while it is not sent again: the numbers that grow with time alone. A sender compares rows at rest
//! ([`RawRow::fingerprint`]) and sends what differs; a receiver lets the others age ([`TaskRow::age_by`]).
//!
//! With the time that passes grow: of a live task its age and the time since it was asked to stop, and the time in its
//! present state, which also counts as busy, scheduled or idle where that is known. Of an ended one only the time since.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::columns::RawRow;
use crate::row::TaskRow;
use crate::v1::TaskState;

/// The growing numbers of one row.
struct Growing<'a> {
    state: TaskState,
    age_ns: &'a mut u64,
    since_ns: &'a mut u64,
    busy_ns: &'a mut u64,
    scheduled_ns: Option<&'a mut u64>,
    idle_ns: Option<&'a mut u64>,
    cancel_ns: Option<&'a mut u64>,
}

impl Growing<'_> {
    fn apply(self, grow: impl Fn(&mut u64)) {
        grow(self.since_ns);
        if self.state == TaskState::Ended {
            return;
        }
        grow(self.age_ns);
        let of_state = match self.state {
            TaskState::Running => Some(self.busy_ns),
            TaskState::Scheduled => self.scheduled_ns,
            TaskState::Idle => self.idle_ns,
            TaskState::Ended | TaskState::Unspecified => None,
        };
        of_state.into_iter().chain(self.cancel_ns).for_each(grow);
    }
}

impl TaskRow {
    /// The row as it is `ns` later, if nothing but time has changed.
    pub fn age_by(&mut self, ns: u64) {
        let growing = Growing {
            state: self.state,
            age_ns: &mut self.age_ns,
            since_ns: &mut self.since_ns,
            busy_ns: &mut self.busy_ns,
            scheduled_ns: self.scheduled_ns.as_mut(),
            idle_ns: self.idle_ns.as_mut(),
            cancel_ns: self.cancel.as_mut().map(|cancel| &mut cancel.since_ns),
        };
        growing.apply(|value| *value = value.saturating_add(ns));
        if self.state == TaskState::Running {
            self.longest_poll_ns = self.longest_poll_ns.max(self.since_ns);
        }
    }
}

impl RawRow {
    /// The same for two states of a row between which nothing but time has passed; `at_ns` is when this one was so.
    pub fn fingerprint(&self, at_ns: u64) -> u64 {
        let mut rest = *self;
        if rest.state == TaskState::Running && rest.longest_poll_ns == rest.since_ns {
            // The poll that runs is the longest one, and grows.
            rest.longest_poll_ns = 0;
        }
        let growing = Growing {
            state: rest.state,
            age_ns: &mut rest.age_ns,
            since_ns: &mut rest.since_ns,
            busy_ns: &mut rest.busy_ns,
            scheduled_ns: rest.scheduled_ns.as_mut(),
            idle_ns: rest.idle_ns.as_mut(),
            cancel_ns: rest.cancel.as_mut().map(|cancel| &mut cancel.since_ns),
        };
        growing.apply(|value| *value = value.wrapping_sub(at_ns));
        let mut hasher = DefaultHasher::new();
        rest.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns;
    use crate::ids::{GroupId, RuntimeId, Sid, TaskId};
    use crate::row::{CancelRequest, Wakes};
    use crate::strings::Strings;
    use crate::v1::{Outcome, TaskClass, TaskKind, TaskRows};
    use proptest::prelude::*;

    const STATES: [TaskState; 4] =
        [TaskState::Running, TaskState::Scheduled, TaskState::Idle, TaskState::Ended];

    /// A task as its probe knows it, and its row at an instant.
    #[derive(Clone, Debug)]
    struct Task {
        state: TaskState,
        sees_wakes: bool,
        asked_to_stop: bool,
    }

    impl Task {
        /// Spawned at 1 000, in its state since 5 000, busy 700 before.
        fn row(&self, now_ns: u64) -> RawRow {
            let until_ns = if self.state == TaskState::Ended { 5_000 } else { now_ns };
            let since_ns = now_ns - 5_000;
            let part = |state| if self.state == state { since_ns } else { 0 };
            let busy_ns = 700 + part(TaskState::Running);
            let scheduled_ns = self.sees_wakes.then(|| 300 + part(TaskState::Scheduled));
            RawRow {
                id: TaskId(9),
                kind: TaskKind::Task,
                state: self.state,
                outcome: Outcome::Unspecified,
                name: Sid(0),
                label: Sid(0),
                group: GroupId(2),
                spawned_at: Sid(0),
                runtime: RuntimeId(1),
                polls: 4,
                busy_ns,
                scheduled_ns,
                idle_ns: scheduled_ns.map(|scheduled_ns| until_ns - 1_000 - busy_ns - scheduled_ns),
                age_ns: until_ns - 1_000,
                since_ns,
                longest_poll_ns: 600.max(part(TaskState::Running)),
                wakes: self.sees_wakes.then_some(Wakes { total: 3, by_itself: 0, by: None, wakers: 1 }),
                cancel: (self.asked_to_stop && self.state != TaskState::Ended).then(|| CancelRequest {
                    since_ns: now_ns - 4_500,
                    polls: 1,
                    wakes: 1,
                }),
                class: TaskClass::Work,
                reason: Sid(0),
                fields: Sid(0),
            }
        }
    }

    fn decoded(row: &RawRow) -> TaskRow {
        let mut rows = TaskRows::default();
        columns::push(&mut rows, row);
        columns::decode(&rows, &Strings::default()).expect("one row fits").next().expect("it is there")
    }

    proptest! {
        #[test]
        fn a_row_that_aged_is_the_row_that_would_have_been_sent(
            state in 0..4usize, sees_wakes: bool, asked_to_stop: bool, then in 6_000u64..20_000, passed in 0u64..1 << 40,
        ) {
            let task = Task { state: STATES[state], sees_wakes, asked_to_stop };
            let mut aged = decoded(&task.row(then));
            aged.age_by(passed);
            prop_assert_eq!(aged, decoded(&task.row(then + passed)));
            let at_rest = |at_ns| task.row(at_ns).fingerprint(at_ns);
            prop_assert_eq!(at_rest(then), at_rest(then + passed));
        }
    }

    #[test]
    fn whatever_else_changes_changes_the_fingerprint() {
        let row = Task { state: TaskState::Idle, sees_wakes: true, asked_to_stop: false }.row(9_000);
        let changes: [fn(&mut RawRow); 6] = [
            |row| row.polls += 1,
            |row| row.state = TaskState::Scheduled,
            |row| row.label = Sid(3),
            |row| row.since_ns -= 1,
            |row| row.busy_ns += 1,
            |row| row.wakes = None,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = row;
            change(&mut other);
            assert_ne!(other.fingerprint(9_000), row.fingerprint(9_000), "change {number}");
        }
    }
}
