//! The scenarios of model.rs on real threads, many times over: what the model cannot be large enough for.

use std::sync::atomic::AtomicBool;

use taskscope_proto::ids::{GroupId, Sid, TaskId};
use taskscope_proto::v1::TaskKind;

use super::free_list::FreeList;
use super::histograms::{Histograms, Tally};
use super::index::Index;
use super::labels::LabelIndex;
use super::lines::{Left, Line, Lines};
use super::ring::Ring;
use super::slots::{Flags, SlotIndex, Slots, Tenancy};
use super::sync::{AtomicU32, Relaxed, zeroed};
use super::wakes::Wakes;

/// Miri is some thousand times slower.
const ROUNDS: u64 = if cfg!(miri) { 60 } else { 100_000 };

/// Runs `work` on threads of its own, each with its number, until `watch`, which runs here, is done.
fn beside(threads: u64, work: impl Fn(u64, &dyn Fn() -> bool) + Sync, watch: impl FnOnce()) {
    /// A watch that panics ends the others, too.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, work) = (&stop, &work);
        for thread in 0..threads {
            scope.spawn(move || work(thread, &|| !stop.load(Relaxed)));
        }
        let _stop = Stop(stop);
        watch();
    });
}

fn tenancy(id: u64) -> Tenancy {
    let flags = Flags::new(TaskKind::Task, id as u32 & 0xFFF).with_wakes();
    let (group, fields) = (GroupId(id as u32 & 0x7F), Sid(id as u32 & 0xFFF));
    Tenancy { id: TaskId(id), spawned: id, group, flags, fields }
}

#[test]
fn a_walk_never_mixes_two_tenants_of_a_slot() {
    let slots = Slots::with_capacity(4);
    let work = |thread, goes_on: &dyn Fn() -> bool| {
        let mut id = thread + 1;
        while goes_on() {
            if let Some(index) = slots.claim(tenancy(id)) {
                let slot = slots.tenant(index, TaskId(id)).expect("nobody else ends it");
                slot.begin_poll();
                slot.set_label(LabelIndex(id as u32 & 0x7F));
                slot.end_poll(id, id);
                slot.raise_longest(id);
                assert!(slots.retire(index, TaskId(id)));
                slots.release(index);
            }
            id += 2;
        }
    };
    beside(2, work, || {
        for _ in 0..ROUNDS {
            for view in slots.iter() {
                let id = view.id.0;
                let part = (view.spawned, u64::from(view.group.0), u64::from(view.fields.0));
                assert_eq!(part, (id, id & 0x7F, id & 0xFFF), "{view:?}");
                assert_eq!(u64::from(view.flags.runtime()), id & 0xFFF, "{view:?}");
                assert!(view.label.is_none_or(|label| u64::from(label.0) == id & 0x7F), "{view:?}");
                for figure in [view.poll_end, view.busy_ns, view.longest_ns] {
                    assert!(figure == 0 || figure == id, "{view:?}");
                }
                assert!(view.polls <= 1, "{view:?}");
            }
        }
    });
    assert_eq!(slots.iter().count(), 0);
}

#[test]
fn no_position_is_given_out_twice_and_none_is_lost() {
    const CAPACITY: usize = 3;
    let free = FreeList::new(0, CAPACITY);
    let [next, owned] = [0; 2].map(|_| [const { AtomicU32::new(0) }; CAPACITY]);
    let take = || {
        let position = free.take(|free| next[free as usize].load(Relaxed))?;
        assert_eq!(owned[position as usize].swap(1, Relaxed), 0);
        Some(position)
    };
    let put_back = |position: u32| {
        owned[position as usize].store(0, Relaxed);
        free.put_back(position, |after| next[position as usize].store(after, Relaxed));
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let taken = [take(), take()];
                    taken.into_iter().flatten().for_each(put_back);
                }
            });
        }
    });
    assert_eq!(std::iter::from_fn(take).count(), CAPACITY);
}

#[test]
fn the_index_finds_what_lives_and_forgets_what_does_not() {
    let slots = Slots::with_capacity(64);
    let index = Index::of(&slots);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (slots, index) = (&slots, &index);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // All of one home, so that the threads meet.
                    let id = TaskId((round * 3 + thread + 1) << 20);
                    let slot = slots.claim(tenancy(id.0)).expect("three are never many");
                    assert!(index.insert(id, slot));
                    assert_eq!(index.find(id).map(|(at, _)| at), Some(slot));
                    let (_, found) = index.find(id).expect("it lives");
                    assert!(found.is_of(id));
                    assert!(slots.retire(slot, id));
                    index.remove(id, slot);
                    slots.release(slot);
                    assert!(index.find(id).is_none());
                }
            });
        }
    });
    assert!(index.is_empty());
}

fn enter(line: &Line, n: u64) {
    assert!(line.enter(TaskId(n), Some(SlotIndex(n as u32)), n));
    line.set_label(Some(LabelIndex(n as u32 & 0x7F)), n);
}

fn leave(line: &Line) {
    assert!(matches!(line.leave(), Left::Bracket(..)));
}

