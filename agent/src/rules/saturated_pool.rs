//! A pool has had all of its capacity in use, with work waiting, for at least [`FULL_NS`]. Of what the process itself has
//! only so much of, nearly all is in use ([`FILES`], [`MEMORY`]), or connections have waited to be accepted for at least
//! [`UNACCEPTED_NS`].

use taskscope_proto::v1::{self, pool::Kind};
use taskscope_proto::words;

use super::{Finding, Severity};
use crate::model::Model;

const FULL_NS: u64 = 500_000_000;

/// Of all file descriptors that may be open.
const FILES: f64 = 0.9;
/// Of the memory that the cgroup may use.
const MEMORY: f64 = 0.95;
/// Connections that wait for less are a burst.
const UNACCEPTED_NS: u64 = 1_000_000_000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let found = |pool: &v1::Pool| match pool.kind() {
        Kind::FileDescriptors => files(pool),
        Kind::Memory => memory(pool),
        Kind::AcceptBacklog => unaccepted(pool),
        // Who waits in a run queue waits for a worker, and what the workers do is another rule's.
        Kind::GlobalQueue | Kind::LocalQueues => None,
        Kind::Blocking => full(pool, &jobs(model)),
        Kind::User | Kind::Unspecified => full(pool, ""),
    };
    model.frame.pools.iter().filter_map(found).collect()
}

/// What is in use and what there is, where the share of it has reached `from`.
fn nearly_full(pool: &v1::Pool, from: f64) -> Option<(u64, u64)> {
    let (busy, capacity) = (pool.busy?, pool.capacity?);
    (busy as f64 >= capacity as f64 * from).then_some((busy, capacity))
}

fn warning(sentence: String) -> Option<Finding> {
    Some(Finding { severity: Severity::Warning, sentence })
}

fn files(pool: &v1::Pool) -> Option<Finding> {
    let (open, limit) = nearly_full(pool, FILES)?;
    warning(files_sentence(open, limit))
}

pub(crate) fn files_sentence(open: u64, limit: u64) -> String {
    format!(
        "FILE DESCRIPTORS: {} of {} open. Do: find what does not close them, or raise the limit (ulimit -n).",
        words::count(open),
        words::count(limit)
    )
}

fn memory(pool: &v1::Pool) -> Option<Finding> {
    let (used, limit) = nearly_full(pool, MEMORY)?;
    warning(memory_sentence(used, limit))
}

pub(crate) fn memory_sentence(used: u64, limit: u64) -> String {
    format!(
        "MEMORY: {} of the cgroup's {} in use; at the limit the process is killed. Do: find what grows, or raise the limit.",
        words::bytes(used),
        words::bytes(limit)
    )
}

fn unaccepted(pool: &v1::Pool) -> Option<Finding> {
    let waiting_ns = pool.waiting_ns.filter(|&ns| ns >= UNACCEPTED_NS)?;
    let waiting = pool.queued.filter(|&waiting| waiting > 0)?;
    let who = if waiting == 1 {
        "1 connection waits".to_owned()
    } else {
        format!("{} connections wait", words::count(waiting))
    };
    let name = words::printable(&pool.name);
    let limit = pool.capacity.map_or(String::new(), |limit| format!(" ({} may)", words::count(limit)));
    warning(format!(
        "ACCEPT BACKLOG: {who} to be accepted on {}{limit}, at every look for {}. Do: find what keeps its task from \
         accepting.",
        name.strip_prefix("accept ").unwrap_or(&name),
        words::duration(waiting_ns)
    ))
}

/// Lines of jobs that are told.
const LINES: usize = 3;

