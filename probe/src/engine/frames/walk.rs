//! One walk over the slots, in slices: which tasks are in the window, how many match, what standing queries find. It
//! copies nothing of a task but its place in the order, so that its memory depends on what is shown and not on how many
//! tasks there are. All rows are judged as of the instant at which it began.

use taskscope_proto::filter::Parts;
use taskscope_proto::ids::TaskId;
use taskscope_proto::row::{Row, TextField, sort_value};
use taskscope_proto::top::{Place, Top};
use taskscope_proto::v1::TaskState;

use super::ask::{Ask, Tasks};
use super::row::{Eye, SlotRow};
use super::standing::{Found, Matches};
use crate::engine::sampler::Sampler;
use crate::registry::Registry;
use crate::registry::slots::SlotIndex;

/// Slots between two looks at the clock.
const STRIDE: u32 = 512;

/// Where a task of the window was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spot {
    Slot(u32),
    /// Among the last ended ones.
    Ended,
}

/// A walk under way.
pub(super) struct Walk {
    began_ns: u64,
    next: u32,
    top: Option<Top<Spot>>,
    window: Verdicts,
    standing: Vec<(Verdicts, Matches)>,
    /// Ids that nothing but a walk can find: of tasks that the index does not have.
    lost: Vec<u64>,
    found: Vec<(u64, u32)>,
    /// Tasks that wait for a worker, by the id of their runtime.
    scheduled: Vec<(u32, u64)>,
    /// Whether every task seen so far reports its wakes; `None` before the first.
    wakes_are_seen: Option<bool>,
}

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) began_ns: u64,
    /// `None` where no rows were asked for.
    pub(super) window: Option<(Vec<(TaskId, Spot)>, u64)>,
    /// Tasks that wait for a worker, by the id of their runtime; `None` where not every task tells.
    pub(super) scheduled: Option<Vec<(u32, u64)>>,
}

/// What a walk is finished with.
pub(super) struct Finished {
    pub(super) answer: Answer,
    /// By standing query.
    pub(super) matches: Vec<Matches>,
    /// Of the ids that only a walk can find: all, and those found with their slots.
    pub(super) lost: Vec<u64>,
    pub(super) found: Vec<(u64, u32)>,
}

impl Walk {
    /// `after` is where the window begins, as of now.
    pub(super) fn new(ask: &Ask, began_ns: u64, after: Option<Place>, lost: Vec<u64>) -> Self {
        Self {
            began_ns,
            next: 0,
            top: ask.tasks.as_ref().map(|tasks| Top::new(tasks.limit, tasks.direction, after)),
            window: Verdicts::default(),
            standing: ask.standing.iter().map(|_| <(Verdicts, Matches)>::default()).collect(),
            lost,
            found: Vec::new(),
            scheduled: Vec::new(),
            wakes_are_seen: None,
        }
    }

    /// Goes on until `until_ns`, or to the end: then it is true. `ask` is the one that it was begun with.
    pub(super) fn advance(
        &mut self,
        ask: &Ask,
        found: &Found,
        registry: &Registry,
        past: Option<&Sampler>,
        until_ns: u64,
    ) -> bool {
        let eye = Eye::open(registry, self.began_ns, past);
        let now_ns = registry.clock.at(registry.clock.now());
        loop {
            let end = (registry.slots.high_water() as u32).min(self.next.saturating_add(STRIDE));
            if self.next >= end {
                return true;
            }
            for position in self.next..end {
                if let Some(view) = registry.slots.view(SlotIndex(position)) {
                    self.look(ask, found, now_ns, position, &eye.live(position, view), registry);
                }
            }
            self.next = end;
            if registry.clock.at(registry.clock.now()) >= until_ns {
                return self.next as usize >= registry.slots.high_water();
            }
        }
    }

