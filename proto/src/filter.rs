//! The query language: terms joined by spaces, all of which must hold.
//!
//! ```
//! use taskscope_proto::filter::Filter;
//! let filter: Filter = "state=idle idle>30s polls>100 label~\"POST /resize\"".parse()?;
//! # Ok::<(), taskscope_proto::filter::ParseError>(())
//! ```
//!
//! `field op value`: numbers (`id polls wakes wakers`) and durations (`age busy scheduled idle since longest cancel`, with a unit:
//! `ns us ms s m h`) take `= != > >= < <=`; texts (`name label at fields`) take `~` (contains, ignoring ASCII case), `!~`,
//! `=`, `!=`; `state kind outcome class` take `=` and `!=`. A value with spaces stands in double quotes. A number that is
//! not known matches no comparison.

use std::str::FromStr;

use crate::row::{self, NumberField, Row, TextField};
use crate::v1::{Outcome, TaskClass, TaskKind, TaskState};

/// A parsed filter. Empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Number { field: NumberField, op: Compare, value: u64 },
    Text { field: TextField, op: Search, needle: String },
    State { is: bool, state: TaskState },
    Kind { is: bool, kind: TaskKind },
    Outcome { is: bool, outcome: Outcome },
    Class { is: bool, class: TaskClass },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    Unequal,
    Greater,
    AtLeast,
    Less,
    AtMost,
}

/// The terms of a filter that search texts which many rows share, such as those of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextTerms(Vec<(TextField, Search, String)>);

/// A filter taken apart by what decides its terms, so that what is the same for many rows is decided once: a row matches
/// the filter if its group, its label and the row itself match their parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// On `name` and `at`.
    pub group: TextTerms,
    /// On `label`.
    pub label: TextTerms,
    /// All others, the cheapest first.
    pub rest: Filter,
}

impl TextTerms {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every term holds.
    pub fn hold<'a>(&self, text: impl Fn(TextField) -> &'a str) -> bool {
        self.0.iter().all(|(field, op, needle)| op.holds(text(*field), needle))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    Contains,
    Lacks,
    Is,
    IsNot,
}

/// Why a filter does not parse: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter does not parse at column {column}: {what}\nhint: {hint}")]
pub struct ParseError {
    /// First character is column 1.
    pub column: usize,
    pub what: String,
    pub hint: String,
}

/// A filter is refused past this length, so that a request stays small.
pub const MAX_LENGTH: usize = 4096;

const STATES: [TaskState; 4] = [TaskState::Running, TaskState::Scheduled, TaskState::Idle, TaskState::Ended];
const KINDS: [TaskKind; 4] = [TaskKind::Task, TaskKind::Wrapped, TaskKind::Main, TaskKind::Blocking];
const OUTCOMES: [Outcome; 6] = [
    Outcome::Completed,
    Outcome::Failed,
    Outcome::Cancelled,
    Outcome::Aborted,
    Outcome::Panicked,
    Outcome::Shutdown,
];
const CLASSES: [TaskClass; 4] = [TaskClass::Ingress, TaskClass::Work, TaskClass::Daemon, TaskClass::Critical];

enum Field {
    Number(NumberField),
    Duration(NumberField),
    Text(TextField),
    State,
    Kind,
    Outcome,
    Class,
}

const FIELDS: [(&str, Field); 19] = [
    ("id", Field::Number(NumberField::Id)),
    ("polls", Field::Number(NumberField::Polls)),
    ("age", Field::Duration(NumberField::Age)),
    ("busy", Field::Duration(NumberField::Busy)),
    ("scheduled", Field::Duration(NumberField::Scheduled)),
    ("idle", Field::Duration(NumberField::Idle)),
    ("since", Field::Duration(NumberField::Since)),
    ("longest", Field::Duration(NumberField::LongestPoll)),
    ("name", Field::Text(TextField::Name)),
    ("label", Field::Text(TextField::Label)),
    ("at", Field::Text(TextField::At)),
    ("state", Field::State),
    ("kind", Field::Kind),
    ("outcome", Field::Outcome),
    ("wakes", Field::Number(NumberField::Wakes)),
    ("wakers", Field::Number(NumberField::Wakers)),
    ("cancel", Field::Duration(NumberField::Cancel)),
    ("fields", Field::Text(TextField::Fields)),
    ("class", Field::Class),
];

