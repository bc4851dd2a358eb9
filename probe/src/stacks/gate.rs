//! Which threads may be sent the signal: one that blocks it, that takes signals out of the queue itself, or that is sandboxed,
//! is left alone. On `taskscope-stacks` only, just before each signal.

use std::collections::HashSet;

use super::taker::{Missing, Off};
use crate::engine::activity::{self, Call};

/// Threads that are remembered to wait for signals themselves; beyond that all are forgotten, and found again.
const REMEMBERED: usize = 1024;

/// What the system says of a thread in its `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    /// Signals that it blocks, and that wait for it, as sets of bits.
    blocked: u64,
    pending: u64,
    sandbox: Sandbox,
}

/// Under how much seccomp a thread is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sandbox {
    /// 0: none, 1: strict, 2: filters.
    mode: u32,
    /// How many filters; older kernels do not say it.
    filters: Option<u32>,
}

impl Sandbox {
    /// Whether a thread in this one may be kept from what one in `other` has tried: no system call beyond four is made in the
    /// strict mode, and a filter of its own may end the process for any.
    fn is_narrower_than(self, other: Self) -> bool {
        let has_more = self.filters.zip(other.filters).is_some_and(|(its, others)| its > others);
        self.mode == 1 || self.mode > other.mode || has_more
    }
}

impl Status {
    fn parse(status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let set =
            |name: &str| field(name).and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or_default();
        let number = |name: &str| field(name).and_then(|number| number.parse().ok());
        Self {
            blocked: set("SigBlk:"),
            pending: set("SigPnd:"),
            // A kernel without seccomp has no such line.
            sandbox: Sandbox { mode: number("Seccomp:").unwrap_or(0), filters: number("Seccomp_filters:") },
        }
    }

    fn of(tid: u32) -> Result<Self, Missing> {
        let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status"));
        let status = status.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Missing::Ended,
            // No file can be opened just now: another time.
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR) | None => Missing::Late,
            Some(errno) => Missing::Off(Off::NoProc(errno)),
        })?;
        Ok(Self::parse(&status))
    }
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Threads that were seen to wait for signals themselves.
    waiters: HashSet<u32>,
}

impl Gate {
    /// Whether thread `tid` may be sent `signal`.
    pub(super) fn lets(&mut self, tid: u32, signal: i32) -> Result<(), Missing> {
        // While it waits for signals the kernel shows none of these as blocked. To be mistaken for one that blocks none, it
        // would have to begin and end to wait between the two looks.
        let before = activity::call(tid);
        let status = Status::of(tid)?;
        let after = activity::call(tid);
        // It is narrow only in comparison; where there is no seccomp there is nothing to compare.
        let own = match status.sandbox.mode {
            0 => Sandbox::default(),
            _ => crate::registry::lines::current_tid().map_or(Ok(Status::default()), Status::of)?.sandbox,
        };
        self.judge(tid, 1 << (signal - 1), status, own, [before, after])
    }

