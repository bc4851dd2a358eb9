//! The probe's clock: ticks of the processor's time-stamp counter where it is invariant, of the system's monotonic clock
//! elsewhere. Reading it takes no system call; no wall clock is read in capture.

/// An instant in ticks of this process's clock. 0 means "none".
pub(crate) type Ticks = u64;

/// Reads ticks and turns them into nanoseconds since the probe began.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    source: quanta::Clock,
    zero: Ticks,
}

impl Clock {
    /// Calibrates against the system's clock; takes some milliseconds, once a process.
    pub(crate) fn start() -> Self {
        let source = quanta::Clock::new();
        let zero = source.raw();
        Self { source, zero }
    }

    #[inline]
    pub(crate) fn now(&self) -> Ticks {
        self.source.raw()
    }

    /// Nanoseconds from `start` to `end`; 0 where the counters of two cores disagree.
    #[inline]
    pub(crate) fn between(&self, start: Ticks, end: Ticks) -> u64 {
        if end <= start { 0 } else { self.source.delta_as_nanos(start, end) }
    }

    /// Nanoseconds since the probe began.
    pub(crate) fn at(&self, ticks: Ticks) -> u64 {
        self.between(self.zero, ticks)
    }
}
