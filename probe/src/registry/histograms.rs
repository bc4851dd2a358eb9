//! How long polls took, by group or by label. Each thread counts in histograms of its own, with plain stores; the probe's
//! thread adds them up. Log-linear, 32 sub-buckets an octave, the memory of an octave taken when a poll first falls into it,
//! never clamped.
//!
//! When the memory is used up, the probe's thread folds the coldest group into `other`: see [`Histograms::fold`].

use taskscope_proto::histogram::{self, Sparse};

use super::free_list::FreeList;
use super::sync::{
    AcqRel, Acquire, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Relaxed, Release, SeqCst, fence, zeroed,
};

/// Groups, or labels, that are counted apart.
#[cfg(not(taskscope_loom))]
const CAP: usize = 256;
#[cfg(taskscope_loom)]
const CAP: usize = 2;
#[cfg(not(taskscope_loom))]
const SUB_BUCKETS: usize = histogram::SUB_BUCKETS;
#[cfg(taskscope_loom)]
const SUB_BUCKETS: usize = 2;
#[cfg(not(taskscope_loom))]
const OCTAVES: usize = 64;
#[cfg(taskscope_loom)]
const OCTAVES: usize = 2;
/// Records and blocks have a position for every number of sixteen bits, which needs no check; what is past the budget is
/// never given out, and so never takes memory.
#[cfg(not(any(taskscope_loom, miri)))]
const POSITIONS: usize = 1 << 16;
/// Miri looks at every one of them whenever all are lent.
#[cfg(all(miri, not(taskscope_loom)))]
const POSITIONS: usize = 1 << 8;
#[cfg(taskscope_loom)]
const POSITIONS: usize = 4;
/// In place of a record: counted under `other` from now on.
const FOLDED: u16 = (POSITIONS - 1) as u16;
/// Bits of a double below its exponent, and below the first five of its fraction: the octave of a duration and the
/// sub-bucket in it.
const OCTAVE_SHIFT: u32 = 52;
const SUB_SHIFT: u32 = OCTAVE_SHIFT - SUB_BUCKETS.ilog2();

/// One thread's histograms, by position of the group or label: position of a record, 0: none yet.
#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
pub(crate) struct Tally([AtomicU16; CAP]);

#[cfg(not(taskscope_loom))]
impl Tally {
    pub(crate) const fn empty() -> Self {
        Self([const { AtomicU16::new(0) }; CAP])
    }
}

/// One histogram of one thread.
#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
struct Record {
    /// Position of a block by octave, rotated as [`place`] does; 0: none yet.
    octaves: Octaves,
    polls: AtomicU64,
    busy_ns: AtomicU64,
    /// Of a free record.
    next_free: AtomicU32,
}

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
struct Octaves([AtomicU16; OCTAVES]);

/// The counts of one octave, modulo 2³².
#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
struct Block([AtomicU32; SUB_BUCKETS]);

#[cfg(taskscope_loom)]
impl Default for Octaves {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU16::default()))
    }
}

pub(crate) struct Histograms {
    records: &'static [Record; POSITIONS],
    /// Position 0 is "none".
    blocks: &'static [Block; POSITIONS],
    free_records: FreeList,
    free_blocks: FreeList,
    /// By position: not 0 where it is counted under `other`.
    folded: [AtomicU8; CAP],
    /// What was counted before it was folded.
    before: &'static [Block],
    polls_before: AtomicU64,
    /// Taken away from their threads and not added to those before yet.
    polls_folding: AtomicU64,
    busy_before_ns: AtomicU64,
    /// Somebody found no memory since the last look.
    is_short: AtomicU32,
}

/// Everything counted under one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) histogram: Sparse,
    pub(crate) polls: u64,
    pub(crate) busy_ns: u64,
}

/// Records taken away from their threads by [`Histograms::fold`], not yet added to `other`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Folding {
    records: Vec<u16>,
}

fn room<T: super::sync::Zeroed>() -> &'static [T; POSITIONS] {
    match zeroed(POSITIONS).try_into() {
        Ok(room) => room,
        Err(_) => unreachable!("it was made that long"),
    }
}

/// Octave (rotated: that of 1 ns is the last) and sub-bucket of a duration.
#[inline]
fn place(ns: u64) -> (usize, usize) {
    // A double's exponent and first bits of its fraction are what a log-linear histogram asks for.
    let bits = (ns as i64 as f64).to_bits();
    ((bits >> OCTAVE_SHIFT) as usize % OCTAVES, (bits >> SUB_SHIFT) as usize % SUB_BUCKETS)
}

