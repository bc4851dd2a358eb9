//! The rows that a watcher sees: read anew for every frame where a walk has found them, and sent only where something but
//! time has changed in them. What it has been sent is remembered as one number a row.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use taskscope_proto::columns::{self, RawRow};
use taskscope_proto::ids::TaskId;
use taskscope_proto::row::sort_value;
use taskscope_proto::top::Place;
use taskscope_proto::v1;

use super::ask::{Ask, Tasks};
use super::row::Eye;
use super::walk::{Answer, Spot};
use crate::engine::sampler::Sampler;
use crate::registry::Registry;
use crate::registry::slots::{SlotIndex, SlotView};

/// Encoded rows of one frame take about this much at most; the window is cut there, and `matching` tells how many there
/// are.
const ROOM_BYTES: usize = 224 << 10;

/// What the other end has, and where its rows are.
#[derive(Default)]
pub(super) struct Shown {
    rows: HashMap<u64, Sent>,
    /// Kept ids that a walk has looked for in vain: ids are not used twice, so they stay unknown.
    missed: HashSet<u64>,
}

#[derive(Clone, Copy, Default)]
struct Sent {
    /// As of its sending; `None`: the other end does not have it.
    fingerprint: Option<u64>,
    /// Where it lived when it was last seen alive.
    position: Option<u32>,
}

/// The last ended tasks by id, looked up only if something asks.
struct Ended<'a> {
    sampler: &'a Sampler,
    by_id: OnceCell<HashMap<u64, (&'a SlotView, u64)>>,
}

impl<'a> Ended<'a> {
    fn of(sampler: &'a Sampler) -> Self {
        Self { sampler, by_id: OnceCell::new() }
    }

    fn find(&self, id: TaskId) -> Option<(&'a SlotView, u64)> {
        let all =
            || self.sampler.ended.iter().map(|(view, ended_ns)| (view.id.0, (view, *ended_ns))).collect();
        self.by_id.get_or_init(all).get(&id.0).copied()
    }
}

impl Shown {
    /// The other end forgets its rows.
    pub(super) fn resync(&mut self) {
        self.rows.values_mut().for_each(|sent| sent.fingerprint = None);
    }

    /// The kept ids that only a walk can find: the index has Tokio's ids, and not the probe's own.
    pub(super) fn lost(&self, keep: &[u64], sampler: &Sampler) -> Vec<u64> {
        let ended = Ended::of(sampler);
        let is_lost = |id: &u64| {
            !TaskId(*id).is_tokio()
                && !self.missed.contains(id)
                && self.live(&sampler.engine.registry, TaskId(*id)).is_none()
                && ended.find(TaskId(*id)).is_none()
        };
        keep.iter().copied().filter(is_lost).collect()
    }

    /// A walk has looked for `lost` and found some.
    pub(super) fn searched(&mut self, lost: Vec<u64>, found: Vec<(u64, u32)>) {
        self.missed.extend(lost);
        for (id, position) in found {
            self.missed.remove(&id);
            self.rows.entry(id).or_default().position = Some(position);
        }
    }

    /// Where the window begins, as of `now_ns`: what the cursor's task sorts by may have grown since its row was sent.
    pub(super) fn place_of(&self, tasks: &Tasks, registry: &Registry, now_ns: u64) -> Option<Place> {
        let after = tasks.after?;
        let Some((position, view)) = self.live(registry, after.id) else { return Some(after) };
        let eye = Eye::open(registry, now_ns, None);
        Some(Place { value: sort_value(&eye.live(position, view), tasks.sort), id: after.id })
    }

    /// The slot in which `id` lives.
    fn live(&self, registry: &Registry, id: TaskId) -> Option<(u32, SlotView)> {
        let remembered = self.rows.get(&id.0).and_then(|sent| sent.position);
        let view = |position: u32| registry.slots.view(SlotIndex(position)).filter(|view| view.id == id);
        [remembered, registry.index.find(id).map(|(index, _)| index.0)]
            .into_iter()
            .flatten()
            .find_map(|position| Some((position, view(position)?)))
    }

    /// The window as of `now_ns`; `None` where no rows were asked for, or none have been looked for yet.
    pub(super) fn window(
        &mut self,
        ask: &Ask,
        answer: Option<&Answer>,
        sampler: &Sampler,
        now_ns: u64,
    ) -> Option<v1::TaskWindow> {
        let asked = ask.tasks.as_ref().zip(answer.and_then(|answer| answer.window.as_ref()));
        if asked.is_none() && (ask.tasks.is_some() || ask.keep.is_empty()) {
            return None;
        }
        let registry = &sampler.engine.registry;
        let eye = Eye::open(registry, now_ns, Some(sampler));
        let ended = Ended::of(sampler);
        let mut out = v1::TaskWindow::default();
        let mut rows = Rows::default();

        let mut kept = Vec::new();
        for id in ask.keep.iter().copied().map(TaskId) {
            if let Some((position, view)) = self.live(registry, id) {
                kept.push((eye.live(position, view).raw(), Some(position)));
            } else if let Some((view, ended_ns)) = ended.find(id) {
                kept.push((eye.ended(*view, ended_ns).raw(), None));
            } else if id.is_tokio() || self.missed.contains(&id.0) {
                out.unknown_ids.push(id.0);
            }
        }
        rows.room = ROOM_BYTES.saturating_sub(kept.iter().map(|(raw, _)| bytes(raw)).sum());

        if let Some((tasks, (found, matching))) = asked {
            out.matching = *matching;
            let mut window: Vec<(Place, RawRow, Option<u32>)> = Vec::with_capacity(found.len());
            for &(id, spot) in found {
                let live = match spot {
                    Spot::Slot(position) => {
                        let view = registry.slots.view(SlotIndex(position)).filter(|view| view.id == id);
                        view.map(|view| (eye.live(position, view), Some(position)))
                    }
                    Spot::Ended => None,
                };
                let gone = || {
                    let (view, ended_ns) = ended.find(id).filter(|_| tasks.with_ended)?;
                    Some((eye.ended(*view, ended_ns), None))
                };
                if let Some((row, position)) = live.or_else(gone) {
                    window.push((Place { value: sort_value(&row, tasks.sort), id }, row.raw(), position));
                }
            }
            // In the order of what they say now, which may have changed since they were found.
            window.sort_by(|a, b| tasks.direction.compare(&a.0, &b.0));
            window.dedup_by_key(|(place, _, _)| place.id);
            for (place, raw, position) in window {
                if !rows.push(&self.rows, &raw, position, now_ns) {
                    break;
                }
                out.order.push(place.id.0);
            }
        }
        rows.room = usize::MAX;
        for (raw, position) in &kept {
            if !rows.shown.contains_key(&raw.id.0) {
                rows.push(&self.rows, raw, *position, now_ns);
            }
        }
        self.rows = rows.shown;
        self.missed.retain(|id| ask.keep.contains(id));
        out.rows = Some(rows.columns);
        Some(out)
    }
}

