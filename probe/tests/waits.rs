//! How long tasks waited for a worker, by group: what they measured themselves, where their wakes are seen, and else nothing.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use asking::{Answer, Asker, eventually};
use taskscope_probe::Probe;
use taskscope_proto::histogram::{Sparse, lower_bound};
use taskscope_proto::v1::{Group, GroupQuery, TaskQuery, WatchRequest};
use tokio::runtime::Runtime;

#[path = "asking/probe.rs"]
mod asking;

/// A worker is held this long, or longer.
const HELD: Duration = Duration::from_millis(20);
const ROUNDS: u64 = 5;

/// Keeps the only worker of a runtime from everything else until it is let go.
struct Hold(mpsc::Sender<()>);

impl Hold {
    /// By a task that only hooks see.
    fn begin(runtime: &Runtime) -> Self {
        let (go, gone) = mpsc::channel::<()>();
        let (holds, held) = mpsc::channel();
        runtime.spawn(async move {
            holds.send(()).expect("the test waits for it");
            gone.recv().expect("the test lets it go");
        });
        held.recv().expect("it runs");
        Self(go)
    }

    /// When that was.
    fn end(self) -> Instant {
        let until = now() + HELD;
        eventually(|| if now() >= until { Ok(()) } else { Err("time stands still".to_owned()) });
        let end = now();
        self.0.send(()).expect("it holds");
        end
    }
}

#[allow(clippy::disallowed_methods, reason = "what the probe says is compared with what is measured here")]
fn now() -> Instant {
    Instant::now()
}

/// Says when each of its polls began, and keeps its waker where the test finds it.
fn polled(kept: Arc<Mutex<Option<Waker>>>, began: mpsc::Sender<Instant>) -> impl Future<Output = ()> + Send {
    poll_fn(move |cx| {
        let at = now();
        *kept.lock().expect("no holder panics") = Some(cx.waker().clone());
        began.send(at).expect("the test listens");
        Poll::Pending
    })
}

fn ask(probe: &mut Asker, histograms_total: bool) -> Answer {
    probe.ask_for(WatchRequest {
        tasks: Some(TaskQuery { limit: 100, ..Default::default() }),
        groups: Some(GroupQuery { limit: 1_000, ..Default::default() }),
        histograms_total,
        ..Default::default()
    })
}

#[test]
fn a_group_tells_how_long_its_tasks_waited_and_one_without_wakes_tells_nothing() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let name = format!("waits-{}", std::process::id());
    Probe::builder().name(&name).install(&mut builder);
    let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime can be built");
    let mut probe = Asker::of(&name);

    let kept = Arc::default();
    let (began, begins) = mpsc::channel();
    let (mut least, mut most) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let hold = Hold::begin(&runtime);
        let before = now();
        if round == 0 {
            let _entered = runtime.enter();
            drop(taskscope_probe::spawn("held up", polled(Arc::clone(&kept), began.clone())));
        } else {
            let waker = kept.lock().expect("no holder panics").take().expect("it was polled");
            // The first of several wakes is the one that its poll answers.
            waker.wake_by_ref();
            waker.wake();
        }
        let woken = now();
        least += hold.end() - woken;
        most += begins.recv().expect("it is polled") - before;
    }

    let answer = eventually(|| {
        let answer = ask(&mut probe, true);
        let counted = answer.group("held up").and_then(|group| group.scheduled_total.clone());
        let counted = counted.and_then(|waits| Sparse::try_from(&waits).ok());
        let all = counted.as_ref().is_some_and(|waits| waits.total() == ROUNDS);
        if all { Ok(answer) } else { Err(format!("{counted:?}")) }
    });
    let waits = answer.group("held up").and_then(|group| group.scheduled_total.clone()).expect("as above");
    let sum_ns = waits.sum_ns.expect("it is told");
    // The clocks of the two may run apart by a little.
    let slack = most / 100;
    let sum = Duration::from_nanos(sum_ns);
    assert!(least <= sum + slack && sum <= most + slack, "{least:?} <= {sum:?} <= {most:?}");
    let rows: Vec<_> = answer.named("held up").collect();
    assert_eq!((rows.len(), rows[0].scheduled_ns), (1, Some(sum_ns)), "its only task has the same sum");
    let counted = Sparse::try_from(&waits).expect("it is one");
    let shortest = counted.iter().map(|(bucket, _)| lower_bound(bucket)).min().expect("there are some");
    assert!(u128::from(shortest) * 32 >= HELD.as_nanos() * 30, "{shortest}");

    let all: &[Group] = answer.frame.groups.as_ref().map_or(&[], |groups| &groups.groups);
    let others: Vec<&Group> = all.iter().filter(|group| answer.text(group.name_sid) != "held up").collect();
    // Without hooks there are none.
    let hooks = cfg!(tokio_unstable);
    let polls = |group: &&Group| group.polls.as_ref().is_some_and(|polls| polls.polls_total >= ROUNDS);
    assert_eq!(others.iter().any(polls), hooks, "{others:#?}");
    assert!(others.iter().all(|group| group.scheduled_total.is_none()), "{others:#?}");

    let unasked = ask(&mut probe, false);
    assert_eq!(unasked.group("held up").expect("it lives").scheduled_total, None);
}