/// The bucket, as the wire counts them, of an octave and sub-bucket of [`place`].
fn bucket(octave: usize, sub: usize) -> usize {
    let exponent = (octave + 1) % OCTAVES;
    let value = if exponent >= 5 {
        ((SUB_BUCKETS + sub) as u64) << (exponent - 5)
    } else {
        ((SUB_BUCKETS + sub) >> (5 - exponent)) as u64
    };
    histogram::index(value)
}

impl Histograms {
    /// Takes at most `bytes`; see [`Histograms::bytes`].
    pub(crate) fn with_budget(bytes: usize) -> Self {
        // A record with one block in every six octaves; positions have sixteen bits, of which two values are taken.
        let most = usize::from(FOLDED) - 1;
        let bytes = bytes.saturating_sub(OCTAVES * size_of::<Block>());
        let records = (bytes / (size_of::<Record>() + 6 * size_of::<Block>())).clamp(2, most);
        let blocks =
            (bytes.saturating_sub(records * size_of::<Record>()) / size_of::<Block>()).clamp(2, most);
        Self::with_capacity(records, blocks)
    }

    pub(crate) fn with_capacity(records: usize, blocks: usize) -> Self {
        Self {
            records: room(),
            blocks: room(),
            free_records: FreeList::new(1, records),
            free_blocks: FreeList::new(1, blocks),
            folded: std::array::from_fn(|_| AtomicU8::new(0)),
            before: zeroed(OCTAVES),
            polls_before: AtomicU64::new(0),
            polls_folding: AtomicU64::new(0),
            busy_before_ns: AtomicU64::new(0),
            is_short: AtomicU32::new(0),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.free_records.capacity() * size_of::<Record>()
            + self.free_blocks.capacity() * size_of::<Block>()
            + size_of_val(self.before)
    }

    /// Counts a duration under `position` for the thread that owns `tally`, if it has counted one of that octave before.
    /// Else the caller asks [`Histograms::add_first`].
    #[inline]
    #[must_use]
    pub(crate) fn add(&self, tally: &Tally, position: u8, ns: u64) -> bool {
        let (octave, sub) = place(ns);
        let known = tally.0[usize::from(position) % CAP].load(Relaxed);
        // The records of 0 and of `FOLDED` are nobody's, and have no blocks.
        let record = &self.records[usize::from(known)];
        let block = record.octaves.0[octave].load(Relaxed);
        if block == 0 {
            return false;
        }
        record.add(ns);
        self.blocks[usize::from(block)].add(sub);
        true
    }

    /// As [`Histograms::add`], taking memory where this thread has none yet. False: there is none, and the caller counts
    /// it elsewhere.
    #[must_use]
    pub(crate) fn add_first(&self, tally: &Tally, position: u8, ns: u64) -> bool {
        let (octave, sub) = place(ns);
        let Some(record) = self.record_of(tally, position) else { return self.falls_short() };
        let octave = &record.octaves.0[octave];
        let mut block = octave.load(Relaxed);
        if block == 0 {
            let taken = self.free_blocks.take(|free| self.blocks[free as usize].0[0].load(Relaxed));
            let Some(taken) = taken else { return self.falls_short() };
            block = taken as u16;
            self.blocks[taken as usize].clear();
            octave.store(block, Release);
        }
        record.add(ns);
        self.blocks[usize::from(block)].add(sub);
        true
    }

    fn falls_short(&self) -> bool {
        self.is_short.store(1, Relaxed);
        false
    }

    /// This thread's record for `position`, made if it has none; that of `other` where it is folded.
    fn record_of(&self, tally: &Tally, position: u8) -> Option<&Record> {
        let place = &tally.0[usize::from(position) % CAP];
        let mut known = place.load(Acquire);
        if known == 0 {
            if self.is_folded(position) {
                known = FOLDED;
            } else {
                let taken =
                    self.free_records.take(|free| self.records[free as usize].next_free.load(Relaxed))?;
                self.records[taken as usize].clear();
                match place.compare_exchange(0, taken as u16, AcqRel, Acquire) {
                    Ok(_) => known = taken as u16,
                    // Folded at this moment.
                    Err(other) => {
                        self.release_record(taken);
                        known = other;
                    }
                }
            }
        }
        if known == FOLDED {
            return if position == 0 { None } else { self.record_of(tally, 0) };
        }
        Some(&self.records[usize::from(known)])
    }

    fn release_record(&self, position: u32) {
        self.free_records
            .put_back(position, |next| self.records[position as usize].next_free.store(next, Relaxed));
    }

    /// Whether `position` is counted under `other`.
    pub(crate) fn is_folded(&self, position: u8) -> bool {
        self.folded[usize::from(position) % CAP].load(Acquire) != 0
    }

    /// What all threads have counted under `position`; `None` where that is counted under `other`.
    pub(crate) fn read<'a>(&self, tallies: impl Iterator<Item = &'a Tally>, position: u8) -> Option<Counted> {
        if self.is_folded(position) {
            return None;
        }
        let mut counts = Counts::default();
        if position == 0 {
            counts.polls = self.polls_before.load(Acquire);
            counts.busy_ns = self.busy_before_ns.load(Relaxed);
            for (octave, block) in self.before.iter().enumerate() {
                counts.add(octave, block);
            }
        }
        for tally in tallies {
            let known = tally.0[usize::from(position) % CAP].load(Acquire);
            if known != 0
                && let Some(record) = self.records.get(usize::from(known))
            {
                self.add_record(record, &mut counts);
            }
        }
        Some(counts.into())
    }

