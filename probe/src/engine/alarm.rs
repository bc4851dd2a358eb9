//! The pause between two ticks, kept by the kernel. Tokio's own timer takes a pause of 50 ms apart into two where it
//! crosses a boundary of its wheel, and rounds up to a millisecond; an idle process would be woken nearly twice as often.

use std::time::Duration;

/// One timer. It holds a file descriptor.
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

impl Alarm {
    /// Inside the runtime that will wait for it. Where the system gives no timer, Tokio's serves.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            timer: linux::timer(),
        }
    }

    /// Waits. Two or three system calls and one wake-up.
    pub(crate) async fn sleep(&self, pause: Duration) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.timer
            && linux::sleep(timer, pause).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    #[allow(
        deprecated,
        reason = "what newer versions of tokio want instead is unsafe, and not in our floor; an `OwnedFd` is what it asks for"
    )]
    pub(super) fn timer() -> Option<AsyncFd<OwnedFd>> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags).ok()?).ok()
    }

    pub(super) async fn sleep(timer: &AsyncFd<OwnedFd>, pause: Duration) -> io::Result<()> {
        // Zero would switch the timer off.
        let pause = pause.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: pause.subsec_nanos().into(),
            },
        };
        timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = timer.readable().await?;
            let mut expirations = [0; 8];
            // Not ready after all: it is waited for again.
            if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test of a timer needs a clock")]
    fn it_waits_as_long_as_it_was_told_and_can_be_used_again() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be made");
        runtime.block_on(async {
            let alarm = Alarm::new();
            for pause in [Duration::ZERO, Duration::from_millis(7), Duration::from_millis(70)] {
                let began = std::time::Instant::now();
                alarm.sleep(pause).await;
                assert!(began.elapsed() >= pause);
            }
        });
    }
}
