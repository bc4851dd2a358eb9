//! What looking through the tasks may cost: a credit of CPU time that all watchers share. 9 ms accrue each second, less
//! what the probe's thread does otherwise; 150 ms are saved at most, nearly all of them for first answers. A walk runs in
//! slices while there is credit and waits where there is none.

const SECOND_NS: i64 = 1_000_000_000;
/// CPU time that accrues each second. The whole thread is to stay below 10 ms: the rest is for what is not foreseen.
const RATE_NS: i64 = 9_000_000;
const MOST_NS: i64 = 150_000_000;
/// Answers that are made again leave this to first ones.
const RESERVE_NS: i64 = 140_000_000;
/// Of what accrues for walks, one part in this is for answers that are made again, however many ask for first ones: whoever opens
/// one viewer after another does not keep an agent from seeing what its rules are about.
const AGAIN_PART: i64 = 2;
const MOST_AGAIN_NS: i64 = 10_000_000;
/// Of what accrues, walks get at least one part in this, however much the thread does otherwise: an answer grows old, but
/// it does not stand for ever.
const LEAST_PART: i64 = 5;
/// What accrues is not counted by the microsecond.
const SHORTEST_WAIT_NS: u64 = 5_000_000;
/// How long one slice of a walk runs: it delays the ticks, the events and the other watchers.
pub(crate) const SLICE_NS: u64 = 1_000_000;

/// What a slice is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// A watcher has nothing to show yet.
    First,
    /// It has an answer, which grows old.
    Again,
}

/// Told the instant, and the CPU time of the thread since it began.
#[derive(Debug)]
pub(crate) struct Credit {
    saved_ns: i64,
    /// Of that, what nobody but answers that are made again may use; below 0: they used more.
    again_ns: i64,
    /// Used by the thread otherwise, and not taken off yet.
    otherwise_ns: i64,
    at_ns: u64,
    cpu_ns: u64,
}

impl Credit {
    pub(crate) fn full(now_ns: u64, cpu_ns: u64) -> Self {
        Self { saved_ns: MOST_NS, again_ns: 0, otherwise_ns: 0, at_ns: now_ns, cpu_ns }
    }

    /// How long until a slice may run; 0: now.
    pub(crate) fn wait_ns(&mut self, now_ns: u64, cpu_ns: u64, purpose: Purpose) -> u64 {
        self.accrue(now_ns, cpu_ns);
        let slice_ns = SLICE_NS as i64;
        let missing_ns = match purpose {
            Purpose::First => slice_ns.saturating_sub(self.saved_ns),
            Purpose::Again => {
                let own_ns = slice_ns.saturating_sub(self.again_ns).saturating_mul(AGAIN_PART);
                (RESERVE_NS + slice_ns).saturating_sub(self.saved_ns).min(own_ns)
            }
        };
        if missing_ns <= 0 {
            0
        } else {
            (missing_ns.saturating_mul(SECOND_NS / RATE_NS) as u64).max(SHORTEST_WAIT_NS)
        }
    }

    /// A slice has run, until now.
    pub(crate) fn spend(&mut self, cpu_ns: u64, purpose: Purpose) {
        let spent_ns = signed(cpu_ns.saturating_sub(self.cpu_ns));
        self.saved_ns = self.saved_ns.saturating_sub(spent_ns);
        if purpose == Purpose::Again {
            self.again_ns = self.again_ns.saturating_sub(spent_ns).max(-MOST_AGAIN_NS);
        }
        self.cpu_ns = self.cpu_ns.max(cpu_ns);
    }

    fn accrue(&mut self, now_ns: u64, cpu_ns: u64) {
        let passed_ns = signed(now_ns.saturating_sub(self.at_ns));
        let accrued_ns = passed_ns / (SECOND_NS / RATE_NS);
        let otherwise_ns = self.otherwise_ns.saturating_add(signed(cpu_ns.saturating_sub(self.cpu_ns)));
        let off_ns = otherwise_ns.min(accrued_ns - accrued_ns / LEAST_PART);
        self.otherwise_ns = (otherwise_ns - off_ns).min(RATE_NS);
        let for_walks_ns = accrued_ns - off_ns;
        self.saved_ns = self.saved_ns.saturating_add(for_walks_ns).min(MOST_NS);
        self.again_ns = self.again_ns.saturating_add(for_walks_ns / AGAIN_PART).min(MOST_AGAIN_NS);
        self.at_ns = self.at_ns.max(now_ns);
        self.cpu_ns = self.cpu_ns.max(cpu_ns);
    }
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    /// Runs slices whenever they may run, from `from_ns` for `ns`; gives the CPU time that they took.
    fn run(credit: &mut Credit, from_ns: u64, ns: u64, purpose: Purpose, cpu_ns: &mut u64) -> u64 {
        let (mut now_ns, mut spent_ns) = (from_ns, 0);
        while now_ns < from_ns + ns {
            match credit.wait_ns(now_ns, *cpu_ns, purpose) {
                0 => {
                    *cpu_ns += SLICE_NS;
                    spent_ns += SLICE_NS;
                    now_ns += SLICE_NS;
                    credit.spend(*cpu_ns, purpose);
                }
                wait_ns => now_ns += wait_ns,
            }
        }
        spent_ns
    }

