//! Reads what `cargo test` prints and says at the end what ran, how long it took, and what did not run.

use std::fmt::Write as _;
use std::time::Duration;

/// One test program: the unit tests of a crate, its doc tests, or one file of `tests/`.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
    /// Each test's name and whether it passed.
    pub(crate) tests: Vec<(String, bool)>,
    /// It said how it ended; one that crashed did not.
    ended: bool,
}

impl Suite {
    /// The same tests, run in another way.
    pub(crate) fn under(mut self, way: &str) -> Self {
        self.name.push_str(&format!(" under {way}"));
        self
    }
}

/// Collects the lines of one `cargo test`, standard output and standard error in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    suites: Vec<Suite>,
}

impl Reader {
    /// Takes in one line, with or without colours.
    pub(crate) fn line(&mut self, line: &str) {
        let line = without_colours(line);
        let line = line.trim();
        if let Some(name) = suite_name(line) {
            self.suites.push(Suite { name, ..Suite::default() });
            return;
        }
        let Some(suite) = self.suites.last_mut() else { return };
        if let Some(result) = line.strip_prefix("test result: ") {
            suite.passed += number_before(result, " passed").unwrap_or_default();
            suite.failed += number_before(result, " failed").unwrap_or_default();
            suite.seconds += seconds(result).unwrap_or_default();
            suite.ended = true;
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            match verdict {
                "ok" => suite.tests.push((name.to_owned(), true)),
                "FAILED" => suite.tests.push((name.to_owned(), false)),
                _ => {}
            }
        }
    }

    /// All suites that began. One that never said how it ended counts as one failure: it crashed or was killed.
    pub(crate) fn finish(mut self) -> Vec<Suite> {
        for suite in &mut self.suites {
            if !suite.ended {
                suite.failed += 1;
            }
        }
        self.suites
    }
}

/// `Running tests/attach.rs (target/…/attach-0123)`, `Running unittests src/lib.rs (…/taskscope_proto-0123)`,
/// `Doc-tests taskscope_proto`.
fn suite_name(line: &str) -> Option<String> {
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} (documentation)"));
    }
    let (what, file) = line.strip_prefix("Running ")?.strip_suffix(')')?.split_once(" (")?;
    let program = file.rsplit('/').next()?;
    let program = program.rsplit_once('-').map_or(program, |(name, _hash)| name);
    Some(match what.strip_prefix("unittests ") {
        Some("src/lib.rs") => format!("{program} (units)"),
        Some(_) => format!("{program} (units of the binary)"),
        None => what.to_owned(),
    })
}

fn number_before(text: &str, word: &str) -> Option<u64> {
    let before = &text[..text.find(word)?];
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn seconds(result: &str) -> Option<f64> {
    result.rsplit_once("finished in ")?.1.strip_suffix('s')?.parse().ok()
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // CSI … letter
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

/// What one run of the chores did.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// What was done besides testing, how long it took, and whether it worked.
    pub(crate) phases: Vec<(String, Duration, bool)>,
    pub(crate) suites: Vec<Suite>,
    /// Sentences: which test did not run, and what it needs.
    pub(crate) not_run: Vec<String>,
}

impl Summary {
    pub(crate) fn passed(&self) -> u64 {
        self.suites.iter().map(|suite| suite.passed).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.suites.iter().map(|suite| suite.failed).sum()
    }

    /// Everything worked and something was tested. Tests that did not run fail it only where `all_must_run`.
    pub(crate) fn good(&self, all_must_run: bool) -> bool {
        self.phases.iter().all(|(_, _, worked)| *worked)
            && self.failed() == 0
            && self.passed() > 0
            && (!all_must_run || self.not_run.is_empty())
    }

    /// The table, ending with the plain line `N passed, N failed`.
    pub(crate) fn table(&self) -> String {
        let mut out = String::from("\n");
        let names =
            self.phases.iter().map(|(name, _, _)| name).chain(self.suites.iter().map(|suite| &suite.name));
        let width = names.map(|name| name.chars().count()).max().unwrap_or_default();
        for (name, took, worked) in &self.phases {
            let verdict = if *worked { "done" } else { "FAILED" };
            let _ = writeln!(out, "{name:width$}  {:>7.1} s  {verdict}", took.as_secs_f64());
        }
        for suite in self.suites.iter().filter(|suite| suite.passed + suite.failed > 0) {
            let _ = write!(out, "{:width$}  {:>7.1} s  {} passed", suite.name, suite.seconds, suite.passed);
            let _ = writeln!(
                out,
                "{}",
                if suite.failed > 0 { format!(", {} FAILED", suite.failed) } else { String::new() }
            );
            for (name, _) in suite.tests.iter().filter(|(_, passed)| !passed) {
                let _ = writeln!(out, "    FAILED: {name}");
            }
            if !suite.ended {
                let _ = writeln!(out, "    FAILED: it ended without a result");
            }
        }
        for sentence in &self.not_run {
            let _ = writeln!(out, "not run: {sentence}");
        }
        let _ = writeln!(out, "{} passed, {} failed", self.passed(), self.failed());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
   Compiling taskscope-tests v0.1.0
     Running unittests src/lib.rs (target/debug/deps/taskscope_proto-0123abcd)

running 2 tests
test ids::tests::round_trip ... ok
test row::tests::sorts ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.25s

\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m tests/attach.rs (target/debug/deps/attach-77aa)

running 2 tests
test every_connection_is_a_row ... \u{1b}[32mok\u{1b}[0m
test rows_grow ... FAILED

failures:
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.50s
     Running tests/crash.rs (target/debug/deps/crash-77aa)

running 1 test
   Doc-tests taskscope_proto
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn read(text: &str) -> Vec<Suite> {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.finish()
    }

    #[test]
    fn suites_are_counted_by_what_they_print() {
        let suites = read(OUTPUT);
        let told: Vec<_> = suites.iter().map(|s| (s.name.as_str(), s.passed, s.failed, s.seconds)).collect();
        assert_eq!(
            told,
            [
                ("taskscope_proto (units)", 2, 0, 0.25),
                ("tests/attach.rs", 1, 1, 3.5),
                ("tests/crash.rs", 0, 1, 0.0),
                ("taskscope_proto (documentation)", 0, 0, 0.0),
            ]
        );
        assert_eq!(
            suites[1].tests,
            [("every_connection_is_a_row".to_owned(), true), ("rows_grow".to_owned(), false)]
        );
    }

    #[test]
    fn the_last_line_is_the_plain_count() {
        let summary = Summary { suites: read(OUTPUT), ..Summary::default() };
        let table = summary.table();
        assert_eq!(table.lines().last(), Some("3 passed, 2 failed"));
        assert!(table.contains("FAILED: rows_grow"), "{table}");
    }

    #[test]
    fn nothing_tested_is_not_good_and_neither_is_a_missing_peer_where_all_must_run() {
        assert!(!Summary::default().good(false));
        let suite = Suite { passed: 1, ended: true, ..Suite::default() };
        let mut summary = Summary { suites: vec![suite], ..Summary::default() };
        assert!(summary.good(true));
        summary.not_run.push("the_screen_is_restored: needs tmux".to_owned());
        assert!(summary.good(false) && !summary.good(true));
        summary.phases.push(("build".to_owned(), Duration::ZERO, false));
        assert!(!summary.good(false));
    }
}