impl Filter {
    /// Whether every term holds for `row`.
    pub fn matches(&self, row: &impl Row) -> bool {
        self.terms.iter().all(|term| term.matches(row))
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Takes it apart; see [`Parts`].
    pub fn into_parts(self) -> Parts {
        let mut parts = Parts::default();
        for term in self.terms {
            match term {
                Term::Text { field: field @ (TextField::Name | TextField::At), op, needle } => {
                    parts.group.0.push((field, op, needle));
                }
                Term::Text { field: TextField::Label, op, needle } => {
                    parts.label.0.push((TextField::Label, op, needle));
                }
                other => parts.rest.terms.push(other),
            }
        }
        parts.rest.terms.sort_by_key(|term| match term {
            Term::Kind { .. } | Term::Outcome { .. } | Term::Class { .. } => 0,
            Term::Number { .. } | Term::State { .. } => 1,
            Term::Text { .. } => 2,
        });
        parts
    }

    /// Whether it can match a task that has ended: only a filter that asks for it does.
    pub fn asks_for_ended(&self) -> bool {
        self.terms.iter().any(|term| {
            matches!(term, Term::State { is: true, state: TaskState::Ended } | Term::Outcome { is: true, .. })
        })
    }
}

impl Term {
    fn matches(&self, row: &impl Row) -> bool {
        match self {
            Self::Number { field, op, value } => row.number(*field).is_some_and(|have| match op {
                Compare::Equal => have == *value,
                Compare::Unequal => have != *value,
                Compare::Greater => have > *value,
                Compare::AtLeast => have >= *value,
                Compare::Less => have < *value,
                Compare::AtMost => have <= *value,
            }),
            Self::Text { field, op, needle } => op.holds(row.text(*field), needle),
            Self::State { is, state } => (row.state() == *state) == *is,
            Self::Kind { is, kind } => (row.kind() == *kind) == *is,
            Self::Outcome { is, outcome } => (row.outcome() == *outcome) == *is,
            Self::Class { is, class } => (row.class() == *class) == *is,
        }
    }
}

impl Search {
    fn holds(self, have: &str, needle: &str) -> bool {
        match self {
            Self::Contains => contains(have, needle),
            Self::Lacks => !contains(have, needle),
            Self::Is => have == needle,
            Self::IsNot => have != needle,
        }
    }
}

/// Whether `have` contains `needle`, ignoring ASCII case; allocates nothing.
fn contains(have: &str, needle: &str) -> bool {
    needle.is_empty()
        || have.as_bytes().windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle.as_bytes()))
}

impl FromStr for Filter {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.len() > MAX_LENGTH {
            return Err(ParseError {
                column: MAX_LENGTH + 1,
                what: format!("it is {} bytes long", text.len()),
                hint: format!("at most {MAX_LENGTH} bytes are read"),
            });
        }
        let mut terms = Vec::new();
        for (start, word) in words(text)? {
            terms.push(term(text, start, word)?);
        }
        Ok(Self { terms })
    }
}

/// Splits at white space outside double quotes; gives the byte offset of each word.
fn words(text: &str) -> Result<Vec<(usize, &str)>, ParseError> {
    let mut found = Vec::new();
    let mut start = None;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('"', None) => {
                quote = Some(at);
                start.get_or_insert(at);
            }
            ('"', Some(_)) => quote = None,
            (c, None) if c.is_whitespace() => {
                if let Some(from) = start.take() {
                    found.push((from, &text[from..at]));
                }
            }
            _ => {
                start.get_or_insert(at);
            }
        }
    }
    if let Some(at) = quote {
        return Err(error(text, at, "a quote is not closed", "end the value with \""));
    }
    if let Some(from) = start {
        found.push((from, &text[from..]));
    }
    Ok(found)
}

fn error(text: &str, byte: usize, what: impl Into<String>, hint: impl Into<String>) -> ParseError {
    ParseError { column: text[..byte].chars().count() + 1, what: what.into(), hint: hint.into() }
}