    #[inline]
    fn look(
        &mut self,
        ask: &Ask,
        found: &Found,
        now_ns: u64,
        position: u32,
        row: &SlotRow<'_>,
        registry: &Registry,
    ) {
        let view = row.view();
        if self.wakes_are_seen != Some(false) {
            self.wakes_are_seen = Some(view.wakes.is_some());
            if row.state() == TaskState::Scheduled {
                count(&mut self.scheduled, view.flags.runtime());
            }
        }
        for (standing, (verdicts, matches)) in ask.standing.iter().zip(&mut self.standing) {
            if verdicts.admit(&standing.filter, row, registry) && standing.filter.rest.matches(row) {
                matches.add(view.id.0, now_ns, found.matches(standing.query.query_id));
            }
        }
        if !self.lost.is_empty() && self.lost.contains(&view.id.0) {
            self.found.push((view.id.0, position));
        }
        if let (Some(tasks), Some(top)) = (&ask.tasks, &mut self.top) {
            offer(tasks, top, &mut self.window, row, Spot::Slot(position), registry);
        }
    }

    /// Adds the last ended tasks.
    pub(super) fn finish(mut self, ask: &Ask, sampler: &Sampler) -> Finished {
        let registry = &sampler.engine.registry;
        if let (Some(tasks), Some(top)) = (&ask.tasks, &mut self.top)
            && tasks.with_ended
        {
            let eye = Eye::open(registry, self.began_ns, Some(sampler));
            for (view, ended_ns) in &sampler.ended {
                let row = eye.ended(*view, *ended_ns);
                offer(tasks, top, &mut self.window, &row, Spot::Ended, registry);
            }
        }
        let window = self.top.map(|top| {
            let matching = top.matching();
            (top.into_sorted().into_iter().map(|(place, spot)| (place.id, spot)).collect(), matching)
        });
        let scheduled = (self.wakes_are_seen == Some(true)).then_some(self.scheduled);
        Finished {
            answer: Answer { began_ns: self.began_ns, window, scheduled },
            matches: self.standing.into_iter().map(|(_, matches)| matches).collect(),
            lost: self.lost,
            found: self.found,
        }
    }
}

/// Runtimes are few.
fn count(counts: &mut Vec<(u32, u64)>, runtime: u32) {
    match counts.iter_mut().find(|(id, _)| *id == runtime) {
        Some((_, count)) => *count += 1,
        None => counts.push((runtime, 1)),
    }
}

fn offer(
    tasks: &Tasks,
    top: &mut Top<Spot>,
    verdicts: &mut Verdicts,
    row: &SlotRow<'_>,
    spot: Spot,
    registry: &Registry,
) {
    if verdicts.admit(&tasks.filter, row, registry) && tasks.filter.rest.matches(row) {
        top.offer(Place { value: sort_value(row, tasks.sort), id: row.id() }, || spot);
    }
}

/// What the text terms of one filter say to each group and label, found out once each.
#[derive(Default)]
struct Verdicts {
    groups: Vec<Option<bool>>,
    labels: Vec<Option<bool>>,
}

impl Verdicts {
    #[inline]
    fn admit(&mut self, filter: &Parts, row: &SlotRow<'_>, registry: &Registry) -> bool {
        let view = row.view();
        (filter.group.is_empty()
            || *verdict(&mut self.groups, view.group.0 as usize).get_or_insert_with(|| {
                let group = registry.groups.entry(view.group);
                let (name, site) = (registry.texts.read(group.name()), registry.texts.read(group.site()));
                filter.group.hold(|field| if field == TextField::At { &site } else { &name })
            }))
            && (filter.label.is_empty()
                || *verdict(&mut self.labels, view.label.map_or(0, |label| label.0 as usize + 1))
                    .get_or_insert_with(|| {
                        let sid = view.label.map(|label| registry.labels.entry(label).sid());
                        let text = sid.map_or(String::new(), |sid| registry.texts.read(sid));
                        filter.label.hold(|_| &text)
                    }))
    }
}

