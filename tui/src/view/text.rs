//! Texts cut, padded and wrapped by the cells they take, and made harmless first: whatever a target wrote, no control
//! character, no change of direction and nothing without a width reaches the terminal.

use taskscope_proto::words;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::table::Cut;

/// Longer texts are cut before anything looks at them: no line of a terminal shows more.
const LONGEST: usize = 1024;

/// `text` without anything that a terminal would not print as one or two cells.
pub(crate) fn clean(text: &str) -> String {
    let end = (0..=LONGEST.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    words::printable(&text[..end]).chars().filter(|&c| cells(c) > 0).collect()
}

/// Cells that `text` takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

fn cells(c: char) -> usize {
    // A text of one character, because some characters are wider as a text than alone.
    c.width().map_or(0, |alone| alone.max(c.encode_utf8(&mut [0; 4]).width()))
}

/// `text` in at most `width` cells, with `…` where something was cut.
pub(crate) fn cut(text: &str, width: usize, cut: Cut) -> String {
    if self::width(text) <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else { return String::new() };
    match cut {
        Cut::End => {
            let mut kept = taken(text.chars(), room);
            kept.push('…');
            kept
        }
        Cut::Start => {
            let mark = if text.starts_with('@') && room > 1 { "@" } else { "" };
            let tail: String = taken(text.chars().rev(), room - mark.len()).chars().rev().collect();
            format!("{mark}…{tail}")
        }
    }
}

fn taken(chars: impl Iterator<Item = char>, room: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|&c| {
            used += cells(c);
            used <= room
        })
        .collect()
}

/// `text` in exactly `width` cells, blanks behind it.
pub(crate) fn left(text: &str, width: usize) -> String {
    let text = cut(text, width, Cut::End);
    let blanks = width.saturating_sub(self::width(&text));
    text + &" ".repeat(blanks)
}

/// `text` in lines of at most `width` cells, broken at spaces, and inside a word only where it is longer than a line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    if width == 0 {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let needed = self::width(word);
        if used > 0 && used + 1 + needed > width {
            lines.push(String::new());
            used = 0;
        }
        if used > 0 {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
            used += 1;
        }
        for c in word.chars() {
            if used + cells(c) > width {
                lines.push(String::new());
                used = 0;
            }
            lines.last_mut().into_iter().for_each(|line| line.push(c));
            used += cells(c);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(clean("a\u{1b}[31mb\u{7}\r\n"), "a\u{fffd}[31mb\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(clean("a\u{202e}b\u{200d}c\u{feff}"), "abc");
    }

    #[test]
    fn a_path_is_cut_at_its_start_and_a_sentence_at_its_end() {
        assert_eq!(cut("axum/src/serve/mod.rs:88:5", 12, Cut::Start), "…mod.rs:88:5");
        assert_eq!(cut("@axum/src/serve/mod.rs:88", 11, Cut::Start), "@…mod.rs:88");
        assert_eq!(cut("POST /resize", 7, Cut::End), "POST /…");
        assert_eq!(cut("日本語", 4, Cut::End), "日…");
        assert_eq!(cut("ab", 0, Cut::End), "");
    }

    #[test]
    fn words_stay_whole_where_they_can() {
        assert_eq!(wrap("asleep in clock_nanosleep now", 15), ["asleep in", "clock_nanosleep", "now"]);
        assert_eq!(wrap("abcdef gh", 4), ["abcd", "ef", "gh"]);
    }

    proptest! {
        #[test]
        fn no_text_takes_more_cells_than_it_was_given(text: String, room in 0_usize..40) {
            let text = clean(&text);
            prop_assert!(width(&cut(&text, room, Cut::End)) <= room);
            prop_assert!(width(&cut(&text, room, Cut::Start)) <= room);
            prop_assert_eq!(width(&left(&text, room)), room);
            if room > 1 {
                for line in wrap(&text, room) {
                    prop_assert!(width(&line) <= room);
                }
            }
        }
    }
}
