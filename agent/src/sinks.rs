//! Where alerts are delivered. Each sink has a bounded queue and a task of its own, an Alertmanager one for each instance, so
//! that one that is down delays no other. Sending never waits.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

mod alertmanager;
mod bucket;
mod left;
mod otlp;
mod post;
mod prepared;
mod queue;
mod repeat;
mod retry;
mod settled;
mod stdout;
mod webhook;

use crate::alerts::labels::Fingerprint;
use crate::alerts::life::Transition;
use crate::alerts::notice::Notice;
use crate::alerts::rule::Severity;
use crate::config::sinks::{Kind, Sink};
use crate::headless::Question;
use alertmanager::Active;
use bucket::Bucket;
use otlp::metrics::Exporter;
use post::{Outcome, Receiver};
use prepared::Part;
pub(crate) use prepared::Prepared;
use queue::Queue;
use repeat::Repeat;
use retry::Retry;
use settled::{Before, Leaving};
use webhook::Webhook;

/// So many messages that are refused in a row are a receiver that takes nothing, and no matter of single notices.
const REFUSALS: u32 = 3;

/// All sinks of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    running: Vec<Running>,
    /// Those that are configured away, and deliver what waits.
    leaving: Vec<Leaving>,
    /// To an agent's loop, from which metrics come; without one there are none.
    questions: Option<mpsc::Sender<Question>>,
    /// What has not arrived at the end is left to the next agent, and not dropped.
    is_kept: bool,
}

#[derive(Debug)]
struct Running {
    /// Of an Alertmanager, with this instance alone; of OTLP with alerts or with metrics.
    configured: Sink,
    wants: Wants,
    /// It is told again and again what fires.
    resends: bool,
    /// What it was told to fire; `None`: it is told once.
    repeat: Option<Mutex<Repeat>>,
    queue: Arc<Queue>,
    /// Of those whose place it takes: what waited there may not be here yet.
    earlier: Vec<Arc<Queue>>,
    health: Arc<Mutex<Health>>,
    /// `None`: its end was awaited.
    task: Option<JoinHandle<()>>,
    before: Before,
}

#[derive(Clone, Copy, Debug)]
struct Wants {
    min_severity: Severity,
    pending: bool,
    resolved: bool,
    /// It is about figures and is told of no alert.
    nothing: bool,
}

/// How a sink is, for metrics and for whoever asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Health {
    pub(crate) sink: String,
    /// `HOST:PORT` of an instance of an Alertmanager; empty for others.
    pub(crate) instance: String,
    /// Notices that have arrived; of an Alertmanager each time that an alert did; of a sink of metrics, exports.
    pub(crate) delivered: u64,
    /// There was no room for them, or no time; of a sink of metrics those that failed, for figures are not kept.
    pub(crate) dropped: u64,
    /// The receiver would not have them.
    pub(crate) refused: u64,
    /// Why nothing arrives now; `None`: it does.
    pub(crate) failing: Option<String>,
}

impl Health {
    /// It is about figures and is told of no alert. No name that is given has a `/`.
    pub(crate) fn exports(&self) -> bool {
        self.sink.contains('/')
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sink {}", self.sink)?;
        if !self.instance.is_empty() {
            write!(f, " ({})", self.instance)?;
        }
        write!(f, ": {} delivered, {} dropped, {} refused", self.delivered, self.dropped, self.refused)?;
        match &self.failing {
            Some(why) => write!(f, "; failing: {why}"),
            None => Ok(()),
        }
    }
}

impl Sinks {
    /// Starts a task for each, on the runtime at hand. Nothing is connected to yet. `questions` go to an agent's loop, from
    /// which metrics come; without one there are none.
    pub(crate) fn start(prepared: &Prepared, questions: Option<&mpsc::Sender<Question>>) -> Self {
        let fresh = prepared.parts().iter().filter_map(|part| Fresh::of(part, questions));
        let running = fresh.map(|fresh| fresh.start(None)).collect();
        Self { running, leaving: Vec::new(), questions: questions.cloned(), is_kept: false }
    }

    /// An alert that fired before the agent was started: only to those that have to be told over and over that it does.
    pub(crate) fn resume(&self, notice: &Notice) {
        let notice = &Arc::new(notice.clone());
        for sink in self.running.iter().filter(|sink| sink.wants.it(notice)) {
            sink.note(notice);
            if sink.resends {
                sink.push(notice);
            }
        }
    }

    /// To each sink that wants it. Never waits.
    pub(crate) fn send(&self, notice: &Notice) {
        let notice = &Arc::new(notice.clone());
        for sink in &self.running {
            sink.note(notice);
            if sink.wants.it(notice) {
                sink.push(notice);
            }
        }
    }

