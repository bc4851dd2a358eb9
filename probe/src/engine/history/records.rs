//! Records of any length in a ring of bytes, oldest first. Its memory is taken once and never grows; where it is full the
//! oldest records go.

use std::collections::VecDeque;

/// Length of a record, before it.
const HEAD: usize = 4;

pub(super) struct Records {
    bytes: VecDeque<u8>,
    capacity: usize,
    count: usize,
}

/// Where a record stands: valid until the next push.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    from: usize,
    len: usize,
}

impl Records {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: VecDeque::with_capacity(capacity), capacity, count: 0 }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends a record. Gives the number of records that had to go for it: itself, if it does not fit at all.
    pub(super) fn push(&mut self, record: &[u8]) -> u64 {
        let needed = HEAD + record.len();
        let Some(len) = u32::try_from(record.len()).ok().filter(|_| needed <= self.capacity) else {
            return 1;
        };
        let mut gone = 0;
        while self.bytes.len() + needed > self.capacity {
            self.pop();
            gone += 1;
        }
        self.bytes.extend(len.to_le_bytes());
        self.bytes.extend(record);
        self.count += 1;
        gone
    }

    /// Removes the oldest record.
    pub(super) fn pop(&mut self) {
        let Some(place) = self.oldest() else { return };
        self.bytes.drain(..place.from + place.len);
        self.count -= 1;
    }

    pub(super) fn oldest(&self) -> Option<Place> {
        self.place(0)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// All records, oldest first.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let place = self.place(next)?;
            next = place.from + place.len;
            Some(place)
        })
    }

    /// The bytes of a record into `out`, which is cleared.
    pub(super) fn read<'a>(&self, place: Place, out: &'a mut Vec<u8>) -> &'a [u8] {
        out.clear();
        let end = (place.from + place.len).min(self.bytes.len());
        out.extend(self.bytes.range(place.from.min(end)..end));
        out
    }

    /// The record whose head is at `at`.
    fn place(&self, at: usize) -> Option<Place> {
        let mut head = [0; HEAD];
        if at + HEAD > self.bytes.len() {
            return None;
        }
        head.iter_mut().zip(self.bytes.range(at..at + HEAD)).for_each(|(byte, stored)| *byte = *stored);
        Some(Place { from: at + HEAD, len: u32::from_le_bytes(head) as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(records: &Records) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        records.places().map(|place| records.read(place, &mut out).to_vec()).collect()
    }

    #[test]
    fn a_record_larger_than_the_ring_is_lost_and_nothing_else() {
        let mut records = Records::with_capacity(10);
        assert_eq!(records.push(&[1, 2]), 0);
        assert_eq!(records.push(&[0; 7]), 1);
        assert_eq!(all(&records), [vec![1, 2]]);
    }

    proptest! {
        #[test]
        fn the_last_records_come_out_as_they_went_in(records in prop::collection::vec(prop::collection::vec(0u8.., 0..12), 0..80)) {
            let mut ring = Records::with_capacity(64);
            let taken = ring.bytes.capacity();
            let mut gone = 0;
            for record in &records { gone += ring.push(record); }
            prop_assert_eq!(gone as usize + ring.len(), records.len());
            prop_assert_eq!(all(&ring), records[gone as usize..].to_vec());
            prop_assert_eq!(ring.bytes.capacity(), taken, "its memory never grows");
            let next_fits = ring.bytes.len() + HEAD + 12 <= 64;
            prop_assert!(gone == 0 || !next_fits || ring.bytes.len() + HEAD + 12 > 64 - 16, "no more goes than must");
        }
    }
}
