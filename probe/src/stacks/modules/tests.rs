use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MAPS: &str = "\
55d000000000-55d000001000 r--p 00000000 fe:00 11 /usr/bin/api
55d000001000-55d000005000 r-xp 00001000 fe:00 11 /usr/bin/api
55d000005000-55d000006000 rw-p 00004000 fe:00 11 /usr/bin/api
55d000006000-55d000027000 rw-p 00000000 00:00 0  [heap]
7f0000000000-7f0000001000 r--p 00000000 fe:00 12 /usr/lib/with a space.so (deleted)
7f0000001000-7f0000002000 r-xp 00001000 fe:00 12 /usr/lib/with a space.so (deleted)
7f0000002000-7f0000003000 r--p 00000000 fe:00 12 /usr/lib/with a space.so (deleted)
7f0000003000-7f0000004000 r-xp 00001000 fe:00 12 /usr/lib/with a space.so (deleted)
7f0000010000-7f0000020000 rwxp 00000000 00:00 0
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0  [stack]
7ffd00030000-7ffd00032000 r-xp 00000000 00:00 0  [vdso]
not a mapping
";

/// Bytes at an address, and nothing elsewhere.
struct Piece(u64, Vec<u8>);

impl Memory for Piece {
    fn read(&self, address: u64, into: &mut [u8]) -> usize {
        let from = address.checked_sub(self.0).map(|at| at as usize).and_then(|at| self.1.get(at..));
        let from = from.unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        count
    }
}

fn of(memory: Piece, maps: &str) -> Modules<Piece> {
    let mut modules = Modules::new(memory);
    modules.take_maps(maps);
    // What this process has mapped is of no interest here.
    modules.read_at_ns = Some(0);
    modules
}

#[test]
fn mappings_are_grouped_by_file_and_one_that_is_mapped_twice_is_two() {
    let modules = of(Piece(0, Vec::new()), MAPS);
    let paths: Vec<(&str, u64)> = modules.list.iter().map(|it| (it.path.as_str(), it.bias)).collect();
    let twice = "/usr/lib/with a space.so (deleted)";
    assert_eq!(
        paths,
        [
            ("/usr/bin/api", 0x55d0_0000_0000),
            (twice, 0x7f00_0000_0000),
            (twice, 0x7f00_0000_2000),
            ("[vdso]", 0x7ffd_0003_0000)
        ]
    );
    let of = |address| modules.of(address).map(|module| (module.path.as_str(), module.in_file(address)));
    assert_eq!(of(0x55d0_0000_1234), Some(("/usr/bin/api", 0x1234)));
    assert_eq!(of(0x7f00_0000_3010), Some((twice, 0x1010)));
    assert_eq!(of(0x55d0_0000_0234), None, "it holds no code");
    // Generated code is code, in no file.
    assert_eq!((of(0x7f00_0001_0008), modules.range(0x7f00_0001_0008)), (None, Some(None)));
    assert_eq!(modules.range(0x7ffd_0000_0100), None);
}

/// A file that wants to be at 0x40_0000, with a build-id and a table of three functions.
fn file() -> Vec<u8> {
    let mut file = vec![0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01");
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &3u16.to_le_bytes());
    for (n, (kind, address, size)) in
        [(PT_LOAD, 0x40_0000u64, 0x1000u64), (PT_NOTE, 0x40_0200, 36), (PT_GNU_EH_FRAME, 0x40_0300, 100)]
            .into_iter()
            .enumerate()
    {
        let header = 64 + n * PROGRAM_HEADER;
        put(header, &kind.to_le_bytes());
        put(header + 8, &(address - 0x40_0000).to_le_bytes());
        put(header + 16, &address.to_le_bytes());
        put(header + 40, &size.to_le_bytes());
    }
    put(0x200, &[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0]);
    put(0x210, &[0xab; 20]);
    // The table, and the entries that it points to, each pointing back to the first.
    put(0x300, &[1, 0x1b, 3, 0x3b, 0, 0, 0, 0, 3, 0, 0, 0]);
    for n in 0..3u32 {
        put(0x30c + n as usize * 8, &(0x500 + n * 0x100).to_le_bytes());
        put(0x310 + n as usize * 8, &(0x200 + n * 0x20).to_le_bytes());
        let fde = 0x500 + n as usize * 0x20;
        put(fde, &12u32.to_le_bytes());
        put(fde + 4, &(fde as u32 + 4 - 0x400).to_le_bytes());
        put(fde + 8, &(n + 1).to_le_bytes());
    }
    put(0x400, &12u32.to_le_bytes());
    file
}

#[test]
fn what_a_file_says_is_read_from_where_it_lies_in_memory() {
    let maps = "10000-11000 r-xp 00000000 fe:00 11 /a\n";
    let mut modules = of(Piece(0x10000, file()), maps);
    let module = modules.of(0x10800).expect("it is there");
    assert_eq!((module.build_id.as_slice(), module.in_file(0x10800)), (&[0xab; 20][..], 0x40_0800));
    let which = |modules: &mut Modules<Piece>, address| {
        let rules = modules.rules(address)?;
        Some((rules.fde_at, rules.fde[8], rules.cie.len()))
    };
    assert_eq!(which(&mut modules, 0x10800), Some((0x10500, 1, 16)));
    assert_eq!(which(&mut modules, 0x108ff), Some((0x10500, 1, 16)));
    assert_eq!(which(&mut modules, 0x10900), Some((0x10520, 2, 16)));
    assert_eq!(which(&mut modules, 0x10fff), Some((0x10540, 3, 16)));
    assert_eq!(which(&mut modules, 0x107ff), None, "it is before the first function");
    assert_eq!(which(&mut modules, 0x20000), None);
}

#[test]
fn own_memory_is_read_as_far_as_there_is_any() {
    let here = [7u8; 100];
    let mut read = [0; 100];
    assert_eq!(OwnMemory.read(here.as_ptr() as u64, &mut read), 100);
    assert_eq!(read, here);
    assert_eq!(OwnMemory.read(8, &mut read), 0);
    assert_eq!(OwnMemory.read(u64::MAX - 8, &mut read), 0);
}

#[test]
fn this_process_has_its_own_file_among_its_modules() {
    let mut modules = Modules::new(OwnMemory);
    modules.begin(0);
    let at = this_process_has_its_own_file_among_its_modules as *const () as u64;
    let module = modules.of(at).expect("it is code");
    let exe = std::env::current_exe().expect("it runs");
    assert_eq!(module.path, exe.display().to_string());
    assert!(module.table.is_some() && modules.rules(at).is_some());
}

proptest! {
    #[test]
    fn a_file_that_is_broken_anywhere_is_read_without_a_panic(
        changes in vec((0usize..0x600, any::<u8>()), 0..40),
        length in 0usize..0x1000,
        address in 0x10000u64..0x11000,
    ) {
        let mut bytes = file();
        changes.iter().for_each(|&(at, byte)| bytes[at] = byte);
        bytes.truncate(length);
        let mut modules = of(Piece(0x10000, bytes), "10000-11000 r-xp 00000000 fe:00 11 /a\n");
        if let Some(rules) = modules.rules(address) {
            prop_assert!(rules.fde.len() <= LONGEST_ENTRY + 4);
        }
        prop_assert!(modules.pages.len() <= PAGES);
    }

    #[test]
    fn any_text_is_read_as_maps(text in "[0-9a-f rwxp:/\\-\n\\[\\]]{0,300}") {
        let _ = of(Piece(0, Vec::new()), &text);
    }
}
