//! A task that was spawned without a handle: it marks its own slot at its first poll, whether the hooks made that or the
//! wrapper did.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::AbortHandle;

use super::wrapper;
use crate::engine;
use crate::registry::Registry;

/// Spawns as [`wrapper::spawn`] does, and lets the handle go.
#[track_caller]
pub(crate) fn spawn<F>(name: &str, future: F) -> AbortHandle
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    wrapper::spawn(name, Detached { future, is_marked: false }).abort_handle()
}

pin_project! {
    struct Detached<F> {
        #[pin]
        future: F,
        is_marked: bool,
    }
}

impl<F: Future> Future for Detached<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if !*this.is_marked {
            *this.is_marked = true;
            if let Some(registry) = engine::registry() {
                mark(registry);
            }
        }
        this.future.poll(cx)
    }
}

/// Marks the slot of the task in whose poll this runs.
fn mark(registry: &Registry) {
    let Some(open) = registry.lines.mine().and_then(|line| line.open()) else { return };
    if let Some(slot) = open.slot.and_then(|index| registry.slots.tenant(index, open.id)) {
        slot.set_flags(slot.flags().with_detached());
    }
}
