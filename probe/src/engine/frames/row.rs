//! One slot as filters, sorts and the wire see it. What a filter does not ask for is not worked out.

use std::cell::OnceCell;

use taskscope_proto::columns::RawRow;
use taskscope_proto::ids::{RuntimeId, Sid, TaskId};
use taskscope_proto::row::{CancelRequest, NumberField, Row, TextField, Wakes};
use taskscope_proto::v1::{Outcome, TaskClass, TaskKind, TaskState};

use crate::clock::Ticks;
use crate::engine::sampler::Sampler;
use crate::registry::Registry;
use crate::registry::slots::SlotView;
use crate::registry::stamp;

/// The instant as of which rows are read, and what runs then.
pub(super) struct Eye<'a> {
    pub(super) registry: &'a Registry,
    pub(super) now_ns: u64,
    now: Ticks,
    /// Knows when the process stood still.
    past: Option<&'a Sampler>,
    /// Slots in a poll, ascending, with the poll's start.
    running: Vec<(u32, TaskId, Ticks)>,
}

impl<'a> Eye<'a> {
    /// Looks at every thread line.
    pub(super) fn open(registry: &'a Registry, now_ns: u64, past: Option<&'a Sampler>) -> Self {
        let brackets = registry.lines.views().filter_map(|(_, line)| line.bracket);
        let mut running: Vec<_> =
            brackets.filter_map(|bracket| Some((bracket.slot?.0, bracket.id, bracket.start))).collect();
        running.sort_unstable();
        let now = registry.clock.now();
        Self { registry, now_ns, now, past, running }
    }

    /// The live task whose slot, at `position`, was read as `view`.
    pub(super) fn live(&self, position: u32, view: SlotView) -> SlotRow<'_> {
        let from =
            if self.running.is_empty() { 0 } else { self.running.partition_point(|it| it.0 < position) };
        let poll = self.running[from..].iter().take_while(|it| it.0 == position).find(|it| it.1 == view.id);
        // A poll that ended after its line was read is counted in the slot already.
        let poll = poll.filter(|&&(_, _, start)| view.poll_end < start);
        let running_ns = poll.map(|&(_, _, start)| self.since(start));
        SlotRow { eye: self, view, ended_ns: None, running_ns, fields: OnceCell::new() }
    }

    /// A task that ended at `ended_ns`.
    pub(super) fn ended(&self, view: SlotView, ended_ns: u64) -> SlotRow<'_> {
        SlotRow { eye: self, view, ended_ns: Some(ended_ns), running_ns: None, fields: OnceCell::new() }
    }

    /// Time since then in which the process did not stand still.
    fn since(&self, ticks: Ticks) -> u64 {
        match self.past {
            Some(sampler) => sampler.awake_since(ticks, self.now_ns),
            None => self.now_ns.saturating_sub(self.registry.clock.at(ticks)),
        }
    }
}

