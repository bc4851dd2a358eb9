//! Scenarios for loom: two or three threads do what hooks, wakers and the probe's thread do, in every order and with every
//! stale value that the memory model allows. Arenas are as small as they can be.
//!
//! LOOM_MAX_PREEMPTIONS says how often a thread may be stopped at any place (it is stopped where it ends, too); 2 where
//! that is not set.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;
use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::TaskKind;

use super::free_list::FreeList;
use super::histograms::{Histograms, Tally};
use super::index::Index;
use super::labels::LabelIndex;
use super::lines::{BracketView, Left, Line, Lines};
use super::ring::Ring;
use super::slots::{Flags, SlotIndex, SlotView, Slots, Tenancy};
use super::sync::{AtomicU32, Relaxed};
use super::wakes::Wakes;

fn explore(scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(scenario);
}

/// A task all of whose fields say its id.
fn tenancy(id: u64) -> Tenancy {
    let flags = Flags::new(TaskKind::Task, id as u32);
    Tenancy { id: TaskId(id), spawned: id, group: GroupId(id as u32), flags, fields: Sid(id as u32) }
}

fn poll(slots: &Slots, index: SlotIndex, id: u64) {
    let slot = slots.tenant(index, TaskId(id)).expect("the thread that polls it sees it");
    slot.begin_poll();
    slot.set_label(LabelIndex(id as u32));
    if slot.end_poll(id, id) {
        slot.raise_longest(id);
    }
}

fn end(slots: &Slots, index: SlotIndex, id: u64) {
    assert!(slots.retire(index, TaskId(id)));
    slots.release(index);
}

#[track_caller]
fn assert_unmixed(view: &SlotView) {
    let id = view.id.0;
    assert_eq!((view.spawned, u64::from(view.group.0)), (id, id));
    assert_eq!((u64::from(view.fields.0), u64::from(view.flags.runtime())), (id, id));
    assert!(view.label.is_none_or(|label| u64::from(label.0) == id), "{view:?}");
    for figure in [view.poll_end, view.busy_ns, view.longest_ns] {
        assert!(figure == 0 || figure == id, "{view:?}");
    }
    assert!(view.polls <= 1, "{view:?}");
}

#[test]
fn a_walk_never_mixes_two_tenants_of_a_slot() {
    explore(|| {
        let slots = Arc::new(Slots::with_capacity(2));
        let index = slots.claim(tenancy(1)).expect("there is room");
        poll(&slots, index, 1);
        let walker = Arc::clone(&slots);
        let walk = thread::spawn(move || {
            for view in walker.iter() {
                assert_unmixed(&view);
            }
        });
        end(&slots, index, 1);
        slots.claim(tenancy(2)).expect("it was given back");
        walk.join().expect("no panic");
        assert_eq!(slots.iter().map(|view| view.id.0).collect::<Vec<_>>(), [2]);
    });
}

#[test]
fn a_slot_that_goes_to_another_thread_is_not_mixed_either() {
    explore(|| {
        let slots = Arc::new(Slots::with_capacity(2));
        let index = slots.claim(tenancy(1)).expect("there is room");
        poll(&slots, index, 1);
        let spawner = Arc::clone(&slots);
        let spawn = thread::spawn(move || {
            if let Some(index) = spawner.claim(tenancy(2)) {
                poll(&spawner, index, 2);
            }
        });
        let ender = Arc::clone(&slots);
        let end = thread::spawn(move || end(&ender, index, 1));
        if let Some(view) = slots.view(index) {
            assert_unmixed(&view);
        }
        spawn.join().expect("no panic");
        end.join().expect("no panic");
        slots.iter().for_each(|view| assert_unmixed(&view));
    });
}

#[test]
fn a_task_ends_once_whoever_ends_it() {
    explore(|| {
        let slots = Arc::new(Slots::with_capacity(2));
        let index = slots.claim(tenancy(1)).expect("there is room");
        let other = Arc::clone(&slots);
        let theirs = thread::spawn(move || other.retire(index, TaskId(1)));
        let ours = slots.retire(index, TaskId(1));
        assert!(ours != theirs.join().expect("no panic"));
    });
}

/// Positions beside which a free list writes, and a mark on those that somebody has.
struct Positions {
    free: FreeList,
    next: Vec<AtomicU32>,
    owned: Vec<AtomicU32>,
}