    /// Number and time of what all threads have counted under `position`.
    pub(crate) fn totals<'a>(&self, tallies: impl Iterator<Item = &'a Tally>, position: u8) -> (u64, u64) {
        let before = match position {
            0 => (self.polls_before.load(Acquire), self.busy_before_ns.load(Relaxed)),
            _ => (0, 0),
        };
        tallies.fold(before, |(polls, busy_ns), tally| {
            let record = &self.records[usize::from(tally.0[usize::from(position) % CAP].load(Acquire))];
            (polls + record.polls.load(Relaxed), busy_ns + record.busy_ns.load(Relaxed))
        })
    }

    fn add_record(&self, record: &Record, counts: &mut Counts) {
        counts.polls += record.polls.load(Relaxed);
        counts.busy_ns += record.busy_ns.load(Relaxed);
        for (octave, block) in record.octaves.0.iter().enumerate() {
            if let block @ 1.. = block.load(Acquire) {
                counts.add(octave, &self.blocks[usize::from(block)]);
            }
        }
    }

    /// Everything that was counted under any position. Never falls.
    pub(crate) fn polls<'a>(&self, tallies: impl Iterator<Item = &'a Tally>) -> u64 {
        let folded = self.polls_before.load(Acquire) + self.polls_folding.load(Relaxed);
        folded + tallies.map(|tally| self.polls_of(tally)).sum::<u64>()
    }

    /// What one thread has counted under any position (and has not been folded).
    pub(crate) fn polls_of(&self, tally: &Tally) -> u64 {
        let records =
            tally.0.iter().map(|known| usize::from(known.load(Acquire))).filter(|&known| known != 0);
        records.map(|known| self.records[known].polls.load(Relaxed)).sum()
    }

    /// Whether a thread found no memory since this was last asked.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short.swap(0, Relaxed) != 0
    }

    /// Takes the histograms of `position` away from their threads, which count it under `other` from now on. Nothing is
    /// given out anew before [`Histograms::finish`].
    pub(crate) fn fold<'a>(&self, tallies: impl Iterator<Item = &'a Tally>, position: u8) -> Folding {
        self.folded[usize::from(position) % CAP].store(1, Release);
        // A thread that gets its line now is among `tallies`, or sees by this fence and its own that the position is folded.
        fence(SeqCst);
        let taken = tallies.map(|tally| tally.0[usize::from(position) % CAP].swap(FOLDED, AcqRel));
        let records: Vec<u16> = taken.filter(|&record| record != 0 && record != FOLDED).collect();
        let polls = records.iter().map(|&record| self.records[usize::from(record)].polls.load(Relaxed)).sum();
        self.polls_folding.store(polls, Relaxed);
        Folding { records }
    }

    /// Adds what was folded to `other` and gives its memory out anew. The caller waits a second between the two: a thread
    /// that is in the middle of counting would else count in memory that is another's.
    pub(crate) fn finish(&self, folding: Folding) {
        for position in folding.records {
            let record = &self.records[usize::from(position)];
            self.polls_before.fetch_add(record.polls.load(Relaxed), Relaxed);
            self.busy_before_ns.fetch_add(record.busy_ns.load(Relaxed), Relaxed);
            for (octave, block) in record.octaves.0.iter().enumerate() {
                let block = block.swap(0, AcqRel);
                if block == 0 {
                    continue;
                }
                if let Some(before) = self.before.get(octave) {
                    before.merge(&self.blocks[usize::from(block)]);
                }
                self.free_blocks.put_back(block.into(), |next| {
                    self.blocks[usize::from(block)].0[0].store(next, Relaxed);
                });
            }
            self.release_record(position.into());
        }
        self.polls_folding.store(0, Relaxed);
    }
}

