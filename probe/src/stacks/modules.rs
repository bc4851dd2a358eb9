//! The files of code in this process: where they are mapped, and the rules by which their functions are unwound. Read from
//! `/proc/self/maps` and from memory itself, so that what is said is about the code that runs, also where its file was replaced.
//! No lock of the dynamic loader is taken, and memory that is gone is no fault: see [`Memory`].

use super::unwind::{Code, Rules};

/// Mapped code is looked up anew at least this often, ns: a library may be unloaded and another one be in its place.
const STALE_NS: u64 = 1_000_000_000;
/// An address in no known file makes it be looked up anew, but not more often than this.
const SOONEST_NS: u64 = 50_000_000;
/// Files at most.
const FILES: usize = 4096;
/// Program headers of a file, and bytes of its notes, at most.
const HEADERS: usize = 64;
const NOTES: usize = 4096;
/// The description of one function.
const LONGEST_ENTRY: usize = 64 << 10;
const PAGE: u64 = 4096;
/// Pages kept during one sample.
pub(super) const PAGES: usize = 64;

/// `mov x8, #139; svc #0`: the system call `rt_sigreturn`, in the kernel's page as in all C libraries. On x86-64 nobody asks.
const RETURN_OF_AARCH64: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];

const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const NT_GNU_BUILD_ID: u32 = 3;

/// This process's memory.
pub(crate) trait Memory {
    /// Fills `into` from `address` as far as memory is readable; gives how much that was.
    fn read(&self, address: u64, into: &mut [u8]) -> usize;
}

/// Read through the kernel, which stops where nothing is mapped.
#[derive(Debug)]
pub(crate) struct OwnMemory;

impl Memory for OwnMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> usize {
        use nix::sys::uio::{RemoteIoVec, process_vm_readv};
        let Ok(base) = usize::try_from(address) else { return 0 };
        let remote = [RemoteIoVec { base, len: into.len() }];
        let local = &mut [std::io::IoSliceMut::new(into)];
        process_vm_readv(nix::unistd::Pid::this(), local, &remote).unwrap_or(0)
    }
}

/// One line of `/proc/self/maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping<'a> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) is_code: bool,
    pub(crate) is_writable: bool,
    offset: u64,
    /// Device and inode.
    file: (&'a str, &'a str),
    pub(crate) path: &'a str,
}

pub(crate) fn parse_maps(text: &str) -> impl Iterator<Item = Mapping<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let rights = words.next()?;
        let offset = words.next()?;
        let file = (words.next()?, words.next()?);
        Some(Mapping {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            is_code: rights.contains('x'),
            is_writable: rights.starts_with("rw"),
            offset: u64::from_str_radix(offset, 16).ok()?,
            file,
            path: words.next().unwrap_or_default().trim_start(),
        })
    })
}

/// One file of code, where it is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) path: String,
    pub(crate) build_id: Vec<u8>,
    /// Of its mappings.
    start: u64,
    code: Vec<(u64, u64)>,
    /// What is added to an address in the file.
    bias: u64,
    /// Where its table of functions is; `None`: it has none.
    table: Option<u64>,
}

impl Module {
    /// An address in memory as the file has it.
    pub(crate) fn in_file(&self, address: u64) -> u64 {
        address.wrapping_sub(self.bias)
    }
}

#[derive(Debug)]
pub(crate) struct Modules<M> {
    memory: M,
    list: Vec<Module>,
    /// Executable ranges and the position of their module, by address; code in no file has none.
    ranges: Vec<(u64, u64, Option<usize>)>,
    read_at_ns: Option<u64>,
    now_ns: u64,
    /// Pages that this sample has read already: the number of the page, and its bytes.
    pages: Vec<(u64, Box<[u8]>)>,
}

impl<M: Memory> Modules<M> {
    pub(crate) fn new(memory: M) -> Self {
        Self { memory, list: Vec::new(), ranges: Vec::new(), read_at_ns: None, now_ns: 0, pages: Vec::new() }
    }