impl Positions {
    fn new(capacity: usize) -> Arc<Self> {
        let zeroes = || (0..capacity).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { free: FreeList::new(0, capacity), next: zeroes(), owned: zeroes() })
    }

    fn take(&self) -> Option<u32> {
        let position = self.free.take(|free| self.next[free as usize].load(Relaxed))?;
        assert_eq!(self.owned[position as usize].swap(1, Relaxed), 0, "it was given out twice");
        Some(position)
    }

    fn put_back(&self, position: u32) {
        self.owned[position as usize].store(0, Relaxed);
        self.free.put_back(position, |next| self.next[position as usize].store(next, Relaxed));
    }
}

#[test]
fn a_list_whose_first_element_went_and_came_back_is_another_list() {
    explore(|| {
        let positions = Positions::new(2);
        let both = [positions.take(), positions.take()].map(|one| one.expect("two fit"));
        both.into_iter().for_each(|one| positions.put_back(one));
        let other = Arc::clone(&positions);
        let taker = thread::spawn(move || other.take());
        // The first goes, the second goes, the first comes back.
        let (first, second) = (positions.take(), positions.take());
        if let Some(first) = first {
            positions.put_back(first);
        }
        let theirs = taker.join().expect("no panic");
        let left = std::iter::from_fn(|| positions.take()).count();
        let kept = usize::from(second.is_some()) + usize::from(theirs.is_some());
        assert_eq!(left + kept, 2, "none is lost");
    });
}

#[test]
fn positions_that_two_threads_give_back_are_both_there() {
    explore(|| {
        let positions = Positions::new(2);
        let [one, two] = [positions.take(), positions.take()].map(|one| one.expect("two fit"));
        let other = Arc::clone(&positions);
        let theirs = thread::spawn(move || {
            other.put_back(two);
            other.take().map(|again| other.put_back(again))
        });
        positions.put_back(one);
        theirs.join().expect("no panic");
        assert_eq!(std::iter::from_fn(|| positions.take()).count(), 2);
    });
}

fn follow(slots: &Slots, index: &Index, id: u64) -> SlotIndex {
    let slot = slots.claim(tenancy(id)).expect("there is room");
    assert!(index.insert(TaskId(id), slot), "there is room");
    slot
}

fn forget(slots: &Slots, index: &Index, id: u64) {
    let (slot, _) = index.find(TaskId(id)).expect("who ends a task sees it");
    assert!(slots.retire(slot, TaskId(id)));
    index.remove(TaskId(id), slot);
    slots.release(slot);
}

#[test]
fn what_is_found_is_what_was_looked_for_while_slots_change_hands() {
    explore(|| {
        let slots = Arc::new(Slots::with_capacity(2));
        let index = Arc::new(Index::of(&slots));
        follow(&slots, &index, 1);
        let their_index = Arc::clone(&index);
        let look = thread::spawn(move || {
            let slot = their_index.find_first(TaskId(2));
            // Nobody ends it yet.
            assert!(slot.is_none_or(|(_, slot)| slot.is_of(TaskId(2))));
            let Some((_, slot)) = their_index.find(TaskId(1)) else { return };
            assert!(!slot.is_of(TaskId(3)));
        });
        forget(&slots, &index, 1);
        follow(&slots, &index, 2);
        look.join().expect("no panic");
        assert!(index.find(TaskId(1)).is_none() && index.find(TaskId(2)).is_some());
        forget(&slots, &index, 2);
        assert!(index.is_empty());
    });
}

#[test]
fn two_threads_that_use_one_set_of_the_index_leave_it_as_it_was() {
    explore(|| {
        let slots = Arc::new(Slots::with_capacity(3));
        let index = Arc::new(Index::of(&slots));
        let (their_slots, their_index) = (Arc::clone(&slots), Arc::clone(&index));
        // 4 and 8 have one home.
        let other = thread::spawn(move || {
            follow(&their_slots, &their_index, 4);
            forget(&their_slots, &their_index, 4);
        });
        follow(&slots, &index, 8);
        assert!(index.find(TaskId(8)).is_some());
        other.join().expect("no panic");
        forget(&slots, &index, 8);
        assert!(index.is_empty());
    });
}

/// Opens the bracket in which everything says `n`.
fn enter(line: &Line, n: u64) {
    assert!(line.enter(TaskId(n), Some(SlotIndex(n as u32)), n));
}

#[track_caller]
fn leave(line: &Line, n: u64) {
    assert!(matches!(line.leave(), Left::Bracket(open, _) if open.id.0 == n && open.start == n));
}

