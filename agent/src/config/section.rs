//! Walking a TOML document: every key is known or told, every value is understood or told, and where each was is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use taskscope_proto::filter::nearest;
use taskscope_proto::words::printable;
use toml::de::{DeTable, DeValue};

/// Something in a configuration that cannot be meant, with where it is and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// As the user named it.
    pub(crate) file: String,
    /// From 1, in characters.
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// With its `hint:` line where there is something to do.
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.text)
    }
}

/// A document that is being read: what was wrong so far, and the line of each value by its dotted path.
pub(super) struct Document<'s> {
    file: &'s str,
    source: &'s str,
    pub(super) problems: Vec<Problem>,
    pub(super) lines: BTreeMap<String, usize>,
}

impl<'s> Document<'s> {
    pub(super) fn new(file: &'s str, source: &'s str) -> Self {
        Self { file, source, problems: Vec::new(), lines: BTreeMap::new() }
    }

    pub(super) fn tell(&mut self, span: &Range<usize>, text: impl Into<String>) {
        let (line, column) = self.place(span.start);
        self.problems.push(Problem { file: self.file.to_owned(), line, column, text: text.into() });
    }

    /// Something was told about this very place.
    pub(super) fn has_told(&self, span: &Range<usize>) -> bool {
        let place = self.place(span.start);
        self.problems.iter().any(|problem| (problem.line, problem.column) == place)
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.source.get(..offset).unwrap_or(self.source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A table of the document, all of whose keys are known or were told.
pub(super) struct Section<'t> {
    /// Dotted, as in `rules.TaskSlowPoll`; empty for the whole document.
    pub(super) path: String,
    table: &'t DeTable<'t>,
    pub(super) span: Range<usize>,
}

impl<'t> Section<'t> {
    /// `known` are the keys that it may have; those are told as hints.
    pub(super) fn new(
        document: &mut Document<'_>,
        path: String,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        known: &[&str],
    ) -> Self {
        let section = Self { path, table, span };
        for key in section.table.keys() {
            let word = key.get_ref().as_ref();
            if known.contains(&word) {
                continue;
            }
            let of = if section.path.is_empty() { String::new() } else { format!(" in `{}`", section.path) };
            let hint = match nearest(word, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it may have {}", known.join(", ")),
            };
            document.tell(&key.span(), format!("unknown key `{}`{of}\nhint: {hint}", printable(word)));
        }
        section
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&'t str, Range<usize>)> {
        self.table.keys().map(|key| (key.get_ref().as_ref(), key.span()))
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where the value of this key is; where the section is if it has none.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or_else(|| self.span.clone(), |value| value.span())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of this key, if it has one that can be understood; one that cannot is told.
    pub(super) fn take<T>(
        &self,
        document: &mut Document<'_>,
        key: &str,
        understand: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        match understand(value.get_ref()) {
            Ok(understood) => {
                let line = document.place(value.span().start).0;
                document.lines.insert(self.path_of(key), line);
                Some(understood)
            }
            Err(text) => {
                document.tell(&value.span(), format!("`{}`: {text}", self.path_of(key)));
                None
            }
        }
    }

    pub(super) fn section(&self, document: &mut Document<'_>, key: &str, known: &[&str]) -> Option<Self> {
        let value = self.table.get(key)?;
        let path = self.path_of(key);
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::new(document, path, table, value.span(), known)),
            _ => {
                document.tell(
                    &value.span(),
                    format!("`{path}` is no table\nhint: write [{path}] on its own line"),
                );
                None
            }
        }
    }

    /// A table whose keys are names; whoever asks looks at them.
    pub(super) fn open_section(&self, document: &mut Document<'_>, key: &str) -> Option<Self> {
        let names: Vec<&str> = match self.table.get(key).map(|value| value.get_ref()) {
            Some(DeValue::Table(table)) => table.keys().map(|key| key.get_ref().as_ref()).collect(),
            _ => Vec::new(),
        };
        self.section(document, key, &names)
    }

    /// The tables of `[[key]]`, each with its number as the last part of its path.
    pub(super) fn sections(&self, document: &mut Document<'_>, key: &str, known: &[&str]) -> Vec<Self> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let path = self.path_of(key);
        let mut sections = Vec::new();
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().map(Some).collect(),
            _ => vec![None],
        };
        for (index, item) in items.into_iter().enumerate() {
            match item.map(|item| (item.get_ref(), item.span())) {
                Some((DeValue::Table(table), span)) => {
                    sections.push(Self::new(document, format!("{path}.{index}"), table, span, known));
                }
                _ => document.tell(
                    &value.span(),
                    format!(
                        "`{path}` is no list of tables\nhint: write [[{path}]] on its own line, once for each"
                    ),
                ),
            }
        }
        sections
    }
}
