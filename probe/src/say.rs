//! The probe's words on standard error. Never `eprintln!`: that panics where standard error is closed or full, and a panic
//! of the probe's must not reach the service.

use std::fmt;
use std::io::Write;

/// One line; where it cannot be written, nobody is told.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // One write, so that the lines of two threads do not mix.
    let _ = std::io::stderr().write_all(format!("taskscope: {line}\n").as_bytes());
}
