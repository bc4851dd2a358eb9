//! When each fault starts and ends, as pure code; [`crate::service`] carries it out.

use std::time::Duration;

use crate::fault::{Fault, Faults};

/// What a healthy service looks like is seen first.
const HEALTHY: Duration = Duration::from_secs(5);
/// From the start of a fault to the start of the next.
const EVERY: Duration = Duration::from_secs(12);
/// At least this long after a fault the service is left alone: what it broke is healthy again before the next.
const RECOVERY: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Start(Fault),
    End(Fault),
    /// Nothing more will be injected.
    Done,
}

/// The steps in order, each with its time since the service was ready. Faults never overlap, and the last step is
/// always [`Step::Done`].
pub fn schedule(faults: &Faults) -> Vec<(Duration, Step)> {
    let mut steps = Vec::new();
    let mut start = HEALTHY;
    let mut quiet = HEALTHY;
    for &fault in faults.list() {
        start = start.max(quiet);
        let end = start + fault.duration();
        steps.push((start, Step::Start(fault)));
        steps.push((end, Step::End(fault)));
        start += EVERY;
        quiet = end + RECOVERY;
    }
    steps.push((quiet, Step::Done));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::{Done, End, Start};

    fn seconds(faults: &Faults) -> Vec<(u64, Step)> {
        schedule(faults).into_iter().map(|(at, step)| (at.as_secs(), step)).collect()
    }

    #[test]
    fn the_tour_starts_healthy_and_injects_a_fault_every_twelve_seconds() {
        assert_eq!(
            seconds(&Faults::Tour),
            [
                (5, Start(Fault::StuckPoll)),
                (10, End(Fault::StuckPoll)),
                (17, Start(Fault::SlowPoll)),
                (25, End(Fault::SlowPoll)),
                (29, Start(Fault::Contention)),
                (37, End(Fault::Contention)),
                (41, Start(Fault::PoolFull)),
                (50, End(Fault::PoolFull)),
                (53, Start(Fault::Panic)),
                (57, End(Fault::Panic)),
                (65, Start(Fault::Leak)),
                (105, End(Fault::Leak)),
                (108, Done),
            ]
        );
    }

    #[test]
    fn a_long_fault_moves_the_next_one_until_the_service_is_healthy_again() {
        assert_eq!(
            seconds(&Faults::Only(vec![Fault::Leak, Fault::StuckPoll])),
            [
                (5, Start(Fault::Leak)),
                (45, End(Fault::Leak)),
                (48, Start(Fault::StuckPoll)),
                (53, End(Fault::StuckPoll)),
                (56, Done)
            ]
        );
    }

    #[test]
    fn without_faults_the_tour_is_done_after_the_healthy_seconds() {
        assert_eq!(seconds(&Faults::None), [(5, Done)]);
    }
}