impl Record {
    #[inline]
    fn add(&self, ns: u64) {
        self.polls.store(self.polls.load(Relaxed) + 1, Relaxed);
        self.busy_ns.store(self.busy_ns.load(Relaxed) + ns, Relaxed);
    }

    /// Its octaves were emptied when it was given back.
    fn clear(&self) {
        self.polls.store(0, Relaxed);
        self.busy_ns.store(0, Relaxed);
    }
}

impl Block {
    #[inline]
    fn add(&self, sub: usize) {
        let bucket = &self.0[sub];
        bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn clear(&self) {
        self.0.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }

    fn merge(&self, other: &Self) {
        for (bucket, more) in self.0.iter().zip(&other.0) {
            bucket.store(bucket.load(Relaxed).wrapping_add(more.load(Relaxed)), Relaxed);
        }
    }
}

/// Counts by the wire's buckets, modulo 2³².
struct Counts {
    buckets: Vec<u32>,
    polls: u64,
    busy_ns: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: vec![0; histogram::BUCKETS], polls: 0, busy_ns: 0 }
    }
}

impl Counts {
    fn add(&mut self, octave: usize, block: &Block) {
        for (sub, count) in block.0.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                let sum = &mut self.buckets[bucket(octave, sub)];
                *sum = sum.wrapping_add(count);
            }
        }
    }
}

impl From<Counts> for Counted {
    fn from(counts: Counts) -> Self {
        let buckets = counts.buckets.iter().map(|&count| u64::from(count)).enumerate();
        Self { histogram: Sparse::from_counts(buckets), polls: counts.polls, busy_ns: counts.busy_ns }
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tally() -> &'static Tally {
        &zeroed(1)[0]
    }

    fn add(histograms: &Histograms, tally: &Tally, position: u8, ns: u64) -> bool {
        histograms.add(tally, position, ns) || histograms.add_first(tally, position, ns)
    }

    fn read(histograms: &Histograms, tally: &Tally, position: u8) -> Counted {
        histograms.read(std::iter::once(tally), position).expect("it is not folded")
    }

    proptest! {
        #[test]
        fn a_duration_is_counted_in_the_bucket_that_the_wire_gives_it(ns in 1u64..1 << 53, shift in 0u32..53) {
            let ns = (ns >> shift).max(1);
            let (octave, sub) = place(ns);
            prop_assert_eq!(bucket(octave, sub), histogram::index(ns));
        }
    }

    #[test]
    fn a_ninety_second_poll_is_a_ninety_second_poll() {
        let (histograms, tally) = (Histograms::with_capacity(4, 16), tally());
        assert!(add(&histograms, tally, 3, 90_000_000_000) && add(&histograms, tally, 3, 40));
        assert_eq!(histograms.polls(std::iter::once(tally)), 2);
        let counted = read(&histograms, tally, 3);
        assert_eq!((counted.polls, counted.busy_ns, counted.histogram.total()), (2, 90_000_000_040, 2));
        assert!(counted.histogram.max().is_some_and(|max| (90_000_000_000..93_000_000_000).contains(&max)));
        assert_eq!(read(&histograms, tally, 4), Counted::default());
    }

    #[test]
    fn past_the_memory_nothing_is_counted_and_that_is_told() {
        let (histograms, tally) = (Histograms::with_capacity(2, 2), tally());
        assert!(add(&histograms, tally, 1, 100) && !histograms.is_short());
        // One block is all there is; its octave goes on counting.
        assert!(!add(&histograms, tally, 1, 1_000_000) && add(&histograms, tally, 1, 101));
        assert!(histograms.is_short() && !histograms.is_short());
        assert_eq!(read(&histograms, tally, 1).polls, 2);
    }

    #[test]
    fn a_folded_group_counts_under_other_and_its_memory_is_given_out_anew() {
        let (histograms, tally) = (Histograms::with_capacity(3, 3), tally());
        assert!(add(&histograms, tally, 7, 100) && add(&histograms, tally, 7, 4_000));
        assert!(!add(&histograms, tally, 8, 100));
        let folding = histograms.fold(std::iter::once(tally), 7);
        assert!(!add(&histograms, tally, 7, 100), "other has no memory yet");
        histograms.finish(folding);
        assert_eq!(histograms.read(std::iter::once(tally), 7), None);
        assert!(add(&histograms, tally, 7, 200), "it counts under other now");
        assert_eq!((read(&histograms, tally, 0).polls, read(&histograms, tally, 0).busy_ns), (3, 4_300));
        assert_eq!(read(&histograms, tally, 0).histogram.total(), 3);
    }
}
