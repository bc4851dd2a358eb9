//! The demo's one clock.

use std::time::Instant;

#[allow(clippy::disallowed_methods, reason = "this is the clock of the demo")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
