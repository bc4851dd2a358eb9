//! Names, labels and spawn sites, each stored once. An application thread interns without lock or allocation: it copies
//! the bytes into an arena and publishes them with one compare-and-swap.

use taskscope_proto::ids::Sid;

use super::sync::{AcqRel, Acquire, AtomicU8, AtomicU32, AtomicU64, Relaxed, zeroed};

const ENTRIES: usize = 4096;
/// Entries looked at before a text counts as lost.
const PROBES: usize = 32;
/// A longer text is cut here, at a character boundary.
pub(crate) const MAX_TEXT: usize = 255;
/// Beside the bytes of the texts.
pub(crate) const TABLE_BYTES: usize = ENTRIES * 8;

/// An entry is one word: 24 bits of hash, 28 of offset, 12 of length. Zero is free.
pub(crate) struct Texts {
    arena: &'static [AtomicU8],
    used: AtomicU32,
    entries: &'static [AtomicU64],
}

/// What to do with a text that is not stored.
#[derive(Clone, Copy, PartialEq)]
enum Unknown {
    Store,
    Refuse,
}

struct Entry {
    hash: u64,
    offset: usize,
    len: usize,
}

impl Entry {
    fn unpack(word: u64) -> Self {
        Self { hash: word >> 40, offset: (word >> 12) as usize & 0xFFF_FFFF, len: word as usize & 0xFFF }
    }
    fn pack(&self) -> u64 {
        self.hash << 40 | (self.offset as u64) << 12 | self.len as u64
    }
}

impl Texts {
    /// `bytes` for the texts themselves.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { arena: zeroed(bytes), used: AtomicU32::new(0), entries: zeroed(ENTRIES) }
    }

    /// The id of the parts joined, the same for the same text; `None` where the budget is full. The empty text has id 0.
    /// Costs one hash of the bytes and, the first time, one copy.
    pub(crate) fn intern_parts(&self, parts: &[&str]) -> Option<Sid> {
        self.search(parts, Unknown::Store)
    }

    /// The id of the parts joined, if they are stored already.
    pub(crate) fn find_parts(&self, parts: &[&str]) -> Option<Sid> {
        self.search(parts, Unknown::Refuse)
    }

    fn search(&self, parts: &[&str], unknown: Unknown) -> Option<Sid> {
        let mut joined = [0u8; MAX_TEXT];
        let mut len = 0;
        for part in parts {
            let fits = floor_boundary(part, MAX_TEXT - len);
            joined[len..len + fits].copy_from_slice(&part.as_bytes()[..fits]);
            len += fits;
        }
        let bytes = &joined[..len];
        if bytes.is_empty() {
            return Some(Sid(0));
        }
        let hash = hash(bytes);
        let mut stored: Option<Entry> = None;
        for step in 0..PROBES {
            let position = (hash as usize).wrapping_add(step) % ENTRIES;
            let mut word = self.entries[position].load(Acquire);
            if word == 0 {
                if unknown == Unknown::Refuse {
                    return None;
                }
                if stored.is_none() {
                    stored = Some(self.store(bytes, hash >> 40)?);
                }
                let fresh = stored.as_ref().map_or(0, Entry::pack);
                match self.entries[position].compare_exchange(0, fresh, AcqRel, Acquire) {
                    Ok(_) => return Some(Sid(position as u32 + 1)),
                    Err(other) => word = other,
                }
            }
            if self.holds(&Entry::unpack(word), hash >> 40, bytes) {
                return Some(Sid(position as u32 + 1));
            }
        }
        None
    }

    fn store(&self, bytes: &[u8], hash: u64) -> Option<Entry> {
        let room =
            |used: u32| (used as usize + bytes.len() <= self.arena.len()).then(|| used + bytes.len() as u32);
        let offset = self.used.fetch_update(Relaxed, Relaxed, room).ok()? as usize;
        for (cell, &byte) in self.arena[offset..].iter().zip(bytes) {
            cell.store(byte, Relaxed);
        }
        Some(Entry { hash, offset, len: bytes.len() })
    }

    fn holds(&self, entry: &Entry, hash: u64, bytes: &[u8]) -> bool {
        entry.hash == hash
            && entry.len == bytes.len()
            && self.arena[entry.offset..].iter().zip(bytes).all(|(cell, &byte)| cell.load(Relaxed) == byte)
    }

    /// A copy of the text of `sid`; empty for 0. For the probe's thread: it allocates.
    pub(crate) fn read(&self, sid: Sid) -> String {
        let Some(position) = (sid.0 as usize).checked_sub(1) else { return String::new() };
        let Some(word) = self.entries.get(position).map(|entry| entry.load(Acquire)) else {
            return String::new();
        };
        let entry = Entry::unpack(word);
        let end = (entry.offset + entry.len).min(self.arena.len());
        let bytes: Vec<u8> = self.arena[entry.offset..end].iter().map(|cell| cell.load(Relaxed)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The largest length up to `max` that ends at a character of `text`.
fn floor_boundary(text: &str, max: usize) -> usize {
    if text.len() <= max {
        return text.len();
    }
    (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// FNV-1a, folded so that low and high bits both vary.
fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    hash ^ hash >> 29
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_stored_once_and_read_back() {
        let texts = Texts::new(256 << 10);
        let first = texts.intern_parts(&["POST /resize"]).expect("there is room");
        assert_eq!(texts.intern_parts(&["POST ", "/resize"]), Some(first));
        assert_ne!(texts.intern_parts(&["GET /resize"]), Some(first));
        assert_eq!(texts.read(first), "POST /resize");
        assert_eq!((texts.intern_parts(&[""]), texts.read(Sid(0))), (Some(Sid(0)), String::new()));
    }

    #[test]
    fn a_search_stores_nothing() {
        let texts = Texts::new(256 << 10);
        assert_eq!(texts.find_parts(&["GET ", "/"]), None);
        let stored = texts.intern_parts(&["GET /"]);
        assert!(stored.is_some() && texts.find_parts(&["GET ", "/"]) == stored);
    }

    #[test]
    fn a_megabyte_is_cut_at_a_character() {
        let texts = Texts::new(256 << 10);
        let sid = texts.intern_parts(&[&"é".repeat(1 << 19)]).expect("the cut text has room");
        assert_eq!(texts.read(sid), "é".repeat(127));
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let texts = Texts::new(256 << 10);
        let kept = texts.intern_parts(&["kept"]);
        let lost =
            (0..20_000).filter(|n| texts.intern_parts(&[&format!("text number {n}")]).is_none()).count();
        assert!(lost > 10_000, "{lost}");
        assert_eq!(texts.intern_parts(&["kept"]), kept);
    }

    #[test]
    fn threads_that_intern_the_same_agree() {
        let texts = Texts::new(256 << 10);
        let all: Vec<Vec<Option<Sid>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..300).map(|n| texts.intern_parts(&[&format!("t{n}")])).collect()))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(all.iter().all(|one| *one == all[0]));
    }
}
