//! A bounded ring that any application thread writes to without waiting and the probe's thread reads. Entries that were
//! overwritten before they were read are counted, never torn: each carries the number of its write, checked before and
//! after its words are read. One thread at a time writes to an entry: a writer that finds another there (one of them is a
//! whole round behind) gives its own words up, and they are counted as overwritten.

use super::sync::{Acquire, AtomicU64, Relaxed, Release, fence, zeroed};

/// The version of an entry that is being written.
const WRITING: u64 = u64::MAX;

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
struct Entry<const WORDS: usize> {
    /// The number of the write plus one, or [`WRITING`]; 0: never written.
    version: AtomicU64,
    /// The number plus one of the last write that was given up.
    given_up: AtomicU64,
    words: [AtomicU64; WORDS],
}

#[cfg(taskscope_loom)]
impl<const WORDS: usize> Default for Entry<WORDS> {
    fn default() -> Self {
        let words = std::array::from_fn(|_| AtomicU64::default());
        Self { version: AtomicU64::default(), given_up: AtomicU64::default(), words }
    }
}

pub(crate) const fn entry_bytes<const WORDS: usize>() -> usize {
    (WORDS + 2) * 8
}

pub(crate) struct Ring<const WORDS: usize> {
    entries: &'static [Entry<WORDS>],
    written: AtomicU64,
    /// Taken out, as of the last look.
    taken: AtomicU64,
}

/// What a reader took out.
pub(crate) struct Taken<const WORDS: usize> {
    pub(crate) items: Vec<[u64; WORDS]>,
    /// Overwritten before they could be read.
    pub(crate) lost: u64,
}

impl<const WORDS: usize> Ring<WORDS> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { entries: zeroed(capacity), written: AtomicU64::new(0), taken: AtomicU64::new(0) }
    }

    /// As [`Ring::push`], but nothing that was not taken out yet is overwritten. False: there is no room. Writers that come
    /// too late then only read.
    pub(crate) fn push_if_room(&self, words: [u64; WORDS]) -> bool {
        let waiting = self.written.load(Relaxed).wrapping_sub(self.taken.load(Relaxed));
        let room = waiting < self.entries.len() as u64;
        if room {
            self.push(words);
        }
        room
    }

    pub(crate) fn push(&self, words: [u64; WORDS]) {
        let number = self.written.fetch_add(1, Relaxed);
        let entry = &self.entries[(number % self.entries.len() as u64) as usize];
        let before = entry.version.load(Relaxed);
        // `WRITING` is above every number: so is what a thread wrote that overtook this one.
        let free =
            before <= number && entry.version.compare_exchange(before, WRITING, Acquire, Relaxed).is_ok();
        if !free {
            entry.given_up.fetch_max(number + 1, Relaxed);
            return;
        }
        fence(Release);
        for (cell, word) in entry.words.iter().zip(words) {
            cell.store(word, Relaxed);
        }
        entry.version.store(number + 1, Release);
    }

    /// Everything written since `*next`, which is moved on. An entry that is being written now ends the reading; it is
    /// read the next time.
    pub(crate) fn take(&self, next: &mut u64) -> Taken<WORDS> {
        let written = self.written.load(Acquire);
        let oldest = written.saturating_sub(self.entries.len() as u64);
        let mut taken = Taken { items: Vec::new(), lost: oldest.saturating_sub(*next) };
        *next = (*next).max(oldest);
        while *next < written {
            let entry = &self.entries[(*next % self.entries.len() as u64) as usize];
            let before = entry.version.load(Acquire);
            if before == WRITING || before < *next + 1 {
                if entry.given_up.load(Relaxed) < *next + 1 {
                    break;
                }
                taken.lost += 1;
                *next += 1;
                continue;
            }
            let mut words = [0; WORDS];
            for (word, cell) in words.iter_mut().zip(&entry.words) {
                *word = cell.load(Relaxed);
            }
            fence(Acquire);
            if before == *next + 1 && entry.version.load(Relaxed) == before {
                taken.items.push(words);
            } else {
                taken.lost += 1;
            }
            *next += 1;
        }
        self.taken.store(*next, Relaxed);
        taken
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_in_the_order_they_went_in() {
        let ring = Ring::<2>::with_capacity(8);
        let mut next = 0;
        ring.push([1, 10]);
        ring.push([2, 20]);
        assert_eq!(ring.take(&mut next).items, [[1, 10], [2, 20]]);
        ring.push([3, 30]);
        assert_eq!(ring.take(&mut next).items, [[3, 30]]);
    }

    #[test]
    fn what_was_overwritten_is_counted() {
        let ring = Ring::<1>::with_capacity(4);
        (0..10).for_each(|n| ring.push([n]));
        let mut next = 0;
        let taken = ring.take(&mut next);
        assert_eq!((taken.items, taken.lost), (vec![[6], [7], [8], [9]], 6));
    }

    #[test]
    fn a_reader_beside_writers_never_sees_a_torn_entry() {
        let ring = Ring::<3>::with_capacity(16);
        let (mut seen, mut lost, mut next) = (0, 0, 0);
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let ring = &ring;
                scope.spawn(move || (0..20_000).for_each(|n| ring.push([thread << 32 | n; 3])));
            }
            while seen + lost < 60_000 {
                let taken = ring.take(&mut next);
                assert!(taken.items.iter().all(|words| words[0] == words[1] && words[1] == words[2]));
                seen += taken.items.len() as u64;
                lost += taken.lost;
            }
        });
        assert_eq!(seen + lost, 60_000);
    }
}
