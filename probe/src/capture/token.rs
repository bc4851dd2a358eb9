//! Watches a `CancellationToken` that was handed over with a task: when it is cancelled, that is noted; the task is not
//! woken for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::handle::Whereabouts;
use crate::engine;

pin_project! {
    /// A future that tells when its token is cancelled.
    #[derive(Debug)]
    pub(crate) struct Told<F> {
        #[pin]
        future: F,
        watch: Watch,
    }
}

#[derive(Debug)]
enum Watch {
    Not,
    /// Until the first poll, which shows whose token it is.
    Unregistered(CancellationToken),
    /// Kept for its registration.
    Registered(
        #[allow(dead_code, reason = "dropping it ends the registration")]
        Pin<Box<WaitForCancellationFutureOwned>>,
    ),
}

impl<F> Told<F> {
    pub(super) fn new(future: F, token: Option<CancellationToken>) -> Self {
        Self { future, watch: token.map_or(Watch::Not, Watch::Unregistered) }
    }
}

impl<F: Future> Future for Told<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Watch::Unregistered(token) = this.watch {
            *this.watch = register(token);
        }
        this.future.poll(cx)
    }
}

#[cold]
fn register(token: &CancellationToken) -> Watch {
    let open = engine::registry().and_then(|registry| registry.my_line()?.open());
    let Some((slot, id)) = open.and_then(|open| Some((open.slot?, open.id))) else { return Watch::Not };
    let task = Whereabouts::Slot(slot, id);
    let mut cancelled = Box::pin(token.clone().cancelled_owned());
    let noting = Waker::from(Arc::new(Noting(task)));
    match cancelled.as_mut().poll(&mut Context::from_waker(&noting)) {
        Poll::Ready(()) => {
            task.note_cancel(false);
            Watch::Not
        }
        Poll::Pending => Watch::Registered(cancelled),
    }
}

/// Notes a request instead of waking anybody.
struct Noting(Whereabouts);

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        self.0.note_cancel(false);
    }
}
