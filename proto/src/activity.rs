//! What the thread of a poll did while it was looked at, in shares and in words: one reading for sentences and screens.

use crate::v1::ThreadActivity;
use crate::v1::thread_activity::State;

/// Parts of the time in which a thread was looked at, each 0 to 1. What is not known is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    pub on_cpu: Option<f64>,
    /// It wanted a CPU and had none, for another reason than the quota.
    pub waiting: Option<f64>,
    /// The cgroup's CPU quota was used up.
    pub throttled: Option<f64>,
    /// Neither of these: it waited for something that is no CPU.
    pub asleep: Option<f64>,
}

/// A part below this is not worth a word.
const LEAST: f64 = 0.05;
/// A part from this on is all of it.
const ALL: f64 = 0.9;
/// From this on the quota, and not the code, is what made a poll long.
const BLAMED: f64 = 0.5;

impl Shares {
    /// `None` where the thread was looked at only once.
    pub fn of(activity: &ThreadActivity) -> Option<Self> {
        let observed = activity.observed_ns;
        if observed == 0 {
            return None;
        }
        let share = |ns: u64| (ns as f64 / observed as f64).min(1.0);
        let (on_cpu, throttled) = (activity.on_cpu_ns, activity.throttled_ns);
        // The kernel counts being throttled as waiting for a CPU.
        let wanted = activity.waiting_for_cpu_ns.map(|waiting| waiting.max(throttled.unwrap_or(0)));
        Some(Self {
            on_cpu: on_cpu.map(share),
            waiting: wanted.map(|wanted| share(wanted - throttled.unwrap_or(0))),
            throttled: throttled.map(share),
            asleep: asleep_ns(activity).map(share),
        })
    }
}

/// Time in which it waited for something that is no CPU; `None` where that is not known.
pub fn asleep_ns(activity: &ThreadActivity) -> Option<u64> {
    let wanted = activity.waiting_for_cpu_ns?.max(activity.throttled_ns.unwrap_or(0));
    let observed = (activity.observed_ns > 0).then_some(activity.observed_ns)?;
    Some(observed.saturating_sub(activity.on_cpu_ns?).saturating_sub(wanted))
}

/// Whether the CPU quota took most of the time in which the poll was looked at.
pub fn is_throttled(activity: &ThreadActivity) -> bool {
    Shares::of(activity).and_then(|shares| shares.throttled).is_some_and(|share| share >= BLAMED)
}

