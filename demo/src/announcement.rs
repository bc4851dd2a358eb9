//! What the demo says about itself on standard output: one JSON object a line for an agent, or the same in words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// One line. `Display` prints it as JSON without the line's end, `FromStr` reads it; fields that it does not know are
/// skipped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Announcement {
    /// Always the first line: the service answers, under load, and its probe is in place.
    Serving {
        /// Where the HTTP API is, such as `http://127.0.0.1:41873`.
        http: String,
        /// Where the probe listens, such as `unix:/run/user/1000/taskscope/demo.3f2a.sock`; absent if it listens nowhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<String>,
        /// Whether the runtime's task hooks are there; without them only named and labelled work is seen.
        hooks: bool,
        /// Why the hooks are not there; absent if they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hooks_absent: Option<String>,
    },
    Fault {
        name: Fault,
        state: Edge,
        /// What the fault does, in words.
        truth: String,
        /// Milliseconds since the service was ready.
        at_ms: u64,
    },
    Tour {
        state: Progress,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    Start,
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Nothing more will be injected; the service runs on.
    Done,
}

impl Announcement {
    /// The line for a person. The first word of the first line is the address to attach to.
    pub fn words(&self) -> String {
        match self {
            Self::Serving { http, probe, hooks_absent, .. } => {
                let address = probe.as_deref().unwrap_or("(the probe listens nowhere)");
                let absent = hooks_absent.as_ref().map(|why| format!("; {why}"));
                format!("{address}  the photo shop is at {http}{}", absent.unwrap_or_default())
            }
            Self::Fault { name, state, truth, at_ms } => {
                let at = format!("{:>5.1} s", *at_ms as f64 / 1000.0);
                match state {
                    Edge::Start => format!("{at}  {name} starts: {truth}"),
                    Edge::End => format!("{at}  {name} ends"),
                }
            }
            Self::Tour { state: Progress::Done } => {
                "nothing more will be injected; the service runs on".to_owned()
            }
        }
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Announcement {
    type Err = UnknownLine;

    fn from_str(line: &str) -> Result<Self, UnknownLine> {
        serde_json::from_str(line.trim()).map_err(UnknownLine)
    }
}

/// A line that is none of ours: a library that printed to standard output, or a demo of another version.
#[derive(Debug, thiserror::Error)]
#[error("not a line of the demo: {0}")]
pub struct UnknownLine(serde_json::Error);

#[cfg(test)]
mod tests {
    use super::*;

    fn each() -> Vec<(Announcement, &'static str)> {
        let http = "http://127.0.0.1:41873".to_owned();
        let truth = Fault::StuckPoll.truth().to_owned();
        vec![
            (
                Announcement::Serving {
                    http: http.clone(),
                    probe: Some("unix:/run/demo.3f2a.sock".into()),
                    hooks: true,
                    hooks_absent: None,
                },
                r#"{"event":"serving","http":"http://127.0.0.1:41873","probe":"unix:/run/demo.3f2a.sock","hooks":true}"#,
            ),
            (
                Announcement::Serving {
                    http,
                    probe: None,
                    hooks: false,
                    hooks_absent: Some("no \"cfg\"".into()),
                },
                r#"{"event":"serving","http":"http://127.0.0.1:41873","hooks":false,"hooks_absent":"no \"cfg\""}"#,
            ),
            (
                Announcement::Fault {
                    name: Fault::StuckPoll,
                    state: Edge::Start,
                    truth: truth.clone(),
                    at_ms: 5002,
                },
                r#"{"event":"fault","name":"stuck-poll","state":"start","truth":"POST /resize calls std::thread::sleep on both workers, for 5 s","at_ms":5002}"#,
            ),
            (
                Announcement::Fault { name: Fault::StuckPoll, state: Edge::End, truth, at_ms: 10001 },
                r#"{"event":"fault","name":"stuck-poll","state":"end","truth":"POST /resize calls std::thread::sleep on both workers, for 5 s","at_ms":10001}"#,
            ),
            (Announcement::Tour { state: Progress::Done }, r#"{"event":"tour","state":"done"}"#),
        ]
    }

    #[test]
    fn every_announcement_survives_print_and_parse() {
        for (announcement, line) in each() {
            assert_eq!(announcement.to_string(), line);
            assert_eq!(line.parse::<Announcement>().unwrap(), announcement);
        }
    }

    #[test]
    fn a_line_of_a_later_version_is_read_and_a_foreign_line_is_refused() {
        let later = r#"{"event":"tour","state":"done","at_ms":85000}"#;
        assert_eq!(later.parse::<Announcement>().unwrap(), Announcement::Tour { state: Progress::Done });
        for foreign in
            ["", "hello", "{}", r#"{"event":"fault","name":"fire","state":"start","truth":"","at_ms":1}"#]
        {
            let said = foreign.parse::<Announcement>().unwrap_err().to_string();
            assert!(said.starts_with("not a line of the demo: "), "{said}");
        }
    }

    #[test]
    fn the_words_begin_with_the_address_and_name_the_cause_of_missing_hooks() {
        let words: Vec<_> = each().into_iter().map(|(announcement, _)| announcement.words()).collect();
        assert_eq!(
            words,
            [
                "unix:/run/demo.3f2a.sock  the photo shop is at http://127.0.0.1:41873",
                "(the probe listens nowhere)  the photo shop is at http://127.0.0.1:41873; no \"cfg\"",
                "  5.0 s  stuck-poll starts: POST /resize calls std::thread::sleep on both workers, for 5 s",
                " 10.0 s  stuck-poll ends",
                "nothing more will be injected; the service runs on",
            ]
        );
    }
}
