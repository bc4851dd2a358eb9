//! The demo's faults, and the statement that is guilty of each: the truth that answers are held against.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::place::Place;

/// As the demo calls them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Fault {
    StuckPoll,
    SlowPoll,
    Contention,
    PoolFull,
    Panic,
    Leak,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::StuckPoll, Self::SlowPoll, Self::Contention, Self::PoolFull, Self::Panic, Self::Leak];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StuckPoll => "stuck-poll",
            Self::SlowPoll => "slow-poll",
            Self::Contention => "contention",
            Self::PoolFull => "pool-full",
            Self::Panic => "panic",
            Self::Leak => "leak",
        }
    }

    /// Its file, and what stands on the first and on the last line of the guilty statement.
    fn statement(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::StuckPoll => ("demo/src/storage.rs", "thread::sleep(left);", "thread::sleep(left);"),
            Self::SlowPoll => ("demo/src/work.rs", "for byte in 0..512_u64", "start.elapsed() >= duration"),
            Self::Contention => ("demo/src/prices.rs", "self.cents.lock()", "self.cents.lock()"),
            Self::PoolFull => {
                ("demo/src/storage.rs", "self.writes_resume.wait_while", "self.writes_resume.wait_while")
            }
            // Where it panics.
            Self::Panic => ("demo/src/audit.rs", "words[column].to_owned()", "words[column].to_owned()"),
            // Where that is spawned which never ends.
            Self::Leak => ("demo/src/session.rs", "spawn(\"session-watch\"", "spawn(\"session-watch\""),
        }
    }
}

/// The lines of one guilty statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Guilty {
    file: &'static str,
    lines: RangeInclusive<u32>,
}

impl Guilty {
    /// Found in the source of the demo.
    pub(crate) fn of(fault: Fault, root: &Path) -> anyhow::Result<Self> {
        let (file, first, last) = fault.statement();
        let text = std::fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        let line_of = |what: &str| -> anyhow::Result<u32> {
            let mut lines = (1..).zip(text.lines()).filter(|(_, line)| line.contains(what));
            let (number, _) = lines.next().with_context(|| format!("`{what}` is not in {file}"))?;
            ensure!(lines.next().is_none(), "`{what}` is more than once in {file}");
            Ok(number)
        };
        Ok(Self { file, lines: line_of(first)?..=line_of(last)? })
    }

    pub(crate) fn is_at(&self, place: &Place) -> bool {
        place.file == self.file && self.lines.contains(&place.line)
    }

    /// `demo/src/work.rs:14–18`.
    pub(crate) fn words(&self) -> String {
        let (first, last) = (self.lines.start(), self.lines.end());
        if first == last {
            format!("{}:{first}", self.file)
        } else {
            format!("{}:{first}–{last}", self.file)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guilty_statement_is_in_the_source_once() {
        for fault in Fault::ALL {
            let guilty = Guilty::of(fault, &crate::root()).unwrap_or_else(|error| panic!("{error}"));
            assert!(guilty.lines.end() >= guilty.lines.start(), "{guilty:?}");
        }
    }

    #[test]
    fn a_place_is_guilty_by_file_and_line() {
        let guilty = Guilty { file: "demo/src/work.rs", lines: 14..=18 };
        let at = |file: &str, line| guilty.is_at(&Place { file: file.to_owned(), line });
        assert!(at("demo/src/work.rs", 14) && at("demo/src/work.rs", 18));
        assert!(!at("demo/src/work.rs", 19) && !at("demo/src/storage.rs", 15));
        assert_eq!(guilty.words(), "demo/src/work.rs:14–18");
    }

    #[test]
    fn the_command_line_calls_faults_what_the_demo_calls_them() {
        for fault in Fault::ALL {
            assert_eq!(Fault::from_str(fault.name(), false), Ok(fault));
        }
    }
}
