//! What a task died of, in words: a panic's message and place, or the text of an error. One interned text, composed on the
//! stack: the application's thread that dies allocates and locks nothing here.

use std::fmt::{self, Write};
use std::panic::Location;
use std::sync::atomic::Ordering::Relaxed;

use taskscope_proto::ids::Sid;
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::words;

use crate::registry::Registry;
use crate::registry::text::MAX_TEXT;

/// Distinct messages that are stored; of a later one only its place is. Without a limit of their own, messages with a
/// number in each would take the room of the names of tasks.
const STORED: u64 = 256;
/// Bytes that a place takes at most; the rest is the message's.
const MAX_PLACE: usize = 160;

/// The text `MESSAGE, at FILE:LINE:COLUMN`, or only one of the two; 0 where there is neither, or no room for it (counted).
pub(crate) fn intern(registry: &Registry, message: impl fmt::Display, place: Option<&Location<'_>>) -> Sid {
    let mut at = Text::<MAX_PLACE>::default();
    if let Some(place) = place {
        let (package, rest) = words::source_parts(place.file());
        // A `Text` takes whatever is written to it.
        let _ = write!(at, "at {package}{rest}:{}:{}", place.line(), place.column());
    }
    let for_place = if at.len > 0 { at.len + 2 } else { 0 };
    let mut said = Text::<MAX_TEXT> { limit: MAX_TEXT - for_place, ..Text::default() };
    // An error's own `Display` may fail: what it has written until then is what is known.
    let _ = write!(said, "{message}");
    if said.is_damaged || at.is_damaged {
        registry.losses.add(Reason::CutStrings, 1);
    }
    said.limit = MAX_TEXT;
    if at.len > 0 {
        let _ = write!(said, "{}{}", if said.len > 0 { ", " } else { "" }, at.as_str());
    }
    let stored = registry.texts.find_parts(&[said.as_str()]).or_else(|| {
        let room = |stored: u64| (stored < STORED).then_some(stored + 1);
        registry.totals.reasons.fetch_update(Relaxed, Relaxed, room).ok()?;
        registry.texts.intern_parts(&[said.as_str()])
    });
    stored.unwrap_or_else(|| {
        registry.losses.add(Reason::LostStrings, 1);
        // The places at which a program can panic are few.
        registry.texts.intern_parts(&[at.as_str()]).unwrap_or(Sid(0))
    })
}

/// The parts of a name, a label or fields, as the application gave them: together cut at 255 bytes, control characters
/// replaced (counted); `None` where there is no room (counted).
pub(crate) fn intern_clean(registry: &Registry, parts: &[&str]) -> Option<Sid> {
    let stored = if is_clean(parts) {
        registry.texts.intern_parts(parts)
    } else {
        registry.losses.add(Reason::CutStrings, 1);
        registry.texts.intern_parts(&[clean(parts).as_str()])
    };
    if stored.is_none() {
        registry.losses.add(Reason::LostStrings, 1);
    }
    stored
}

/// As [`intern_clean`], of texts that are stored already: a new one is neither stored nor counted.
pub(crate) fn find_clean(registry: &Registry, parts: &[&str]) -> Option<Sid> {
    if is_clean(parts) {
        return registry.texts.find_parts(parts);
    }
    let found = registry.texts.find_parts(&[clean(parts).as_str()]);
    if found.is_some() {
        registry.losses.add(Reason::CutStrings, 1);
    }
    found
}

/// The name of a pool, which is in every frame: cut at 255 bytes, control characters replaced (counted). For what may
/// allocate.
pub(crate) fn cut(registry: &Registry, name: String) -> String {
    if is_clean(&[&name]) {
        return name;
    }
    registry.losses.add(Reason::CutStrings, 1);
    clean(&[&name]).as_str().to_owned()
}

fn is_clean(parts: &[&str]) -> bool {
    fits(parts) && !parts.iter().any(|part| part.chars().any(char::is_control))
}

/// Whether the parts joined need not be cut.
pub(crate) fn fits(parts: &[&str]) -> bool {
    parts.iter().map(|part| part.len()).sum::<usize>() <= MAX_TEXT
}

fn clean(parts: &[&str]) -> Text<MAX_TEXT> {
    let mut clean = Text::default();
    // It ends with an error where nothing more fits.
    let _ = parts.iter().try_for_each(|part| clean.write_str(part));
    clean
}

