//! Panoramas: tasks put them together from strips, and let others run after each. `busy` lives here: there are more of them
//! than workers, so that between two strips there is always another one's.

use std::time::Duration;

use crate::errand::Errand;
use crate::work;

const AT_ONCE: usize = 4;
/// Short enough for a worker, as long as there is time between two.
const STRIP: Duration = Duration::from_millis(2);

pub(crate) struct Panoramas {
    rendering: Errand,
}

impl Panoramas {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { rendering: Errand::none() }
    }

    pub(crate) fn begin(&self) {
        for _ in 0..AT_ONCE {
            self.rendering.begin(|| taskscope_probe::spawn_detached("panorama", render()));
        }
    }

    pub(crate) fn end(&self) {
        self.rendering.end();
    }
}

/// On the shop's own workers, which are all that there are: that is the bug.
async fn render() {
    loop {
        work::spend(STRIP);
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn panoramas_keep_both_workers_until_they_are_ended() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let panoramas = Panoramas::open();
        drop(entered);
        panoramas.begin();
        let busy = |worker| runtime.metrics().worker_total_busy_duration(worker) > Duration::from_millis(200);
        eventually("both workers are busy", || busy(0) && busy(1));
        assert_eq!(runtime.metrics().num_alive_tasks(), AT_ONCE);
        panoramas.end();
        eventually("they have ended", || runtime.metrics().num_alive_tasks() == 0);
    }
}