/// The rows of one frame, and what the other end has after it.
#[derive(Default)]
struct Rows {
    columns: v1::TaskRows,
    shown: HashMap<u64, Sent>,
    room: usize,
}

impl Rows {
    /// Puts a row into the frame unless the other end has it; false where there is no room for it.
    fn push(
        &mut self,
        before: &HashMap<u64, Sent>,
        raw: &RawRow,
        position: Option<u32>,
        now_ns: u64,
    ) -> bool {
        let fingerprint = Some(raw.fingerprint(now_ns));
        if before.get(&raw.id.0).is_none_or(|sent| sent.fingerprint != fingerprint) {
            let Some(room) = self.room.checked_sub(bytes(raw)) else { return false };
            self.room = room;
            columns::push(&mut self.columns, raw);
        }
        self.shown.insert(raw.id.0, Sent { fingerprint, position });
        true
    }
}

/// About the bytes of a row on the wire.
fn bytes(raw: &RawRow) -> usize {
    use prost::encoding::encoded_len_varint as len;
    /// Kind, state, outcome, class, runtime, and the ids of texts.
    const SMALL: usize = 20;
    let wakes = raw.wakes.map_or(4, |wakes| {
        len(wakes.total) + len(wakes.by_itself) + len(wakes.wakers) + wakes.by.map_or(1, |by| len(by.0))
    });
    let cancel = raw.cancel.map_or(3, |cancel| len(cancel.since_ns) + len(cancel.polls) + len(cancel.wakes));
    let parts = [raw.id.0, raw.polls, raw.busy_ns, raw.age_ns, raw.since_ns, raw.longest_poll_ns];
    let optional = [raw.scheduled_ns, raw.idle_ns];
    SMALL
        + wakes
        + cancel
        + parts.into_iter().map(len).sum::<usize>()
        + optional.into_iter().map(|part| part.map_or(1, len)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskscope_proto::ids::{GroupId, RuntimeId, Sid};
    use taskscope_proto::v1::{Outcome, TaskClass, TaskKind, TaskState};

    fn row(id: u64, polls: u64) -> RawRow {
        RawRow {
            id: TaskId(id),
            kind: TaskKind::Task,
            state: TaskState::Idle,
            outcome: Outcome::Unspecified,
            name: Sid(1),
            label: Sid(2),
            group: GroupId(1),
            spawned_at: Sid(3),
            runtime: RuntimeId(1),
            polls,
            busy_ns: polls * 1_000,
            scheduled_ns: None,
            idle_ns: None,
            age_ns: 1 << 40,
            since_ns: 1 << 39,
            longest_poll_ns: 70_000,
            wakes: None,
            cancel: None,
            class: TaskClass::Unspecified,
            reason: Sid(0),
            fields: Sid(0),
        }
    }

    #[test]
    fn a_row_goes_out_again_only_when_more_than_time_has_changed() {
        let sent = |before: &HashMap<u64, Sent>, raw: &RawRow, now_ns| {
            let mut rows = Rows { room: ROOM_BYTES, ..Rows::default() };
            assert!(rows.push(before, raw, Some(1), now_ns));
            (rows.columns.id.len(), rows.shown)
        };
        let (first, shown) = sent(&HashMap::new(), &row(1, 5), 100);
        let mut later = row(1, 5);
        (later.age_ns, later.since_ns) = (later.age_ns + 50, later.since_ns + 50);
        let (second, shown) = sent(&shown, &later, 150);
        let (third, mut shown) = sent(&shown, &row(1, 6), 160);
        shown.values_mut().for_each(|sent| sent.fingerprint = None);
        let (after_resync, _) = sent(&shown, &row(1, 6), 160);
        assert_eq!((first, second, third, after_resync), (1, 0, 1, 1));
    }

    #[test]
    fn rows_are_cut_where_the_frame_is_full() {
        use prost::Message;
        let mut rows = Rows { room: 10_000, ..Rows::default() };
        let fitted =
            (1..1_000).take_while(|&id| rows.push(&HashMap::new(), &row(id, 1 << 30), None, 0)).count();
        let encoded = rows.columns.encoded_len();
        assert!((100..300).contains(&fitted) && encoded <= 10_000 && encoded > 6_000, "{fitted} {encoded}");
    }
}
