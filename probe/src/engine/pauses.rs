//! Times in which the whole process stood still: SIGSTOP, a debugger, a frozen cgroup, a paused virtual machine, suspend.
//! They are told by the probe's own thread, which did not run either; no poll, wait or queue is blamed for them.
//!
//! Pure: it is given what the clocks and counters said and reads none. The difficulty is a thread that was merely kept
//! waiting for a CPU. That is known from the thread's own run-queue wait, and from the rest of the process: whoever burnt
//! CPU time meanwhile was not paused. (So a paused virtual machine is not recognised where the kernel books the pause as CPU
//! time of a thread that was running.)

use std::collections::VecDeque;

use super::activity::CpuTime;

/// Shorter ones are not told from a late timer.
pub(crate) const MIN_PAUSE_NS: u64 = 250_000_000;
/// CPU time that each core may have burnt beyond what is accounted for, before it speaks against a pause.
const CORE_SLACK_NS: u64 = 100_000_000;
/// Pauses remembered with their place; of older ones only the length counts.
const KEPT: usize = 64;

/// What the clocks and counters said at one instant. What cannot be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tick {
    /// On the probe's own clock.
    pub(crate) at_ns: u64,
    /// In which the machine was suspended since its start (CLOCK_BOOTTIME − CLOCK_MONOTONIC).
    pub(crate) suspended_ns: Option<u64>,
    /// CPU time of all threads of the process.
    pub(crate) process_cpu_ns: Option<u64>,
    /// CPU time and run-queue wait of the probe's thread.
    pub(crate) own: Option<CpuTime>,
    /// Time in which the cgroup's CPU quota was used up, where there is a quota.
    pub(crate) throttled_ns: Option<u64>,
}

/// One pause that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// It lies between these two instants of the probe's clock. Where in them it began is not known, so that up to a tick
    /// of work before it counts as part of it.
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    /// How long it was at least.
    pub(crate) paused_ns: u64,
}

/// Knows the pauses of this process so far, and the clock that stood still with it.
#[derive(Debug)]
pub(crate) struct Pauses {
    /// That can run at once.
    cores: u64,
    last: Option<Tick>,
    due_ns: u64,
    known: VecDeque<Pause>,
    /// Total length of those that are no longer in `known`.
    forgotten_ns: u64,
}

impl Pauses {
    pub(crate) fn new(cores: usize) -> Self {
        Self { cores: cores.max(1) as u64, last: None, due_ns: 0, known: VecDeque::new(), forgotten_ns: 0 }
    }

    /// Whether so much time has passed since the last tick that it is worth looking why.
    pub(crate) fn is_late(&self, now_ns: u64) -> bool {
        self.last.is_some() && now_ns >= self.due_ns.saturating_add(MIN_PAUSE_NS)
    }

    /// The thread runs, and expects to run again at `due_ns`. Returns the pause since the tick before, if there was one.
    pub(crate) fn tick(&mut self, tick: Tick, due_ns: u64) -> Option<Pause> {
        let before = self.last.replace(tick);
        let was_due_ns = std::mem::replace(&mut self.due_ns, due_ns);
        let pause = self.since(&before?, was_due_ns, &tick)?;
        if self.known.len() == KEPT
            && let Some(oldest) = self.known.pop_front()
        {
            self.forgotten_ns += oldest.to_ns - oldest.from_ns;
        }
        self.known.push_back(pause);
        Some(pause)
    }

    /// The thread will run again at this instant, which is earlier than it said.
    pub(crate) fn expect(&mut self, due_ns: u64) {
        self.due_ns = due_ns;
    }