/// What the jobs of the blocking pools are doing, the oldest first: ` Its jobs: 7 in std::thread::sleep, src/mail.rs:7
/// (oldest 9.0 s).` Empty where that is not known.
pub(crate) fn jobs(model: &Model) -> String {
    let mut lines: Vec<(String, usize, u64)> = Vec::new();
    for job in &model.jobs() {
        match lines.iter_mut().find(|(on, ..)| *on == job.on) {
            Some((_, count, oldest_ns)) => {
                (*count, *oldest_ns) = (*count + 1, (*oldest_ns).max(job.since_ns));
            }
            None => lines.push((job.on.clone(), 1, job.since_ns)),
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let rest: usize = lines.iter().skip(LINES).map(|(_, count, _)| count).sum();
    let told = lines.iter().take(LINES).map(|(on, count, oldest_ns)| {
        let oldest = if *count > 1 { "oldest " } else { "" };
        format!("{count} in {on} ({oldest}{})", words::duration(*oldest_ns))
    });
    let more = (rest > 0).then(|| format!("{rest} elsewhere"));
    format!(" Its jobs: {}.", told.chain(more).collect::<Vec<_>>().join("; "))
}

pub(crate) fn full(pool: &v1::Pool, jobs: &str) -> Option<Finding> {
    let saturated_ns = pool.saturated_ns.filter(|&ns| ns >= FULL_NS)?;
    let (busy, capacity, queued) = (pool.busy?, pool.capacity?, pool.queued?);
    let blocking = pool.kind() == Kind::Blocking;
    let name =
        if blocking { "blocking pool".to_owned() } else { format!("pool {}", words::printable(&pool.name)) };
    let what = if blocking { "job" } else { "request" };
    let waits = if queued == 1 {
        format!("1 {what} waits")
    } else {
        format!("{} {what}s wait", words::count(queued))
    };
    let oldest = pool.oldest_wait_ns.map_or(String::new(), |ns| format!(", oldest {}", words::duration(ns)));
    let remedy = if blocking {
        "find what its jobs block on, or raise max_blocking_threads"
    } else {
        "find what holds its members, or raise its capacity"
    };
    Some(Finding {
        severity: Severity::Warning,
        sentence: format!(
            "FULL: {name} {busy} of {capacity} for {}, {waits}{oldest}.{jobs} Do: {remedy}.",
            words::duration(saturated_ns)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MS, S, model, sentences};
    use super::*;
    use crate::interned::fixture::{frame, hashing, share};

    #[test]
    fn a_full_pool_says_how_long_and_who_waits() {
        let blocking = v1::Pool {
            kind: Kind::Blocking.into(),
            capacity: Some(8),
            busy: Some(8),
            queued: Some(61),
            oldest_wait_ns: Some(8_700 * MS),
            saturated_ns: Some(9 * S),
            ..Default::default()
        };
        let database = v1::Pool {
            name: "db".into(),
            kind: Kind::User.into(),
            capacity: Some(2),
            busy: Some(2),
            queued: Some(1),
            saturated_ns: Some(S),
            ..Default::default()
        };
        let calm = v1::Pool { saturated_ns: None, ..database.clone() };
        let model = model(v1::Frame { pools: vec![blocking, database, calm], ..Default::default() });
        assert_eq!(
            sentences(&check(&model)),
            [
                "FULL: blocking pool 8 of 8 for 9.0 s, 61 jobs wait, oldest 8.7 s. Do: find what its jobs block on, or \
                 raise max_blocking_threads.",
                "FULL: pool db 2 of 2 for 1.0 s, 1 request waits. Do: find what holds its members, or raise its capacity.",
            ]
        );
    }

    #[test]
    fn what_its_jobs_are_doing_is_told_with_the_oldest_first() {
        let blocking = v1::Pool { queued: Some(61), saturated_ns: Some(9 * S), ..pool(Kind::Blocking, 6, 6) };
        let job = |stack_sid, covered_ns| v1::Thread {
            stacks: vec![share(stack_sid, 2, covered_ns)],
            ..Default::default()
        };
        let stuck = v1::LivePoll {
            kind: v1::TaskKind::Blocking.into(),
            stacks: vec![share(1, 3, 8 * S)],
            since_ns: 9 * S,
            ..Default::default()
        };
        let bracketed = v1::Thread { poll: Some(stuck), ..Default::default() };
        let threads = vec![job(3, S), job(2, 2 * S), bracketed, job(2, 3 * S), job(4, 5 * S), job(5, S / 2)];
        let mut model = model(v1::Frame { pools: vec![blocking], threads, ..Default::default() });
        let in_pool = |own: &str| {
            let pool = "/c/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src/runtime/blocking/task.rs:42";
            let job = format!(
                "<tokio::runtime::blocking::task::BlockingTask<T> as core::future::future::Future>::poll@{pool}"
            );
            vec![frame(own), frame(&job)]
        };
        model.stacks.insert(1, hashing());
        model.stacks.insert(2, in_pool("api::mail::send@/home/a/api/src/mail.rs:7"));
        model.stacks.insert(3, in_pool("api::thumb::make@/home/a/api/src/thumb.rs:11"));
        // A worker's thread, and one that waits for a job, are none of the pool's jobs.
        model.stacks.insert(4, vec![frame("tokio::runtime::scheduler::multi_thread::worker::run@x:1")]);
        model.stacks.insert(5, in_pool("api::audit::write@/home/a/api/src/audit.rs:5"));
        assert_eq!(
            sentences(&check(&model)),
            [
                "FULL: blocking pool 6 of 6 for 9.0 s, 61 jobs wait. Its jobs: 1 in bcrypt::hash, src/login.rs:40 (9.0 s); \
                 2 in api::mail::send, src/mail.rs:7 (oldest 3.0 s); 1 in api::thumb::make, src/thumb.rs:11 (1.0 s); 1 \
                 elsewhere. Do: find what its jobs block on, or raise max_blocking_threads."
            ]
        );
    }

    fn said(pools: Vec<v1::Pool>) -> Vec<String> {
        let model = model(v1::Frame { pools, ..Default::default() });
        sentences(&check(&model)).into_iter().map(str::to_owned).collect()
    }

    fn pool(kind: Kind, busy: u64, capacity: u64) -> v1::Pool {
        v1::Pool { kind: kind.into(), busy: Some(busy), capacity: Some(capacity), ..Default::default() }
    }

    #[test]
    fn what_the_process_runs_out_of_is_said_before_it_has() {
        let files = |open| pool(Kind::FileDescriptors, open, 1024);
        assert_eq!(
            said(vec![files(981), files(921)]),
            [
                "FILE DESCRIPTORS: 981 of 1 024 open. Do: find what does not close them, or raise the limit (ulimit -n)."
            ]
        );
        let memory = |percent| pool(Kind::Memory, (2u64 << 30) * percent / 100, 2 << 30);
        assert_eq!(
            said(vec![memory(96), memory(94)]),
            [
                "MEMORY: 1.9 GiB of the cgroup's 2.0 GiB in use; at the limit the process is killed. Do: find what grows, or \
                 raise the limit."
            ]
        );
        assert_eq!(said(vec![v1::Pool { capacity: None, ..files(981) }]), [""; 0]);
    }

    #[test]
    fn connections_that_nobody_accepts_are_said_and_a_burst_is_not() {
        let backlog = |waiting, waiting_ns| v1::Pool {
            name: "accept 0.0.0.0:8080".into(),
            queued: Some(waiting),
            waiting_ns: Some(waiting_ns),
            ..pool(Kind::AcceptBacklog, waiting, 128)
        };
        assert_eq!(
            said(vec![backlog(17, 3_200 * MS), backlog(90, 900 * MS)]),
            [
                "ACCEPT BACKLOG: 17 connections wait to be accepted on 0.0.0.0:8080 (128 may), at every look for 3.2 s. Do: \
                 find what keeps its task from accepting."
            ]
        );
    }

    #[test]
    fn a_run_queue_is_no_finding_of_its_own() {
        let queue = v1::Pool {
            kind: Kind::GlobalQueue.into(),
            queued: Some(4_000),
            waiting_ns: Some(9 * S),
            ..Default::default()
        };
        assert_eq!(said(vec![queue]), [""; 0]);
    }
}
