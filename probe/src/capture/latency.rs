//! How long a task has waited for a worker, as Tokio itself tells it: only in builds of Tokio with its feature
//! `schedule-latency`, which the probe never switches on, and on runtimes built with `track_task_schedule_latency`. In all
//! other builds nothing of this is compiled into a poll.

use std::time::Duration;

use tokio::runtime::TaskMeta;

use super::task_id;
use crate::registry::Registry;

/// Where Tokio has a method of this name, that one is called: an inherent method comes before a trait's.
#[allow(dead_code, reason = "of a Tokio that has the method itself nothing calls this one")]
trait ScheduleLatency {
    #[inline(always)]
    fn schedule_latency(&self) -> Option<Duration> {
        None
    }
}

impl ScheduleLatency for TaskMeta<'_> {}

/// In the before-hook, its bracket open.
#[inline(always)]
pub(super) fn note(registry: &Registry, meta: &TaskMeta<'_>) {
    if let Some(waited) = meta.schedule_latency() {
        add(registry, meta, waited);
    }
}

#[inline(never)]
fn add(registry: &Registry, meta: &TaskMeta<'_>, waited: Duration) {
    let ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
    if let Some((index, _)) = registry.index.find(task_id(meta.id()))
        && let Some(group) = registry.slots.add_latency(index, ns)
        && let Some(line) = registry.my_line()
    {
        registry.count_wait(line, group, ns);
    }
}
