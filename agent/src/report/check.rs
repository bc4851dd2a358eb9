//! `taskscope check`: is the service deployed as it should be? One function a check; what cannot be known is unknown.

use serde::Serialize;
use taskscope_proto::v1::capability::{Coverage, Kind};
use taskscope_proto::v1::{Capability, Deployment, Pool, Sigterm, pool};
use taskscope_proto::words;

use super::{json_line, table};
use crate::model::Model;

/// From this share of a limit on there is too little left for a bad minute.
const NEAR: f64 = 0.8;
/// A pool that is full for less is a burst.
const FULL_NS: u64 = 1_000_000_000;
/// What a shell gives a program that nobody thought about.
const SHELL_FILES: u64 = 1024;
/// The share of the container's memory that the probe may take.
const BUDGET_SHARE: f64 = 0.05;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Pass,
    Fail,
    Unknown,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Checked {
    check: &'static str,
    pub(crate) result: Outcome,
    /// What was seen, or why it is not known.
    evidence: String,
    /// What to do about it; absent where there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// What a check says, before it has its name.
type Verdict = (Outcome, String, Option<String>);
type Look = fn(&Model) -> Verdict;

const CHECKS: [(&str, Look); 8] = [
    ("workers", workers),
    ("release-build", release_build),
    ("tokio-unstable", tokio_unstable),
    ("hooks", hooks),
    ("blocking-pool", blocking_pool),
    ("open-files", open_files),
    ("probe-budget", probe_budget),
    ("sigterm", sigterm),
];

pub(crate) fn of(model: &Model) -> Vec<Checked> {
    let checked = |&(check, look): &(&'static str, Look)| {
        let (result, evidence, hint) = look(model);
        Checked { check, result, evidence, hint: hint.filter(|hint| !hint.is_empty()) }
    };
    CHECKS.iter().map(checked).collect()
}

pub(crate) fn text(all: &[Checked]) -> String {
    let word = |result| match result {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Unknown => "unknown",
    };
    let mut rows = Vec::new();
    for checked in all {
        rows.push(vec![word(checked.result).to_owned(), checked.check.to_owned(), checked.evidence.clone()]);
        rows.extend(
            checked.hint.iter().map(|hint| vec![String::new(), String::new(), format!("hint: {hint}")]),
        );
    }
    table(&rows)
}

pub(crate) fn json(all: &[Checked]) -> anyhow::Result<String> {
    all.iter().map(json_line).collect()
}

fn pass(evidence: String) -> Verdict {
    (Outcome::Pass, evidence, None)
}

fn fail(evidence: String, hint: impl Into<String>) -> Verdict {
    (Outcome::Fail, evidence, Some(hint.into()))
}

fn unknown(evidence: impl Into<String>) -> Verdict {
    (Outcome::Unknown, evidence.into(), None)
}

fn old_probe() -> Verdict {
    (
        Outcome::Unknown,
        "the probe is too old to say".to_owned(),
        Some("build the service with a newer probe".to_owned()),
    )
}

fn deployment(model: &Model) -> Option<&Deployment> {
    model.description.deployment.as_ref()
}

fn pool(model: &Model, kind: pool::Kind) -> Option<&Pool> {
    model.frame.pools.iter().find(|pool| pool.kind() == kind)
}

/// More workers than the quota has cores are stopped together, in the middle of their polls, for the rest of each period.
fn workers(model: &Model) -> Verdict {
    let Some(deployment) = deployment(model) else { return old_probe() };
    let most = model.frame.runtimes.iter().map(|runtime| runtime.workers.len()).max().unwrap_or(0);
    if most == 0 {
        return unknown("no runtime has been seen at work yet");
    }
    let workers = if most == 1 { "1 worker".to_owned() } else { format!("{most} workers") };
    let cores = |cores: f64| format!("{cores} core{}", if cores == 1.0 { "" } else { "s" });
    match (deployment.quota_cores, deployment.cores) {
        (Some(quota), _) if most as f64 > quota.ceil() => fail(
            format!(
                "{workers}, and a CPU quota of {}: they use it up early and stand still together",
                cores(quota)
            ),
            format!(
                "set `worker_threads({})` or TOKIO_WORKER_THREADS, or raise the quota of the cgroup",
                quota.ceil().max(1.0)
            ),
        ),
        (Some(quota), _) => pass(format!("{workers}, and a CPU quota of {}", cores(quota))),
        (None, Some(allowed)) if most > allowed as usize => fail(
            format!("{workers} on {}", cores(allowed.into())),
            format!("set `worker_threads({allowed})` or TOKIO_WORKER_THREADS"),
        ),
        (None, Some(allowed)) => pass(format!("{workers} on {}, no CPU quota", cores(allowed.into()))),
        (None, None) => unknown(format!("{workers}; how many cores it may use is not known")),
    }
}

fn release_build(model: &Model) -> Verdict {
    match deployment(model) {
        None => old_probe(),
        Some(it) if it.debug_build => {
            fail("compiled with debug assertions".to_owned(), "build with `cargo build --release`")
        }
        Some(_) => pass("compiled without debug assertions".to_owned()),
    }
}

fn tokio_unstable(model: &Model) -> Verdict {
    match deployment(model) {
        None => old_probe(),
        Some(it) if it.tokio_unstable => pass("`--cfg tokio_unstable` reached Tokio".to_owned()),
        Some(_) => fail(
            "built without `--cfg tokio_unstable`: Tokio has no task hooks".to_owned(),
            "add `--cfg tokio_unstable` to rustflags in .cargo/config.toml, and to RUSTFLAGS where it is set",
        ),
    }
}

/// What a target says is missing of one kind, and what to do.
fn missing(model: &Model, kind: Kind) -> Option<(String, String)> {
    let is_missing = |it: &&Capability| it.kind() == kind && it.coverage() != Coverage::Full;
    let capability = model.capabilities.iter().find(is_missing)?;
    Some((capability.reason.clone(), capability.hint.clone()))
}

fn hooks(model: &Model) -> Verdict {
    if deployment(model).is_some_and(|it| !it.tokio_unstable) {
        return unknown("there are no hooks without `--cfg tokio_unstable`");
    }
    match missing(model, Kind::Polls) {
        Some((reason, hint)) => fail(reason, hint),
        None if model.totals().polls_total > 0 => {
            let polls = words::count(model.totals().polls_total);
            pass(format!("they fire: {polls} polls seen, every spawned task has a row"))
        }
        None => unknown("they are in place, and no task has been polled yet"),
    }
}

/// Tokio does not tell the limit: it is learnt when the pool is first seen full.
fn blocking_pool(model: &Model) -> Verdict {
    let Some(pool) = pool(model, pool::Kind::Blocking) else {
        return unknown("it has not been used yet");
    };
    let (busy, queued) = (pool.busy.unwrap_or(0), pool.queued.unwrap_or(0));
    match (pool.capacity, pool.saturated_ns) {
        (Some(limit), Some(saturated_ns)) if saturated_ns >= FULL_NS => fail(
            format!(
                "all of its {limit} threads are busy for {}, {queued} jobs wait",
                words::duration(saturated_ns)
            ),
            "raise `max_blocking_threads`, or give long jobs threads of their own",
        ),
        (Some(limit), _) => {
            pass(format!("{busy} of {limit} threads are busy; it has been full for a moment"))
        }
        (None, _) => {
            let threads = busy + pool.idle.unwrap_or(0);
            unknown(format!("{threads} threads so far; Tokio tells no limit until the pool has been full"))
        }
    }
}

fn open_files(model: &Model) -> Verdict {
    let Some((pool, limit)) =
        pool(model, pool::Kind::FileDescriptors).and_then(|it| Some((it, it.capacity?)))
    else {
        return unknown("the limit of open files cannot be read");
    };
    let open = pool.busy.map_or("an unknown number".to_owned(), |open| open.to_string());
    let evidence = format!("{open} of {limit} open");
    if pool.busy.is_some_and(|open| open as f64 >= NEAR * limit as f64) {
        return fail(
            evidence,
            "find what does not close its files, or raise the limit (`ulimit -n`, LimitNOFILE)",
        );
    }
    if limit <= SHELL_FILES {
        return fail(
            format!("{evidence}: each connection takes one"),
            "raise the limit (`ulimit -n`, LimitNOFILE=)",
        );
    }
    pass(evidence)
}

fn probe_budget(model: &Model) -> Verdict {
    let Some(budget) = model.frame.probe.as_ref().map(|probe| probe.memory_limit_bytes) else {
        return unknown("the probe has not told its budget");
    };
    let mine = words::bytes(budget);
    let Some(limit) = pool(model, pool::Kind::Memory).and_then(|pool| pool.capacity) else {
        return pass(format!("{mine}, and no memory limit"));
    };
    let evidence = format!("{mine} of the memory limit of {}", words::bytes(limit));
    if budget as f64 > BUDGET_SHARE * limit as f64 {
        return fail(
            format!("{evidence}: more than {:.0} %", BUDGET_SHARE * 100.0),
            "leave TASKSCOPE_MEMORY to its default, which is 2 % of the limit, or raise the limit",
        );
    }
    pass(evidence)
}

fn sigterm(model: &Model) -> Verdict {
    let Some(deployment) = deployment(model) else { return old_probe() };
    match deployment.sigterm() {
        Sigterm::Handled => pass("the application handles SIGTERM".to_owned()),
        Sigterm::Default if model.description.pid == 1 => fail(
            "nothing handles SIGTERM, and process 1 of a container is not ended by it: it runs on until SIGKILL".to_owned(),
            "await `tokio::signal::unix::signal(SignalKind::terminate())` and shut down",
        ),
        Sigterm::Default => fail(
            "nothing handles SIGTERM: it ends the process at once, in the middle of requests".to_owned(),
            "await `tokio::signal::unix::signal(SignalKind::terminate())` and shut down",
        ),
        Sigterm::Ignored => fail(
            "SIGTERM is ignored: the process runs on until SIGKILL".to_owned(),
            "do not let what starts it ignore the signal (`nohup`, `trap '' TERM`), or handle it",
        ),
        Sigterm::Unspecified => unknown("what SIGTERM does cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1::{Description, Frame, ProbeHealth, Runtime, Totals, Worker};

    use super::*;

    /// Where every check passes but for the blocking pool, of which nothing is known.
    fn good() -> (Description, Frame) {
        let deployment = Deployment {
            debug_build: false,
            tokio_unstable: true,
            quota_cores: Some(2.0),
            cores: Some(8),
            sigterm: Sigterm::Handled.into(),
        };
        let description =
            Description { revision: 1, pid: 7, deployment: Some(deployment), ..Default::default() };
        let pool = |kind: pool::Kind, busy, capacity| Pool {
            kind: kind.into(),
            busy: Some(busy),
            capacity: Some(capacity),
            ..Default::default()
        };
        let frame = Frame {
            totals: Some(Totals { polls_total: 5000, ..Default::default() }),
            runtimes: vec![Runtime { workers: vec![Worker::default(); 2], ..Default::default() }],
            pools: vec![
                pool(pool::Kind::FileDescriptors, 70, 65_536),
                pool(pool::Kind::Memory, 100 << 20, 2 << 30),
            ],
            probe: Some(ProbeHealth { memory_limit_bytes: 32 << 20, ..Default::default() }),
            ..Default::default()
        };
        (description, frame)
    }

    fn checked(change: impl FnOnce(&mut Deployment, &mut Description, &mut Frame)) -> Vec<Checked> {
        let (mut description, mut frame) = good();
        let mut deployment = description.deployment.take().expect("it has one");
        change(&mut deployment, &mut description, &mut frame);
        description.deployment = Some(deployment);
        let mut model = Model::new(description);
        model.apply(frame);
        of(&model)
    }

    #[track_caller]
    fn fails(check: &str, all: &[Checked]) {
        let failed: Vec<&str> =
            all.iter().filter(|it| it.result == Outcome::Fail).map(|it| it.check).collect();
        assert_eq!(failed, [check], "{all:#?}");
        assert!(all.iter().all(|it| it.result != Outcome::Fail || it.hint.is_some()), "{all:#?}");
    }

    #[test]
    fn nothing_fails_where_all_is_well() {
        let all = checked(|_, _, _| ());
        assert!(all.iter().all(|it| it.result == Outcome::Pass || it.check == "blocking-pool"), "{all:#?}");
    }

    #[test]
    fn each_check_fails_alone() {
        fails("workers", &checked(|it, _, _| it.quota_cores = Some(0.5)));
        fails("workers", &checked(|it, _, _| (it.quota_cores, it.cores) = (None, Some(1))));
        fails("release-build", &checked(|it, _, _| it.debug_build = true));
        fails("tokio-unstable", &checked(|it, _, _| it.tokio_unstable = false));
        fails("open-files", &checked(|_, _, frame| frame.pools[0].capacity = Some(80)));
        fails("open-files", &checked(|_, _, frame| frame.pools[0].capacity = Some(1024)));
        fails("probe-budget", &checked(|_, _, frame| frame.pools[1].capacity = Some(256 << 20)));
        fails("sigterm", &checked(|it, _, _| it.sigterm = Sigterm::Ignored.into()));
        let as_process_one = checked(|it, description, _| {
            it.sigterm = Sigterm::Default.into();
            description.pid = 1;
        });
        fails("sigterm", &as_process_one);
        let replaced = Capability {
            kind: Kind::Polls.into(),
            coverage: Coverage::Partial.into(),
            reason: "replaced".into(),
            hint: "use the builder".into(),
        };
        fails("hooks", &checked(|_, description, _| description.capabilities = vec![replaced]));
        let full = Pool {
            kind: pool::Kind::Blocking.into(),
            busy: Some(8),
            capacity: Some(8),
            queued: Some(61),
            saturated_ns: Some(3 * FULL_NS),
            ..Default::default()
        };
        fails("blocking-pool", &checked(|_, _, frame| frame.pools.push(full)));
    }

    #[test]
    fn an_old_probe_and_an_empty_frame_say_nothing() {
        let all = of(&Model::new(Description::default()));
        assert!(all.iter().all(|it| it.result == Outcome::Unknown), "{all:#?}");
    }

    #[test]
    fn the_text_is_what_it_was() {
        let all = checked(|it, _, frame| {
            it.sigterm = Sigterm::Default.into();
            frame.pools[0].capacity = Some(1024);
        });
        insta::assert_snapshot!(text(&all));
    }
}
