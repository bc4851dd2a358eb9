//! How the service was built and is deployed: what `taskscope check` wants to know. Read when somebody asks.

use taskscope_proto::v1::{Deployment, Sigterm};

use crate::cgroup::Cgroup;
use crate::runtimes::unstable;

const SIGTERM: u32 = 15;

pub(crate) fn now(cgroup: &Cgroup) -> Deployment {
    let cores = |(_, quota): (_, crate::cgroup::Quota)| quota.quota_us as f64 / quota.period_us as f64;
    // What cannot be read is as if it did not stand there: nothing is made of it.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Deployment {
        debug_build: cfg!(debug_assertions),
        tokio_unstable: unstable::HOOKS,
        quota_cores: cgroup
            .quotas()
            .into_iter()
            .map(cores)
            .filter(|cores| cores.is_finite())
            .min_by(f64::total_cmp),
        cores: allowed_cores(&status),
        sigterm: sigterm(&status).into(),
    }
}

/// Of the process's main thread. (Not `available_parallelism`, which counts a quota as cores.)
fn allowed_cores(status: &str) -> Option<u32> {
    let list = field(status, "Cpus_allowed_list")?;
    let cores = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some(to.parse::<u32>().ok()?.checked_sub(from.parse().ok()?)? + 1)
    };
    list.split(',').map(cores).sum()
}

fn sigterm(status: &str) -> Sigterm {
    let has = |name| {
        let mask = u64::from_str_radix(field(status, name)?, 16).ok()?;
        Some(mask >> (SIGTERM - 1) & 1 == 1)
    };
    match (has("SigCgt"), has("SigIgn"), has("SigBlk")) {
        (Some(true), _, _) => Sigterm::Handled,
        (_, Some(true), _) => Sigterm::Ignored,
        // For `signalfd` and `sigwait` it is blocked in all threads, the probe's among them.
        (_, _, Some(true)) => Sigterm::Handled,
        (Some(false), Some(false), Some(false)) => Sigterm::Default,
        _ => Sigterm::Unspecified,
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(caught: u64, ignored: u64, blocked: u64) -> String {
        format!(
            "Name:\tx\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\nCpus_allowed_list:\t0-3,8\n"
        )
    }

    #[test]
    fn what_sigterm_does_is_read_from_the_masks() {
        assert_eq!(sigterm(&status(1 << 14, 0, 0)), Sigterm::Handled);
        assert_eq!(sigterm(&status(0, 1 << 14, 0)), Sigterm::Ignored);
        assert_eq!(sigterm(&status(0, 0, 1 << 14)), Sigterm::Handled);
        assert_eq!(sigterm(&status(1 << 13, 1 << 1, 0)), Sigterm::Default);
        assert_eq!(sigterm("SigCgt:\tnonsense\n"), Sigterm::Unspecified);
    }

    #[test]
    fn cores_are_counted_from_their_list() {
        assert_eq!(allowed_cores(&status(0, 0, 0)), Some(5));
        assert_eq!(allowed_cores("Cpus_allowed_list:\t0\n"), Some(1));
        assert_eq!(allowed_cores("Cpus_allowed_list:\t3-1\n"), None);
        assert_eq!(allowed_cores(""), None);
    }
}
