//! The last fifteen minutes in one-second samples: an incident begins before anyone attaches.

use std::collections::VecDeque;

use taskscope_proto::v1::HistoryChunk;

const SECONDS: usize = 15 * 60;
const STEP_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Second {
    pub(crate) at_ns: u64,
    pub(crate) alive: u64,
    /// In this second.
    pub(crate) polls: u64,
    pub(crate) requests: u64,
    pub(crate) busy_ratio: Option<f64>,
    pub(crate) queued: Option<u64>,
    pub(crate) stuck_workers: u32,
}

#[derive(Default)]
pub(crate) struct History {
    seconds: VecDeque<Second>,
}

impl History {
    pub(crate) fn push(&mut self, second: Second) {
        if self.seconds.len() == SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
    }

    /// The last `seconds` samples; `None` before the first.
    pub(crate) fn chunk(&self, seconds: u32) -> Option<HistoryChunk> {
        let skip = self.seconds.len().saturating_sub(seconds as usize);
        let mut chunk = HistoryChunk { step_ns: STEP_NS, ..HistoryChunk::default() };
        for second in self.seconds.iter().skip(skip) {
            chunk.alive.push(second.alive);
            chunk.polls.push(second.polls);
            chunk.requests.push(second.requests);
            chunk.busy_permille_plus1.push(second.busy_ratio.map_or(0, |ratio| (ratio * 1000.0) as u32 + 1));
            chunk.queued_plus1.push(second.queued.map_or(0, |queued| queued + 1));
            chunk.stuck_workers.push(second.stuck_workers);
        }
        chunk.first_at_ns = self.seconds.get(skip)?.at_ns;
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_seconds_go_first_and_absent_is_not_zero() {
        let mut history = History::default();
        assert_eq!(history.chunk(10), None);
        for n in 0..1000 {
            let busy_ratio = (n % 2 == 0).then_some(0.0);
            let second = Second {
                at_ns: n,
                alive: n,
                polls: 0,
                requests: 0,
                busy_ratio,
                queued: None,
                stuck_workers: 0,
            };
            history.push(second);
        }
        let all = history.chunk(2000).expect("it has samples");
        assert_eq!((all.first_at_ns, all.alive.len()), (100, 900));
        let last = history.chunk(2).expect("it has samples");
        assert_eq!(
            (last.alive, last.busy_permille_plus1, last.queued_plus1),
            (vec![998, 999], vec![1, 0], vec![0, 0])
        );
    }
}
