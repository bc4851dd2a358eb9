//! One slot as filters, sorts and the wire see it. What a filter does not ask for is not worked out.

use taskscope_proto::columns::RawRow;
use taskscope_proto::ids::{RuntimeId, Sid, TaskId};
use taskscope_proto::row::{NumberField, Row, TextField};
use taskscope_proto::v1::{Outcome, TaskClass, TaskKind, TaskState};

use crate::clock::Ticks;
use crate::registry::Registry;
use crate::registry::labels::LabelIndex;
use crate::registry::slots::{SlotView, has_tag};

/// The instant as of which rows are read, and what runs then.
pub(super) struct Eye<'a> {
    pub(super) registry: &'a Registry,
    pub(super) now_ns: u64,
    /// Slots in a poll, ascending, with the poll's start.
    running: Vec<(u32, TaskId, Ticks)>,
}

impl<'a> Eye<'a> {
    /// Looks at every thread line.
    pub(super) fn open(registry: &'a Registry, now_ns: u64) -> Self {
        let brackets = registry.lines.views().filter_map(|(_, line)| line.bracket);
        let mut running: Vec<_> =
            brackets.filter_map(|bracket| Some((bracket.slot?.0, bracket.id, bracket.start))).collect();
        running.sort_unstable();
        Self { registry, now_ns, running }
    }

    /// The live task whose slot, at `position`, was read as `view`.
    pub(super) fn live(&self, position: u32, view: SlotView) -> SlotRow<'_> {
        let from =
            if self.running.is_empty() { 0 } else { self.running.partition_point(|it| it.0 < position) };
        let poll = self.running[from..].iter().take_while(|it| it.0 == position).find(|it| it.1 == view.id);
        // A poll that ended after its line was read is counted in the slot already.
        let poll = poll.filter(|&&(_, _, start)| view.poll_end < start);
        let running_ns = poll.map(|&(_, _, start)| self.since(start));
        SlotRow { eye: self, view, ended_ns: None, running_ns }
    }

    /// A task that ended at `ended_ns`.
    pub(super) fn ended(&self, view: SlotView, ended_ns: u64) -> SlotRow<'_> {
        SlotRow { eye: self, view, ended_ns: Some(ended_ns), running_ns: None }
    }

    fn since(&self, ticks: Ticks) -> u64 {
        self.now_ns.saturating_sub(self.registry.clock.at(ticks))
    }
}

/// A consistent copy of a slot, and what is worked out of it on demand.
pub(super) struct SlotRow<'a> {
    eye: &'a Eye<'a>,
    view: SlotView,
    ended_ns: Option<u64>,
    running_ns: Option<u64>,
}

/// What two numbers are worked out of.
struct Times {
    state: TaskState,
    age_ns: u64,
    since_ns: u64,
    busy_ns: u64,
    scheduled_ns: Option<u64>,
}

impl SlotRow<'_> {
    pub(super) fn view(&self) -> &SlotView {
        &self.view
    }

    fn age_ns(&self) -> u64 {
        let spawned_ns = self.eye.registry.clock.at(self.view.spawned);
        self.ended_ns.unwrap_or(self.eye.now_ns).saturating_sub(spawned_ns)
    }

    fn busy_ns(&self) -> u64 {
        self.view.busy_ns + self.running_ns.unwrap_or(0)
    }

    fn longest_ns(&self) -> u64 {
        self.view.longest_ns.max(self.running_ns.unwrap_or(0))
    }

    fn since_ns(&self) -> u64 {
        let eye = self.eye;
        match (self.ended_ns, self.running_ns, self.state()) {
            (Some(ended_ns), _, _) => eye.now_ns.saturating_sub(ended_ns),
            (_, Some(running_ns), _) => running_ns,
            (_, _, TaskState::Idle) => eye.since(self.view.poll_end),
            _ if has_tag(self.view.woken, self.view.id) => eye.since(self.view.woken),
            // Never polled.
            _ => self.age_ns(),
        }
    }

    fn times(&self) -> Times {
        let (state, since_ns) = (self.state(), self.since_ns());
        let now_ns = if state == TaskState::Scheduled { since_ns } else { 0 };
        Times {
            state,
            since_ns,
            age_ns: self.age_ns(),
            busy_ns: self.busy_ns(),
            scheduled_ns: self.view.flags.sees_wakes().then(|| self.view.scheduled_ns + now_ns),
        }
    }

    /// The whole of it.
    pub(super) fn raw(&self) -> RawRow {
        let registry = self.eye.registry;
        let group = registry.groups.entry(self.view.group);
        let times = self.times();
        RawRow {
            id: self.view.id,
            kind: self.kind(),
            state: times.state,
            outcome: self.outcome(),
            name: group.name(),
            label: label_of(&self.view).map_or(Sid(0), |label| registry.labels.entry(label).sid()),
            group: self.view.group,
            spawned_at: group.site(),
            runtime: RuntimeId(self.view.flags.runtime()),
            polls: self.view.polls,
            busy_ns: times.busy_ns,
            scheduled_ns: times.scheduled_ns,
            idle_ns: times.idle_ns(),
            age_ns: times.age_ns,
            since_ns: times.since_ns,
            longest_poll_ns: self.longest_ns(),
            wakes: None,
            cancel: None,
            class: TaskClass::Unspecified,
            reason: Sid(0),
            fields: Sid(0),
        }
    }
}