#[test]
fn a_reader_never_joins_two_brackets() {
    let lines = Lines::with_capacity(1);
    let line = lines.claim(7).expect("there is room");
    let work = |_, goes_on: &dyn Fn() -> bool| {
        let mut n = 1;
        while goes_on() {
            enter(line, n);
            enter(line, n + 1);
            enter(line, n + 2);
            leave(line);
            leave(line);
            leave(line);
            line.enter_first(TaskId(n + 3), SlotIndex(n as u32 + 3), n + 3);
            line.leave_first();
            n += 4;
        }
    };
    let mut seen = 0;
    beside(1, work, || {
        while seen < ROUNDS {
            let Some(bracket) = line.bracket() else { continue };
            seen += 1;
            let n = bracket.start;
            assert_eq!((bracket.id.0, bracket.slot), (n, Some(SlotIndex(n as u32))), "{bracket:?}");
            if let Some(label) = bracket.label {
                assert_eq!((label.0, bracket.label_start), (n as u32 & 0x7F, n), "{bracket:?}");
            }
        }
    });
}

#[test]
fn lines_go_from_the_dead_to_the_living_and_are_never_shared() {
    const THREADS: u64 = 3;
    let lines = Lines::with_capacity(THREADS as usize);
    // Each thread is one that dies and comes back, under the same id or under one that another had.
    let alive: Vec<AtomicBool> = (0..2 * THREADS + 1).map(|_| AtomicBool::new(false)).collect();
    let work = |thread: u64, goes_on: &dyn Fn() -> bool| {
        let mut round = 0;
        while goes_on() {
            let tid = 1 + thread + THREADS * (round % 3 / 2);
            round += 1;
            alive[tid as usize].store(true, std::sync::atomic::Ordering::SeqCst);
            // Where the lines of the dead are not found out yet, there may be none.
            if let Some(line) = lines.claim(tid as u32) {
                assert!(!line.is_in_bracket(), "another thread is in it");
                line.enter(TaskId(tid), None, tid);
                for _ in 0..4 {
                    assert_eq!((line.task().0, line.start()), (tid, tid), "another thread writes to it");
                    std::thread::yield_now();
                }
                line.leave_first();
            }
            alive[tid as usize].store(false, std::sync::atomic::Ordering::SeqCst);
        }
    };
    beside(THREADS, work, || {
        for _ in 0..ROUNDS / 10 {
            lines.retain(|tid| alive[tid as usize].load(std::sync::atomic::Ordering::SeqCst));
        }
    });
}

#[test]
fn histograms_count_everything_once_while_groups_are_folded() {
    const POLLS: u64 = if cfg!(miri) { 300 } else { 200_000 };
    const THREADS: usize = 2;
    let histograms = Histograms::with_capacity(64, 256);
    let tallies: &'static [Tally] = zeroed(THREADS);
    let unsorted = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = tallies
            .iter()
            .map(|tally| {
                let (histograms, unsorted) = (&histograms, &unsorted);
                scope.spawn(move || {
                    for n in 0..POLLS {
                        let (position, ns) = ((n % 8) as u8, 1 << (n % 20));
                        if !histograms.add(tally, position, ns) && !histograms.add_first(tally, position, ns)
                        {
                            unsorted.fetch_add(1, Relaxed);
                        }
                    }
                })
            })
            .collect();
        let (mut last, mut folding) = (0, None);
        loop {
            let all_ended = threads.iter().all(|thread| thread.is_finished());
            let polls = histograms.polls(tallies.iter());
            assert!(polls >= last, "{polls} after {last}");
            last = polls;
            if folding.is_none() && (polls > POLLS / 2 || all_ended) {
                folding = Some(histograms.fold(tallies.iter(), 1));
            }
            if all_ended {
                break;
            }
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        // The memory is given out anew when the threads have ended: the longest of all graces.
        histograms.finish(folding.expect("it was folded"));
    });
    assert_eq!(histograms.read(tallies.iter(), 1), None);
    let counted = (0..8).filter_map(|position| histograms.read(tallies.iter(), position));
    let (polls, sorted) = counted
        .fold((0, 0), |(polls, sorted), counted| (polls + counted.polls, sorted + counted.histogram.total()));
    let unsorted = unsorted.into_inner();
    assert_eq!((polls, sorted), (THREADS as u64 * POLLS - unsorted, polls), "{unsorted} not sorted");
    assert_eq!(histograms.polls(tallies.iter()), polls);
}

#[test]
fn a_small_ring_is_never_torn_by_writers_that_overtake_each_other() {
    const WRITERS: u64 = 4;
    let ring = Ring::<4>::with_capacity(2);
    let (mut seen, mut lost, mut next) = (0, 0, 0);
    std::thread::scope(|scope| {
        for thread in 0..WRITERS {
            let ring = &ring;
            scope.spawn(move || (0..ROUNDS).for_each(|n| ring.push([thread << 32 | n; 4])));
        }
        while seen + lost < WRITERS * ROUNDS {
            let taken = ring.take(&mut next);
            assert!(taken.items.iter().all(|words| words.iter().all(|word| *word == words[0])));
            seen += taken.items.len() as u64;
            lost += taken.lost;
        }
    });
    assert_eq!((seen + lost, ring.take(&mut next).items.len()), (WRITERS * ROUNDS, 0));
}

#[test]
fn every_wake_is_counted_whoever_wakes() {
    let wakes: &'static [Wakes] = zeroed(1);
    let (wakes, id) = (&wakes[0], TaskId(0x5007));
    std::thread::scope(|scope| {
        for by in [id, TaskId(9), TaskId(0)] {
            scope.spawn(move || (1..=ROUNDS).for_each(|now| wakes.wake(now, id, by)));
        }
        for _ in 0..ROUNDS {
            let waited = wakes.answer(2 * ROUNDS, id).unwrap_or(0);
            assert!(waited < 2 * ROUNDS, "{waited}");
            wakes.add_scheduled(waited);
        }
    });
    let view = wakes.view();
    assert_eq!((view.total, u64::from(view.by_itself)), (3 * ROUNDS, ROUNDS));
}
