//! A service in trouble, as its frames tell it: what every test of state and view looks at.

use std::time::{Duration, Instant};

use taskscope_proto::columns::{self, RawRow};
use taskscope_proto::ids::{GroupId, RuntimeId, Sid, TaskId};
use taskscope_proto::row::Wakes;
use taskscope_proto::v1::{self, capability, event, loss, pool, runtime, thread_activity, worker};
use taskscope_proto::v1::{Outcome, TaskClass, TaskKind, TaskState};

use crate::app::{
    App, Code, CodeOf, Command, LinkView, Message, Options, Sentence, Severity, StripView, TargetChoice,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000_000_000;
/// Ids of the rows of [`task_window`].
pub(crate) const FIRST_ID: u64 = 9_214;
pub(crate) const ID_STEP: u64 = 37;
const AT: u64 = 725 * S;

const TEXTS: [&str; 12] = [
    "session-watch",
    "mailer",
    "POST /resize",
    "GET /orders/{id}",
    "POST /login",
    "axum/src/serve/mod.rs:88:21",
    "src/session.rs:71:9",
    "src/mail.rs:33:5",
    "hyper-util/src/rt/tokio.rs:41:9",
    "src/queue.rs:120:13",
    "job-queue",
    "GET /healthz",
];

pub(crate) fn sid(text: &str) -> u32 {
    TEXTS.iter().position(|known| *known == text).map_or(0, |at| at as u32 + 1)
}

/// An app and the clock that its messages are told by.
pub(crate) struct Scene {
    pub(crate) app: App,
    pub(crate) now: Instant,
}

impl Scene {
    pub(crate) fn new(strip: bool, colour: bool) -> Self {
        let app = App::new(Options { target: "orders-api".into(), colour, strip, syscall_name });
        #[allow(clippy::disallowed_methods, reason = "some moment to count from; only differences are told")]
        let now = Instant::now();
        Self { app, now }
    }

    /// Connected to the service in trouble.
    pub(crate) fn live() -> Self {
        let mut scene = Self::new(false, true);
        scene.tell(Message::Described(Box::new(description())));
        scene.tell(Message::Link(LinkView::Live));
        scene.frame(frame());
        scene.tell(Message::Sentences(sentences()));
        scene
    }

    pub(crate) fn tell(&mut self, message: Message) -> Vec<Command> {
        self.app.update(message, self.now)
    }

    pub(crate) fn sized(mut self, columns: u16, rows: u16) -> Self {
        self.tell(Message::Resized { columns, rows });
        self
    }

    /// A frame that answers the present request.
    pub(crate) fn frame(&mut self, frame: v1::Frame) -> Vec<Command> {
        let request = self.app.watch_request();
        let tasks = request.tasks.as_ref().and(frame.tasks);
        self.tell(Message::Frame(Box::new(v1::Frame { request_id: request.request_id, tasks, ..frame })))
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.tell(Message::Tick);
    }
}

fn syscall_name(arch: &str, number: u32) -> Option<&'static str> {
    match (arch, number) {
        ("x86_64", 230) => Some("clock_nanosleep"),
        ("x86_64", 74) => Some("fsync"),
        _ => None,
    }
}

pub(crate) fn description() -> v1::Description {
    use capability::{Coverage, Kind};
    let capability = |kind: Kind, coverage: Coverage, reason: &str, hint: &str| v1::Capability {
        kind: kind.into(),
        coverage: coverage.into(),
        reason: reason.into(),
        hint: hint.into(),
    };
    v1::Description {
        revision: 1,
        probe_version: "0.1.0".into(),
        name: "orders-api".into(),
        pid: 4242,
        instance: "3f9ac1d2".into(),
        started_unix_ns: 1_800_000_000 * S,
        host: Some("web-1".into()),
        arch: "x86_64".into(),
        capabilities: vec![
            capability(
                Kind::Tasks,
                Coverage::Partial,
                "tasks of a LocalSet have no hooks",
                "spawn them with probe.spawn",
            ),
            capability(Kind::Polls, Coverage::Full, "", ""),
            capability(
                Kind::Wakes,
                Coverage::None,
                "runtime hooks do not see wakes",
                "spawn through the wrapper: probe.spawn",
            ),
            capability(
                Kind::Outcomes,
                Coverage::None,
                "hooks do not tell cancelled from completed",
                "spawn through the wrapper: probe.spawn",
            ),
            capability(Kind::Labels, Coverage::Full, "", ""),
            capability(Kind::Workers, Coverage::Full, "", ""),
            capability(Kind::ThreadActivity, Coverage::Full, "", ""),
            capability(Kind::History, Coverage::Full, "", ""),
        ],
        slow_poll_threshold_ns: 100 * MS,
        deployment: None,
        resource: vec![],
    }
}

