//! The report of the year's sales: one task adds up what was ordered. `never-yields` lives here: the orders are all there
//! before it begins, so that to await the next one is never to wait, and only Tokio's budget takes it off its worker.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::errand::Errand;
use crate::work;

/// What it takes to look at an order. Tokio lets a task receive 128 of them in a poll: 51 ms.
const ORDER: Duration = Duration::from_micros(400);
/// More than can be looked at before the fault ends.
const ORDERS: u64 = 100_000;

pub(crate) struct Report {
    adding: Errand,
}

impl Report {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { adding: Errand::none() }
    }

    pub(crate) fn begin(&self) {
        self.adding.begin(|| taskscope_probe::spawn_detached("sales-report", add_up(orders_of_the_year())));
    }

    pub(crate) fn end(&self) {
        self.adding.end();
    }
}

fn orders_of_the_year() -> mpsc::UnboundedReceiver<u64> {
    let (send, orders) = mpsc::unbounded_channel();
    for order in 0..ORDERS {
        // The other end is below.
        let _ = send.send(29 + order % 120);
    }
    orders
}

/// It belongs onto the blocking pool: that is the bug.
async fn add_up(mut orders: mpsc::UnboundedReceiver<u64>) -> u64 {
    let mut cents = 0;
    while let Some(order) = orders.recv().await {
        work::spend(ORDER);
        cents += order;
    }
    cents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::testing::{eventually, runtime};

    #[test]
    fn the_report_keeps_a_worker_until_it_is_ended() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let report = Report::open();
        drop(entered);
        let busy =
            || (0..2).map(|worker| runtime.metrics().worker_total_busy_duration(worker)).sum::<Duration>();
        let (before, began) = (busy(), clock::now());
        report.begin();
        eventually("a worker is busy for a second", || busy() - before > Duration::from_secs(1));
        assert!(began.elapsed() > Duration::from_millis(400), "there are two workers");
        report.end();
        eventually("it has ended", || runtime.metrics().num_alive_tasks() == 0);
    }
}