    fn judge(
        &mut self,
        tid: u32,
        bit: u64,
        status: Status,
        own: Sandbox,
        calls: [Call; 2],
    ) -> Result<(), Missing> {
        let waits = |call: Call| call == Call::Number(libc::SYS_rt_sigtimedwait as u32);
        if calls.into_iter().any(waits) {
            if self.waiters.len() >= REMEMBERED {
                self.waiters.clear();
            }
            self.waiters.insert(tid);
            return Err(Missing::Blocks);
        }
        match () {
            () if status.sandbox.is_narrower_than(own) => Err(Missing::Sandboxed),
            () if status.blocked & bit != 0 => Err(Missing::Blocks),
            // It has been sent one that it has not taken yet.
            () if status.pending & bit != 0 => Err(Missing::Late),
            // One that has been woken by another signal is on its way out of the wait, maybe without a CPU: what it blocks is
            // not known.
            () if calls.contains(&Call::Running) && self.waiters.contains(&tid) => Err(Missing::Blocks),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIT: u64 = 1 << 60;
    const FREE: Status = Status { blocked: 0, pending: 0, sandbox: Sandbox { mode: 0, filters: Some(0) } };
    const NONE: Sandbox = FREE.sandbox;

    fn waiting() -> Call {
        Call::Number(libc::SYS_rt_sigtimedwait as u32)
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "Name:\tapi\nSigPnd:\t1000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\tffffffff7ffbfeff\n\
                    Seccomp:\t2\nSeccomp_filters:\t3\n";
        let status = Status::parse(text);
        assert_eq!((status.pending, status.blocked), (BIT, 0xffff_ffff_7ffb_feff));
        assert_eq!(status.sandbox, Sandbox { mode: 2, filters: Some(3) });
        assert_eq!(Status::parse("Name:\tapi\n"), Status::default());
    }

    #[test]
    fn one_that_waits_for_signals_is_never_let_through_while_it_may_still_wait() {
        let mut gate = Gate::default();
        let mut judge = |status, calls| gate.judge(7, BIT, status, NONE, calls);
        assert_eq!(judge(FREE, [Call::Running; 2]), Ok(()), "it was never seen to wait");
        assert_eq!(judge(FREE, [waiting(), Call::Running]), Err(Missing::Blocks));
        assert_eq!(judge(FREE, [Call::Running, waiting()]), Err(Missing::Blocks));
        assert_eq!(judge(FREE, [Call::Running; 2]), Err(Missing::Blocks), "it may be on its way out");
        let sleeps = Call::Number(libc::SYS_nanosleep as u32);
        assert_eq!(judge(FREE, [sleeps; 2]), Ok(()), "it is elsewhere");
        assert_eq!(judge(FREE, [Call::None; 2]), Ok(()), "it has no call to leave");
        assert_eq!(judge(Status { blocked: BIT, ..FREE }, [sleeps; 2]), Err(Missing::Blocks));
        assert_eq!(judge(Status { blocked: !BIT, ..FREE }, [sleeps; 2]), Ok(()), "it blocks others");
        assert_eq!(judge(Status { pending: BIT, ..FREE }, [sleeps; 2]), Err(Missing::Late));
        assert_eq!(gate.judge(8, BIT, FREE, NONE, [Call::Running; 2]), Ok(()), "another thread");
    }

    #[test]
    fn what_is_remembered_does_not_grow() {
        let mut gate = Gate::default();
        for tid in 0..5_000 {
            assert_eq!(gate.judge(tid, BIT, FREE, NONE, [waiting(); 2]), Err(Missing::Blocks));
            assert!(gate.waiters.len() <= REMEMBERED && gate.waiters.contains(&tid));
        }
    }

    #[test]
    fn a_thread_with_a_sandbox_of_its_own_is_left_alone_and_one_in_that_of_the_process_is_not() {
        let judge = |theirs, ours| {
            let status = Status { sandbox: theirs, ..FREE };
            Gate::default().judge(7, BIT, status, ours, [Call::Running; 2])
        };
        let of = |mode, filters| Sandbox { mode, filters };
        assert_eq!(judge(of(1, Some(0)), NONE), Err(Missing::Sandboxed), "strict");
        assert_eq!(judge(of(1, None), of(2, None)), Err(Missing::Sandboxed), "strict");
        assert_eq!(judge(of(2, Some(1)), NONE), Err(Missing::Sandboxed));
        assert_eq!(judge(of(2, None), of(0, None)), Err(Missing::Sandboxed), "an older kernel");
        assert_eq!(judge(of(2, Some(3)), of(2, Some(2))), Err(Missing::Sandboxed));
        assert_eq!(judge(of(2, Some(2)), of(2, Some(2))), Ok(()), "a container's");
        assert_eq!(judge(of(2, None), of(2, None)), Ok(()));
        assert_eq!(judge(NONE, Sandbox::default()), Ok(()), "nothing was compared");
        assert_eq!(
            judge(of(2, Some(1)), of(2, Some(2))),
            Ok(()),
            "the probe's thread is in the narrower one"
        );
    }
}