fn term(text: &str, start: usize, word: &str) -> Result<Term, ParseError> {
    let op_at = word.find(['=', '!', '<', '>', '~']).ok_or_else(|| {
        error(
            text,
            start,
            format!("`{word}` has no operator"),
            "write a term as in `state=idle` or `age>30s`",
        )
    })?;
    let name = &word[..op_at];
    let rest = &word[op_at..];
    let op_len = rest.find(|c| !"=!<>~".contains(c)).unwrap_or(rest.len());
    let (op, raw) = rest.split_at(op_len);
    let value = raw.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(raw);
    let value_at = start + op_at + op_len;
    let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
        let known = FIELDS.iter().map(|&(known, _)| known);
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("fields are {}", FIELDS.map(|(known, _)| known).join(", ")),
        };
        return Err(error(text, start, format!("no field is called `{name}`"), hint));
    };
    if value.is_empty() {
        return Err(error(
            text,
            value_at,
            format!("`{name}{op}` has no value"),
            "write one after the operator",
        ));
    }
    let wrong_op = |known: &str| {
        error(text, start + op_at, format!("`{name}` does not take `{op}`"), format!("it takes {known}"))
    };
    let word_value = |known: Vec<&'static str>| {
        let hint = format!("it is one of {}", known.join(", "));
        error(text, value_at, format!("`{value}` is no {name}"), hint)
    };
    let equality = || match op {
        "=" => Ok(true),
        "!=" => Ok(false),
        _ => Err(wrong_op("= !=")),
    };
    match *field {
        Field::Number(number) => Ok(Term::Number {
            field: number,
            op: compare(op).ok_or_else(|| wrong_op("= != > >= < <="))?,
            value: value.parse().map_err(|_| {
                error(text, value_at, format!("`{value}` is no whole number"), "write it as in `polls>100`")
            })?,
        }),
        Field::Duration(number) => Ok(Term::Number {
            field: number,
            op: compare(op).ok_or_else(|| wrong_op("= != > >= < <="))?,
            value: duration_ns(value).ok_or_else(|| {
                let hint = format!("write a number and ns, us, ms, s, m or h, as in `{name}>1.5s`");
                error(text, value_at, format!("`{value}` is no duration"), hint)
            })?,
        }),
        Field::Text(text_field) => Ok(Term::Text {
            field: text_field,
            op: match op {
                "~" => Search::Contains,
                "!~" => Search::Lacks,
                "=" => Search::Is,
                "!=" => Search::IsNot,
                _ => return Err(wrong_op("~ !~ = !=")),
            },
            needle: value.to_owned(),
        }),
        Field::State => Ok(Term::State {
            is: equality()?,
            state: STATES
                .into_iter()
                .find(|&state| row::state_word(state) == value)
                .ok_or_else(|| word_value(STATES.map(row::state_word).to_vec()))?,
        }),
        Field::Kind => Ok(Term::Kind {
            is: equality()?,
            kind: KINDS
                .into_iter()
                .find(|&kind| row::kind_word(kind) == value)
                .ok_or_else(|| word_value(KINDS.map(row::kind_word).to_vec()))?,
        }),
        Field::Outcome => Ok(Term::Outcome {
            is: equality()?,
            outcome: OUTCOMES
                .into_iter()
                .find(|&outcome| row::outcome_word(outcome) == Some(value))
                .ok_or_else(|| word_value(OUTCOMES.iter().filter_map(|&o| row::outcome_word(o)).collect()))?,
        }),
        Field::Class => Ok(Term::Class {
            is: equality()?,
            class: CLASSES
                .into_iter()
                .find(|&class| row::class_word(class) == Some(value))
                .ok_or_else(|| word_value(CLASSES.iter().filter_map(|&c| row::class_word(c)).collect()))?,
        }),
    }
}

fn compare(op: &str) -> Option<Compare> {
    Some(match op {
        "=" => Compare::Equal,
        "!=" => Compare::Unequal,
        ">" => Compare::Greater,
        ">=" => Compare::AtLeast,
        "<" => Compare::Less,
        "<=" => Compare::AtMost,
        _ => return None,
    })
}

/// `1.5s`, `200ms`, `2h` in nanoseconds; `None` without a unit, below zero, or past `u64`.
pub fn duration_ns(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    let value = number.parse::<f64>().ok()? * scale;
    (value.is_finite() && value < u64::MAX as f64).then(|| value.round() as u64)
}

