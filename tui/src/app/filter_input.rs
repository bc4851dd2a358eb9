//! The line in which a filter is typed.

use taskscope_proto::filter::{Filter, MAX_LENGTH, ParseError};

/// One edit of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    Insert(char),
    Backspace,
    Delete,
    Left,
    Right,
    Start,
    End,
    /// Back to the space before the word.
    DeleteWord,
    Clear,
    /// Use what was typed; stays open where it does not parse.
    Apply,
    /// Close, and leave the filter as it was.
    Cancel,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FilterInput {
    chars: Vec<char>,
    /// The cursor stands before this character.
    pub(crate) at: usize,
    pub(crate) error: Option<ParseError>,
}

/// What became of an edit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Edited {
    Open,
    Cancelled,
    Applied(String, Filter),
}

impl FilterInput {
    pub(crate) fn of(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        Self { at: chars.len(), chars, error: None }
    }

    pub(crate) fn text(&self) -> String {
        self.chars.iter().collect()
    }

    pub(crate) fn edit(&mut self, edit: Edit) -> Edited {
        match edit {
            Edit::Insert(c) if self.chars.len() < MAX_LENGTH && !c.is_control() => {
                self.chars.insert(self.at, c);
                self.at += 1;
            }
            Edit::Insert(_) => {}
            Edit::Backspace if self.at > 0 => {
                self.at -= 1;
                self.chars.remove(self.at);
            }
            Edit::Delete if self.at < self.chars.len() => {
                self.chars.remove(self.at);
            }
            Edit::Backspace | Edit::Delete => {}
            Edit::Left => self.at = self.at.saturating_sub(1),
            Edit::Right => self.at = (self.at + 1).min(self.chars.len()),
            Edit::Start => self.at = 0,
            Edit::End => self.at = self.chars.len(),
            Edit::DeleteWord => {
                let head = &self.chars[..self.at];
                let end = head.iter().rposition(|c| !c.is_whitespace()).map_or(0, |at| at + 1);
                let start = head[..end].iter().rposition(|c| c.is_whitespace()).map_or(0, |at| at + 1);
                self.chars.drain(start..self.at);
                self.at = start;
            }
            Edit::Clear => *self = Self::default(),
            Edit::Cancel => return Edited::Cancelled,
            Edit::Apply => {
                let text = self.text().trim().to_owned();
                match self.text().parse() {
                    Ok(filter) => return Edited::Applied(text, filter),
                    Err(error) => {
                        self.at = error.column.saturating_sub(1).min(self.chars.len());
                        self.error = Some(error);
                        return Edited::Open;
                    }
                }
            }
        }
        if !matches!(edit, Edit::Left | Edit::Right | Edit::Start | Edit::End) {
            self.error = None;
        }
        Edited::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> FilterInput {
        let mut input = FilterInput::default();
        for c in text.chars() {
            assert_eq!(input.edit(Edit::Insert(c)), Edited::Open);
        }
        input
    }

    #[test]
    fn what_was_typed_is_applied() {
        let mut input = typed("state=idle");
        assert_eq!(
            input.edit(Edit::Apply),
            Edited::Applied("state=idle".into(), "state=idle".parse().expect("it parses"))
        );
    }

    #[test]
    fn an_error_puts_the_cursor_where_it_is_and_goes_with_the_next_letter() {
        let mut input = typed("polls>1 age>30");
        assert_eq!(input.edit(Edit::Apply), Edited::Open);
        assert_eq!((input.at, input.error.as_ref().map(|error| error.column)), (12, Some(13)));
        input.edit(Edit::End);
        assert!(input.error.is_some());
        input.edit(Edit::Insert('s'));
        assert!(input.error.is_none());
        assert!(matches!(input.edit(Edit::Apply), Edited::Applied(..)));
    }

    #[test]
    fn every_edit_is_safe_at_both_ends() {
        let all = [
            Edit::Backspace,
            Edit::Delete,
            Edit::Left,
            Edit::Right,
            Edit::Start,
            Edit::End,
            Edit::DeleteWord,
            Edit::Clear,
        ];
        for first in all {
            for second in all {
                for text in ["", "é", "a b  "] {
                    let mut input = typed(text);
                    input.edit(first);
                    input.edit(second);
                    input.edit(Edit::Insert('x'));
                    assert!(input.text().contains('x'));
                }
            }
        }
    }

    #[test]
    fn a_word_goes_with_the_spaces_behind_it() {
        let mut input = typed("state=idle age>3s  ");
        input.edit(Edit::DeleteWord);
        assert_eq!(input.text(), "state=idle ");
        input.edit(Edit::DeleteWord);
        assert_eq!(input.text(), "");
    }
}