    /// Tells those again that want it what still fires. `firing` is asked only where something is due.
    pub(crate) fn repeat(&self, firing: impl Fn() -> Vec<Notice>) {
        let now_ns = now_ns();
        let is_due = |repeat: &Mutex<Repeat>| held(repeat).is_due(now_ns);
        if !self.running.iter().filter_map(|sink| sink.repeat.as_ref()).any(is_due) {
            return;
        }
        let firing = firing();
        for sink in &self.running {
            let due = sink.repeat.as_ref().map(|repeat| held(repeat).take(&firing, now_ns));
            let due = due.iter().flatten().filter(|notice| sink.wants.it(notice));
            due.for_each(|notice| sink.push(&Arc::new(notice.clone())));
        }
    }

    pub(crate) fn health(&self) -> Vec<Health> {
        self.running.iter().map(|sink| held(&sink.health).clone()).collect()
    }

    /// Gives what waits the time to arrive; what does not is counted as dropped, unless the next agent takes it up. Sinks that are
    /// not configured any more are among what is given where they had not come to an end.
    pub(crate) async fn close(self, within: Duration) -> Vec<Health> {
        self.running.iter().for_each(|sink| sink.queue.close());
        let deadline = tokio::time::Instant::now() + within;
        let mut healths = Vec::new();
        for mut sink in self.running {
            sink.ended(deadline).await;
            let mut health = held(&sink.health);
            if !self.is_kept {
                health.dropped += sink.queue.len() as u64;
            }
            healths.push(health.clone());
        }
        for leaving in self.leaving {
            healths.extend(leaving.ended(deadline).await);
        }
        healths
    }
}

impl Running {
    fn push(&self, notice: &Arc<Notice>) {
        let gone = self.queue.push(notice.clone());
        if gone > 0 {
            held(&self.health).dropped += gone;
        }
    }

    /// That it is told this, for when it is to be told again.
    fn note(&self, notice: &Notice) {
        if let Some(repeat) = &self.repeat
            && (notice.transition == Transition::Resolved || self.wants.it(notice))
        {
            held(repeat).told(notice, now_ns());
        }
    }

    /// Awaits the end of its task, whose queue is closed; what has not arrived by then is left in the queue.
    async fn ended(&mut self, deadline: tokio::time::Instant) {
        if let Some(task) = &mut self.task {
            if tokio::time::timeout_at(deadline, &mut *task).await.is_err() {
                task.abort();
                // What was under way goes back to the queue as it ends.
                let _ = task.await;
            }
            self.task = None;
        }
        // It may have waited itself for one before it.
        settled::take_over(&self.before, &self.queue, deadline).await;
    }
}

impl Wants {
    fn it(self, notice: &Notice) -> bool {
        let severity = match notice.alert.labels.get("severity") {
            Some("critical") => Severity::Critical,
            Some("warning") => Severity::Warning,
            _ => Severity::Info,
        };
        !self.nothing
            && severity >= self.min_severity
            && match notice.transition {
                Transition::Pending => self.pending,
                Transition::Firing => true,
                Transition::Resolved => self.resolved,
            }
    }
}

/// A sink that is not started yet.
#[derive(Debug)]
struct Fresh {
    /// Of an Alertmanager, with this instance alone; of OTLP with alerts or with metrics.
    sink: Sink,
    worker: Worker,
}

/// What a sink's task does with a notice.
#[derive(Debug)]
enum Worker {
    Stdout,
    Webhook(Webhook),
    Otlp(Receiver),
    Metrics(Exporter),
    Alertmanager { receiver: Receiver, active: Active },
}

impl Fresh {
    /// `None`: it sends metrics, and there is no loop from which they come.
    fn of(part: &Part, questions: Option<&mpsc::Sender<Question>>) -> Option<Self> {
        let worker = match (&part.sink.kind, part.receiver.clone()) {
            // Everything else has a receiver.
            (Kind::Stdout, _) | (_, None) => Worker::Stdout,
            (Kind::Webhook { secret_file, .. }, Some(receiver)) => Worker::Webhook(Webhook {
                receiver,
                secret_file: secret_file.clone(),
                name: part.sink.name.clone(),
            }),
            (Kind::Otlp { metrics: Some(every), .. }, Some(receiver)) => {
                Worker::Metrics(Exporter { receiver, every: *every, questions: questions?.clone() })
            }
            (Kind::Otlp { metrics: None, .. }, Some(receiver)) => Worker::Otlp(receiver),
            (Kind::Alertmanager { resend, .. }, Some(receiver)) => {
                Worker::Alertmanager { receiver, active: Active::new(*resend) }
            }
        };
        Some(Self { sink: part.sink.clone(), worker })
    }