    fn since(&self, before: &Tick, due_ns: u64, now: &Tick) -> Option<Pause> {
        let gap_ns = now.at_ns.saturating_sub(before.at_ns);
        let suspended_ns = grown(before.suspended_ns, now.suspended_ns).unwrap_or(0);
        if suspended_ns >= MIN_PAUSE_NS {
            // A clock that stood still while the machine slept has nothing to take out of a poll's length.
            let from_ns = if gap_ns >= suspended_ns / 2 { before.at_ns } else { now.at_ns };
            return Some(Pause { from_ns, to_ns: now.at_ns, paused_ns: suspended_ns });
        }
        let (own_before, own_now) = (before.own?, now.own?);
        let own_ns = own_now.on_cpu_ns.saturating_sub(own_before.on_cpu_ns)
            + own_now.waiting_ns.saturating_sub(own_before.waiting_ns);
        let throttled_ns = grown(before.throttled_ns, now.throttled_ns).unwrap_or(0);
        let explained_ns = own_ns.max(throttled_ns);
        let paused_ns = now.at_ns.saturating_sub(due_ns.max(before.at_ns)).saturating_sub(explained_ns);
        if paused_ns < MIN_PAUSE_NS {
            return None;
        }
        let ran_ns = gap_ns.saturating_sub(paused_ns);
        let could_burn_ns = self.cores.saturating_mul(ran_ns.saturating_add(CORE_SLACK_NS));
        let burnt_ns = grown(before.process_cpu_ns, now.process_cpu_ns)?;
        (burnt_ns <= could_burn_ns).then_some(Pause { from_ns: before.at_ns, to_ns: now.at_ns, paused_ns })
    }

    /// An instant of the probe's clock on a clock that stood still in every pause: differences of what this gives are times
    /// in which the process could run.
    pub(crate) fn awake(&self, at_ns: u64) -> u64 {
        let within = |pause: &Pause| at_ns.clamp(pause.from_ns, pause.to_ns) - pause.from_ns;
        let paused_ns: u64 = self.known.iter().map(within).sum();
        at_ns.saturating_sub(self.forgotten_ns + paused_ns)
    }

    /// Time between two instants in which the process could run.
    pub(crate) fn awake_between(&self, from_ns: u64, to_ns: u64) -> u64 {
        self.awake(to_ns).saturating_sub(self.awake(from_ns))
    }
}

