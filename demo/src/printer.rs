//! The printer: a task for each print waits until it is out. `hot-loop` lives here: the future that it awaits was written by
//! hand, and asks to be polled again at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use crate::errand::Errand;

pub(crate) struct Printer {
    has_paper: Arc<AtomicBool>,
    prints: Errand,
}

impl Printer {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { has_paper: Arc::new(AtomicBool::new(true)), prints: Errand::none() }
    }

    /// While there is no paper, a print does not come out.
    pub(crate) fn print_without_paper(&self) {
        self.has_paper.store(false, Ordering::Relaxed);
        let printed = Printed { has_paper: self.has_paper.clone() };
        self.prints.begin(|| taskscope_probe::spawn_detached("print-watch", printed));
    }

    pub(crate) fn add_paper(&self) {
        self.has_paper.store(true, Ordering::Relaxed);
    }
}

/// Ready once the print is out.
struct Printed {
    has_paper: Arc<AtomicBool>,
}

impl Future for Printed {
    type Output = ();

    /// It wakes its task instead of keeping the waker for whoever adds paper: that is the bug.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_paper.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn a_print_spins_until_there_is_paper() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let printer = Printer::open();
        drop(entered);
        let polls = || runtime.metrics().worker_poll_count(0) + runtime.metrics().worker_poll_count(1);
        printer.print_without_paper();
        eventually("it has been polled ten thousand times", || polls() > 10_000);
        printer.add_paper();
        eventually("the print is out", || runtime.metrics().num_alive_tasks() == 0);
    }
}
