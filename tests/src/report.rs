//! What a test says to the chores beside passing or failing: figures, and that it did not run.

use std::io::Write;
use std::path::Path;

/// One measured figure of a promise; `cargo xtask verify` puts it into docs/evidence.md.
pub fn evidence(promise: &str, figure: impl std::fmt::Display) {
    tell(&format!("evidence: {promise}: {figure}"));
}

/// Whether a program that this test runs against is here. Where it cannot be installed the chores say so in
/// `TASKSCOPE_TEST_WITHOUT`; the test then returns, and counts as not run.
///
/// # Panics
/// If the program is missing and nobody said so.
#[must_use]
#[track_caller]
pub fn peer(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file()) {
        return true;
    }
    let without = std::env::var("TASKSCOPE_TEST_WITHOUT").unwrap_or_default();
    let test = test();
    assert!(
        without.split(',').any(|name| name == program),
        "{test} needs {program}\nhint: run `cargo xtask test`; it installs what is missing"
    );
    tell(&format!("not run: {test}: needs {program}"));
    false
}

/// That this machine does not let the test do what it tests, as it said itself; the test then returns, and counts as not run.
pub fn not_allowed(what: &str, said: &str) {
    tell(&format!("not run: {}: {what}: {}", test(), said.lines().last().unwrap_or_default()));
}

fn test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

fn tell(line: &str) {
    println!("{line}");
    if let Some(file) = std::env::var_os("TASKSCOPE_TEST_REPORT") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        // One write, so that lines of two tests do not mix.
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .expect("the report can be written");
    }
}
