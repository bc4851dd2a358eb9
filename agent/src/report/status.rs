//! `taskscope status`: runtimes and workers, pools, losses, and what the probe itself costs.

use serde::Serialize;
use taskscope_proto::v1::{self, capability, loss::Reason, runtime, thread_activity, worker};
use taskscope_proto::{activity, words};

use super::pools::Pool;
use super::stacks::Line;
use super::{json_line, pools, table};
use crate::model::Model;
use crate::why::{self, Why, loss_words};

#[derive(Serialize)]
struct Status {
    name: String,
    pid: u32,
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    uptime_ns: u64,
    runtimes: Vec<Runtime>,
    /// Polls on threads that are no worker: the body of `main`, jobs of the blocking pool.
    threads: Vec<Thread>,
    tasks: Tasks,
    pools: Vec<Pool>,
    capabilities: Vec<Capability>,
    losses: serde_json::Map<String, serde_json::Value>,
    probe: Probe,
}

#[derive(Serialize)]
struct Runtime {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flavor: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    global_queue: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_tasks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_ready_ns: Option<u64>,
    workers: Vec<Worker>,
}

#[derive(Serialize)]
struct Worker {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    busy_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_queue: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poll: Option<Poll>,
}

#[derive(Serialize)]
struct Thread {
    tid: u32,
    poll: Poll,
}

#[derive(Serialize)]
struct Poll {
    /// Absent: not a followed task.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spawned_at: Option<String>,
    since_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall: Option<String>,
    /// Of this the next four are parts; absent where it was looked at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_cpu_ns: Option<u64>,
    /// The throttled time is a part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for_cpu_ns: Option<u64>,
    /// Absent also where there is no quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asleep_ns: Option<u64>,
    /// Where in the code the most of its time went; absent where no stack was taken, or nothing of it has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<Line>,
    /// All of that in words.
    #[serde(skip)]
    doing: String,
}

#[derive(Serialize)]
struct Tasks {
    live: u64,
    total: u64,
}

#[derive(Serialize)]
struct Capability {
    kind: String,
    coverage: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: String,
}

#[derive(Serialize)]
struct Probe {
    memory_bytes: u64,
    memory_limit: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ratio: Option<f64>,
}

pub(crate) fn json(model: &Model) -> anyhow::Result<String> {
    json_line(&status(model))
}

fn status(model: &Model) -> Status {
    let frame = &model.frame;
    let totals = model.totals();
    let health = frame.probe.unwrap_or_default();
    Status {
        name: model.description.name.clone(),
        pid: model.description.pid,
        instance: model.description.instance.clone(),
        host: model.description.host.clone(),
        uptime_ns: frame.at_ns,
        runtimes: frame.runtimes.iter().map(|runtime| runtime_of(model, runtime)).collect(),
        threads: frame
            .threads
            .iter()
            .filter_map(|thread| {
                Some(Thread { tid: thread.tid, poll: poll_of(model, thread.poll.as_ref()?) })
            })
            .collect(),
        tasks: Tasks { live: totals.alive.unwrap_or(totals.followed), total: totals.spawned_total },
        pools: pools::of(model),
        capabilities: model.capabilities.iter().map(capability_of).collect(),
        losses: losses_of(frame, totals.alive.is_some()),
        probe: Probe {
            memory_bytes: health.memory_bytes,
            memory_limit: health.memory_limit_bytes,
            cpu_ratio: health.cpu_ratio,
        },
    }
}

fn runtime_of(model: &Model, runtime: &v1::Runtime) -> Runtime {
    Runtime {
        name: runtime.name.clone(),
        flavor: match runtime.flavor() {
            runtime::Flavor::MultiThread => Some("multi_thread"),
            runtime::Flavor::CurrentThread => Some("current_thread"),
            runtime::Flavor::Unspecified => None,
        },
        global_queue: runtime.global_queue,
        ready_tasks: runtime.ready_tasks,
        oldest_ready_ns: runtime.oldest_ready_ns,
        workers: runtime
            .workers
            .iter()
            .map(|worker| Worker {
                index: worker.index,
                tid: worker.tid,
                state: worker_state(worker.state()),
                since_ns: worker.since_ns,
                busy_ratio: worker.busy_ratio,
                local_queue: worker.local_queue,
                poll: worker.poll.as_ref().map(|poll| poll_of(model, poll)),
            })
            .collect(),
    }
}

fn worker_state(state: worker::State) -> Option<&'static str> {
    match state {
        worker::State::Unspecified => None,
        worker::State::Parked => Some("parked"),
        worker::State::Active => Some("active"),
        worker::State::InPoll => Some("in_poll"),
        worker::State::BusyUnseen => Some("busy_unseen"),
    }
}