fn grown(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;
    const TICK: u64 = 50 * MS;

    /// At ten seconds, on two cores, with a process that has burnt three seconds.
    const BEFORE: Tick = Tick {
        at_ns: 10 * S,
        suspended_ns: Some(7 * S),
        process_cpu_ns: Some(3 * S),
        own: Some(CpuTime { on_cpu_ns: 40 * MS, waiting_ns: 60 * MS }),
        throttled_ns: None,
    };

    fn after(gap_ns: u64, own_waited_ns: u64, burnt_ns: u64) -> Tick {
        Tick {
            at_ns: BEFORE.at_ns + gap_ns,
            process_cpu_ns: Some(3 * S + burnt_ns),
            own: Some(CpuTime { on_cpu_ns: 41 * MS, waiting_ns: 60 * MS + own_waited_ns }),
            ..BEFORE
        }
    }

    fn pauses() -> Pauses {
        let mut pauses = Pauses::new(2);
        assert_eq!(pauses.tick(BEFORE, BEFORE.at_ns + TICK), None);
        pauses
    }

    fn found(after: Tick) -> Option<Pause> {
        pauses().tick(after, after.at_ns + TICK)
    }

    #[test]
    fn a_stopped_process_was_paused_however_busy_it_was_before_and_after() {
        for burnt_ns in [0, 2 * MS, 100 * MS, 200 * MS] {
            let pause = found(after(5 * S, 3 * MS, burnt_ns)).expect("it stood still for five seconds");
            assert_eq!((pause.from_ns, pause.to_ns), (10 * S, 15 * S));
            assert!((4_900 * MS..=5 * S).contains(&pause.paused_ns), "{pause:?}");
        }
    }

    #[test]
    fn a_thread_that_waited_for_a_cpu_was_not_paused() {
        assert_eq!(found(after(5 * S, 4_940 * MS, 9 * S)), None);
        // Also where the rest of the process had none either.
        assert_eq!(found(after(5 * S, 4_940 * MS, 10 * MS)), None);
    }

    #[test]
    fn a_process_that_burnt_cpu_time_meanwhile_was_not_paused() {
        assert_eq!(found(after(5 * S, 3 * MS, 5 * S)), None);
        assert_eq!(found(after(5 * S, 3 * MS, S)), None);
    }

    #[test]
    fn a_throttled_process_was_not_paused() {
        let before = Tick { throttled_ns: Some(S), ..BEFORE };
        let mut pauses = Pauses::new(2);
        pauses.tick(before, before.at_ns + TICK);
        let throttled = Tick { throttled_ns: Some(S + 400 * MS), ..after(500 * MS, 0, 20 * MS) };
        assert_eq!(pauses.tick(throttled, throttled.at_ns + TICK), None);
    }

    #[test]
    fn a_late_timer_is_no_pause() {
        assert_eq!(found(after(TICK, 0, 0)), None);
        assert_eq!(found(after(TICK + 240 * MS, 0, 0)), None);
        assert!(found(after(TICK + 260 * MS, 0, 0)).is_some());
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed() {
        assert_eq!(found(Tick { own: None, ..after(5 * S, 0, 0) }), None);
        assert_eq!(found(Tick { process_cpu_ns: None, ..after(5 * S, 0, 0) }), None);
    }

    #[test]
    fn a_suspended_machine_is_told_by_its_clocks_alone() {
        let suspended = Tick { suspended_ns: Some(7 * S + 3600 * S), ..after(3600 * S, 0, 7200 * S) };
        let pause = found(suspended).expect("an hour is missing");
        assert_eq!((pause.paused_ns, pause.from_ns), (3600 * S, 10 * S));
        // Where the probe's clock stood still with the machine, nothing is taken out of what it measured.
        let mut pauses = pauses();
        let stood_still = Tick { at_ns: 10 * S + TICK, ..suspended };
        let pause = pauses.tick(stood_still, stood_still.at_ns + TICK).expect("an hour is missing");
        assert_eq!((pause.paused_ns, pause.from_ns), (3600 * S, pause.to_ns));
        assert_eq!(pauses.awake_between(9 * S, 11 * S), 2 * S);
    }

    #[test]
    fn one_pause_is_told_once_and_a_second_one_again() {
        let mut pauses = pauses();
        let first = after(5 * S, 0, 0);
        assert!(pauses.tick(first, first.at_ns + TICK).is_some());
        let calm = Tick { at_ns: first.at_ns + TICK, ..first };
        assert_eq!(pauses.tick(calm, calm.at_ns + TICK), None);
        let second = Tick { at_ns: calm.at_ns + 2 * S, ..first };
        assert!(pauses.tick(second, second.at_ns + TICK).is_some());
    }

    #[test]
    fn no_poll_is_blamed_for_a_pause() {
        let mut pauses = pauses();
        let now = after(5 * S, 0, 0);
        pauses.tick(now, now.at_ns + TICK);
        // Five milliseconds before it, one after it.
        assert_eq!(pauses.awake_between(9_995 * MS, 15_001 * MS), 6 * MS);
        // Before it, after it, and within the tick in which it began.
        assert_eq!(pauses.awake_between(8 * S, 9 * S), S);
        assert_eq!(pauses.awake_between(16 * S, 18 * S), 2 * S);
        assert_eq!(pauses.awake_between(10_010 * MS, 10_020 * MS), 0);
        // It goes on from where it stood still.
        assert_eq!(pauses.awake(15 * S), pauses.awake(10 * S));
    }

    #[test]
    fn a_thousand_pauses_are_all_counted_and_few_remembered() {
        let mut pauses = pauses();
        let mut at_ns = BEFORE.at_ns;
        for _ in 0..1_000 {
            at_ns += S;
            assert!(pauses.tick(Tick { at_ns, ..BEFORE }, at_ns + TICK).is_some());
        }
        assert_eq!(pauses.known.len(), KEPT);
        assert_eq!(pauses.awake(at_ns), BEFORE.at_ns);
        assert!(!pauses.is_late(at_ns + 299 * MS) && pauses.is_late(at_ns + 300 * MS));
    }
}
