//! Log-linear histogram of durations: 32 sub-buckets an octave, exact below 64 ns, never clamped (a 90-second poll is a
//! 90-second poll). A value lies within 1/32 of its bucket's bounds.

use prost::bytes::{Buf, Bytes};
use prost::encoding::{decode_varint, encode_varint};

/// Sub-buckets an octave.
pub const SUB_BUCKETS: usize = 32;
const SUB_BITS: u32 = 5;
/// Buckets that the whole range of `u64` needs.
pub const BUCKETS: usize = (64 - SUB_BITS as usize) * SUB_BUCKETS + SUB_BUCKETS;

/// The bucket of `value`.
#[inline]
pub fn index(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let octave = 63 - value.leading_zeros();
    let shift = octave - SUB_BITS;
    let sub = (value >> shift) as usize - SUB_BUCKETS;
    (octave - SUB_BITS + 1) as usize * SUB_BUCKETS + sub
}

/// The smallest value of bucket `index`.
pub fn lower_bound(index: usize) -> u64 {
    if index < SUB_BUCKETS {
        return index as u64;
    }
    let octave = index / SUB_BUCKETS - 1;
    ((SUB_BUCKETS + index % SUB_BUCKETS) as u64) << octave
}

/// The largest value of bucket `index`.
pub fn upper_bound(index: usize) -> u64 {
    if index + 1 >= BUCKETS { u64::MAX } else { lower_bound(index + 1) - 1 }
}

/// Buckets with a count, in ascending order of bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    buckets: Vec<(u32, u64)>,
}

impl Sparse {
    /// From counts by bucket; zeroes are left out.
    pub fn from_counts(counts: impl IntoIterator<Item = (usize, u64)>) -> Self {
        let mut buckets: Vec<(u32, u64)> = counts
            .into_iter()
            .filter(|&(bucket, count)| count > 0 && bucket < BUCKETS)
            .map(|(bucket, count)| (bucket as u32, count))
            .collect();
        buckets.sort_unstable_by_key(|&(bucket, _)| bucket);
        Self { buckets }
    }

    /// What was counted since `earlier`, a former state of the same counters, which count modulo 2³².
    pub fn since(&self, earlier: &Self) -> Self {
        let mut before = earlier.buckets.iter().copied().peekable();
        let buckets = self
            .buckets
            .iter()
            .filter_map(|&(bucket, count)| {
                while before.next_if(|&(b, _)| b < bucket).is_some() {}
                let old = before.next_if(|&(b, _)| b == bucket).map_or(0, |(_, c)| c);
                let grown = u64::from((count as u32).wrapping_sub(old as u32));
                (grown > 0).then_some((bucket, grown))
            })
            .collect();
        Self { buckets }
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.buckets.iter().map(|&(_, count)| count).sum()
    }

    /// Values counted in buckets that begin at or above the bucket of `value`.
    pub fn at_least(&self, value: u64) -> u64 {
        let from = index(value) as u32;
        self.buckets.iter().filter(|&&(bucket, _)| bucket >= from).map(|&(_, count)| count).sum()
    }

    /// The value below or at which the share `q` (0 to 1) of the values lies, within 1/32; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = ((self.total() as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().find_map(|&(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| upper_bound(bucket as usize))
        })
    }

    /// The largest value, within 1/32; `None` when empty.
    pub fn max(&self) -> Option<u64> {
        self.buckets.last().map(|&(bucket, _)| upper_bound(bucket as usize))
    }

    /// Bucket index and count, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.buckets.iter().map(|&(bucket, count)| (bucket as usize, count))
    }
}

/// `taskscope.v1.Histogram` with its two columns as they lie on the wire. Whoever watches is sent a thousand of them at once, of
/// which it reads each once, if at all: to take one in allocates nothing.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Packed {
    #[prost(bytes = "bytes", tag = "1")]
    bucket_delta: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    count: Bytes,
    /// Time of everything that was counted, also of polls for which no bucket had room; absent: it is not told.
    #[prost(uint64, optional, tag = "3")]
    pub sum_ns: Option<u64>,
}

impl Packed {
    /// Nothing is told but that there is something to tell.
    pub const UNTOLD: Self = Self { bucket_delta: Bytes::new(), count: Bytes::new(), sum_ns: None };

    pub fn with_sum_ns(self, sum_ns: Option<u64>) -> Self {
        Self { sum_ns, ..self }
    }

    /// Gives each bucket with its count, ascending, up to where the columns are wrong.
    pub fn for_each(&self, mut take: impl FnMut(usize, u64)) -> Result<(), Malformed> {
        let next = |column: &mut &[u8]| decode_varint(column).map_err(|_| Malformed("a number is cut off"));
        let (mut deltas, mut counts) = (&self.bucket_delta[..], &self.count[..]);
        let mut last = None;
        while deltas.has_remaining() && counts.has_remaining() {
            let (delta, count) = (next(&mut deltas)?, next(&mut counts)?);
            if delta == 0 && last.is_some() {
                return Err(Malformed("a bucket stands in it twice"));
            }
            let bucket = delta.checked_add(last.unwrap_or(0)).filter(|&bucket| bucket < BUCKETS as u64);
            let bucket = bucket.ok_or(Malformed("a bucket is past the last"))?;
            take(bucket as usize, count);
            last = Some(bucket);
        }
        if deltas.has_remaining() || counts.has_remaining() {
            return Err(Malformed("its columns differ in length"));
        }
        Ok(())
    }
}

