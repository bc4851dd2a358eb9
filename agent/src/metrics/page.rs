//! What a scrape is answered, in pieces: of many targets it is ten megabytes, and one text that grows to that would be moved again
//! and again, and leave as much behind in the allocator.

use std::fmt;

/// Bytes of a piece, about: it ends after a series.
pub(super) const PIECE: usize = 64 << 10;
/// Most series are shorter.
const SERIES: usize = 4 << 10;

/// All of it, one after the other.
pub(crate) type Pieces = Box<dyn Iterator<Item = String> + Send>;

/// An empty one.
pub(super) fn piece() -> String {
    String::with_capacity(PIECE + SERIES)
}

/// Takes what has to be written at once.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) pieces: Vec<String>,
}

impl fmt::Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.pieces.last_mut().filter(|last| last.len() < PIECE) {
            Some(last) => last.push_str(text),
            None => {
                let mut first = piece();
                first.push_str(text);
                self.pieces.push(first);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn nothing_is_lost_between_pieces_and_none_is_moved() {
        let (mut page, mut whole) = (Page::default(), String::new());
        for number in 0..40_000 {
            writeln!(page, "series{number}").expect("writing cannot fail");
            writeln!(whole, "series{number}").expect("writing cannot fail");
        }
        let capacities: Vec<usize> = page.pieces.iter().map(String::capacity).collect();
        assert!(
            capacities.len() > 5 && capacities.iter().all(|&bytes| bytes == PIECE + SERIES),
            "{capacities:?}"
        );
        assert_eq!(page.pieces.concat(), whole);
    }
}