fn asleep(observed_ns: u64) -> v1::ThreadActivity {
    v1::ThreadActivity {
        state: thread_activity::State::Asleep.into(),
        syscall: Some(230),
        on_cpu_ns: Some(2 * MS),
        waiting_for_cpu_ns: Some(0),
        observed_ns,
        ..v1::ThreadActivity::default()
    }
}

fn stuck(task_id: u64, since_ns: u64) -> v1::LivePoll {
    v1::LivePoll {
        task_id,
        kind: TaskKind::Task.into(),
        label_sid: sid("POST /resize"),
        group_id: 2,
        spawned_at_sid: sid("axum/src/serve/mod.rs:88:21"),
        since_ns,
        activity: Some(asleep(since_ns - 50 * MS)),
        label_since_ns: Some(since_ns),
        ..v1::LivePoll::default()
    }
}

fn strings() -> Vec<v1::InternedString> {
    let text = |(at, text): (usize, &&str)| v1::InternedString { sid: at as u32 + 1, text: (*text).into() };
    TEXTS.iter().enumerate().map(text).collect()
}

fn worker(index: u32, poll: v1::LivePoll) -> v1::Worker {
    v1::Worker {
        index,
        tid: Some(4243 + index),
        state: worker::State::InPoll.into(),
        since_ns: Some(poll.since_ns),
        busy_ratio: Some(1.0),
        local_queue: Some(20),
        poll: Some(poll),
        busy_ns_total: None,
    }
}

fn pools() -> Vec<v1::Pool> {
    vec![
        v1::Pool {
            name: "postgres".into(),
            kind: pool::Kind::User.into(),
            capacity: Some(20),
            busy: Some(7),
            idle: Some(13),
            queued: Some(0),
            ..v1::Pool::default()
        },
        v1::Pool {
            name: "blocking".into(),
            kind: pool::Kind::Blocking.into(),
            capacity: Some(8),
            busy: Some(8),
            idle: Some(0),
            queued: Some(61),
            oldest_wait_ns: Some(8_700 * MS),
            saturated_ns: Some(9 * S),
            runtime_id: 1,
            ..v1::Pool::default()
        },
        v1::Pool {
            name: "local queues".into(),
            kind: pool::Kind::LocalQueues.into(),
            queued: Some(40),
            waiting_ns: Some(3_100 * MS),
            runtime_id: 1,
            ..v1::Pool::default()
        },
        v1::Pool {
            name: "file descriptors".into(),
            kind: pool::Kind::FileDescriptors.into(),
            capacity: Some(1_024),
            busy: Some(981),
            idle: Some(43),
            ..v1::Pool::default()
        },
        v1::Pool {
            name: "memory".into(),
            kind: pool::Kind::Memory.into(),
            capacity: Some(2 << 30),
            busy: Some(1 << 30),
            age_ns: Some(4 * S),
            ..v1::Pool::default()
        },
        v1::Pool {
            name: "accept 0.0.0.0:8080".into(),
            kind: pool::Kind::AcceptBacklog.into(),
            capacity: Some(128),
            busy: Some(3),
            queued: Some(3),
            waiting_ns: Some(2_100 * MS),
            ..v1::Pool::default()
        },
    ]
}