    /// Where it takes the place of another one, it begins when that has ended, and takes on what that has not delivered.
    fn start(self, before: Option<Running>) -> Running {
        let Self { sink, worker } = self;
        let instance = prepared::instance(&sink);
        let exports = matches!(worker, Worker::Metrics(_));
        // No name that is given has a `/`.
        let name = if exports { format!("{}/metrics", sink.name) } else { sink.name.clone() };
        let health = Health { sink: name, instance, delivered: 0, dropped: 0, refused: 0, failing: None };
        let wants = Wants {
            min_severity: sink.min_severity,
            pending: sink.send_pending,
            resolved: sink.send_resolved,
            nothing: exports,
        };
        let known = before.as_ref().and_then(|before| Some(held(before.repeat.as_ref()?).clone()));
        let repeat = match &sink.kind {
            Kind::Webhook { repeat: Some(every), .. } => {
                let repeat = known.map_or_else(|| Repeat::new(*every), |known| known.every(*every));
                Some(Mutex::new(repeat))
            }
            _ => None,
        };
        let resends = matches!(worker, Worker::Alertmanager { .. });
        let queue = Queue::new(sink.queue);
        let queue = Arc::new(if resends { queue.of_states() } else { queue });
        let mut earlier: Vec<Arc<Queue>> = Vec::new();
        if let Some(before) = &before {
            // Those that have handed over owe nothing.
            let owe = before.earlier.iter().filter(|queue| !queue.owed().is_empty());
            earlier = owe.chain([&before.queue]).cloned().collect();
        }
        let health = before.as_ref().map_or_else(|| Arc::new(Mutex::new(health)), |it| it.health.clone());
        let delivery = Delivery {
            queue: queue.clone(),
            health: health.clone(),
            // An Alertmanager ends what it is not told of in time.
            retry: match &sink.kind {
                Kind::Alertmanager { resend, .. } => Retry::before(*resend),
                _ => Retry::default(),
            },
            refusals: 0,
            bucket: matches!(worker, Worker::Webhook(_)).then(Bucket::default),
        };
        let most = sink.queue;
        let before: Before = Arc::new(tokio::sync::Mutex::new(before.map(Box::new)));
        let task = tokio::spawn({
            let before = before.clone();
            async move {
                let deadline = tokio::time::Instant::now() + settled::CHANGES_WITHIN;
                settled::take_over(&before, &delivery.queue, deadline).await;
                delivery.run(worker, most).await;
            }
        });
        Running { configured: sink, wants, resends, repeat, queue, earlier, health, task: Some(task), before }
    }
}

/// The task of one sink: takes from its queue, tries, waits, tries again.
#[derive(Debug)]
struct Delivery {
    queue: Arc<Queue>,
    health: Arc<Mutex<Health>>,
    retry: Retry,
    /// In a row, with nothing delivered between.
    refusals: u32,
    /// Of those that tell people at once; `None`: it is never held back.
    bucket: Option<Bucket>,
}

impl Delivery {
    async fn run(self, worker: Worker, most: usize) {
        match worker {
            Worker::Alertmanager { receiver, active } => self.keep(receiver, active, most).await,
            Worker::Metrics(exporter) => self.export(exporter).await,
            worker => self.forward(worker).await,
        }
    }

