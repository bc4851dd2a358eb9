//! The courier: a task for each parcel waits until it has arrived. `lost-waker` lives here: the future that it awaits was
//! written by hand, and on one of its ways out keeps no waker.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::errand::Errand;

pub(crate) struct Courier {
    parcel: Arc<Mutex<Parcel>>,
    watch: Errand,
}

#[derive(Default)]
struct Parcel {
    /// Nobody at the courier's answers now.
    is_engaged: bool,
    has_arrived: bool,
    waker: Option<Waker>,
}

impl Courier {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { parcel: Arc::default(), watch: Errand::none() }
    }

    /// A parcel that is asked about at a bad time.
    pub(crate) fn send_while_engaged(&self) {
        *lock(&self.parcel) = Parcel { is_engaged: true, ..Parcel::default() };
        let arrival = Arrival { parcel: self.parcel.clone() };
        self.watch.begin(|| taskscope_probe::spawn_detached("parcel-watch", arrival));
    }

    /// It arrives. Nobody can be told: the task that waits for it has to be ended.
    pub(crate) fn arrive(&self) {
        let mut parcel = lock(&self.parcel);
        parcel.has_arrived = true;
        if let Some(waker) = parcel.waker.take() {
            waker.wake();
        }
        drop(parcel);
        self.watch.end();
    }
}

/// Ready once the parcel is there.
struct Arrival {
    parcel: Arc<Mutex<Parcel>>,
}

impl Future for Arrival {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut parcel = lock(&self.parcel);
        if parcel.has_arrived {
            return Poll::Ready(());
        }
        if parcel.is_engaged {
            // Asked again later; but who would wake it for that? That is the bug.
            return Poll::Pending;
        }
        parcel.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A panic elsewhere leaves nothing half-changed behind this lock.
fn lock(parcel: &Mutex<Parcel>) -> MutexGuard<'_, Parcel> {
    parcel.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn nobody_keeps_a_waker_of_a_parcel_that_was_asked_about_at_a_bad_time() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let courier = Courier::open();
        drop(entered);
        courier.send_while_engaged();
        let polls = || runtime.metrics().worker_poll_count(0) + runtime.metrics().worker_poll_count(1);
        eventually("it has been polled", || polls() > 0);
        assert!(lock(&courier.parcel).waker.is_none());
        assert_eq!(runtime.metrics().num_alive_tasks(), 1);
        courier.arrive();
        eventually("it has ended", || runtime.metrics().num_alive_tasks() == 0);
    }
}
