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
    Some(Finding { severity: Severity::Critical, sentence: sentence(model, runtime, &stuck)? })
}

/// What workers of a runtime are stuck in, and what waits for them; `None` where none is.
pub(crate) fn sentence(
    model: &Model,
    runtime: &v1::Runtime,
    stuck: &[(&v1::Worker, &v1::LivePoll)],
) -> Option<String> {
    let longest_ns = stuck.iter().map(|(_, poll)| poll.since_ns).max()?;
    // Told apart by their lines, and not by how much of their time was seen there.
    let mut places: Vec<(String, &v1::LivePoll, usize)> = Vec::new();
    for (worker, poll) in stuck {
        let on = model.spent(poll).first().map_or(String::new(), |spent| format!(", in {}", spent.on));
        let place = format!("{}{on}", place(model, worker, poll));
        match places.iter_mut().find(|(known, ..)| *known == place) {
            Some((.., count)) => *count += 1,
            None => places.push((place, poll, 1)),
        }
    }
    let places: Vec<(String, usize)> = places
        .into_iter()
        .map(|(place, poll, count)| match (count, model.spent(poll).first(), model.line(poll)) {
            // Of one poll there is more to say.
            (1, Some(spent), Some(line)) => {
                let place = place.strip_suffix(&format!("in {}", spent.on)).unwrap_or(&place);
                (format!("{place}{line}"), 1)
            }
            _ => (place, count),
        })
        .collect();
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
    Some(format!(
        "STUCK {}: {count} of {workers} worker{}, {}.{waiting} Do: {remedy}.",
        words::duration(longest_ns),
        if workers == 1 { "" } else { "s" },
        places.join("; "),
    ))
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
    Some(Finding { severity: Severity::Warning, sentence: main_sentence(model, poll) })
}

pub(crate) fn main_sentence(model: &Model, poll: &v1::LivePoll) -> String {
    let doing = doing(model, poll).map_or(String::new(), |doing| format!(", {doing}"));
    let line = model.line(poll).map_or(String::new(), |line| format!(", {line}"));
    format!(
        "STUCK {}: the body of main{doing}{line}. The workers go on; what main awaits does not. Do: {}.",
        words::duration(poll.since_ns),
        remedy(poll)
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MS, S, model, poll, sentences};
    use super::*;
    use crate::interned::fixture::{hashing, share, sleeping};

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

    /// Two workers: one in bcrypt for most of its poll, one asleep in a line of its own or in the same one.
    fn said_of(polls: Vec<Option<v1::LivePoll>>) -> Vec<String> {
        let mut model = model(v1::Frame { runtimes: vec![runtime(polls)], ..Default::default() });
        model.stacks.insert(1, hashing());
        model.stacks.insert(2, sleeping(7));
        model.stacks.insert(3, sleeping(7));
        sentences(&check(&model)).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_line_is_told_with_the_part_of_the_poll_that_it_took() {
        let stacks = vec![share(2, 1, 100 * MS), share(1, 5, 2_900 * MS)];
        let one = v1::LivePoll { stacks, ..poll(3_100 * MS) };
        assert_eq!(
            said_of(vec![Some(one), None]),
            [
                "STUCK 3.1 s: 1 of 2 workers, in POST /resize, asleep in clock_nanosleep, 2.9 of 3.1 s in bcrypt::hash, \
                 src/login.rs:40. Do: await the asynchronous call instead, or move it to spawn_blocking."
            ]
        );
    }

    #[test]
    fn workers_on_one_line_are_taken_together_however_long_each_was_seen_there() {
        let on = |stack_sid, since_ns| v1::LivePoll {
            stacks: vec![share(stack_sid, 4, since_ns - 50 * MS)],
            ..poll(since_ns)
        };
        assert_eq!(
            said_of(vec![Some(on(2, 3_100 * MS)), Some(on(3, 2_700 * MS))]),
            [
                "STUCK 3.1 s: 2 of 2 workers, both in POST /resize, asleep in clock_nanosleep, in std::thread::sleep, \
                 src/mail.rs:7. No other task of this runtime runs until then. Do: await the asynchronous call instead, or \
                 move it to spawn_blocking."
            ]
        );
        assert_eq!(
            said_of(vec![Some(on(2, 3_100 * MS)), Some(on(1, 2_700 * MS))])[0].split(". ").next(),
            Some(
                "STUCK 3.1 s: 2 of 2 workers, in POST /resize, asleep in clock_nanosleep, 3.0 of 3.1 s in \
                 std::thread::sleep, src/mail.rs:7; in POST /resize, asleep in clock_nanosleep, 2.6 of 2.7 s in \
                 bcrypt::hash, src/login.rs:40"
            )
        );
    }

    #[test]
    fn a_stack_without_names_adds_nothing() {
        let unnamed = v1::LivePoll { stacks: vec![share(9, 4, S)], ..poll(2 * S) };
        assert_eq!(
            said_of(vec![Some(unnamed), None])[0].split(". ").next(),
            Some("STUCK 2.0 s: 1 of 2 workers, in POST /resize, asleep in clock_nanosleep")
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