    /// Everything once, in order.
    async fn forward(mut self, worker: Worker) {
        loop {
            self.spare().await;
            let batch = match &worker {
                Worker::Webhook(_) => self.queue.take_while(Webhook::belongs),
                Worker::Otlp(_) => self.queue.take_while(otlp::belongs),
                Worker::Stdout | Worker::Metrics(_) | Worker::Alertmanager { .. } => {
                    self.queue.take_while(stdout::belongs)
                }
            };
            if batch.is_empty() {
                if self.queue.is_closed() {
                    return;
                }
                self.queue.news().await;
                continue;
            }
            let _under_way = UnderWay { queue: self.queue.clone() };
            // The last one is the next.
            let mut batches = vec![batch];
            while let Some(batch) = batches.last() {
                let outcome = match &worker {
                    Worker::Webhook(webhook) => webhook.deliver(batch, unix_ns()).await,
                    Worker::Otlp(receiver) => otlp::deliver(receiver, batch, unix_ns()).await,
                    Worker::Stdout | Worker::Metrics(_) | Worker::Alertmanager { .. } => {
                        stdout::deliver(batch, unix_ns()).await
                    }
                };
                match outcome {
                    Outcome::Delivered(_) => {
                        self.succeeded(batch.len());
                        self.queue.settled(batch.len());
                        batches.pop();
                    }
                    Outcome::Refused(why) => {
                        self.answered();
                        let mut batch = batches.pop().unwrap_or_default();
                        if batch.len() == 1 {
                            self.refused(&why, 1);
                            self.queue.settled(1);
                        } else {
                            // One of them is to blame, or their number.
                            let rest = batch.split_off(batch.len() / 2);
                            batches.extend([rest, batch]);
                        }
                    }
                    Outcome::Rejected { why, count } => {
                        let notices = batch.len() as u64;
                        self.queue.settled(batch.len());
                        batches.pop();
                        match count.map(|count| count.min(notices)) {
                            Some(lost) if lost < notices => {
                                self.count_refused(&why, lost);
                                self.succeeded((notices - lost) as usize);
                            }
                            Some(_) => self.refused(&why, notices),
                            // It takes nothing: the next may tell another thing.
                            None => {
                                self.count_refused(&why, notices);
                                self.failed(why, None);
                            }
                        }
                    }
                    Outcome::Later { why, asked, .. } => {
                        self.failed(why, asked);
                        tokio::time::sleep(Duration::from_nanos(self.retry.wait_ns(now_ns()))).await;
                    }
                }
            }
        }
    }

    /// Waits while something waits that would be one message too many. At the end nothing is held back: it would be lost.
    async fn spare(&mut self) {
        let Some(bucket) = &mut self.bucket else { return };
        while self.queue.len() > 0 && !self.queue.is_closed() {
            let Err(wait_ns) = bucket.take(now_ns()) else { return };
            let _ = tokio::time::timeout(Duration::from_nanos(wait_ns), self.queue.closed()).await;
        }
    }

    /// Everything that fires, over and over.
    async fn keep(mut self, receiver: Receiver, active: Active, most: usize) {
        let mut keeps = Keeps { queue: self.queue.clone(), active };
        loop {
            let active = &mut keeps.active;
            self.take_in(active, most);
            active.forget(now_ns());
            let due = active.due(now_ns());
            let wait_ns = self.retry.wait_ns(now_ns());
            if due.is_empty() && self.queue.is_closed() {
                return;
            }
            if due.is_empty() || wait_ns > 0 {
                let next_ns = active.next_ns().map_or(u64::MAX, |next| next.saturating_sub(now_ns()));
                // An hour where nothing is ever due; news end it.
                let sleep = Duration::from_nanos(next_ns.max(wait_ns).min(3_600_000_000_000));
                let _ = tokio::time::timeout(sleep, self.queue.news()).await;
                continue;
            }
            self.post(&receiver, active, due).await;
            self.queue.now_under_way(&active.ends_owed());
        }
    }

    /// The figures of now, each time that they are due; after a failure as soon as it may be tried again.
    async fn export(mut self, exporter: Exporter) {
        let every_ns = u64::try_from(exporter.every.as_nanos()).unwrap_or(u64::MAX);
        // Agents that were started at once do not post at once.
        let mut due_ns = now_ns() + (every_ns as f64 * fastrand::f64()) as u64;
        loop {
            let wait = Duration::from_nanos(due_ns.saturating_sub(now_ns()));
            // There are no news for it but the end.
            let _ = tokio::time::timeout(wait, self.queue.news()).await;
            if self.queue.is_closed() {
                return;
            }
            if now_ns() < due_ns {
                continue;
            }
            let figures = tokio::select! {
                figures = exporter.figures() => figures,
                () = self.queue.news() => return,
            };
            let Some(figures) = figures else {
                due_ns = now_ns() + every_ns;
                continue;
            };
            match exporter.deliver(figures).await {
                Outcome::Delivered(_) => self.succeeded(1),
                Outcome::Refused(why) | Outcome::Rejected { why, .. } => self.refused(&why, 1),
                Outcome::Later { why, asked, .. } => {
                    held(&self.health).dropped += 1;
                    self.failed(why, asked);
                }
            }
            due_ns = match self.retry.wait_ns(now_ns()) {
                0 => (due_ns + every_ns).max(now_ns()),
                wait_ns => now_ns() + wait_ns,
            };
        }
    }

    fn take_in(&self, active: &mut Active, most: usize) {
        for notice in self.queue.take_while(|_, _| true) {
            let lost = active.apply_within(most, &notice, now_ns());
            if lost > 0 {
                held(&self.health).dropped += lost;
            }
        }
        self.queue.now_under_way(&active.ends_owed());
    }