fn poll_of(model: &Model, poll: &v1::LivePoll) -> Poll {
    let text = |sid| model.some_text(sid).map(str::to_owned);
    let (name, spawned_at) = (text(poll.name_sid), text(poll.spawned_at_sid));
    let activity = poll.activity.as_ref();
    let call = activity.and_then(|activity| {
        let number = activity.syscall?;
        Some(model.syscall(activity).map_or_else(|| format!("system call {number}"), str::to_owned))
    });
    Poll {
        task: (poll.task_id != 0).then_some(poll.task_id),
        label: text(poll.label_sid),
        group: name.clone().or_else(|| spawned_at.clone()),
        name,
        spawned_at,
        since_ns: poll.since_ns,
        thread_state: activity.and_then(|activity| thread_state(activity.state())),
        syscall: activity.and_then(|activity| {
            let number = activity.syscall?;
            Some(model.syscall(activity).map_or_else(|| number.to_string(), str::to_owned))
        }),
        observed_ns: activity.map(|activity| activity.observed_ns).filter(|&ns| ns > 0),
        on_cpu_ns: activity.and_then(|activity| activity.on_cpu_ns),
        waiting_for_cpu_ns: activity.and_then(|activity| activity.waiting_for_cpu_ns),
        throttled_ns: activity.and_then(|activity| activity.throttled_ns),
        asleep_ns: activity.and_then(activity::asleep_ns),
        line: Line::of(&model.spent(poll)),
        doing: {
            let doing = activity.map(|activity| activity::words(activity, call.as_deref()));
            let parts = [doing.filter(|doing| !doing.is_empty()), model.line(poll)];
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        },
    }
}

pub(super) fn thread_state(state: thread_activity::State) -> Option<&'static str> {
    match state {
        thread_activity::State::Unspecified => None,
        thread_activity::State::OnCpu => Some("on_cpu"),
        thread_activity::State::Asleep => Some("asleep"),
        thread_activity::State::DiskSleep => Some("disk_sleep"),
        thread_activity::State::Stopped => Some("stopped"),
    }
}

