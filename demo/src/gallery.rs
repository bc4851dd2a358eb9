//! The galleries that the shop shows: one task each, which puts together what is new every ten seconds.

use std::time::Duration;

use taskscope_probe::Probe;
use tokio::time::{Instant, interval_at};

use crate::work;

const GALLERIES: u32 = 95;
const REFRESH_EVERY: Duration = Duration::from_secs(10);
const PUT_TOGETHER: Duration = Duration::from_micros(200);

pub(crate) fn open_all(probe: Probe) {
    for gallery in 0..GALLERIES {
        // Not all at once.
        let first = Instant::now() + REFRESH_EVERY * gallery / GALLERIES;
        probe.spawn("gallery-refresh", async move {
            let mut refreshes = interval_at(first, REFRESH_EVERY);
            loop {
                refreshes.tick().await;
                work::spend(PUT_TOGETHER);
            }
        });
    }
}
