//! What a file of code says of itself, read in a few short looks: no part of it is loaded, however large it is.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Linkers write 20 bytes; whoever writes more than this writes something else.
const MAX_BUILD_ID: usize = 64;
/// Bytes of notes that are looked through.
const MAX_NOTES: u64 = 64 << 10;
/// Names of sections beyond this are not read.
const MAX_SECTION_NAMES: u64 = 1 << 20;
/// Debug information that is compressed has to be unpacked into memory; no more than this is.
const MAX_UNPACKED: u64 = 1 << 30;
/// A table of symbols is sorted in memory, some 64 bytes for each: more than five million are refused.
const MAX_SYMBOLS: u64 = 128 << 20;

/// What is of interest in an ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// Of its note `NT_GNU_BUILD_ID`; empty: it has none.
    pub(super) build_id: Vec<u8>,
    /// Addresses that hold code: nothing else has a function.
    pub(super) code: Vec<Range<u64>>,
    /// It has debug information with lines.
    pub(super) has_lines: bool,
    /// It has the names of its own functions.
    pub(super) has_names: bool,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotUsable {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is no file of code for 64 bits, little endian (ELF)")]
    Foreign,
    #[error("it is cut off or damaged: {0}")]
    Damaged(&'static str),
    #[error("its {0} is too large to be held in memory ({1} bytes); {copy}", copy = smaller(.0))]
    TooLarge(&'static str, u64),
}

const SYMBOL_TABLE: &str = "table of symbols";

/// How to make a copy that can be used. `--only-keep-debug` keeps the table, and GNU's `objcopy` always does.
fn smaller(what: &str) -> &'static str {
    match what {
        SYMBOL_TABLE => {
            "`llvm-objcopy --remove-section=.symtab --remove-section=.strtab FILE COPY` keeps the lines, which have the names, too"
        }
        _ => "`objcopy --decompress-debug-sections FILE COPY` unpacks it",
    }
}

impl Elf {
    /// Reads the tables at the beginning and the notes: some ten reads, a few MB at the most.
    pub(super) fn read(file: &File) -> Result<Self, NotUsable> {
        if !file.metadata()?.is_file() {
            return Err(NotUsable::Foreign);
        }
        let header = bytes(file, 0, 64, "its header").map_err(|_| NotUsable::Foreign)?;
        // 64 bits, little endian.
        if header.get(..6) != Some(b"\x7fELF\x02\x01") {
            return Err(NotUsable::Foreign);
        }
        // A program or a shared library: an object file has no addresses yet.
        if !matches!(u16_at(&header, 16), Some(2 | 3)) {
            return Err(NotUsable::Foreign);
        }
        let mut elf = Self::default();
        elf.read_sections(file, &header)?;
        elf.read_segments(file, &header)?;
        Ok(elf)
    }

    fn read_segments(&mut self, file: &File, header: &[u8]) -> Result<(), NotUsable> {
        const LOADED: u32 = 1;
        const NOTE: u32 = 4;
        const EXECUTABLE: u32 = 1;
        for segment in table(file, header, 32, 54, 56, "its table of segments")?.chunks_exact(56) {
            let (kind, flags) = (u32_at(segment, 0).unwrap_or(0), u32_at(segment, 4).unwrap_or(0));
            if kind == NOTE && self.build_id.is_empty() {
                self.read_notes(file, field(segment, 8), field(segment, 32));
            }
            if kind == LOADED && flags & EXECUTABLE != 0 {
                let from = field(segment, 16);
                self.code.push(from..from.saturating_add(field(segment, 40)));
            }
        }
        Ok(())
    }

    fn read_sections(&mut self, file: &File, header: &[u8]) -> Result<(), NotUsable> {
        const SYMBOLS: u32 = 2;
        const NOTE: u32 = 7;
        const NOTHING_IN_FILE: u32 = 8;
        const COMPRESSED: u64 = 1 << 11;
        let sections = table(file, header, 40, 58, 64, "its table of sections")?;
        let names_at = usize::from(u16_at(header, 62).unwrap_or(0)) * 64;
        let names = match sections.get(names_at..names_at + 64) {
            Some(section) if names_at > 0 => {
                let length = field(section, 32).min(MAX_SECTION_NAMES);
                bytes(file, field(section, 24), length, "its names of sections")?
            }
            _ => Vec::new(),
        };
        let mut unpacked = 0u64;
        for section in sections.chunks_exact(64) {
            let (kind, flags) = (u32_at(section, 4).unwrap_or(0), field(section, 8));
            let (offset, size) = (field(section, 24), field(section, 32));
            match kind {
                NOTE if self.build_id.is_empty() => self.read_notes(file, offset, size),
                NOTHING_IN_FILE => continue,
                SYMBOLS if size > MAX_SYMBOLS => return Err(NotUsable::TooLarge(SYMBOL_TABLE, size)),
                SYMBOLS => self.has_names |= size > 24,
                _ => {}
            }
            let name = names.get(u32_at(section, 0).unwrap_or(0) as usize..).unwrap_or_default();
            let is = |wanted: &str| name.starts_with(wanted.as_bytes()) && name.get(wanted.len()) == Some(&0);
            let is_debug = name.starts_with(b".debug_") || name.starts_with(b".zdebug_");
            if is_debug && (flags & COMPRESSED != 0 || name.starts_with(b".z")) {
                unpacked = unpacked.saturating_add(unpacked_size(file, offset, name.starts_with(b".z")));
            }
            self.has_lines |= size > 0 && (is(".debug_line") || is(".zdebug_line"));
        }
        if unpacked > MAX_UNPACKED {
            return Err(NotUsable::TooLarge("compressed debug information", unpacked));
        }
        Ok(())
    }

    /// Looks for the build-id; notes that cannot be read have none.
    fn read_notes(&mut self, file: &File, offset: u64, size: u64) {
        const BUILD_ID: u32 = 3;
        let Ok(notes) = bytes(file, offset, size.min(MAX_NOTES), "its notes") else { return };
        let mut rest = notes.as_slice();
        while let (Some(name), Some(text), Some(kind)) = (u32_at(rest, 0), u32_at(rest, 4), u32_at(rest, 8)) {
            let name_end = 12 + (name as usize).min(rest.len()).next_multiple_of(4);
            let text_end = name_end + (text as usize).min(rest.len());
            let found = (rest.get(12..16), rest.get(name_end..text_end));
            if let (Some(b"GNU\0"), Some(id)) = found
                && kind == BUILD_ID
                && name == 4
                && (1..=MAX_BUILD_ID).contains(&id.len())
            {
                self.build_id = id.to_vec();
                return;
            }
            rest = rest.get(text_end.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// What a compressed section says it unpacks to.
fn unpacked_size(file: &File, offset: u64, is_old: bool) -> u64 {
    // `ZLIB` and the size, the highest byte first; since then, a type and the size as the file's own numbers.
    let Ok(head) = bytes(file, offset, 16, "a section") else { return 0 };
    let size = head.get(if is_old { 4..12 } else { 8..16 }).and_then(|size| size.try_into().ok());
    size.map_or(0, if is_old { u64::from_be_bytes } else { u64::from_le_bytes })
}

/// A table of the file: its place is at `at` of the header, and how many entries at `count_at`.
fn table(
    file: &File,
    header: &[u8],
    at: usize,
    count_at: usize,
    entry: u64,
    what: &'static str,
) -> Result<Vec<u8>, NotUsable> {
    let size = u16_at(header, count_at).map_or(0, u64::from);
    let count = u16_at(header, count_at + 2).map_or(0, u64::from);
    let offset = field(header, at);
    if offset == 0 || count == 0 {
        return Ok(Vec::new());
    }
    if size != entry {
        return Err(NotUsable::Damaged(what));
    }
    bytes(file, offset, count * entry, what)
}

/// `length` bytes from `offset`; the length is one of a table or has a limit already.
fn bytes(file: &File, offset: u64, length: u64, what: &'static str) -> Result<Vec<u8>, NotUsable> {
    let mut bytes = vec![0; length as usize];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes),
        // Past the end, or at an offset that no file has.
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => {
            Err(NotUsable::Damaged(what))
        }
        Err(error) => Err(NotUsable::Io(error)),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A number of 64 bits; the table was read whole.
fn field(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file can be made");
        file.write_all(bytes).expect("it can be written");
        file
    }

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").expect("the test's own program can be read")
    }

    #[test]
    fn a_program_says_what_it_has() {
        let elf = Elf::read(&file(&own())).expect("it is a program");
        assert!(elf.has_lines && elf.has_names && elf.code.len() == 1, "{elf:?}");
        assert_eq!(elf.build_id.len(), 20, "cc writes build-ids here: {elf:?}");
    }

    #[test]
    fn a_program_cut_anywhere_is_damaged_and_no_more() {
        let own = own();
        let long = file(&own);
        for length in [0, 1, 5, 63, 64, 200, 4096, own.len() as u64 / 2, own.len() as u64 - 1] {
            long.set_len(length).expect("it can be cut");
            let error = Elf::read(&long).expect_err("its tables are gone").to_string();
            assert!(error.contains("no file of code") || error.contains("cut off"), "{length}: {error}");
            // From the beginning: a cut file cannot be made longer again.
            long.write_all_at(&own, 0).expect("it can be written");
        }
    }

    #[test]
    fn gigabytes_that_are_no_program_are_refused_without_being_read() {
        let huge = tempfile::tempfile().expect("a temporary file can be made");
        huge.set_len(64 << 30).expect("a sparse file can be made");
        assert!(matches!(Elf::read(&huge), Err(NotUsable::Foreign)));
        // One that claims to be a program, with tables of zeroes.
        let mut header = b"\x7fELF\x02\x01".to_vec();
        header.resize(64, 0);
        header[16] = 3;
        header[40..48].copy_from_slice(&(60u64 << 30).to_le_bytes());
        header[58..62].copy_from_slice(&[64, 0, 0xff, 0xff]);
        huge.write_all_at(&header, 0).expect("it can be written");
        assert_eq!(Elf::read(&huge).expect("it has no sections to speak of"), Elf::default());
    }

    #[test]
    fn what_does_not_fit_into_memory_is_refused() {
        let own = own();
        let section = |kind: u32, size: u64| {
            let mut changed = own.clone();
            let table = field(&own, 40) as usize;
            let at = (table..own.len()).step_by(64).find(|&at| u32_at(&own, at + 4) == Some(kind));
            let at = at.expect("there is one") + 32;
            changed[at..at + 8].copy_from_slice(&size.to_le_bytes());
            Elf::read(&file(&changed))
        };
        assert!(matches!(section(2, 1 << 40), Err(NotUsable::TooLarge("table of symbols", _))));
        let said = section(2, 1 << 40).expect_err("it is too large").to_string();
        assert!(said.contains("(1099511627776 bytes); `llvm-objcopy --remove-section=.symtab"), "{said}");
        assert!(section(2, 1 << 20).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096), whole: bool) {
            if whole && bytes.len() > 64 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
                bytes[16..18].copy_from_slice(&[3, 0]);
                bytes[40..42].copy_from_slice(&[64, 0]);
                bytes[42..48].fill(0);
                bytes[58..60].copy_from_slice(&[64, 0]);
                bytes[61] = 0;
            }
            let _ = Elf::read(&file(&bytes));
        }
    }
}
