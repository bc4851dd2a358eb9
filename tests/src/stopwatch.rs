//! The one clock of the tests.
#![allow(clippy::disallowed_methods, reason = "this is the clock of the tests")]

use std::time::{Duration, Instant};

/// Runs from its start on.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// What is left of `within`; zero when it is over.
    pub fn left_of(self, within: Duration) -> Duration {
        within.saturating_sub(self.elapsed())
    }
}

/// CPU time of the calling thread, in which nobody else's work counts.
#[derive(Clone, Copy, Debug)]
pub struct ThreadTime(Duration);

impl ThreadTime {
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self(Duration::try_from(now).expect("it does not run backwards"))
    }

    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}