fn events() -> Vec<v1::Event> {
    let event = |seq: u64, at_ns: u64, kind: event::Kind, poll: v1::LivePoll| v1::Event {
        seq,
        at_ns,
        kind: kind.into(),
        tid: Some(4243),
        poll: Some(poll),
        ..v1::Event::default()
    };
    let on_cpu = v1::ThreadActivity {
        state: thread_activity::State::OnCpu.into(),
        on_cpu_ns: Some(160 * MS),
        waiting_for_cpu_ns: Some(0),
        observed_ns: 162 * MS,
        ..v1::ThreadActivity::default()
    };
    let login = v1::LivePoll {
        task_id: 9_101,
        label_sid: sid("POST /login"),
        spawned_at_sid: sid("axum/src/serve/mod.rs:88:21"),
        since_ns: 212 * MS,
        activity: Some(on_cpu),
        ..v1::LivePoll::default()
    };
    let unlabelled = v1::LivePoll {
        task_id: 88,
        spawned_at_sid: sid("hyper-util/src/rt/tokio.rs:41:9"),
        since_ns: 1_300 * MS,
        ..v1::LivePoll::default()
    };
    let mail = v1::LivePoll { task_id: 31, name_sid: sid("mailer"), ..v1::LivePoll::default() };
    vec![
        event(101, AT - 95 * S, event::Kind::TaskPanic, mail),
        event(102, AT - 61 * S, event::Kind::PollSlow, unlabelled),
        event(103, AT - 12 * S, event::Kind::PollSlow, login),
        event(104, AT - 3_100 * MS, event::Kind::PollStuck, stuck(9_214, 100 * MS)),
        event(105, AT - 2_200 * MS, event::Kind::PollStuck, stuck(9_214, S)),
        event(106, AT - 2_100 * MS, event::Kind::PollStuck, stuck(9_216, S)),
    ]
}

fn history() -> v1::HistoryChunk {
    let seconds = 0..180_u64;
    let wave = |at: u64| (at * 7919 % 31) * 11;
    v1::HistoryChunk {
        first_at_ns: AT - 180 * S,
        step_ns: S,
        alive: seconds
            .clone()
            .map(|at| if at < 147 { 212 + wave(at) / 40 } else { 212 + (at - 147) * 38 })
            .collect(),
        polls: seconds.clone().map(|at| if at < 177 { 11_800 + wave(at) * 4 } else { 40 }).collect(),
        requests: seconds.clone().map(|at| if at < 177 { 1_100 + wave(at) } else { 0 }).collect(),
        busy_permille_plus1: seconds
            .clone()
            .map(|at| if at < 177 { 141 + wave(at) as u32 / 9 } else { 1_001 })
            .collect(),
        queued_plus1: seconds.clone().map(|at| if at < 177 { 1 } else { 42 }).collect(),
        stuck_workers: seconds.map(|at| if at < 177 { 0 } else { 2 }).collect(),
        ..v1::HistoryChunk::default()
    }
}

/// The first frame of the service in trouble.
pub(crate) fn frame() -> v1::Frame {
    v1::Frame {
        seq: 1,
        at_ns: AT,
        unix_ns: 1_800_000_725 * S,
        resync: true,
        strings: strings(),
        totals: Some(v1::Totals {
            followed: 1_473,
            alive: Some(1_485),
            running: 2,
            scheduled: None,
            spawned_total: 98_412,
            ended_total: 96_927,
            polls_total: 8_410_022,
            panicked_total: 3,
            requests_total: Some(801_220),
            window_ns: 10 * S,
            polls_window: 84_140,
            requests_window: Some(7_790),
        }),
        runtimes: vec![v1::Runtime {
            id: 1,
            flavor: runtime::Flavor::MultiThread.into(),
            workers: vec![worker(0, stuck(9_214, 3_200 * MS)), worker(1, stuck(9_216, 3_100 * MS))],
            global_queue: Some(1),
            alive_tasks: Some(1_485),
            ready_tasks: Some(41),
            oldest_ready_ns: Some(3_100 * MS),
            ..v1::Runtime::default()
        }],
        pools: pools(),
        tasks: Some(task_window(40, 1_485)),
        groups: Some(group_window()),
        events: events(),
        history: Some(history()),
        losses: vec![v1::Loss { reason: loss::Reason::EvictedTasks.into(), count: 12 }],
        probe: Some(v1::ProbeHealth {
            memory_bytes: 1_480_000,
            memory_limit_bytes: 32 << 20,
            cpu_ratio: Some(0.004),
            watchers: 2,
            ..v1::ProbeHealth::default()
        }),
        ..v1::Frame::default()
    }
}