    #[test]
    fn a_first_answer_may_use_all_that_was_saved_at_once_and_then_less_than_one_percent() {
        let (mut credit, mut cpu_ns) = (Credit::full(0, 0), 0);
        assert_eq!(run(&mut credit, 0, 150 * MS, Purpose::First, &mut cpu_ns), 150 * MS);
        let spent_ns = run(&mut credit, 150 * MS, 100 * S, Purpose::First, &mut cpu_ns);
        assert!((890 * MS..=910 * MS).contains(&spent_ns), "{spent_ns}");
    }

    #[test]
    fn answers_made_again_leave_what_was_saved_for_a_first_one() {
        let (mut credit, mut cpu_ns) = (Credit::full(0, 0), 0);
        let spent_ns = run(&mut credit, 0, 60 * S, Purpose::Again, &mut cpu_ns);
        assert!((545 * MS..=560 * MS).contains(&spent_ns), "{spent_ns}");
        let burst_ns = run(&mut credit, 60 * S, 130 * MS, Purpose::First, &mut cpu_ns);
        assert_eq!(burst_ns, 130 * MS);
    }

    #[test]
    fn first_answers_that_never_end_leave_half_to_those_that_are_made_again() {
        let (mut credit, mut cpu_ns) = (Credit::full(0, 0), 0);
        let mut spent_ns = [0, 0];
        for tick in 0..12_000 {
            let at_ns = tick * 5 * MS;
            for (at, purpose) in [Purpose::First, Purpose::Again].into_iter().enumerate() {
                if credit.wait_ns(at_ns, cpu_ns, purpose) == 0 {
                    cpu_ns += SLICE_NS;
                    credit.spend(cpu_ns, purpose);
                    spent_ns[at] += SLICE_NS;
                }
            }
        }
        // In a minute, with what was saved at the beginning.
        let [first_ns, again_ns] = spent_ns;
        assert!((260 * MS..=285 * MS).contains(&again_ns), "{again_ns}");
        assert!((680 * MS..=710 * MS).contains(&(first_ns + again_ns)), "{first_ns}");
    }

    #[test]
    fn what_the_thread_does_otherwise_is_taken_off_but_walks_never_stand_still() {
        // The thread uses 5 of the 9 ms itself: 4 are left.
        let (mut credit, mut cpu_ns) = (Credit::full(0, 0), 0);
        run(&mut credit, 0, 160 * MS, Purpose::First, &mut cpu_ns);
        let mut others = |each_ns: u64| {
            let mut spent_ns = 0;
            for second in 1..=20 {
                cpu_ns += each_ns;
                spent_ns += run(&mut credit, second * S, S, Purpose::First, &mut cpu_ns);
            }
            spent_ns
        };
        let left_ns = others(5 * MS);
        assert!((70 * MS..=90 * MS).contains(&left_ns), "{left_ns}");
        // It uses more than there is: a fifth is left all the same.
        let mut credit = Credit::full(0, 0);
        let mut cpu_ns = 0;
        run(&mut credit, 0, 160 * MS, Purpose::First, &mut cpu_ns);
        let mut spent_ns = 0;
        for tick in 1..=400 {
            cpu_ns += 3 * MS;
            spent_ns += run(&mut credit, 160 * MS + tick * 50 * MS, 50 * MS, Purpose::First, &mut cpu_ns);
        }
        assert!((30 * MS..=40 * MS).contains(&spent_ns), "{spent_ns}");
    }

    #[test]
    fn a_clock_that_stands_still_or_leaps_breaks_nothing() {
        let mut credit = Credit::full(5 * S, 9);
        assert_eq!(credit.wait_ns(0, 0, Purpose::Again), 0);
        credit.spend(u64::MAX, Purpose::First);
        assert!(credit.wait_ns(u64::MAX, 0, Purpose::First) > 0);
    }
}
