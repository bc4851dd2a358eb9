//! What a rule's setting is about: regular expressions for the whole of a text.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take. Real ones take some kilobytes; one that repeats repetitions would take gigabytes.
const MOST_BYTES: usize = 256 << 10;
/// Of the text of an expression.
const MOST_TEXT: usize = 1000;

/// A regular expression for the whole of a text.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    whole: Regex,
    /// It holds for every text but those.
    is_not: bool,
}

impl Pattern {
    /// The error says why not, with a hint.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.len() > MOST_TEXT {
            return Err(format!(
                "a regular expression of {} bytes is too long\nhint: {MOST_TEXT} are allowed",
                text.len()
            ));
        }
        // Compiled alone first: its error is about what was written, and `a)(b` is refused.
        compiled(text)?;
        Ok(Self { text: text.to_owned(), whole: compiled(&format!(r"\A(?s:{text})\z"))?, is_not: false })
    }

    /// The same, but what follows a `!` leaves out what it matches.
    pub(super) fn of_match(text: &str) -> Result<Self, String> {
        match text.strip_prefix('!') {
            Some(left_out) => Ok(Self { text: text.to_owned(), is_not: true, ..Self::new(left_out)? }),
            None => Self::new(text),
        }
    }

    pub(crate) fn holds(&self, text: &str) -> bool {
        self.whole.is_match(text) != self.is_not
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The one name that it is about, and whether it leaves that out; `None`: it may be about many.
    fn name(&self) -> Option<(&str, bool)> {
        let name = self.text.strip_prefix('!').filter(|_| self.is_not).unwrap_or(&self.text);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (!name.is_empty() && name.chars().all(is_plain)).then_some((name, self.is_not))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn compiled(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(MOST_BYTES).nest_limit(50).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "this regular expression is too big once it is compiled\n\
                                            hint: repeat less, as in `x{0,20}` instead of `(x{0,1000}){0,1000}`"
            .to_owned(),
        error => {
            let text = error.to_string();
            let why = text.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!(
                "no regular expression: {why}\nhint: in front of a character that has a meaning goes a backslash; in \
                 TOML write it in 'single quotes'"
            )
        }
    })
}

/// What a setting is about; all that is given must match. Nothing given: everything.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Match {
    pub(crate) service: Option<Pattern>,
    pub(crate) task_group: Option<Pattern>,
    pub(crate) label: Option<Pattern>,
    pub(crate) class: Option<Pattern>,
}

impl Match {
    pub(super) const KEYS: [&'static str; 4] = ["service", "task_group", "label", "class"];

    pub(super) fn of(&self, key: &str) -> Option<&Pattern> {
        match key {
            "service" => self.service.as_ref(),
            "task_group" => self.task_group.as_ref(),
            "label" => self.label.as_ref(),
            _ => self.class.as_ref(),
        }
    }

    /// What of it a filter of tasks can say, each term after a space; and whether that is all of it. `service` says nothing about tasks.
    pub(crate) fn terms(&self) -> (String, bool) {
        let name = self.task_group.as_ref().and_then(Pattern::name);
        let terms = match name {
            // A task without a name is in a group of its place, which no such name is.
            Some((name, true)) => format!(" name!={name}"),
            Some((name, false)) => format!(" name={name}"),
            None => String::new(),
        };
        let is_all =
            self.task_group.is_some() == name.is_some() && self.label.is_none() && self.class.is_none();
        (terms, is_all)
    }

    /// `named` answers what an alert's label of that name says; what has no such label does not match it, and is not left out.
    pub(crate) fn holds<'a>(&self, named: impl Fn(&'static str) -> Option<&'a str>) -> bool {
        Self::KEYS.into_iter().all(|key| match self.of(key) {
            Some(pattern) => named(key).map_or(pattern.is_not, |text| pattern.holds(text)),
            None => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_and_anything_else_is_left_to_the_rule() {
        let terms = |text: &str| {
            let task_group = Pattern::of_match(text).ok();
            assert!(task_group.is_some(), "{text}");
            Match { task_group, ..Match::default() }.terms()
        };
        assert_eq!(Match::default().terms(), (String::new(), true));
        assert_eq!(terms("payment-confirmation"), (" name=payment-confirmation".to_owned(), true));
        assert_eq!(terms("!mailer_2"), (" name!=mailer_2".to_owned(), true));
        for many in ["batch-.*", "!batch-.*", "a|b", "src/main.rs:7:5", "", "!"] {
            assert_eq!(terms(many), (String::new(), false), "{many}");
        }
        let label = Match { label: Pattern::of_match("upload").ok(), ..Match::default() };
        assert_eq!(label.terms(), (String::new(), false));
        for (text, filter) in [("mailer", "name=mailer"), ("!mailer", "name!=mailer")] {
            assert!(format!("state=idle{}", terms(text).0).ends_with(filter));
            assert!(
                format!("state=idle{}", terms(text).0).parse::<taskscope_proto::filter::Filter>().is_ok()
            );
        }
    }
}