/// Rows as a busy service has them, the busiest first.
pub(crate) fn task_window(rows: u64, matching: u64) -> v1::TaskWindow {
    let mut columns = v1::TaskRows::default();
    for at in 0..rows {
        columns::push(&mut columns, &task(at));
    }
    v1::TaskWindow { order: columns.id.clone(), rows: Some(columns), matching, unknown_ids: Vec::new() }
}

fn task(at: u64) -> RawRow {
    let handler = at.is_multiple_of(3);
    let wrapped = at % 7 == 4;
    let (name, spawned_at) = match at % 3 {
        0 => ("", "axum/src/serve/mod.rs:88:21"),
        1 => ("session-watch", "src/session.rs:71:9"),
        _ => ("", "src/queue.rs:120:13"),
    };
    let label = match at % 6 {
        0 => "POST /resize",
        3 => "GET /orders/{id}",
        _ => "",
    };
    let is_main = at == 5;
    let busy_ns = (9_700 - at * 211) * MS;
    let age_ns = (724 - at * 13) * S;
    let running = at < 2;
    let state = match (running, at % 9) {
        (true, _) => TaskState::Running,
        (false, 8) => TaskState::Ended,
        (false, 4) => TaskState::Scheduled,
        _ => TaskState::Idle,
    };
    let outcome = match (state, at % 2) {
        (TaskState::Ended, 0) => Outcome::Panicked,
        (TaskState::Ended, _) => Outcome::Completed,
        _ => Outcome::Unspecified,
    };
    RawRow {
        id: if is_main { TaskId(TaskId::OWN | 1) } else { TaskId(FIRST_ID + at * ID_STEP) },
        kind: if is_main {
            TaskKind::Main
        } else if wrapped {
            TaskKind::Wrapped
        } else {
            TaskKind::Task
        },
        state,
        outcome,
        name: Sid(if is_main { 0 } else { sid(name) }),
        label: Sid(sid(label)),
        group: GroupId(2 + (at % 3) as u32),
        spawned_at: Sid(if is_main { 0 } else { sid(spawned_at) }),
        runtime: RuntimeId(1),
        polls: if at == 39 { 0 } else { 1_204_822 / (at + 1) },
        busy_ns,
        scheduled_ns: wrapped.then_some(at * 3 * MS),
        idle_ns: wrapped.then(|| age_ns - busy_ns),
        age_ns,
        since_ns: if running { 3_200 * MS - at * 100 * MS } else { at * at * 97 * MS },
        longest_poll_ns: if handler { 3_200 * MS / (at + 1) } else { (at + 1) * 43_000 },
        wakes: wrapped.then_some(Wakes { total: at * 7, by_itself: 0, by: None, wakers: 1 }),
        cancel: None,
        class: TaskClass::Unspecified,
        reason: Sid(0),
        fields: Sid(0),
    }
}

