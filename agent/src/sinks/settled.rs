//! Sinks that are configured anew while alerts are under way: one that stays as it is keeps all that it has, one that goes delivers
//! what waits, one that comes begins with what fires now.

use std::sync::Arc;
use std::time::Duration;

use super::queue::Queue;
use super::{Fresh, Kind, Running, Sink, Sinks, held, unix_ns, workers};
use crate::alerts::life::Transition;
use crate::alerts::notice::Notice;

/// What waits for a sink that is configured away has this long to arrive.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);
/// And for one that is there with other settings: what has not arrived by then goes on with those.
const CHANGES_WITHIN: Duration = Duration::from_secs(5);

/// Whether all of these can be; the error says which cannot, and why.
pub(crate) fn can_be_made(configured: &[Sink]) -> anyhow::Result<()> {
    configured.iter().try_for_each(|sink| workers(sink, None).map(drop))
}

impl Sinks {
    /// `firing` is what people were told that it fires; what of it `is_silenced` is told by nobody now. Where one of the sinks
    /// cannot be made, all stay as they are.
    pub(crate) fn settle(
        &mut self,
        configured: &[Sink],
        firing: &[Notice],
        is_silenced: impl Fn(&Notice) -> bool,
    ) -> anyhow::Result<()> {
        let mut fresh: Vec<Fresh> = Vec::new();
        for sink in configured {
            fresh.extend(workers(sink, self.questions.as_ref())?);
        }
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
                    running.push(notice);
                }
            }
            self.running.push(running);
        }
        self.leaving.retain(|leaving| !leaving.is_finished());
        self.leaving.extend(before.into_iter().map(|running| tokio::spawn(running.leave())));
        Ok(())
    }
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
            self.push(&over);
        }
    }

    /// Delivers what waits, as far as there is time.
    async fn leave(mut self) {
        self.queue.close();
        self.ended(tokio::time::Instant::now() + LEAVES_WITHIN).await;
        let mut health = held(&self.health);
        health.dropped += self.queue.len() as u64;
        tracing::info!("{health}; it is not configured any more");
    }

    /// The same, and what is left goes to whoever takes its place.
    pub(super) async fn hand_over(mut self, to: &Arc<Queue>) {
        self.queue.close();
        self.ended(tokio::time::Instant::now() + CHANGES_WITHIN).await;
        to.put_back(self.queue.take_while(|_, _| true));
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