#[track_caller]
fn assert_untorn(view: &BracketView) {
    let n = view.start;
    assert_eq!((view.id.0, view.slot.map(|slot| u64::from(slot.0))), (n, Some(n)));
}

/// Looks at a line on which `before` was done while `write` is done to it.
fn read_beside(before: impl FnOnce(&Line), write: impl FnOnce(&Line)) {
    let lines = Lines::with_capacity(1);
    let line = lines.claim(7).expect("there is room");
    before(line);
    let read = thread::spawn(move || line.bracket().inspect(assert_untorn));
    write(line);
    read.join().expect("no panic");
}

#[test]
fn a_bracket_is_not_joined_with_the_next() {
    explore(|| {
        let write = |line: &Line| {
            leave(line, 1);
            enter(line, 2);
        };
        read_beside(|line| enter(line, 1), write);
    });
}

#[test]
fn a_bracket_is_not_joined_with_one_inside_it() {
    explore(|| {
        let write = |line: &Line| {
            enter(line, 2);
            leave(line, 2);
        };
        read_beside(|line| enter(line, 1), write);
    });
}

#[test]
fn a_short_poll_is_not_joined_with_the_next() {
    explore(|| {
        let write = |line: &Line| {
            for n in [1, 2] {
                line.enter_first(TaskId(n), SlotIndex(n as u32), n);
                line.leave_first();
            }
        };
        read_beside(|_| {}, write);
    });
}

#[test]
fn the_start_of_a_label_is_its_own() {
    explore(|| {
        let lines = Lines::with_capacity(1);
        let line = lines.claim(7).expect("there is room");
        line.enter(TaskId(1), None, 1);
        line.set_label(Some(LabelIndex(2)), 2);
        let read = thread::spawn(move || {
            let view = line.bracket().expect("it is open");
            assert!(view.label.is_none_or(|label| u64::from(label.0) == view.label_start));
        });
        let (label, start) = line.set_label(Some(LabelIndex(3)), 3);
        line.set_label(label, start);
        read.join().expect("no panic");
    });
}

#[test]
fn two_threads_never_have_one_line() {
    explore(|| {
        let lines = Arc::new(Lines::with_capacity(2));
        let other = Arc::clone(&lines);
        let theirs = thread::spawn(move || other.claim(8).expect("two fit"));
        let ours = lines.claim(7).expect("two fit");
        assert!(!std::ptr::eq(ours, theirs.join().expect("no panic")));
        assert!(lines.claim(9).is_none());
    });
}

#[test]
fn a_thread_keeps_its_line_although_a_dead_one_had_its_id() {
    explore(|| {
        let lines = Arc::new(Lines::with_capacity(2));
        lines.claim(7).expect("there is room");
        // Thread 7 has ended. What the system says is in order.
        let alive = Arc::new(Mutex::new(false));
        let (their_lines, born) = (Arc::clone(&lines), Arc::clone(&alive));
        let seven = thread::spawn(move || {
            *born.lock().expect("no panic") = true;
            their_lines.claim(7).expect("there is room")
        });
        lines.retain(|tid| tid != 7 || *alive.lock().expect("no panic"));
        let eight = lines.claim(8).expect("two fit");
        assert!(!std::ptr::eq(eight, seven.join().expect("no panic")));
    });
}

fn add(histograms: &Histograms, tally: &Tally, position: u8) -> u64 {
    u64::from(histograms.add(tally, position, 1) || histograms.add_first(tally, position, 1))
}

/// Histograms with room for two records and two blocks, and a thread's tally of them.
fn histograms() -> (Arc<Histograms>, &'static Tally) {
    let tally: &'static [Tally] = super::sync::zeroed(1);
    (Arc::new(Histograms::with_capacity(3, 3)), &tally[0])
}

#[test]
fn what_is_read_beside_counting_is_what_was_counted_by_then() {
    explore(|| {
        let (histograms, tally) = histograms();
        let other = Arc::clone(&histograms);
        let count = thread::spawn(move || add(&other, tally, 1) + add(&other, tally, 1));
        let mut before = 0;
        for _ in 0..2 {
            let read = histograms.read(std::iter::once(tally), 1).expect("it is not folded");
            assert!(read.polls >= before && read.polls <= 2 && read.histogram.total() <= 2);
            before = read.polls;
        }
        assert_eq!(count.join().expect("no panic"), 2);
        let read = histograms.read(std::iter::once(tally), 1).expect("it is not folded");
        assert_eq!((read.polls, read.busy_ns, read.histogram.total()), (2, 2, 2));
    });
}