fn group_window() -> v1::GroupWindow {
    let polls =
        |total: u64, busy_ms: u64, p99_ms: Option<u64>, max_ms: Option<u64>, slow: u64| v1::PollStats {
            polls_total: total,
            busy_ns_total: busy_ms * MS,
            longest_ns: max_ms.unwrap_or(1) * 3 * MS,
            window_ns: 10 * S,
            polls_window: total / 400,
            slow_window: slow,
            p99_window_ns: p99_ms.map(|ms| ms * MS),
            max_window_ns: max_ms.map(|ms| ms * MS),
            slow_on_cpu_ratio: (slow > 0).then_some(0.98),
            ..v1::PollStats::default()
        };
    let group = |id: u32, name: &str, at: &str, live: u64, before: u64, polls: v1::PollStats| v1::Group {
        id,
        name_sid: sid(name),
        spawned_at_sid: sid(at),
        live,
        peak_live: live + live / 9,
        spawned_total: live * 7 + 20,
        ended_total: live * 6 + 20,
        panicked_total: if name == "mailer" { 3 } else { 0 },
        polls: Some(polls),
        trend: Some(v1::Trend {
            window_ns: if live > before { 33 * S } else { 0 },
            live_before: before,
            spawned: live - before,
            ended: 0,
            growing_seconds: if live > before { 31 } else { 0 },
        }),
        ..v1::Group::default()
    };
    let label = |text: &str, requests: Option<u64>, polls: v1::PollStats| v1::Label {
        label_sid: sid(text),
        requests_total: requests,
        polls: Some(polls),
    };
    v1::GroupWindow {
        total: 6,
        groups: vec![
            group(
                2,
                "",
                "axum/src/serve/mod.rs:88:21",
                96,
                90,
                polls(4_112_000, 61_000, Some(212), Some(230), 41),
            ),
            group(
                3,
                "session-watch",
                "src/session.rs:71:9",
                1_312,
                40,
                polls(90_100, 410, Some(1), Some(2), 0),
            ),
            group(4, "job-queue", "src/queue.rs:120:13", 8, 8, polls(810_000, 9_100, Some(4), Some(19), 0)),
            group(5, "mailer", "src/mail.rs:33:5", 1, 1, polls(12, 2, None, None, 0)),
            group(
                6,
                "",
                "hyper-util/src/rt/tokio.rs:41:9",
                56,
                56,
                polls(3_100_020, 31_000, Some(8), Some(31), 0),
            ),
            v1::Group { id: 0, live: 12, spawned_total: 12, ..v1::Group::default() },
        ],
        labels: vec![
            label("POST /login", Some(40_112), polls(80_224, 41_000, Some(212), Some(230), 41)),
            label("GET /orders/{id}", Some(690_008), polls(1_380_400, 22_000, Some(2), Some(9), 0)),
            label("POST /resize", Some(4_100), polls(8_200, 11_000, Some(3), Some(11), 0)),
            label("GET /healthz", Some(67_000), polls(67_000, 300, Some(1), Some(1), 0)),
            label("job-queue", None, polls(8_000, 4_000, Some(4), Some(19), 0)),
        ],
    }
}

pub(crate) fn sentences() -> Vec<Sentence> {
    let sentence = |severity: Severity, text: &str| Sentence { severity, text: text.into() };
    vec![
        sentence(
            Severity::Warning,
            "SLOW: POST /login polls take 212 ms (p99), all of it on CPU; move it to spawn_blocking.",
        ),
        sentence(
            Severity::Critical,
            "STUCK 3.2 s: 2 of 2 workers, both in POST /resize, asleep in clock_nanosleep. 41 tasks ready behind them, \
             oldest 3.1 s.",
        ),
        sentence(Severity::Warning, "FULL: blocking pool 8 of 8 for 9 s, 61 jobs wait, oldest 8.7 s."),
        sentence(
            Severity::Warning,
            "GROWING: session-watch (src/session.rs:71) 40 → 1 312 in 33 s; none of the last 1 272 has ended.",
        ),
        sentence(Severity::Note, "Not seen: wakes; tasks spawned through the wrapper have them."),
    ]
}