    /// One request, and where it is refused one for each half of it.
    async fn post(&mut self, receiver: &Receiver, active: &mut Active, due: Vec<Fingerprint>) {
        let mut batches = vec![due];
        while let Some(mut ids) = batches.pop() {
            let body = active.body(&ids, unix_ns());
            match receiver.post("application/json", HeaderMap::new(), body).await {
                Outcome::Delivered(_) => {
                    self.succeeded(ids.len());
                    active.sent(&ids, now_ns());
                }
                Outcome::Refused(why) | Outcome::Rejected { why, .. } if ids.len() == 1 => {
                    let is_first = active.refused(ids[0], now_ns());
                    self.refused(&why, u64::from(is_first));
                }
                Outcome::Refused(_) | Outcome::Rejected { .. } => {
                    self.answered();
                    let rest = ids.split_off(ids.len() / 2);
                    batches.extend([rest, ids]);
                }
                Outcome::Later { why, asked, .. } => return self.failed(why, asked),
            }
        }
    }

    fn succeeded(&mut self, notices: usize) {
        self.refusals = 0;
        self.answered();
        held(&self.health).delivered += notices as u64;
    }

    /// The receiver is there. Where it has refused all for a while that is no comfort.
    fn answered(&mut self) {
        self.retry.succeeded();
        let mut health = held(&self.health);
        if self.refusals < REFUSALS && health.failing.take().is_some() {
            tracing::info!(sink = %health.sink, instance = %health.instance, "the sink works again");
        }
    }

    /// A message that cannot be divided, with so many notices that were not refused before. It delays no other; but a receiver that
    /// takes nothing is one that fails.
    fn refused(&mut self, why: &str, notices: u64) {
        self.refusals = self.refusals.saturating_add(1);
        self.answered();
        self.count_refused(why, notices);
        if self.refusals >= REFUSALS {
            let mut health = held(&self.health);
            if health.failing.is_none() {
                tracing::warn!(sink = %health.sink, instance = %health.instance, why, "it refuses all that it is sent");
            }
            health.failing = Some(format!("it refuses what it is sent: {why}"));
        }
    }

    fn count_refused(&self, why: &str, notices: u64) {
        if notices > 0 {
            let mut health = held(&self.health);
            health.refused += notices;
            tracing::warn!(sink = %health.sink, instance = %health.instance, why, "what it is sent is refused");
        }
    }

    fn failed(&mut self, why: String, asked: Option<Duration>) {
        let mut health = held(&self.health);
        if health.failing.as_ref() != Some(&why) {
            tracing::warn!(sink = %health.sink, instance = %health.instance, why, "the sink fails");
        }
        health.failing = Some(why);
        self.retry.failed(now_ns(), fastrand::f64(), asked);
    }
}

/// What was taken from the queue and has not arrived goes back if the task is ended over it.
struct UnderWay {
    queue: Arc<Queue>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.queue.give_back();
    }
}

/// What an Alertmanager's instance is to be told; what has not arrived goes back if the task is ended over it.
struct Keeps {
    queue: Arc<Queue>,
    active: Active,
}

impl Drop for Keeps {
    fn drop(&mut self) {
        self.queue.put_back(self.active.undelivered());
    }
}

fn held<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The agent's own clock.
#[allow(clippy::disallowed_methods, reason = "the driver of the sinks is where their time comes from")]
fn now_ns() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[allow(clippy::disallowed_methods, reason = "receivers are told the time of day")]
fn unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod fixture {
    use std::collections::BTreeMap;

    use super::*;
    use crate::alerts::labels::Labels;
    use crate::alerts::notice::Alert;

    /// An alert of a minute's length about a group of tasks.
    pub(crate) fn notice(rule: &str, group: &str, transition: Transition) -> Notice {
        let labels = Labels::default()
            .with("alertname", rule)
            .with("severity", "warning")
            .with("service", "checkout")
            .with("task_group", group);
        let summary = format!("tasks of {group} are slow");
        let alert = Alert {
            fingerprint: labels.fingerprint(),
            labels,
            annotations: BTreeMap::from([("summary".to_owned(), summary)]),
            value: 0.412,
            threshold: 0.1,
            starts_at_unix_ns: 1_795_225_779_822_000_000,
            ends_at_unix_ns: (transition == Transition::Resolved).then_some(1_795_225_839_822_000_000),
            state: transition,
            resource: None,
        };
        Notice { transition, alert }
    }
}
