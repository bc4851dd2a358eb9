//! The probe's clock: ticks of the processor's time-stamp counter where it is invariant, of the system's monotonic clock
//! elsewhere. Reading it takes no system call; no wall clock is read in capture.

use crate::native;

/// An instant in ticks of this process's clock. 0 means "none".
pub(crate) type Ticks = u64;

/// Reads ticks and turns them into nanoseconds since the probe began.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    source: quanta::Clock,
    zero: Ticks,
    /// Nanoseconds of 2³² ticks.
    scale: u64,
    counter: bool,
}

/// How hooks read the clock: decided once, so that a poll does not ask.
pub(crate) trait Source {
    fn now(clock: &Clock) -> Ticks;
}

/// The time-stamp counter, in place. Only where [`Clock::is_counter`].
pub(crate) struct Counter;

/// Whatever the clock reads.
#[cfg_attr(not(tokio_unstable), allow(dead_code, reason = "only hooks choose"))]
pub(crate) struct Any;

impl Source for Counter {
    #[inline(always)]
    fn now(_: &Clock) -> Ticks {
        native::counter()
    }
}

impl Source for Any {
    #[inline]
    fn now(clock: &Clock) -> Ticks {
        clock.now()
    }
}

impl Clock {
    /// Calibrates against the system's clock; takes some milliseconds, once a process.
    pub(crate) fn start() -> Self {
        let source = quanta::Clock::new();
        let zero = source.raw();
        let scale = source.delta_as_nanos(0, 1 << 32);
        // The source keeps to itself what it reads; it shows when a reading of ours lies on both sides of one of its.
        let (before, its, after) = (native::counter(), source.raw(), native::counter());
        let counter = native::HAS_COUNTER && before <= its && its <= after;
        Self { source, zero, scale, counter }
    }

    /// A clock that only tests move, of one nanosecond a tick. As a system's clock does, it begins long before the probe.
    #[cfg(test)]
    pub(crate) fn driven() -> (Self, std::sync::Arc<quanta::Mock>) {
        let (source, hand) = quanta::Clock::mock();
        hand.increment(1u64 << 40);
        (Self { source, zero: 1 << 40, scale: 1 << 32, counter: false }, hand)
    }

    #[inline]
    pub(crate) fn now(&self) -> Ticks {
        if self.counter { native::counter() } else { self.source.raw() }
    }

    /// Whether [`Counter`] reads this clock.
    pub(crate) fn is_counter(&self) -> bool {
        self.counter
    }

    /// Nanoseconds from `start` to `end`; 0 where the counters of two cores disagree.
    #[inline]
    pub(crate) fn between(&self, start: Ticks, end: Ticks) -> u64 {
        if end <= start { 0 } else { self.source.delta_as_nanos(start, end) }
    }

    /// Nanoseconds of `ticks`, at most what [`Clock::short_ticks`] gives: one multiplication.
    #[inline]
    pub(crate) fn short_ns(&self, ticks: Ticks) -> u64 {
        ticks.wrapping_mul(self.scale) >> 32
    }

    /// Ticks of `ns`, or the largest number below which [`Clock::short_ns`] can be asked.
    pub(crate) fn short_ticks(&self, ns: u64) -> Ticks {
        let ticks = (u128::from(ns) << 32) / u128::from(self.scale.max(1));
        Ticks::try_from(ticks).unwrap_or(Ticks::MAX).min(self.most_short_ticks())
    }

    fn most_short_ticks(&self) -> Ticks {
        (u64::MAX / self.scale.max(1)).min(u32::MAX.into())
    }

    /// Nanoseconds since the probe began.
    pub(crate) fn at(&self, ticks: Ticks) -> u64 {
        self.between(self.zero, ticks)
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_tick_of_a_clock_that_counts_nanoseconds_is_one() {
        let (clock, hand) = Clock::driven();
        let start = clock.now();
        hand.increment(4_000_000_000u64);
        let ticks = clock.now() - start;
        assert_eq!(
            (clock.between(start, clock.now()), clock.short_ns(ticks)),
            (4_000_000_000, 4_000_000_000)
        );
        assert_eq!((clock.short_ticks(1000), clock.at(clock.now())), (1000, 4_000_000_000));
        assert_eq!(clock.between(clock.now(), start), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the processor what it can")]
    fn short_times_are_what_long_ones_say() {
        let clock = Clock::start();
        for ticks in [0, 1, 1000, 3_000_000, clock.most_short_ticks()] {
            let (short, long) = (clock.short_ns(ticks), clock.between(5, 5 + ticks));
            assert!(short.abs_diff(long) <= 2, "{ticks} ticks: {short} and {long}");
        }
        assert!(clock.short_ns(clock.short_ticks(100_000_000)).abs_diff(100_000_000) <= 2);
        assert_eq!(clock.short_ticks(u64::MAX), clock.most_short_ticks());
    }
}