/// A service with nothing to say.
/// Where the workers of [`frame`] are, the tasks that they poll, and where two of its events were.
pub(crate) fn code() -> Vec<Code> {
    let sleeps = |of| Code {
        of,
        on: "std::thread::sleep, src/storage.rs:37".into(),
        words: "2.9 of 3.1 s in std::thread::sleep, src/storage.rs:37".into(),
        stack: [
            ("clock_nanosleep", false),
            ("std::sys::nanosleep at std/src/sys/thread/unix.rs:553", false),
            ("std::thread::sleep at std/src/thread/functions.rs:289", false),
            ("shop::storage::Storage::look_up at src/storage.rs:37", true),
            ("shop::api::resize at src/api.rs:88", false),
        ]
        .map(|(frame, is_line)| (frame.to_owned(), is_line))
        .into(),
    };
    let mut deep = sleeps(CodeOf::Event(103));
    (deep.on, deep.words) =
        ("bcrypt::hash, src/login.rs:40".into(), "in bcrypt::hash, src/login.rs:40".into());
    deep.stack = (0..30).map(|at| (format!("depth::f{at} at src/depth.rs:{at}"), at == 25)).collect();
    let of = [CodeOf::Thread(4243), CodeOf::Thread(4244), CodeOf::Task(9_214), CodeOf::Event(105)];
    of.map(sleeps).into_iter().chain([deep]).collect()
}

pub(crate) fn healthy() -> (v1::Frame, Vec<Sentence>) {
    let idle = |index: u32| v1::Worker {
        index,
        tid: Some(4243 + index),
        state: if index == 1 { worker::State::Active } else { worker::State::Parked }.into(),
        since_ns: Some(u64::from(index + 1) * 830_000),
        busy_ratio: Some(0.14 + f64::from(index) * 0.02),
        local_queue: Some(0),
        poll: None,
        busy_ns_total: None,
    };
    let brief = v1::LivePoll {
        task_id: 9_303,
        label_sid: sid("GET /orders/{id}"),
        spawned_at_sid: sid("axum/src/serve/mod.rs:88:21"),
        since_ns: 34_000,
        ..v1::LivePoll::default()
    };
    let main = v1::Thread {
        tid: 4242,
        poll: Some(v1::LivePoll {
            task_id: TaskId::OWN | 1,
            kind: TaskKind::Main.into(),
            since_ns: 21_000,
            ..brief.clone()
        }),
        ..v1::Thread::default()
    };
    let mut workers: Vec<v1::Worker> = (0..4).map(idle).collect();
    workers[2] = v1::Worker { busy_ratio: Some(0.31), ..worker(2, brief) };
    let base = frame();
    let frame = v1::Frame {
        runtimes: vec![v1::Runtime {
            workers,
            ready_tasks: Some(0),
            oldest_ready_ns: None,
            ..base.runtimes[0].clone()
        }],
        threads: vec![main],
        pools: vec![
            v1::Pool {
                busy: Some(2),
                queued: Some(0),
                oldest_wait_ns: None,
                saturated_ns: None,
                idle: Some(6),
                ..base.pools[1].clone()
            },
            base.pools[0].clone(),
        ],
        totals: Some(v1::Totals { panicked_total: 0, ..base.totals.unwrap_or_default() }),
        events: Vec::new(),
        losses: Vec::new(),
        ..base
    };
    let text = "healthy. 212 tasks, 1.1 k requests/s, workers 14 % busy, nothing waits.";
    (frame, vec![Sentence { severity: Severity::Healthy, text: text.into() }])
}

pub(crate) fn strip() -> StripView {
    StripView {
        truth: "stuck-poll injected 3.4 s ago: POST /resize sleeps in its handler on both workers".into(),
        said: Some("named after 0.6 s: STUCK 0.6 s: 2 of 2 workers, both in POST /resize, asleep in clock_nanosleep.".into()),
    }
}

pub(crate) fn targets() -> Vec<TargetChoice> {
    let choice = |name: &str, pid: u32, instance: &str, up_ns: u64| TargetChoice {
        address: format!("unix:/run/user/1000/taskscope/{name}.{instance}.sock"),
        name: name.into(),
        pid: Some(pid),
        instance: instance.into(),
        up_ns: Some(up_ns),
        trouble: None,
    };
    vec![
        choice("orders-api", 4242, "3f9ac1d2", 725 * S),
        choice("image-resizer", 77, "aa01bb02", 93_784 * S),
        TargetChoice {
            pid: None,
            up_ns: None,
            trouble: Some(
                "nobody listens there\nhint: the process is gone, and its socket file can be deleted".into(),
            ),
            ..choice("orders-api", 1, "0d0e0f00", 0)
        },
    ]
}