/// The word of `known` that `word` is probably a misspelling of.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= 1 + candidate.len() / 4)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, cb) in b.chars().enumerate() {
            let substitution = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GroupId, RuntimeId, TaskId};
    use crate::row::TaskRow;
    use proptest::prelude::*;

    fn row() -> TaskRow {
        TaskRow {
            id: TaskId(7),
            kind: TaskKind::Blocking,
            state: TaskState::Idle,
            outcome: Outcome::Unspecified,
            name: "session-watch".into(),
            label: "POST /resize".into(),
            group: GroupId(1),
            spawned_at: "src/conn.rs:71:9".into(),
            runtime: RuntimeId(1),
            polls: 101,
            busy_ns: 1_500_000_000,
            scheduled_ns: None,
            idle_ns: Some(11_000_000_000),
            age_ns: 31_000_000_000,
            since_ns: 0,
            longest_poll_ns: 2_000_000,
            wakes: Some(row::Wakes { total: 12, by_itself: 0, by: None, wakers: 1 }),
            cancel: Some(row::CancelRequest { since_ns: 6_000_000_000, polls: 0, wakes: 0 }),
            class: TaskClass::Work,
            reason: String::new(),
            fields: "tenant=acme".into(),
        }
    }

    #[test]
    fn every_term_of_the_documentation_means_what_it_says() {
        for yes in [
            "",
            "state=idle age>30s idle>10s busy>1s polls>100 name~SESSION label~\"post /res\" at~conn.rs kind=blocking",
            "id=7 longest<=2ms",
            "wakes>11 cancel>5s class=work fields~tenant=acme",
            "state!=running",
            "label=\"POST /resize\"",
            "name!~http",
        ] {
            assert!(yes.parse::<Filter>().expect(yes).matches(&row()), "{yes}");
        }
        for no in [
            "state=running",
            "age<30s",
            "polls>101",
            "name=session",
            "scheduled>0ns",
            "scheduled<1h",
            "cancel>7s",
            "class!=work",
        ] {
            assert!(!no.parse::<Filter>().expect(no).matches(&row()), "{no}");
        }
    }

    #[test]
    fn its_parts_together_mean_what_the_whole_means() {
        for text in [
            "",
            "name~session at~conn.rs label~post polls>100 state=idle",
            "name~http polls>100",
            "at!~conn.rs",
            "label=other state=idle",
            "name~session polls>101",
            "fields~tenant=acme kind=task",
        ] {
            let filter: Filter = text.parse().expect(text);
            let parts = filter.clone().into_parts();
            let row = row();
            let text_of = |field| row.text(field);
            let holds = parts.group.hold(text_of) && parts.label.hold(text_of) && parts.rest.matches(&row);
            assert_eq!(holds, filter.matches(&row), "{text}");
        }
        let parts = "fields~a polls>1 name~x kind=task".parse::<Filter>().expect("it parses").into_parts();
        assert!(!parts.group.is_empty() && parts.label.is_empty());
        assert!(matches!(parts.rest.terms[..], [Term::Kind { .. }, Term::Number { .. }, Term::Text { .. }]));
    }

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let check = |text: &str, column: usize, what: &str, hint: &str| {
            let error = text.parse::<Filter>().expect_err(text);
            assert_eq!(
                (error.column, error.what.as_str(), error.hint.as_str()),
                (column, what, hint),
                "{text}"
            );
        };
        check("stat=idle", 1, "no field is called `stat`", "did you mean `state`?");
        check(
            "polls>1 age>30",
            13,
            "`30` is no duration",
            "write a number and ns, us, ms, s, m or h, as in `age>1.5s`",
        );
        check("idle", 1, "`idle` has no operator", "write a term as in `state=idle` or `age>30s`");
        check("name~", 6, "`name~` has no value", "write one after the operator");
        check("name~\"a b", 6, "a quote is not closed", "end the value with \"");
        check("state>idle", 6, "`state` does not take `>`", "it takes = !=");
        check("state=asleep", 7, "`asleep` is no state", "it is one of running, scheduled, idle, ended");
        check("polls>many", 7, "`many` is no whole number", "write it as in `polls>100`");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String) {
            let _ = text.parse::<Filter>();
        }

        #[test]
        fn parsing_of_near_filters_never_panics(text in "(state|age|name|x|\")?[=!<>~]{0,2}[a-z0-9\"é ]{0,9}") {
            let _ = text.parse::<Filter>();
        }
    }
}
