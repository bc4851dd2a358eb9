//! The agent's watch over itself: its sinks, its loop, what it uses. Its alerts are of the service `taskscope-agent` and go where
//! all others go, so that the sinks that work tell of one that does not.

use std::time::{Duration, Instant};

use crate::alerts::labels::Labels;
use crate::alerts::notice::{Alert, Notice};
use crate::alerts::vitals::{Memory, Told, Vitals};
use crate::alerts::watcher::{Watched, Watcher};
use crate::metrics::resource::Process;
use crate::sinks::Health;

mod usage;

use usage::Usage;

/// The label `service` of its alerts.
pub(crate) const SERVICE: &str = "taskscope-agent";
/// What it uses is measured this often.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// The kernel goes through all of its pages for what it holds.
const MEMORY_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Own {
    watcher: Watcher,
    vitals: Vitals,
    usage: Usage,
    began: Instant,
    last_turn: Instant,
    next_measure: Instant,
    memory: Option<Memory>,
    next_memory: Instant,
}

impl Own {
    /// `process`: the agent. Gives what it knows of before and does not watch any more.
    pub(crate) fn new(
        watched: Vec<Watched>,
        labels: &Labels,
        process: &Process,
        fired: Vec<Alert>,
        now: Instant,
    ) -> (Self, Vec<Alert>) {
        let mut watcher = Watcher::new(watched, SERVICE, labels).of_agent(process);
        let unknown = watcher.restore(fired, 0);
        let (vitals, usage) = (Vitals::default(), Usage::default());
        let own = Self {
            watcher,
            vitals,
            usage,
            began: now,
            last_turn: now,
            next_measure: now,
            memory: None,
            next_memory: now,
        };
        (own, unknown)
    }

    pub(crate) fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    pub(crate) fn watcher_mut(&mut self) -> &mut Watcher {
        &mut self.watcher
    }

    /// A turn of the loop that comes each `every`, if it comes in time.
    pub(crate) fn turn(
        &mut self,
        sinks: Vec<Health>,
        every: Duration,
        now: Instant,
        unix_ns: u64,
    ) -> Vec<Notice> {
        let late = now.saturating_duration_since(self.last_turn).saturating_sub(every);
        self.last_turn = now;
        let now_ns = nanoseconds(now.saturating_duration_since(self.began));
        self.vitals.turn(nanoseconds(late), now_ns);
        if now >= self.next_measure {
            self.next_measure = now + MEASURE_EVERY;
            if now >= self.next_memory {
                self.next_memory = now + MEMORY_EVERY;
                self.memory = self.usage.memory();
            }
            self.vitals.uses(usage::cpu_ns(), self.memory);
        }
        self.vitals.sinks(sinks.into_iter().map(|health| (health.exports(), health)).map(
            |(exports, health)| Told {
                sink: health.sink,
                instance: health.instance,
                delivered: health.delivered,
                // Figures that could not be sent are taken anew, and nothing is lost.
                dropped: if exports { 0 } else { health.dropped },
                failing: health.failing,
            },
        ));
        self.watcher.own(&self.vitals, now_ns, unix_ns)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
