//! The files with which a kernel starts, as an archive that it reads: `cpio` in its newer format.

use std::fmt::Write as _;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

#[derive(Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    /// Each must have been named before what lies in it.
    folders: Vec<String>,
    entries: u32,
}

impl Initramfs {
    /// A file that may be run; the folders that it lies in are made.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.entry(path, PROGRAM, content);
    }

    pub(crate) fn folder(&mut self, path: &str) {
        if self.folders.iter().any(|known| known == path) {
            return;
        }
        if let Some((outer, _)) = path.rsplit_once('/') {
            self.folder(outer);
        }
        self.folders.push(path.to_owned());
        self.entry(path, FOLDER, &[]);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name = path.len() as u32 + 1;
        // Number, mode, owner, group, links, time, length, two devices of two numbers each, length of the name, and a sum
        // that is not used.
        let fields = [self.entries, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name, 0];
        let mut head = String::from("070701");
        for field in fields {
            let _ = write!(head, "{field:08x}");
        }
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_follows_its_folders_and_each_part_begins_at_a_multiple_of_four() {
        let mut archive = Initramfs::default();
        archive.file("a/b/c", b"12345");
        archive.file("a/d", b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        let names = places.iter().map(|&at| text[at + 110..].split('\0').next().unwrap_or_default());
        assert_eq!(names.collect::<Vec<_>>(), ["a", "a/b", "a/b/c", "a/d", "TRAILER!!!"]);
        assert!(places.iter().all(|at| at % 4 == 0), "{places:?}");
        // The name is six bytes with its end, after a head of 110: the content is at once behind it.
        assert_eq!(&bytes[places[2] + 116..places[2] + 121], b"12345");
        assert_eq!(&text[places[2] + 54..places[2] + 62], "00000005", "its length");
    }
}