/// The last label of a task.
pub(super) fn label_of(view: &SlotView) -> Option<LabelIndex> {
    view.label_plus1.checked_sub(1).map(LabelIndex)
}

impl Times {
    fn idle_ns(&self) -> Option<u64> {
        let scheduled_ns = self.scheduled_ns?;
        Some(self.age_ns.saturating_sub(self.busy_ns).saturating_sub(scheduled_ns))
    }
}

impl Row for SlotRow<'_> {
    fn id(&self) -> TaskId {
        self.view.id
    }
    fn kind(&self) -> TaskKind {
        self.view.flags.kind()
    }
    fn state(&self) -> TaskState {
        let woken = || has_tag(self.view.woken, self.view.id) || self.view.poll_end == 0;
        match (self.ended_ns, self.running_ns) {
            (Some(_), _) => TaskState::Ended,
            (None, Some(_)) => TaskState::Running,
            (None, None) if woken() => TaskState::Scheduled,
            (None, None) => TaskState::Idle,
        }
    }
    fn outcome(&self) -> Outcome {
        self.view.flags.outcome()
    }
    fn number(&self, field: NumberField) -> Option<u64> {
        match field {
            NumberField::Id => Some(self.view.id.0),
            NumberField::Polls => Some(self.view.polls),
            NumberField::Age => Some(self.age_ns()),
            NumberField::Busy => Some(self.busy_ns()),
            NumberField::Scheduled => self.times().scheduled_ns,
            NumberField::Idle => self.times().idle_ns(),
            NumberField::Since => Some(self.since_ns()),
            NumberField::LongestPoll => Some(self.longest_ns()),
            NumberField::Wakes | NumberField::Cancel => None,
        }
    }
    fn class(&self) -> TaskClass {
        TaskClass::Unspecified
    }
    fn text(&self, field: TextField) -> &str {
        // Names, sites and labels are asked for once a group and a label (`Filter::into_parts`), not once a row.
        debug_assert_eq!(field, TextField::Fields, "a filter that was not taken apart");
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::registry::slots::Flags;
    use taskscope_proto::ids::GroupId;

    fn registry() -> Registry {
        Registry::with_budget(0, Clock::start(), 100_000_000)
    }

    fn claim(registry: &Registry, id: u64, flags: Flags) -> u32 {
        let spawned = registry.clock.now();
        registry.slots.claim(TaskId(id), spawned, GroupId(0), flags).expect("there is room").0
    }

    #[test]
    fn every_state_has_its_times_and_they_add_up() {
        let registry = registry();
        let flags = Flags::new(TaskKind::Wrapped, 1).with_wakes();
        let at = claim(&registry, 5, flags);
        let index = crate::registry::slots::SlotIndex(at);
        let row = |now_ns: u64| {
            let eye = Eye::open(&registry, now_ns);
            eye.live(at, registry.slots.view(index).expect("it lives")).raw()
        };
        let now_ns = registry.clock.at(registry.clock.now()) + 1_000_000;
        assert_eq!(row(now_ns).state, TaskState::Scheduled, "it was never polled");
        registry.slots.slot(index).end_poll(registry.clock.now(), 400);
        let idle = row(now_ns);
        assert_eq!((idle.state, idle.busy_ns, idle.longest_poll_ns), (TaskState::Idle, 400, 400));
        assert_eq!(idle.idle_ns, Some(idle.age_ns - 400));
        let line = registry.lines.mine().expect("a line is free");
        line.enter(TaskId(5), Some(index), registry.clock.now());
        let running = row(now_ns);
        assert_eq!((running.state, running.busy_ns), (TaskState::Running, 400 + running.since_ns));
        assert_eq!(running.longest_poll_ns, running.since_ns);
        line.leave(registry.clock.now());
        registry.slots.slot(index).wake(registry.clock.now(), TaskId(5));
        let woken = row(now_ns + 9);
        assert_eq!((woken.state, woken.scheduled_ns), (TaskState::Scheduled, Some(woken.since_ns)));
        assert_eq!(woken.age_ns, woken.busy_ns + woken.since_ns + woken.idle_ns.expect("wakes are seen"));
    }
}