impl From<&Sparse> for Packed {
    fn from(sparse: &Sparse) -> Self {
        let mut last = 0;
        let (mut deltas, mut counts) = (Vec::new(), Vec::new());
        for &(bucket, count) in &sparse.buckets {
            encode_varint(u64::from(bucket - last), &mut deltas);
            encode_varint(count, &mut counts);
            last = bucket;
        }
        Self { bucket_delta: deltas.into(), count: counts.into(), sum_ns: None }
    }
}

/// A histogram message that cannot be: columns of different length or with broken numbers, or buckets past the last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed histogram: {0}")]
pub struct Malformed(&'static str);

impl TryFrom<&Packed> for Sparse {
    type Error = Malformed;

    fn try_from(packed: &Packed) -> Result<Self, Malformed> {
        // A bucket is a byte of each column, or more.
        let most = packed.bucket_delta.len().min(packed.count.len()).min(BUCKETS);
        let mut buckets = Vec::with_capacity(most);
        packed.for_each(|bucket, count| buckets.push((bucket as u32, count)))?;
        Ok(Self { buckets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    /// As tasks.proto has it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Said {
        #[prost(uint32, repeated, tag = "1")]
        bucket_delta: Vec<u32>,
        #[prost(uint64, repeated, tag = "2")]
        count: Vec<u64>,
        #[prost(uint64, optional, tag = "3")]
        sum_ns: Option<u64>,
    }

    #[test]
    fn bounds_meet_without_gap_or_overlap() {
        for bucket in 1..BUCKETS {
            assert_eq!(upper_bound(bucket - 1) + 1, lower_bound(bucket), "bucket {bucket}");
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_ninety_second_poll_is_a_ninety_second_poll() {
        let sparse = Sparse::from_counts([(index(90_000_000_000), 1)]);
        let max = sparse.max().expect("it holds one value");
        assert!((90_000_000_000..93_000_000_000).contains(&max), "{max}");
    }

    #[test]
    fn a_window_is_the_difference_of_two_states() {
        let old = Sparse::from_counts([(3, 2), (9, 1)]);
        let new = Sparse::from_counts([(3, 2), (5, 1), (9, 4)]);
        assert_eq!(new.since(&old), Sparse::from_counts([(5, 1), (9, 3)]));
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_within_a_thirty_second(value: u64) {
            let bucket = index(value);
            prop_assert!(lower_bound(bucket) <= value && value <= upper_bound(bucket));
            prop_assert!(upper_bound(bucket) - lower_bound(bucket) <= value / 32);
        }

        #[test]
        fn the_codec_gives_back_what_it_took(values in prop::collection::vec((0..BUCKETS, 1u64..1000), 0..50)) {
            let mut counts = std::collections::BTreeMap::new();
            for (bucket, count) in values { *counts.entry(bucket).or_insert(0) += count; }
            let sparse = Sparse::from_counts(counts);
            prop_assert_eq!(Sparse::try_from(&Packed::from(&sparse)), Ok(sparse));
        }

        #[test]
        fn it_is_what_the_proto_file_says(columns in prop::collection::vec((1u32..30, any::<u64>()), 0..50), sum_ns: Option<u64>) {
            let (bucket_delta, count) = columns.into_iter().unzip();
            let said = Said { bucket_delta, count, sum_ns };
            let packed = Packed::decode(&said.encode_to_vec()[..]).expect("it is one");
            prop_assert_eq!(packed.encode_to_vec(), said.encode_to_vec());
            let sparse = Sparse::try_from(&packed).expect("each bucket is another");
            prop_assert_eq!(Packed::from(&sparse).with_sum_ns(sum_ns), packed);
            prop_assert_eq!(sparse.iter().map(|(_, count)| count).collect::<Vec<_>>(), said.count);
        }

        #[test]
        fn columns_that_are_wrong_are_told(bucket_delta: Vec<u32>, count: Vec<u64>) {
            let is_right = bucket_delta.len() == count.len()
                && bucket_delta.iter().skip(1).all(|&delta| delta > 0)
                && bucket_delta.iter().map(|&delta| u64::from(delta)).sum::<u64>() < BUCKETS as u64;
            let said = Said { bucket_delta, count, sum_ns: None };
            let packed = Packed::decode(&said.encode_to_vec()[..]).expect("it is one");
            prop_assert_eq!(Sparse::try_from(&packed).is_ok(), is_right);
        }

        #[test]
        fn decoding_never_panics(deltas: Vec<u8>, counts: Vec<u8>) {
            let packed = Packed { bucket_delta: deltas.into(), count: counts.into(), sum_ns: None };
            let _ = Sparse::try_from(&packed);
        }
    }
}
