//! Every distinct stack once, and the files of code that they go through. A stack has a number that is never given out again,
//! so that watchers can be sent each one once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use taskscope_proto::v1::{self, interned_stack::End};

/// Position of a frame's module in one word with its address.
const ADDRESS_BITS: u32 = 48;
/// Files at most; they are as many as were ever loaded.
const MODULES: usize = 4096;
/// What a stack costs beside its frames.
const OVERHEAD: usize = 160;

/// Number of a stack, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StackId(pub(crate) u32);

/// A file of code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) build_id: Vec<u8>,
}

/// A stack as it is stored: of each frame its file's number (0: none) and its address there.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Stored {
    frames: Box<[u64]>,
    end: i32,
}

#[derive(Debug)]
pub(crate) struct Table {
    stacks: HashMap<StackId, Arc<Stored>>,
    ids: HashMap<Arc<Stored>, StackId>,
    files: Vec<File>,
    file_ids: HashMap<File, u32>,
    next: u32,
    bytes: usize,
    budget: usize,
    /// There was no room for a stack.
    is_full: bool,
}

impl Table {
    pub(crate) fn with_budget(budget: usize) -> Self {
        Self {
            stacks: HashMap::new(),
            ids: HashMap::new(),
            files: Vec::new(),
            file_ids: HashMap::new(),
            next: 1,
            bytes: 0,
            budget,
            is_full: false,
        }
    }

    /// The stack with these frames, the innermost first; `None`: there is no room for it.
    pub(crate) fn intern<'a>(
        &mut self,
        frames: impl Iterator<Item = (Option<File>, u64)> + 'a,
        end: End,
    ) -> Option<StackId> {
        let mut packed = Vec::new();
        for (file, address) in frames {
            let file = file.map_or(Some(0), |file| self.file(file))?;
            packed.push(u64::from(file) << ADDRESS_BITS | address & ((1 << ADDRESS_BITS) - 1));
        }
        let stored = Stored { frames: packed.into(), end: end.into() };
        if let Some(&known) = self.ids.get(&stored) {
            return Some(known);
        }
        let bytes = size_of_val(&*stored.frames) + OVERHEAD;
        if self.bytes + bytes > self.budget || self.next == u32::MAX {
            self.is_full = true;
            return None;
        }
        self.bytes += bytes;
        let (id, stored) = (StackId(self.next), Arc::new(stored));
        self.next += 1;
        self.stacks.insert(id, Arc::clone(&stored));
        self.ids.insert(stored, id);
        Some(id)
    }

    /// The number of a file, never 0.
    fn file(&mut self, file: File) -> Option<u32> {
        if let Some(&known) = self.file_ids.get(&file) {
            return Some(known);
        }
        let bytes = 2 * (file.path.len() + file.build_id.len()) + OVERHEAD;
        if self.files.len() == MODULES || self.bytes + bytes > self.budget {
            self.is_full = true;
            return None;
        }
        self.bytes += bytes;
        self.files.push(file.clone());
        let id = self.files.len() as u32;
        self.file_ids.insert(file, id);
        Some(id)
    }

    /// Whether a stack found no room since it was last made.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Forgets stacks that nobody refers to, the oldest first, until half of the room is free.
    pub(crate) fn make_room(&mut self, in_use: &HashSet<StackId>) {
        self.is_full = false;
        let mut unused: Vec<StackId> =
            self.stacks.keys().filter(|id| !in_use.contains(id)).copied().collect();
        unused.sort_unstable();
        for id in unused {
            if self.bytes <= self.budget / 2 {
                break;
            }
            if let Some(stored) = self.stacks.remove(&id) {
                self.bytes -= size_of_val(&*stored.frames) + OVERHEAD;
                self.ids.remove(&stored);
            }
        }
    }

    pub(crate) fn has(&self, id: StackId) -> bool {
        self.stacks.contains_key(&id)
    }

    /// A stack as it goes out.
    pub(crate) fn describe(&self, id: StackId) -> Option<v1::InternedStack> {
        let stored = self.stacks.get(&id)?;
        Some(v1::InternedStack {
            stack_sid: id.0,
            module_ids: stored.frames.iter().map(|frame| (frame >> ADDRESS_BITS) as u32).collect(),
            addresses: stored.frames.iter().map(|frame| frame & ((1 << ADDRESS_BITS) - 1)).collect(),
            end: stored.end,
        })
    }

    /// A file as it goes out.
    pub(crate) fn module(&self, id: u32) -> Option<v1::Module> {
        let file = self.files.get((id as usize).checked_sub(1)?)?;
        Some(v1::Module { id, path: file.path.clone(), build_id: file.build_id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Option<File> {
        Some(File { path: name.to_owned(), build_id: vec![1, 2] })
    }

    fn deep(table: &mut Table, last: u64) -> Option<StackId> {
        let frames = (0..50).map(|frame| (file("/bin/api"), 0x1000 + frame)).chain([(None, last)]);
        table.intern(frames, End::Whole)
    }

    #[test]
    fn one_stack_has_one_number_and_another_end_is_another_stack() {
        let mut table = Table::with_budget(1 << 16);
        let frames = || [(file("/bin/api"), 7), (file("/lib/c"), 8), (None, 0x7fff_ffff_f000)].into_iter();
        let id = table.intern(frames(), End::Whole).expect("there is room");
        assert_eq!(table.intern(frames(), End::Whole), Some(id));
        assert_ne!(table.intern(frames(), End::Lost), Some(id));
        let described = table.describe(id).expect("it is there");
        assert_eq!(
            (described.module_ids, described.addresses),
            (vec![1, 2, 0], vec![7, 8, 0x7fff_ffff_f000])
        );
        assert_eq!(table.module(2).map(|module| module.path), Some("/lib/c".to_owned()));
        assert_eq!((table.module(0), table.module(3)), (None, None));
    }

    #[test]
    fn a_full_table_keeps_what_is_referred_to_and_never_gives_a_number_twice() {
        let mut table = Table::with_budget(8 << 10);
        let mut seen: Vec<StackId> = (0..).map_while(|last| deep(&mut table, last)).collect();
        assert!(table.is_full() && seen.len() > 4);
        let used = HashSet::from([seen[0]]);
        table.make_room(&used);
        assert!(
            !table.is_full() && table.has(seen[0]) && !table.has(seen[1]) && table.bytes <= table.budget / 2
        );
        let fresh = deep(&mut table, 1).expect("there is room again");
        assert!(!seen.contains(&fresh));
        // Where all are referred to, there is none.
        seen = (1_000..).map_while(|last| deep(&mut table, last)).collect();
        let used: HashSet<_> = table.stacks.keys().copied().collect();
        table.make_room(&used);
        assert!(!seen.is_empty() && deep(&mut table, 77).is_none() && table.is_full());
    }
}
