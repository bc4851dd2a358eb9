//! Sinks that are configured anew while alerts are under way: one that stays as it is keeps all that it has, one that goes delivers
//! what waits, one that comes begins with what fires now.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::left::Queues;
use super::queue::Queue;
use super::{Fresh, Health, Kind, Prepared, Running, Sink, Sinks, held, unix_ns};
use crate::alerts::life::Transition;
use crate::alerts::notice::Notice;

/// What waits for a sink that is configured away has this long to arrive.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);
/// And for one that is there with other settings: what has not arrived by then goes on with those.
pub(super) const CHANGES_WITHIN: Duration = Duration::from_secs(5);

/// Whose place a sink takes, until it has taken on what that one has not delivered.
pub(super) type Before = Arc<Mutex<Option<Box<Running>>>>;

/// One that is configured away.
#[derive(Debug)]
pub(super) struct Leaving {
    /// There is no more time.
    end: Arc<Notify>,
    health: Arc<std::sync::Mutex<Health>>,
    pub(super) queues: Queues,
    task: JoinHandle<()>,
}

impl Sinks {
    /// `firing` is what people were told that it fires; what of it `is_silenced` is told by nobody now.
    pub(crate) fn settle(
        &mut self,
        prepared: &Prepared,
        firing: &[Notice],
        is_silenced: impl Fn(&Notice) -> bool,
    ) {
        let questions = self.questions.clone();
        let fresh = prepared.parts().iter().filter_map(|part| Fresh::of(part, questions.as_ref()));
        let mut before: Vec<Running> = std::mem::take(&mut self.running);
        for fresh in fresh {
            let same = |of: &dyn Fn(&Running) -> bool| before.iter().position(of);
            if let Some(at) = same(&|it| it.configured == fresh.sink) {
                self.running.push(before.swap_remove(at));
                continue;
            }
            let replaced = same(&|it| is_same_receiver(&it.configured, &fresh.sink));
            let replaced = replaced.map(|at| before.swap_remove(at));
            let before = replaced.as_ref().map(|before| (before.wants, before.repeat.is_some()));
            let running = fresh.start(replaced);
            for notice in firing {
                let (was_told, is_noted) = before.map_or((false, false), |(wants, repeats)| {
                    (wants.it(notice), wants.it(notice) && repeats)
                });
                if !running.wants.it(notice) {
                    if was_told {
                        running.end(notice);
                    }
                    continue;
                }
                if !is_noted {
                    running.note(notice);
                }
                // Whoever was told already is not told again, but for an Alertmanager, which has to be told all the time.
                if (!was_told || running.resends) && !is_silenced(notice) {
                    running.push(&Arc::new(notice.clone()));
                }
            }
            self.running.push(running);
        }
        self.leaving.retain(|leaving| !leaving.task.is_finished());
        self.leaving.extend(before.into_iter().map(Running::leave));
    }
}

impl Leaving {
    /// Awaits its end. What has not arrived by then is counted, and how it was is given.
    pub(super) async fn ended(mut self, deadline: Instant) -> Option<Health> {
        if tokio::time::timeout_at(deadline, &mut self.task).await.is_ok() {
            // It has told that itself.
            return None;
        }
        self.end.notify_one();
        let _ = self.task.await;
        Some(held(&self.health).clone())
    }
}

/// Takes on what the one before has not delivered by then, if there is one.
pub(super) fn take_over<'a>(
    before: &'a Before,
    to: &'a Queue,
    deadline: Instant,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(async move {
        // Held to the end: whoever is stopped over it leaves the rest to whoever asks next.
        let mut before = before.lock().await;
        if let Some(running) = before.as_mut() {
            running.hand_over(to, deadline).await;
        }
        *before = None;
    })
}

impl Running {
    /// Its receiver was told that it fires, and will not be told of it any more: for it, that is the end.
    fn end(&self, notice: &Notice) {
        let mut over = notice.clone();
        over.transition = Transition::Resolved;
        over.alert.state = Transition::Resolved;
        over.alert.ends_at_unix_ns = Some(unix_ns().max(over.alert.starts_at_unix_ns));
        self.note(&over);
        if self.wants.resolved {
            self.push(&Arc::new(over));
        }
    }

    /// Delivers what waits, as far as there is time.
    fn leave(mut self) -> Leaving {
        self.queue.close();
        let end = Arc::new(Notify::new());
        let (ends, health, queues) = (end.clone(), self.health.clone(), self.queues());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = self.ended(Instant::now() + LEAVES_WITHIN) => {}
                () = ends.notified() => self.ended(Instant::now()).await,
            }
            let mut health = held(&self.health);
            health.dropped += self.queue.len() as u64;
            // They are told here, and are not left to anybody.
            self.queue.clear();
            tracing::info!("{health}; it is not configured any more");
        });
        Leaving { end, health, queues, task }
    }

    /// The same, and what is left goes to whoever takes its place.
    async fn hand_over(&mut self, to: &Queue, deadline: Instant) {
        self.queue.close();
        self.ended(deadline).await;
        let mut left = self.queue.owed();
        // Who is told over and over has been told again what fires.
        left.retain(|notice| !self.resends || notice.transition != Transition::Firing);
        // Always in one of them: whoever looks meanwhile does not miss it.
        to.put_back(left);
        self.queue.clear();
        // Whether the new settings mend it is seen with the first attempt.
        held(&self.health).failing = None;
    }
}

/// Whether what one was told, the other need not be told again.
fn is_same_receiver(one: &Sink, other: &Sink) -> bool {
    one.name == other.name
        && match (&one.kind, &other.kind) {
            (Kind::Stdout, Kind::Stdout) => true,
            (Kind::Webhook { url: a, .. }, Kind::Webhook { url: b, .. }) => a == b,
            (Kind::Alertmanager { urls: a, .. }, Kind::Alertmanager { urls: b, .. }) => a == b,
            (Kind::Otlp { endpoint: a, alerts: x, .. }, Kind::Otlp { endpoint: b, alerts: y, .. }) => {
                (a, x) == (b, y)
            }
            _ => false,
        }
}