/// A text on the stack, of at most `CAP` bytes.
struct Text<const CAP: usize> {
    bytes: [u8; CAP],
    len: usize,
    limit: usize,
    /// Cut at its limit, or a control character was replaced in it.
    is_damaged: bool,
    /// The last character was the end of a line: the next one's indentation says nothing here.
    at_line_start: bool,
}

impl<const CAP: usize> Default for Text<CAP> {
    fn default() -> Self {
        Self { bytes: [0; CAP], len: 0, limit: CAP, is_damaged: false, at_line_start: false }
    }
}

impl<const CAP: usize> Text<CAP> {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }

    /// False: there was no room.
    fn push(&mut self, c: char) -> bool {
        let fits = self.len + c.len_utf8() <= self.limit.min(CAP);
        if fits {
            self.len += c.encode_utf8(&mut self.bytes[self.len..]).len();
        }
        fits
    }
}

impl<const CAP: usize> Write for Text<CAP> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let is_space = matches!(c, ' ' | '\t' | '\n' | '\r');
            if is_space && self.at_line_start {
                continue;
            }
            // Messages of `assert_eq!` have several lines; that is nothing to be counted.
            self.at_line_start = c == '\n' || c == '\r';
            let shown = match c {
                _ if is_space => ' ',
                c if c.is_control() => char::REPLACEMENT_CHARACTER,
                c => c,
            };
            self.is_damaged |= shown == char::REPLACEMENT_CHARACTER;
            if !self.push(shown) {
                self.is_damaged = true;
                // Nothing more fits: whoever formats need not go on.
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn registry() -> Registry {
        Registry::with_budget(0, Clock::start(), u64::MAX)
    }

    #[test]
    fn message_and_place_are_one_text() {
        let registry = registry();
        let here = Location::caller();
        let sid = intern(&registry, "the len is 3 but the index is 7", Some(here));
        let place = format!("at {}:{}:{}", here.file(), here.line(), here.column());
        assert_eq!(registry.texts.read(sid), format!("the len is 3 but the index is 7, {place}"));
        assert_eq!(registry.texts.read(intern(&registry, "", Some(here))), place);
        assert_eq!(registry.texts.read(intern(&registry, "connection refused", None)), "connection refused");
        assert_eq!(intern(&registry, "", None), Sid(0));
        assert_eq!(registry.losses.count(Reason::CutStrings) + registry.losses.count(Reason::LostStrings), 0);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character_and_keeps_its_place() {
        let registry = registry();
        let here = Location::caller();
        let text = registry.texts.read(intern(&registry, "é".repeat(1 << 20), Some(here)));
        let place = format!(", at {}:{}:{}", here.file(), here.line(), here.column());
        assert!(text.len() <= MAX_TEXT && text.len() >= MAX_TEXT - 1, "{}", text.len());
        assert!(text.starts_with("ééé") && text.ends_with(&format!("é{place}")), "{text}");
        assert_eq!(registry.losses.count(Reason::CutStrings), 1);
    }

    #[test]
    fn lines_are_joined_and_control_characters_replaced() {
        let registry = registry();
        let said = "assertion `left == right` failed\n  left: 1\n right: 2";
        let text = registry.texts.read(intern(&registry, said, None));
        assert_eq!(text, "assertion `left == right` failed left: 1 right: 2");
        assert_eq!(registry.losses.count(Reason::CutStrings), 0);
        let text = registry.texts.read(intern(&registry, "\u{1b}[2Jgone", None));
        assert_eq!(text, "\u{fffd}[2Jgone");
        assert_eq!(registry.losses.count(Reason::CutStrings), 1);
    }

    #[test]
    fn messages_past_the_limit_are_counted_and_their_place_is_kept() {
        let registry = registry();
        let here = Location::caller();
        let last = (0..STORED + 40).map(|n| intern(&registry, format!("request {n}"), Some(here))).last();
        let place = format!("at {}:{}:{}", here.file(), here.line(), here.column());
        assert_eq!(last.map(|sid| registry.texts.read(sid)), Some(place));
        assert_eq!(registry.losses.count(Reason::LostStrings), 40);
        // A message that is stored already is found all the same.
        let known = intern(&registry, "request 3", Some(here));
        assert!(registry.texts.read(known).starts_with("request 3, at "));
    }
}