/// A consistent copy of a slot, and what is worked out of it on demand.
pub(super) struct SlotRow<'a> {
    eye: &'a Eye<'a>,
    view: SlotView,
    ended_ns: Option<u64>,
    running_ns: Option<u64>,
    /// Read when a filter asks for it.
    fields: OnceCell<String>,
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

    /// Busy time and longest poll, without the time in which the process stood still.
    fn counted(&self) -> (u64, u64) {
        let view = &self.view;
        match self.eye.past {
            Some(sampler) => sampler.without_pauses(view, self.eye.now_ns),
            None => (view.busy_ns, view.longest_ns),
        }
    }

    fn busy_ns(&self) -> u64 {
        self.counted().0 + self.running_ns.unwrap_or(0)
    }

    fn longest_ns(&self) -> u64 {
        self.counted().1.max(self.running_ns.unwrap_or(0))
    }

    /// Finished: the slot counts polls as they begin.
    fn polls(&self) -> u64 {
        self.view.polls.saturating_sub(u64::from(self.running_ns.is_some()))
    }

    /// When it was woken, if it waits for a worker.
    fn woken(&self) -> Option<u64> {
        self.view.wakes.map(|wakes| wakes.woken).filter(|&woken| stamp::is_of(woken, self.view.id))
    }

    fn cancel(&self) -> Option<CancelRequest> {
        if self.ended_ns.is_some() || !self.view.flags.is_asked() {
            return None;
        }
        let asked = self.eye.registry.cancellations.find(self.view.id)?;
        let wakes = self.view.wakes.map_or(0, |wakes| wakes.total);
        Some(CancelRequest {
            since_ns: self.eye.now_ns.saturating_sub(self.eye.registry.clock.at(asked.since)),
            polls: self.polls().saturating_sub(asked.polls),
            wakes: wakes.saturating_sub(asked.wakes),
        })
    }

    /// Of an ended task only the time it was scheduled is kept.
    fn wakes(&self) -> Option<Wakes> {
        self.view.wakes.filter(|_| self.ended_ns.is_none()).map(|wakes| Wakes {
            total: wakes.total,
            by_itself: wakes.by_itself.into(),
            by: Some(TaskId(wakes.by)).filter(|by| by.0 != 0),
            wakers: wakes.wakers.into(),
        })
    }

    fn since_ns(&self) -> u64 {
        let eye = self.eye;
        match (self.ended_ns, self.running_ns, self.state()) {
            (Some(ended_ns), _, _) => eye.now_ns.saturating_sub(ended_ns),
            (_, Some(running_ns), _) => running_ns,
            (_, _, TaskState::Idle) => eye.since(self.view.poll_end),
            _ => match self.woken() {
                Some(woken) => eye.registry.clock.between(0, stamp::elapsed(woken, eye.now)),
                // Never polled.
                None => self.age_ns(),
            },
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
            scheduled_ns: self.view.scheduled_ns().map(|ns| ns + now_ns),
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
            label: self.view.label.map_or(Sid(0), |label| registry.labels.entry(label).sid()),
            group: self.view.group,
            spawned_at: group.site(),
            runtime: RuntimeId(self.view.flags.runtime()),
            polls: self.polls(),
            busy_ns: times.busy_ns,
            scheduled_ns: times.scheduled_ns,
            idle_ns: times.idle_ns(),
            age_ns: times.age_ns,
            since_ns: times.since_ns,
            longest_poll_ns: self.longest_ns(),
            wakes: self.wakes(),
            cancel: self.cancel(),
            class: self.class(),
            reason: self.view.reason,
            fields: self.view.fields,
        }
    }
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
        let woken = || self.woken().is_some() || self.view.poll_end == 0;
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
            NumberField::Polls => Some(self.polls()),
            NumberField::Age => Some(self.age_ns()),
            NumberField::Busy => Some(self.busy_ns()),
            NumberField::Scheduled => self.times().scheduled_ns,
            NumberField::Idle => self.times().idle_ns(),
            NumberField::Since => Some(self.since_ns()),
            NumberField::LongestPoll => Some(self.longest_ns()),
            NumberField::Wakes => self.wakes().map(|wakes| wakes.total),
            NumberField::Wakers => self.wakes().map(|wakes| wakes.wakers),
            NumberField::Cancel => self.cancel().map(|cancel| cancel.since_ns),
        }
    }
    fn class(&self) -> TaskClass {
        self.view.flags.class()
    }
    fn text(&self, field: TextField) -> &str {
        // Names, sites and labels are asked for once a group and a label (`Filter::into_parts`), not once a row.
        debug_assert_eq!(field, TextField::Fields, "a filter that was not taken apart");
        self.fields.get_or_init(|| self.eye.registry.texts.read(self.view.fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::registry::slots::Flags;

    fn registry() -> Registry {
        Registry::with_budget(0, Clock::start(), 100_000_000)
    }

    #[test]
    fn every_state_has_its_times_and_they_add_up() {
        let registry = registry();
        let flags = Flags::new(TaskKind::Wrapped, 1).with_wakes();
        let index = registry.follow(5, 0, flags);
        let slot = registry.slots.tenant(index, TaskId(5)).expect("it lives");
        let row = |now_ns: u64| {
            let eye = Eye::open(&registry, now_ns, None);
            eye.live(index.0, registry.slots.view(index).expect("it lives")).raw()
        };
        let now_ns = registry.clock.at(registry.clock.now()) + 1_000_000;
        assert_eq!(row(now_ns).state, TaskState::Scheduled, "it was never polled");
        slot.begin_poll();
        assert!(slot.end_poll(registry.clock.now(), 400));
        slot.raise_longest(400);
        let idle = row(now_ns);
        assert_eq!((idle.state, idle.busy_ns, idle.longest_poll_ns), (TaskState::Idle, 400, 400));
        assert_eq!(idle.idle_ns, Some(idle.age_ns - 400));
        let line = registry.lines.claim(1).expect("a line is free");
        line.enter(TaskId(5), Some(index), registry.clock.now());
        let running = row(now_ns);
        assert_eq!((running.state, running.busy_ns), (TaskState::Running, 400 + running.since_ns));
        assert_eq!(running.longest_poll_ns, running.since_ns);
        line.leave();
        let wakes = registry.slots.wakes(index, TaskId(5)).expect("it lives");
        wakes.wake(registry.clock.now(), TaskId(5), TaskId(0));
        let woken = row(now_ns + 9);
        assert_eq!((woken.state, woken.scheduled_ns), (TaskState::Scheduled, Some(woken.since_ns)));
        assert_eq!(woken.age_ns, woken.busy_ns + woken.since_ns + woken.idle_ns.expect("wakes are seen"));
    }
}
