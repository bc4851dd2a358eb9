//! A worker is inside one poll for at least [`STUCK_NS`], or busy without a break although no poll of it is seen. Told
//! once a runtime, with every distinct thing that the workers are in.

use taskscope_proto::v1::{self, worker::State};
use taskscope_proto::words;

use super::{Finding, Severity, doing, remedy, what};
use crate::model::Model;

const STUCK_NS: u64 = 500_000_000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        model.frame.runtimes.iter().filter_map(|runtime| in_runtime(model, runtime)).collect();
    found.extend(main_body(model));
    found
}

fn in_runtime(model: &Model, runtime: &v1::Runtime) -> Option<Finding> {
    let stuck: Vec<(&v1::Worker, &v1::LivePoll)> = runtime
        .workers
        .iter()
        .filter_map(|worker| Some((worker, worker.poll.as_ref()?)))
        .filter(|(_, poll)| poll.since_ns >= STUCK_NS)
        .collect();
    let longest_ns = stuck.iter().map(|(_, poll)| poll.since_ns).max()?;
    let mut places: Vec<(String, usize)> = Vec::new();
    for (worker, poll) in &stuck {
        let place = place(model, worker, poll);
        match places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, count)) => *count += 1,
            None => places.push((place, 1)),
        }
    }
    let (count, workers) = (stuck.len(), runtime.workers.len());
    let places: Vec<String> = match places.as_slice() {
        [(place, _)] if count == 2 => vec![format!("both {place}")],
        [(place, _)] if count > 2 => vec![format!("all of them {place}")],
        several => several
            .iter()
            .map(|(place, n)| if *n > 1 { format!("{n} {place}") } else { place.clone() })
            .collect(),
    };
    let all = count == workers;
    let waiting = match (runtime.ready_tasks.or(runtime.global_queue), runtime.oldest_ready_ns) {
        (Some(ready), Some(oldest)) if ready > 0 => {
            let tasks =
                if ready == 1 { "1 task is".to_owned() } else { format!("{} tasks", words::count(ready)) };
            format!(
                " {tasks} ready behind {}, oldest {}.",
                if count == 1 { "it" } else { "them" },
                words::duration(oldest)
            )
        }
        _ if all => " No other task of this runtime runs until then.".to_owned(),
        _ => String::new(),
    };
    let remedy = stuck.first().map_or("", |(_, poll)| remedy(poll));
    Some(Finding {
        severity: Severity::Critical,
        sentence: format!(
            "STUCK {}: {count} of {workers} worker{}, {}.{waiting} Do: {remedy}.",
            words::duration(longest_ns),
            if workers == 1 { "" } else { "s" },
            places.join("; "),
        ),
    })
}

/// `in POST /resize, asleep in clock_nanosleep`
fn place(model: &Model, worker: &v1::Worker, poll: &v1::LivePoll) -> String {
    let place = if worker.state() == State::BusyUnseen {
        "busy without a break in a task that is not instrumented".to_owned()
    } else {
        format!("in {}", what(model, poll))
    };
    match doing(model, poll) {
        Some(doing) => format!("{place}, {doing}"),
        None => place,
    }
}

/// The body of `main` on a thread of its own: no worker is blocked by it, but it does not go on either.
fn main_body(model: &Model) -> Option<Finding> {
    let poll = model
        .frame
        .threads
        .iter()
        .filter_map(|thread| thread.poll.as_ref())
        .find(|poll| poll.kind() == v1::TaskKind::Main && poll.since_ns >= STUCK_NS)?;
    let doing = doing(model, poll).map_or(String::new(), |doing| format!(", {doing}"));
    Some(Finding {
        severity: Severity::Warning,
        sentence: format!(
            "STUCK {}: the body of main{doing}. The workers go on; what main awaits does not. Do: {}.",
            words::duration(poll.since_ns),
            remedy(poll)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MS, S, model, poll, sentences};
    use super::*;

    fn runtime(polls: Vec<Option<v1::LivePoll>>) -> v1::Runtime {
        let worker = |poll: Option<v1::LivePoll>| v1::Worker {
            state: if poll.is_some() { State::InPoll } else { State::Parked }.into(),
            poll,
            ..Default::default()
        };
        v1::Runtime { id: 1, workers: polls.into_iter().map(worker).collect(), ..Default::default() }
    }

    fn said(runtime: v1::Runtime) -> Vec<String> {
        let model = model(v1::Frame { runtimes: vec![runtime], ..Default::default() });
        sentences(&check(&model)).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn all_workers_in_one_route_are_one_sentence() {
        let all = v1::Runtime {
            ready_tasks: Some(41),
            oldest_ready_ns: Some(3_100 * MS),
            ..runtime(vec![Some(poll(3_200 * MS)), Some(poll(3_100 * MS))])
        };
        assert_eq!(
            said(all),
            [
                "STUCK 3.2 s: 2 of 2 workers, both in POST /resize, asleep in clock_nanosleep. 41 tasks ready behind them, \
              oldest 3.1 s. Do: await the asynchronous call instead, or move it to spawn_blocking."
            ]
        );
    }

    #[test]
    fn without_a_label_only_the_spawn_site_is_said_and_called_that() {
        let unlabelled = v1::LivePoll { label_sid: 0, activity: None, ..poll(2 * S) };
        assert_eq!(
            said(runtime(vec![Some(unlabelled), None])),
            [
                "STUCK 2.0 s: 1 of 2 workers, in a task spawned at axum/src/serve/mod.rs:399:17; no label. Do: move what \
              blocks to spawn_blocking."
            ]
        );
    }

    #[test]
    fn a_poll_that_the_quota_stopped_is_said_to_be() {
        let throttled = v1::LivePoll {
            activity: Some(v1::ThreadActivity {
                state: v1::thread_activity::State::OnCpu.into(),
                on_cpu_ns: Some(200 * MS),
                waiting_for_cpu_ns: Some(800 * MS),
                observed_ns: S,
                throttled_ns: Some(800 * MS),
                ..Default::default()
            }),
            ..poll(1_100 * MS)
        };
        assert_eq!(
            said(runtime(vec![Some(throttled), None])),
            [
                "STUCK 1.1 s: 1 of 2 workers, in POST /resize, throttled 80 % of it, on CPU 20 %. Do: raise the CPU quota \
                 of its cgroup, or let it use less CPU."
            ]
        );
    }

    #[test]
    fn a_poll_below_half_a_second_is_no_finding() {
        assert_eq!(said(runtime(vec![Some(poll(499 * MS)), None])), Vec::<String>::new());
    }

    #[test]
    fn a_busy_worker_without_a_seen_poll_names_nothing() {
        let unseen = v1::Worker {
            state: State::BusyUnseen.into(),
            poll: Some(v1::LivePoll { since_ns: 4 * S, activity: poll(0).activity, ..Default::default() }),
            ..Default::default()
        };
        let said = said(v1::Runtime { id: 1, workers: vec![unseen], ..Default::default() });
        assert_eq!(
            said,
            [
                "STUCK 4.0 s: 1 of 1 worker, busy without a break in a task that is not instrumented, asleep in \
              clock_nanosleep. No other task of this runtime runs until then. Do: await the asynchronous call instead, \
              or move it to spawn_blocking."
            ]
        );
    }
}