/// `STANDING_QUERIES` → `standing_queries`.
fn word(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn capability_of(capability: &v1::Capability) -> Capability {
    Capability {
        kind: word(capability.kind().as_str_name()),
        coverage: match capability.coverage() {
            capability::Coverage::Full => "full",
            capability::Coverage::Partial => "partial",
            capability::Coverage::None => "none",
            capability::Coverage::Unspecified => "unknown",
        },
        reason: words::printable(&capability.reason),
        hint: words::printable(&capability.hint),
    }
}

/// The three that every status has, and any other that happened.
fn losses_of(frame: &v1::Frame, alive_is_known: bool) -> serde_json::Map<String, serde_json::Value> {
    let count = |reason: Reason| {
        frame.losses.iter().find(|loss| loss.reason() == reason).map_or(0, |loss| loss.count)
    };
    let mut losses = serde_json::Map::new();
    losses.insert("dropped_events".into(), count(Reason::DroppedEvents).into());
    losses.insert("evicted_tasks".into(), count(Reason::EvictedTasks).into());
    if alive_is_known {
        losses.insert("uninstrumented_tasks".into(), count(Reason::UninstrumentedTasks).into());
    }
    for loss in &frame.losses {
        losses.insert(word(loss.reason().as_str_name()), loss.count.into());
    }
    losses
}

pub(crate) fn text(model: &Model) -> String {
    let status = status(model);
    let mut out = format!(
        "{}  pid {}  instance {}  up {}  {} tasks live, {} spawned\n",
        status.name,
        status.pid,
        status.instance,
        words::duration(status.uptime_ns),
        words::count(status.tasks.live),
        words::count(status.tasks.total)
    );
    for line in Why::of(model).lines.iter().filter(|line| !matches!(line, why::Line::Unseen(_))) {
        out.push_str(&format!("  {}\n", line.text()));
    }
    for runtime in &status.runtimes {
        let name = runtime.name.as_deref().unwrap_or("runtime");
        let flavor = runtime.flavor.unwrap_or("not polled yet");
        let ready = runtime.ready_tasks.map_or(String::new(), |ready| format!(", {ready} tasks ready"));
        out.push_str(&format!("\n{name} ({flavor}{ready})\n"));
        out.push_str(&table(&worker_rows(runtime)));
    }
    if !status.threads.is_empty() {
        let mut rows = vec![["THREAD", "SINCE", "RUNS"].map(str::to_owned).to_vec()];
        rows.extend(status.threads.iter().map(|thread| {
            vec![thread.tid.to_string(), words::duration(thread.poll.since_ns), poll_words(&thread.poll)]
        }));
        out.push_str(&format!("\nother threads\n{}", table(&rows)));
    }
    if !status.pools.is_empty() {
        out.push_str(&format!("\npools\n{}", pools::text(model)));
    }
    out.push_str("\nnot covered\n");
    let partial = status.capabilities.iter().filter(|capability| capability.coverage != "full");
    for capability in partial {
        out.push_str(&format!("  {}: {}\n", capability.kind, capability.reason));
        if !capability.hint.is_empty() {
            out.push_str(&format!("    hint: {}\n", capability.hint));
        }
    }
    for loss in &model.frame.losses {
        out.push_str(&format!("  lost: {}\n", loss_words(loss)));
    }
    let cpu =
        status.probe.cpu_ratio.map_or(String::new(), |ratio| format!(", {:.2} % of a core", ratio * 100.0));
    out.push_str(&format!(
        "\nprobe: {} reserved of {}{cpu}\n",
        words::bytes(status.probe.memory_bytes),
        words::bytes(status.probe.memory_limit)
    ));
    out.lines().map(words::printable).map(|line| line + "\n").collect()
}

fn worker_rows(runtime: &Runtime) -> Vec<Vec<String>> {
    let mut rows =
        vec![["WORKER", "THREAD", "STATE", "SINCE", "BUSY", "QUEUE", "POLL"].map(str::to_owned).to_vec()];
    let known = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    for worker in &runtime.workers {
        rows.push(vec![
            worker.index.to_string(),
            known(worker.tid.map(|tid| tid.to_string())),
            known(worker.state.map(|state| state.replace('_', " "))),
            known(worker.since_ns.map(words::duration)),
            known(worker.busy_ratio.map(|ratio| format!("{:.0} %", ratio * 100.0))),
            known(worker.local_queue.map(words::count)),
            worker.poll.as_ref().map_or(String::new(), poll_words),
        ]);
    }
    rows
}

/// What runs, where it was spawned, and what its thread is doing.
fn poll_words(poll: &Poll) -> String {
    let mut parts = Vec::new();
    match (&poll.label, &poll.name) {
        (Some(label), Some(name)) => parts.push(format!("{label} in {name}")),
        (Some(text), None) | (None, Some(text)) => parts.push(text.clone()),
        (None, None) => {}
    }
    parts.extend(poll.task.map(|task| format!("task {task}")));
    parts.extend(poll.spawned_at.as_ref().map(|site| format!("spawned at {site}")));
    parts.extend(Some(poll.doing.clone()).filter(|doing| !doing.is_empty()));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interned::fixture::{hashing, share};
    use crate::rules::fixture::{MS, S, model, poll};

    fn fixture() -> Model {
        let stuck = v1::Worker {
            busy_ns_total: None,
            index: 0,
            tid: Some(4711),
            state: worker::State::InPoll.into(),
            since_ns: Some(3_200 * MS),
            busy_ratio: Some(1.0),
            local_queue: Some(3),
            poll: Some(poll(3_200 * MS)),
        };
        let parked = v1::Worker { index: 1, state: worker::State::Parked.into(), ..Default::default() };
        model(v1::Frame {
            totals: Some(v1::Totals {
                followed: 40,
                alive: Some(41),
                spawned_total: 977,
                ..Default::default()
            }),
            runtimes: vec![v1::Runtime {
                id: 1,
                flavor: runtime::Flavor::MultiThread.into(),
                workers: vec![stuck, parked],
                global_queue: Some(2),
                ..Default::default()
            }],
            pools: vec![v1::Pool {
                name: "blocking".into(),
                kind: v1::pool::Kind::Blocking.into(),
                busy: Some(1),
                idle: Some(0),
                queued: Some(0),
                ..Default::default()
            }],
            losses: vec![v1::Loss { reason: Reason::UninstrumentedTasks.into(), count: 1 }],
            probe: Some(v1::ProbeHealth {
                memory_bytes: 32 << 20,
                memory_limit_bytes: 32 << 20,
                ..Default::default()
            }),
            capabilities: vec![v1::Capability {
                kind: capability::Kind::Wakes.into(),
                coverage: capability::Coverage::Partial.into(),
                reason: "tasks spawned without the wrapper show no wakes".into(),
                hint: "spawn through `taskscope_probe::spawn`".into(),
            }],
            seq: 1,
            at_ns: 90 * S,
            ..Default::default()
        })
    }

    #[test]
    fn a_worker_shows_the_line_that_it_is_on() {
        let mut model = fixture();
        let mut runtimes = model.frame.runtimes.clone();
        let poll = runtimes[0].workers[0].poll.as_mut().expect("it is in a poll");
        poll.stacks = vec![share(1, 6, 3_100 * MS)];
        model.apply(v1::Frame { runtimes, ..model.frame.clone() });
        model.stacks.insert(1, hashing());
        assert!(
            text(&model)
                .contains("asleep in clock_nanosleep, 3.1 of 3.2 s in bcrypt::hash, src/login.rs:40\n")
        );
        let json: serde_json::Value =
            serde_json::from_str(&json(&model).expect("it serialises")).expect("it is JSON");
        assert_eq!(
            json["runtimes"][0]["workers"][0]["poll"]["line"],
            serde_json::json!({
                "text": "bcrypt::hash, src/login.rs:40", "function": "api::login::check",
                "file": "/home/a/api/src/login.rs", "line": 40, "samples": 6, "covered_ns": 3_100 * MS,
            })
        );
    }

    #[test]
    fn the_json_holds_its_interface() {
        insta::assert_snapshot!(json(&fixture()).expect("it serialises"));
    }

    #[test]
    fn the_text_is_what_it_was() {
        insta::assert_snapshot!(text(&fixture()));
    }
}