/// `asleep in clock_nanosleep`, `throttled 80 % of it, on CPU 20 %`; empty where nothing is known. `call` is the name of
/// the system call that the thread is in.
pub fn words(activity: &ThreadActivity, call: Option<&str>) -> String {
    let inside = |state: &str| call.map_or_else(|| state.to_owned(), |call| format!("{state} in {call}"));
    // What it was doing when it was last looked at.
    let (asleep, last) = match activity.state() {
        State::OnCpu => ("asleep".to_owned(), "on CPU".to_owned()),
        State::Asleep => (inside("asleep"), inside("asleep")),
        State::DiskSleep => (inside("in disk sleep"), inside("in disk sleep")),
        State::Stopped => ("asleep".to_owned(), "stopped".to_owned()),
        State::Unspecified => ("asleep".to_owned(), String::new()),
    };
    let shares = Shares::of(activity).unwrap_or_default();
    let mut parts: Vec<(&str, f64)> = [
        (asleep.as_str(), shares.asleep),
        ("on CPU", shares.on_cpu),
        ("waiting for a CPU", shares.waiting),
        ("throttled", shares.throttled),
    ]
    .into_iter()
    .filter_map(|(part, share)| Some((part, share?)))
    .filter(|&(_, share)| share >= LEAST)
    .collect();
    parts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let percent = |share: f64| (share * 100.0).round();
    // A thread that has just fallen asleep is worth a word even where that is no part of it yet.
    let slept = parts.iter().any(|&(part, _)| part == asleep);
    let now = match activity.state() {
        State::Asleep | State::DiskSleep if !slept && !parts.is_empty() => format!(", now {last}"),
        _ => String::new(),
    };
    let parts = match parts.as_slice() {
        [] => last,
        [("throttled", share), ..] if *share >= ALL => format!("throttled {} % of it", percent(*share)),
        [(part, share), ..] if *share >= ALL => (*part).to_owned(),
        [(first, share), rest @ ..] => {
            let rest: String =
                rest.iter().map(|(part, share)| format!(", {part} {} %", percent(*share))).collect();
            format!("{first} {} % of it{rest}", percent(*share))
        }
    };
    parts + &now
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn activity(state: State, on_cpu: u64, waiting: u64, throttled: Option<u64>) -> ThreadActivity {
        ThreadActivity {
            state: state.into(),
            on_cpu_ns: Some(on_cpu * MS),
            waiting_for_cpu_ns: Some(waiting * MS),
            observed_ns: 1_000 * MS,
            throttled_ns: throttled.map(|ms| ms * MS),
            ..ThreadActivity::default()
        }
    }

    #[test]
    fn what_is_nearly_all_of_it_needs_no_share() {
        assert_eq!(words(&activity(State::OnCpu, 960, 30, None), None), "on CPU");
        assert_eq!(
            words(&activity(State::Asleep, 2, 0, None), Some("clock_nanosleep")),
            "asleep in clock_nanosleep"
        );
        assert_eq!(words(&activity(State::DiskSleep, 10, 20, None), Some("fsync")), "in disk sleep in fsync");
    }

    #[test]
    fn every_part_that_is_known_is_told_the_largest_first() {
        assert_eq!(
            words(&activity(State::Asleep, 300, 100, None), Some("futex")),
            "asleep in futex 60 % of it, on CPU 30 %, waiting for a CPU 10 %"
        );
        assert_eq!(
            words(&activity(State::Asleep, 970, 0, None), Some("futex")),
            "on CPU, now asleep in futex"
        );
        // A thread that runs now has slept in a system call that is over.
        assert_eq!(words(&activity(State::OnCpu, 400, 0, None), None), "asleep 60 % of it, on CPU 40 %");
    }

    #[test]
    fn the_quota_is_told_apart_from_other_waits_for_a_cpu() {
        let throttled = activity(State::OnCpu, 200, 800, Some(750));
        assert_eq!(words(&throttled, None), "throttled 75 % of it, on CPU 20 %, waiting for a CPU 5 %");
        assert!(is_throttled(&throttled));
        assert_eq!(words(&activity(State::OnCpu, 50, 940, Some(950)), None), "throttled 95 % of it");
        let hardly = activity(State::OnCpu, 700, 300, Some(200));
        assert_eq!(words(&hardly, None), "on CPU 70 % of it, throttled 20 %, waiting for a CPU 10 %");
        assert!(!is_throttled(&hardly));
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let once = ThreadActivity { observed_ns: 0, ..activity(State::Asleep, 0, 0, None) };
        assert_eq!(words(&once, Some("read")), "asleep in read");
        assert_eq!(words(&ThreadActivity::default(), None), "");
        // Only the quota's part is known of a poll whose thread was not looked at twice.
        let quota = ThreadActivity {
            on_cpu_ns: None,
            waiting_for_cpu_ns: None,
            ..activity(State::Unspecified, 0, 0, Some(620))
        };
        assert_eq!(words(&quota, None), "throttled 62 % of it");
        let shares = Shares::of(&quota).expect("it was looked at");
        assert_eq!((shares.on_cpu, shares.asleep), (None, None));
        // Counters that lag behind never add up to more than there is.
        let lagging = Shares::of(&activity(State::OnCpu, 700, 600, None)).expect("it was looked at");
        assert_eq!(lagging.asleep, Some(0.0));
    }
}