#[test]
fn what_is_counted_while_it_is_folded_is_counted_once() {
    explore(|| {
        let (histograms, tally) = histograms();
        let mut counted = add(&histograms, tally, 1);
        let other = Arc::clone(&histograms);
        let count = thread::spawn(move || add(&other, tally, 1) + add(&other, tally, 1));
        let folding = histograms.fold(std::iter::once(tally), 1);
        assert!(histograms.read(std::iter::once(tally), 1).is_none());
        let meanwhile = histograms.polls(std::iter::once(tally));
        assert!((counted..=3).contains(&meanwhile), "{meanwhile}: totals never fall");
        // The grace.
        counted += count.join().expect("no panic");
        histograms.finish(folding);
        let other = histograms.read(std::iter::once(tally), 0).expect("it is never folded");
        assert_eq!((other.polls, other.busy_ns, other.histogram.total()), (counted, counted, counted));
        assert_eq!(histograms.polls(std::iter::once(tally)), counted);
    });
}

#[test]
fn a_thread_that_comes_while_a_group_is_folded_counts_under_other() {
    explore(|| {
        let histograms = Arc::new(Histograms::with_capacity(3, 3));
        let lines = Arc::new(Lines::with_capacity(1));
        let (their_histograms, their_lines) = (Arc::clone(&histograms), Arc::clone(&lines));
        let count = thread::spawn(move || {
            let line = their_lines.claim(7).expect("there is room");
            add(&their_histograms, &line.groups, 1)
        });
        let folding = histograms.fold(lines.groups(), 1);
        let counted = count.join().expect("no panic");
        histograms.finish(folding);
        let other = histograms.read(lines.groups(), 0).expect("it is never folded");
        assert_eq!((other.polls, other.histogram.total()), (counted, counted));
    });
}

#[test]
fn a_reader_of_a_ring_never_sees_a_torn_entry_and_misses_none_uncounted() {
    explore(|| {
        let ring = Arc::new(Ring::<2>::with_capacity(1));
        let writers = [1, 2].map(|n| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.push([n, n]))
        });
        let (mut next, mut seen, mut lost) = (0, 0, 0);
        let mut take = || {
            let taken = ring.take(&mut next);
            assert!(taken.items.iter().all(|words| words[0] == words[1] && words[0] != 0));
            seen += taken.items.len() as u64;
            lost += taken.lost;
            (seen, lost)
        };
        take();
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        let (seen, lost) = take();
        assert_eq!(seen + lost, 2);
    });
}

#[test]
fn wakes_are_counted_and_a_wait_is_answered_once() {
    explore(|| {
        let wakes: &'static [Wakes] = super::sync::zeroed(1);
        let wakes = &wakes[0];
        let id = TaskId(3);
        let wakers = [10, 11].map(|now| thread::spawn(move || wakes.wake(now, id, TaskId(0))));
        let mut waited = wakes.answer(20, id);
        assert!([None, Some(9), Some(10)].contains(&waited), "{waited:?}");
        wakers.into_iter().for_each(|waker| waker.join().expect("no panic"));
        waited = wakes.answer(20, id);
        assert!([None, Some(9), Some(10)].contains(&waited), "{waited:?}");
        assert_eq!((wakes.answer(20, id), wakes.view().total), (None, 2));
    });
}

#[test]
fn a_wake_of_a_task_that_is_gone_is_no_wait_of_the_next() {
    explore(|| {
        let slots = Arc::new(Slots::with_capacity(2));
        let waking = |id| Tenancy { flags: tenancy(id).flags.with_wakes(), ..tenancy(id) };
        let index = slots.claim(waking(1)).expect("there is room");
        let waker = Arc::clone(&slots);
        let wake = thread::spawn(move || {
            if let Some(wakes) = waker.wakes(index, TaskId(1)) {
                wakes.wake(5, TaskId(1), TaskId(0));
            }
        });
        end(&slots, index, 1);
        let index = slots.claim(waking(2)).expect("it was given back");
        let wakes = slots.wakes(index, TaskId(2)).expect("it is live");
        assert_eq!(wakes.answer(9, TaskId(2)), None);
        wake.join().expect("no panic");
        assert_eq!(wakes.answer(9, TaskId(2)), None);
    });
}
