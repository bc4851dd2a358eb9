//! The interned texts of one stream, as its receiver keeps them.

use std::collections::HashMap;

use crate::ids::Sid;
use crate::v1::InternedString;

/// Texts by id. Id 0 is the empty text.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    texts: HashMap<u32, String>,
}

impl Strings {
    /// Takes in the texts of a frame.
    pub fn extend(&mut self, fresh: &[InternedString]) {
        for string in fresh.iter().filter(|string| string.sid != 0) {
            self.texts.insert(string.sid, string.text.clone());
        }
    }

    /// The text of `sid`; empty for 0 and for an id that was never sent.
    pub fn text(&self, sid: Sid) -> &str {
        self.texts.get(&sid.0).map_or("", String::as_str)
    }
}