    /// Before each sample: forgets what memory held, and, after a while, what is mapped where.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.pages.clear();
        if self.read_at_ns.is_none_or(|at_ns| now_ns >= at_ns.saturating_add(STALE_NS)) {
            self.read_maps();
        }
    }

    /// As [`Modules::begin`], for a sample that has failed: looks up what is mapped now. False where that was just done.
    pub(crate) fn begin_anew(&mut self) -> bool {
        let is_fresh = self.read_at_ns.is_some_and(|at_ns| self.now_ns < at_ns.saturating_add(SOONEST_NS));
        if !is_fresh {
            self.pages.clear();
            self.read_maps();
        }
        !is_fresh
    }

    fn read_maps(&mut self) {
        self.read_at_ns = Some(self.now_ns);
        if let Ok(text) = std::fs::read("/proc/self/maps") {
            self.take_maps(&String::from_utf8_lossy(&text));
        }
    }

    fn take_maps(&mut self, text: &str) {
        let mut list: Vec<Module> = Vec::new();
        self.ranges.clear();
        let mut current: Option<(Mapping<'_>, Option<usize>)> = None;
        for mapping in parse_maps(text) {
            let is_file = mapping.path.starts_with('/') || mapping.path == "[vdso]";
            if is_file {
                // A file that is mapped a second time begins anew.
                let goes_on = current.as_ref().is_some_and(|(first, _)| {
                    first.path == mapping.path && first.file == mapping.file && mapping.offset > first.offset
                });
                if !goes_on {
                    current = Some((mapping, None));
                }
            }
            if !mapping.is_code {
                continue;
            }
            let mut position = None;
            if is_file && let Some((first, known)) = &mut current {
                if known.is_none() && list.len() < FILES {
                    list.push(self.module(first));
                    *known = Some(list.len() - 1);
                }
                position = *known;
                if let Some(module) = known.and_then(|position| list.get_mut(position)) {
                    module.code.push((mapping.start, mapping.end));
                }
            }
            self.ranges.push((mapping.start, mapping.end, position));
        }
        self.list = list;
    }

    /// The module whose first mapping this is. One that is known is not read again: two files have two inodes.
    fn module(&self, first: &Mapping<'_>) -> Module {
        let mut module = Module {
            path: first.path.to_owned(),
            build_id: Vec::new(),
            start: first.start,
            code: Vec::new(),
            bias: first.start.wrapping_sub(first.offset),
            table: None,
        };
        if first.offset == 0 {
            self.read_headers(&mut module);
        }
        module
    }

    /// What the headers of the file say, which lie at the beginning of its first mapping.
    fn read_headers(&self, module: &mut Module) -> Option<()> {
        let mut header = [0; ELF_HEADER];
        self.exact(module.start, &mut header)?;
        // Of 64 bits, little-endian.
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let headers_at = module.start.wrapping_add(word(&header, 32)?);
        if half(&header, 54)? as usize != PROGRAM_HEADER {
            return None;
        }
        let count = (half(&header, 56)? as usize).min(HEADERS);
        let mut headers = vec![0; count * PROGRAM_HEADER];
        self.exact(headers_at, &mut headers)?;
        let of = |kind: u32| {
            headers.chunks_exact(PROGRAM_HEADER).filter(move |header| number(header, 0) == Some(kind))
        };
        // The segment that the beginning of the file is in says where the file wanted to be.
        let first = of(PT_LOAD).find(|header| word(header, 8).is_some_and(|offset| offset < PAGE))?;
        let wanted_at = word(first, 16)?.wrapping_sub(word(first, 8)?);
        module.bias = module.start.wrapping_sub(wanted_at);
        let in_memory = |header: &[u8]| Some(module.bias.wrapping_add(word(header, 16)?));
        module.table = of(PT_GNU_EH_FRAME).next().and_then(in_memory);
        module.build_id = of(PT_NOTE)
            .find_map(|header| {
                let mut notes = vec![0; (word(header, 40)? as usize).min(NOTES)];
                self.exact(in_memory(header)?, &mut notes)?;
                build_id(&notes).map(<[u8]>::to_vec)
            })
            .unwrap_or_default();
        Some(())
    }

    fn exact(&self, address: u64, into: &mut [u8]) -> Option<()> {
        (self.memory.read(address, into) == into.len()).then_some(())
    }

    /// As [`Modules::exact`], by way of the pages that were read before.
    fn cached(&mut self, address: u64, into: &mut [u8]) -> Option<()> {
        let mut done = 0;
        while done < into.len() {
            let at = address.checked_add(done as u64)?;
            let page = self.page(at / PAGE)?;
            let from = page.get((at % PAGE) as usize..)?;
            let count = from.len().min(into.len() - done);
            into[done..done + count].copy_from_slice(&from[..count]);
            done += count;
        }
        Some(())
    }

    fn page(&mut self, number: u64) -> Option<&[u8]> {
        if let Some(known) = self.pages.iter().position(|(known, _)| *known == number) {
            return Some(&self.pages[known].1);
        }
        let mut page = vec![0; PAGE as usize].into_boxed_slice();
        self.exact(number.checked_mul(PAGE)?, &mut page)?;
        if self.pages.len() == PAGES {
            self.pages.clear();
        }
        self.pages.push((number, page));
        Some(&self.pages.last()?.1)
    }

    /// The range of code that holds an address, and its module.
    fn range(&self, address: u64) -> Option<Option<usize>> {
        let after = self.ranges.partition_point(|&(start, _, _)| start <= address);
        let &(_, end, module) = self.ranges.get(after.checked_sub(1)?)?;
        (address < end).then_some(module)
    }

    fn range_or_look(&mut self, address: u64) -> Option<Option<usize>> {
        let soonest_ns = self.read_at_ns.map_or(0, |at_ns| at_ns.saturating_add(SOONEST_NS));
        if self.range(address).is_none() && self.now_ns >= soonest_ns {
            self.read_maps();
        }
        self.range(address)
    }

    /// The module that holds an address; `None`: it is in no file.
    pub(crate) fn of(&self, address: u64) -> Option<&Module> {
        self.list.get(self.range(address)??)
    }

    /// The description of the function that holds an address: found by halving in the table that is sorted by address.
    fn entry(&mut self, table: u64, address: u64) -> Option<Rules> {
        let mut head = [0; 12];
        self.cached(table, &mut head)?;
        // Version 1; a count of four bytes, and pairs of four bytes each, relative to the table. All linkers write this.
        if head[0] != 1 || head[2] != 0x03 || head[3] != 0x3b {
            return None;
        }
        let count = number(&head, 8)?;
        let pairs = table.wrapping_add(12);
        let pair = |modules: &mut Self, index: u32| {
            let mut bytes = [0; 8];
            modules.cached(pairs.wrapping_add(u64::from(index) * 8), &mut bytes)?;
            let relative = |at| Some(table.wrapping_add_signed(i64::from(number(&bytes, at)? as i32)));
            Some((relative(0)?, relative(4)?))
        };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if pair(self, middle)?.0 <= address { low = middle + 1 } else { high = middle }
        }
        let (_, fde_at) = pair(self, low.checked_sub(1)?)?;
        let fde = self.one(fde_at)?;
        // The distance back to what it shares with others, from the word that says so.
        let distance = number(&fde, 4).filter(|&distance| distance != 0)?;
        let cie_at = fde_at.checked_add(4)?.checked_sub(distance.into())?;
        let cie = self.one(cie_at)?;
        (number(&cie, 4)? == 0).then_some(Rules { cie, fde, fde_at })
    }

    /// One entry of `.eh_frame`, with the word that says its length.
    fn one(&mut self, at: u64) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.cached(at, &mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if !(8..LONGEST_ENTRY).contains(&length) {
            return None;
        }
        let mut entry = vec![0; length + 4];
        self.cached(at, &mut entry)?;
        Some(entry)
    }
}

impl<M: Memory> Code for Modules<M> {
    fn rules(&mut self, address: u64) -> Option<Rules> {
        let module = self.range_or_look(address)??;
        let table = self.list.get(module)?.table?;
        self.entry(table, address)
    }

    fn is_code(&mut self, address: u64) -> bool {
        self.range_or_look(address).is_some()
    }

    fn is_signal_return(&mut self, address: u64) -> bool {
        let mut code = [0; RETURN_OF_AARCH64.len()];
        self.is_code(address) && self.cached(address, &mut code).is_some() && code == RETURN_OF_AARCH64
    }
}

/// The build-id among the notes of a segment.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (name, content) = (number(notes, 0)? as usize, number(notes, 4)? as usize);
        let content_at = 12 + name.checked_next_multiple_of(4)?;
        let end = content_at.checked_add(content)?;
        if number(notes, 8)? == NT_GNU_BUILD_ID && notes.get(12..12 + name) == Some(b"GNU\0") {
            return notes.get(content_at..end).filter(|id| (1..=64).contains(&id.len()));
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