/// Groups and labels are capped, and so are these.
fn verdict(list: &mut Vec<Option<bool>>, position: usize) -> &mut Option<bool> {
    crate::engine::sampler::at(list, position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::registry::slots::Flags;
    use taskscope_proto::ids::{GroupId, Sid};
    use taskscope_proto::v1::{self, SortKey, TaskKind};

    fn registry(tasks: u64) -> Registry {
        let registry = Registry::with_budget(64 << 20, Clock::start(), 100_000_000);
        let groups: Vec<GroupId> = ["reader", "writer"]
            .into_iter()
            .map(|name| {
                let name = registry.texts.intern_parts(&[name]).expect("there is room");
                registry.groups.find(name, Sid(0)).expect("there is room")
            })
            .collect();
        for id in 1..=tasks {
            let flags = Flags::new(TaskKind::Task, 1);
            let index = registry.follow(id, groups[(id % 2) as usize].0, flags);
            let slot = registry.slots.tenant(index, TaskId(id)).expect("it lives");
            for _ in 0..id % 97 {
                slot.begin_poll();
                slot.end_poll(registry.clock.now(), id);
            }
        }
        registry
    }

    fn ask(request: v1::WatchRequest) -> Ask {
        Ask::try_from(request).expect("it is understood")
    }

    fn tasks(filter: &str, sort: SortKey, limit: u32) -> Ask {
        let query = v1::TaskQuery { filter: filter.into(), sort: sort.into(), limit, ..Default::default() };
        ask(v1::WatchRequest { tasks: Some(query), ..Default::default() })
    }

    /// Walks in slices as short as can be; gives the window and how many slices it took.
    fn window(registry: &Registry, ask: &Ask) -> (Vec<u64>, u64, usize) {
        let now_ns = registry.clock.at(registry.clock.now());
        let after = ask.tasks.as_ref().and_then(|tasks| tasks.after);
        let mut walk = Walk::new(ask, now_ns, after, Vec::new());
        let mut slices = 1;
        while !walk.advance(ask, &Found::default(), registry, None, 0) {
            slices += 1;
        }
        let top = walk.top.expect("rows were asked for");
        let matching = top.matching();
        (top.into_sorted().into_iter().map(|(place, _)| place.id.0).collect(), matching, slices)
    }

    #[test]
    fn slices_joined_are_the_whole() {
        let registry = registry(5_000);
        let (ids, matching, slices) = window(&registry, &tasks("", SortKey::SortPolls, 3));
        assert_eq!((ids, matching), (vec![96, 193, 290], 5_000));
        assert_eq!(slices, 10, "512 slots a slice");
    }

    #[test]
    fn a_name_is_judged_by_its_group_and_the_rest_by_row() {
        let registry = registry(2_000);
        let (ids, matching, _) = window(&registry, &tasks("name~WRIT polls>95", SortKey::SortId, 2));
        // Odd ids are writers; 96 polls have 96, 193, 290 and so on.
        assert_eq!((ids, matching), (vec![1939, 1745], 10));
        let (_, none, _) = window(&registry, &tasks("label~x", SortKey::SortId, 2));
        assert_eq!(none, 0);
        let (_, all, _) = window(&registry, &tasks("label!~x at!~y", SortKey::SortId, 2));
        assert_eq!(all, 2_000);
    }

    #[test]
    fn standing_queries_are_answered_by_the_same_walk_without_rows() {
        let registry = registry(1_000);
        let standing = ["name=reader", "polls>95 name=writer"]
            .into_iter()
            .zip(1..)
            .map(|(filter, query_id)| v1::StandingQuery {
                query_id,
                filter: filter.into(),
                ..Default::default()
            })
            .collect();
        let ask = ask(v1::WatchRequest { standing, ..Default::default() });
        let mut walk = Walk::new(&ask, 0, None, Vec::new());
        while !walk.advance(&ask, &Found::default(), &registry, None, 0) {}
        let findings: Vec<u64> = ask
            .standing
            .iter()
            .zip(&walk.standing)
            .map(|(standing, (_, matches))| matches.finding(&standing.query, 0).matching)
            .collect();
        assert_eq!(findings, [500, 5]);
        assert!(walk.top.is_none());
    }

    #[test]
    fn what_only_a_walk_can_find_is_found() {
        let registry = registry(700);
        let ask = ask(v1::WatchRequest::default());
        let mut walk = Walk::new(&ask, 0, None, vec![600, 9_999]);
        while !walk.advance(&ask, &Found::default(), &registry, None, 0) {}
        assert_eq!(walk.found, [(600, 600)]);
    }
}
