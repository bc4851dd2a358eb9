//! CPU time of the calling thread.

use crate::clock::Clock;

/// In ns since the thread began; `None` where the system does not tell. One system call.
pub(crate) fn of_this_thread() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        super::activity::clock_ns(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The same; where the system does not tell, time itself is charged for it.
pub(crate) fn charged_ns(clock: &Clock) -> u64 {
    of_this_thread().unwrap_or_else(|| clock.at(clock.now()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn it_grows_with_work() {
        let began = super::of_this_thread().expect("Linux tells it");
        let mut sum = 0u64;
        while super::of_this_thread().expect("Linux tells it") < began + 1_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
