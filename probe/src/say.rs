//! The probe's words on standard error. Never `eprintln!`: that panics where standard error is closed or full, and a panic
//! of the probe's must not reach the service.

use std::fmt;

/// One line; where it cannot be written, nobody is told.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // One write, so that the lines of two threads do not mix.
    let line = format!("taskscope: {line}\n");
    // Past the standard library's handle, whose lock a thread may have held that a fork has left behind.
    #[cfg(target_os = "linux")]
    let _ = rustix::io::write(std::io::stderr(), line.as_bytes());
    #[cfg(not(target_os = "linux"))]
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
