//! `taskscope stacks`: where in its code each running task is, as text, JSON, folded stacks, or a flame graph.

use std::collections::HashSet;

use serde::Serialize;
use taskscope_proto::ids::TaskId;
use taskscope_proto::v1::{self, StackShare, capability::Coverage};
use taskscope_proto::{activity, words};

use super::flame::{self, Flame};
use super::json_line;
use super::tasks::id_words;
use crate::cli;
use crate::interned;
use crate::model::{self, Model};
use crate::stack::function::Path;
use crate::stack::share::Spent;
use crate::stack::{self, Shared, Stack, Thread, share};
use crate::symbols::Frame;

/// Why there are no stacks to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoStacks {
    #[error("{0} takes no stacks: {1}{2}")]
    Off(String, String, String),
    #[error(
        "the probe of {0} ({1}) knows of no stacks\nhint: build the service with a newer taskscope-probe"
    )]
    OlderProbe(String, String),
    #[error(
        "the recording has no stacks\nhint: save one while polls are slow, of a target that takes stacks"
    )]
    NotRecorded,
}

/// The frame that shows stacks: nothing else is asked for.
pub(crate) fn request(tasks: &[u64]) -> v1::WatchRequest {
    v1::WatchRequest {
        stacks: Some(v1::StackQuery { task_ids: tasks.to_vec(), other_threads: tasks.is_empty() }),
        once: true,
        ..Default::default()
    }
}

/// Whether a target that says this of itself takes stacks, and what to tell where it does so only in part. The capabilities
/// are those that it has now.
pub(crate) fn allowed(
    description: &v1::Description,
    capabilities: &[v1::Capability],
) -> Result<Option<String>, NoStacks> {
    let name = || words::printable(&description.name);
    let Some(stacks) = interned::coverage(capabilities) else {
        return Err(NoStacks::OlderProbe(name(), words::printable(&description.probe_version)));
    };
    let (reason, hint) = (words::printable(&stacks.reason), words::printable(&stacks.hint));
    let hint = if hint.is_empty() { hint } else { format!("\nhint: {hint}") };
    match stacks.coverage() {
        Coverage::Full => Ok(None),
        Coverage::Partial => Ok(Some(format!("{reason}{hint}"))),
        Coverage::None | Coverage::Unspecified => Err(NoStacks::Off(name(), reason, hint)),
    }
}

/// A poll, or a job of the blocking pool, with its stacks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running {
    tid: Option<u32>,
    /// `None`: a thread without a bracket.
    poll: Option<v1::LivePoll>,
    /// As the system calls the thread.
    name: Option<String>,
    activity: Option<v1::ThreadActivity>,
    shares: Vec<StackShare>,
    since_ns: u64,
    /// A thread that Tokio does not know.
    is_other: bool,
    /// Of such a one: why there is no stack.
    no_stack: Option<&'static str>,
}

impl Running {
    fn of_poll(tid: Option<u32>, poll: &v1::LivePoll) -> Self {
        Self {
            tid,
            activity: poll.activity,
            shares: poll.stacks.clone(),
            since_ns: poll.since_ns,
            poll: Some(poll.clone()),
            ..Self::default()
        }
    }

    fn of_thread(thread: &v1::Thread) -> Self {
        match &thread.poll {
            Some(poll) => Self { name: thread.name.clone(), ..Self::of_poll(Some(thread.tid), poll) },
            None => Self {
                tid: Some(thread.tid),
                poll: None,
                name: thread.name.clone(),
                activity: thread.activity,
                shares: thread.stacks.clone(),
                since_ns: model::seen_ns(thread),
                is_other: thread.is_other,
                no_stack: no_stack_words(thread.no_stack()),
            },
        }
    }

    fn task(&self) -> Option<u64> {
        self.poll.as_ref().map(|poll| poll.task_id).filter(|&task| task != 0)
    }

    /// Whether it is the same poll as `older`, later.
    fn goes_on(&self, older: &Self) -> bool {
        (self.tid, self.task()) == (older.tid, older.task()) && self.since_ns >= older.since_ns
    }
}

/// What runs as of the model's last frame, the longest first.
pub(crate) fn running(model: &Model) -> Vec<Running> {
    let workers = model.frame.runtimes.iter().flat_map(|runtime| &runtime.workers);
    let polls = workers.filter_map(|worker| Some(Running::of_poll(worker.tid, worker.poll.as_ref()?)));
    let mut all: Vec<Running> = polls.chain(model.frame.threads.iter().map(Running::of_thread)).collect();
    all.sort_by_key(|running| std::cmp::Reverse(running.since_ns));
    all
}

/// The stacks that `running` refers to.
pub(crate) fn wanted(running: &[Running]) -> Vec<u32> {
    running.iter().flat_map(|running| running.shares.iter().map(|share| share.stack_sid)).collect()
}

/// What ran in a recording: every poll of which a stack was taken, as it was last seen.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    polls: Vec<Running>,
    /// Of `polls`, those that may go on.
    open: Vec<usize>,
}

impl Ran {
    /// Takes in what the model's last frame shows.
    pub(crate) fn take(&mut self, model: &Model) {
        let events = model.frame.events.iter().filter_map(|event| {
            let poll = event.poll.as_ref()?;
            Some(Running::of_poll(event.tid, poll))
        });
        for seen in events.chain(running(model)).filter(|seen| !seen.shares.is_empty()) {
            let before = self
                .open
                .iter()
                .position(|&at| (self.polls[at].tid, self.polls[at].task()) == (seen.tid, seen.task()));
            match before.map(|open| (open, self.open[open])) {
                Some((_, at)) if seen.goes_on(&self.polls[at]) => self.polls[at] = seen,
                Some((open, _)) => {
                    self.open[open] = self.polls.len();
                    self.polls.push(seen);
                }
                None => {
                    self.open.push(self.polls.len());
                    self.polls.push(seen);
                }
            }
        }
    }

    pub(crate) fn polls(self) -> Result<Vec<Running>, NoStacks> {
        if self.polls.is_empty() { Err(NoStacks::NotRecorded) } else { Ok(self.polls) }
    }
}

/// The most of a poll's time, as programs read it.
#[derive(Serialize)]
pub(crate) struct Line {
    /// `bcrypt::hash, src/login.rs:40`
    text: String,
    /// The user's function.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    /// As the compiler was given it.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    samples: u32,
    covered_ns: u64,
}

impl Line {
    pub(crate) fn of(spent: &[Spent]) -> Option<Self> {
        let most = spent.first()?;
        let own = most.stack.line();
        Some(Self {
            text: most.on.clone(),
            function: own.and_then(Path::whole_name),
            file: own.and_then(|frame| frame.file.clone()),
            line: own.and_then(|frame| frame.line),
            samples: most.samples,
            covered_ns: most.covered_ns,
        })
    }
}

#[derive(Serialize)]
struct Task<'a> {
    /// Absent: not a followed task.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spawned_at: Option<&'a str>,
    kind: &'static str,
    /// Absent: it was seen but once, and nothing says when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_name: Option<&'a str>,
    /// A thread of the application that Tokio does not know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_other_thread: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<Line>,
    /// The innermost first, of the stack that has the most of the time.
    frames: Vec<JsonFrame>,
    /// Absent: they go on to the thread's first function, or to the task's poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_because: Option<&'static str>,
    /// Why there are no frames, where the thread itself is the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_stack_because: Option<&'static str>,
}

#[derive(Serialize)]
struct JsonFrame {
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_id: Option<String>,
    /// In the module, as its debug information counts.
    address: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    inlined: bool,
    /// The first of the user's own code.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_line: bool,
}

impl JsonFrame {
    fn of((frame, is_line): (&Frame, bool)) -> Self {
        Self {
            function: Path::whole_name(frame),
            file: frame.file.clone(),
            line: frame.line,
            module: frame.module.as_ref().map(|module| module.path.clone()),
            build_id: frame.module.as_ref().and_then(|module| module.build_id()),
            address: frame.address,
            inlined: frame.inlined,
            is_line,
        }
    }
}

/// What is shown of what.
pub(crate) struct Shown<'a> {
    pub(crate) model: &'a Model,
    pub(crate) running: &'a [Running],
    pub(crate) options: &'a cli::Stacks,
}

/// One that is shown, with its names.
struct Named<'a> {
    running: &'a Running,
    /// By line, the most first; empty: no stack was taken.
    spent: Vec<Spent>,
    /// The stack that has the most of the time; also where it has no name at all.
    stack: Option<Shared>,
}

impl<'a> Shown<'a> {
    fn named(&self) -> impl Iterator<Item = Named<'a>> {
        let wanted: HashSet<u64> = self.options.tasks.iter().copied().collect();
        let model = self.model;
        self.running.iter().filter_map(move |running| {
            if !wanted.is_empty() && running.task().is_none_or(|task| !wanted.contains(&task)) {
                return None;
            }
            let mut shares: Vec<&StackShare> = running.shares.iter().collect();
            shares.sort_by_key(|share| std::cmp::Reverse(share.covered_ns));
            let mut stacks = shares.iter().filter_map(|share| model.stacks.stack(share.stack_sid));
            let stack = stacks.clone().next().cloned();
            let is_shown = match &running.poll {
                Some(_) => true,
                // A worker, or a thread of the pool, that is called as the application wants it.
                None if running.is_other => {
                    stack.as_ref().is_none_or(|stack| stack.thread != Thread::Runtime)
                }
                // These are here because one of them may run a job: what their stacks say decides.
                None => !stacks.all(|stack| matches!(stack.thread, Thread::Runtime | Thread::Other)),
            };
            if !is_shown {
                return None;
            }
            let spent = model.stacks.by_line(&running.shares);
            let stack = spent.first().map(|spent| spent.stack.clone()).or(stack);
            Some(Named { running, spent, stack })
        })
    }

    /// Who it is, as a heading: `POST /login in conn, task 17`.
    fn title(&self, named: &Named<'_>) -> String {
        let Some(poll) = &named.running.poll else {
            let is_job = named.stack.as_ref().is_some_and(|stack| stack.thread == Thread::Job);
            let name = named.running.name.as_deref().filter(|_| named.running.is_other);
            return match (is_job, name.map(words::printable)) {
                (true, _) => "a job of the blocking pool".to_owned(),
                (false, Some(name)) => format!("thread `{name}` of the application"),
                (false, None) if named.running.is_other => "a thread of the application".to_owned(),
                (false, None) => "unknown thread".to_owned(),
            };
        };
        let text = |sid| self.model.some_text(sid).map(words::printable);
        let kind = match poll.kind() {
            v1::TaskKind::Main => Some("the body of main".to_owned()),
            v1::TaskKind::Blocking => Some("a job of the blocking pool".to_owned()),
            _ => None,
        };
        let who = match (text(poll.label_sid), text(poll.name_sid).or(kind)) {
            (Some(label), Some(name)) => Some(format!("{label} in {name}")),
            (label, name) => label.or(name),
        };
        let is_task = poll.task_id != 0 && !matches!(poll.kind(), v1::TaskKind::Main);
        let task = is_task.then(|| format!("task {}", id_words(poll.task_id)));
        let site =
            text(poll.spawned_at_sid).filter(|_| who.is_none()).map(|site| format!("spawned at {site}"));
        let parts: Vec<String> = [who, task, site].into_iter().flatten().collect();
        if parts.is_empty() { "a task that is not instrumented".to_owned() } else { parts.join(", ") }
    }

    fn doing(&self, running: &Running) -> Option<String> {
        let activity = running.activity.as_ref()?;
        let number = activity.syscall.map(|number| format!("system call {number}"));
        let words = activity::words(activity, self.model.syscall(activity).or(number.as_deref()));
        Some(words).filter(|words| !words.is_empty())
    }

    fn frames<'s>(&self, stack: &'s Stack) -> Vec<(&'s Frame, bool)> {
        if self.options.all_frames { stack.all().collect() } else { stack.shown().collect() }
    }

    /// One block for each: who, since when, what its thread does, and the frames with `>` before the line.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for named in self.named() {
            if !out.is_empty() {
                out.push('\n');
            }
            let running = named.running;
            let mut title = vec![self.title(&named)];
            if running.since_ns > 0 {
                title.push(format!("for {}", words::duration(running.since_ns)));
            }
            title.extend(self.doing(running));
            title.extend(share::words(&named.spent, running.since_ns));
            if running.poll.is_none() || running.task().is_none() {
                title.extend(running.tid.map(|tid| format!("thread {tid}")));
            }
            out.push_str(&format!("{}\n", title.join(", ")));
            match &named.stack {
                Some(stack) => {
                    for (frame, is_line) in self.frames(stack) {
                        let mark = if is_line { ">" } else { " " };
                        out.push_str(&format!("  {mark} {}\n", stack::frame_words(frame)));
                    }
                    // Where the part that is shown ends at the poll, nothing of interest is missing.
                    let end =
                        stack::end_words(stack.end).filter(|_| self.options.all_frames || !stack.is_cut());
                    out.extend(end.map(|why| format!("    ({why})\n")));
                }
                None => match running.no_stack {
                    Some(why) => out.push_str(&format!("    (no stack was taken: {why})\n")),
                    None => out.push_str("    (no stack was taken)\n"),
                },
            }
            for spent in named.spent.iter().skip(1) {
                out.push_str(&format!("    also {} in {}\n", words::duration(spent.covered_ns), spent.on));
            }
        }
        if out.is_empty() {
            out.push_str("nothing runs now: no poll, and no job of a blocking pool.\n");
        }
        out.lines().map(words::printable).map(|line| line + "\n").collect()
    }

    pub(crate) fn json(&self) -> anyhow::Result<String> {
        self.named().map(|named| json_line(&self.task(&named))).collect()
    }

    fn task<'s>(&'s self, named: &'s Named<'a>) -> Task<'s> {
        let running = named.running;
        let text = |sid: Option<u32>| sid.and_then(|sid| self.model.some_text(sid));
        let poll = running.poll.as_ref();
        let activity = running.activity.as_ref();
        Task {
            task: running.task(),
            name: text(poll.map(|poll| poll.name_sid)),
            label: text(poll.map(|poll| poll.label_sid)),
            spawned_at: text(poll.map(|poll| poll.spawned_at_sid)),
            kind: "running",
            since_ns: Some(running.since_ns).filter(|&ns| running.poll.is_some() || ns > 0),
            tid: running.tid,
            thread_name: running.name.as_deref(),
            is_other_thread: running.is_other,
            thread_state: activity.and_then(|activity| super::status::thread_state(activity.state())),
            syscall: activity.and_then(|activity| {
                let number = activity.syscall?;
                Some(self.model.syscall(activity).map_or_else(|| number.to_string(), str::to_owned))
            }),
            line: Line::of(&named.spent),
            frames: named
                .stack
                .as_ref()
                .map_or_else(Vec::new, |stack| self.frames(stack).into_iter().map(JsonFrame::of).collect()),
            ends_because: named
                .stack
                .as_ref()
                .filter(|stack| self.options.all_frames || !stack.is_cut())
                .and_then(|stack| stack::end_words(stack.end)),
            no_stack_because: running.no_stack,
        }
    }

    /// Who, then the functions from the outermost, then how often it was seen.
    pub(crate) fn folded(&self) -> String {
        let mut flame = Flame::default();
        self.each_stack(|functions, share| flame.add(functions, u64::from(share.samples.max(1))));
        flame.folded()
    }

    /// As wide as the time that was spent.
    pub(crate) fn html(&self) -> String {
        let mut flame = Flame::default();
        self.each_stack(|functions, share| flame.add(functions, share.covered_ns.max(1)));
        let name = words::printable(&self.model.description.name);
        flame::html(&flame, &format!("{name}: where its running tasks are"), words::duration)
    }

    fn each_stack(&self, mut add: impl FnMut(Vec<String>, &StackShare)) {
        for named in self.named() {
            for share in &named.running.shares {
                let Some(stack) = self.model.stacks.stack(share.stack_sid) else { continue };
                let who = [self.who(&named)];
                let functions = self.frames(stack).into_iter().rev().map(|(frame, _)| function_words(frame));
                add(who.into_iter().chain(functions).collect(), share);
            }
        }
    }

    /// The root of a flame: tasks of one label or name are one.
    fn who(&self, named: &Named<'_>) -> String {
        let poll = named.running.poll.as_ref();
        let text = |sid: Option<u32>| sid.and_then(|sid| self.model.some_text(sid)).map(words::printable);
        text(poll.map(|poll| poll.label_sid))
            .or_else(|| text(poll.map(|poll| poll.name_sid)))
            .or_else(|| text(poll.map(|poll| poll.spawned_at_sid)).map(|site| format!("spawned at {site}")))
            .unwrap_or_else(|| self.title(named))
    }
}

fn no_stack_words(why: v1::thread::NoStack) -> Option<&'static str> {
    match why {
        v1::thread::NoStack::Unspecified => None,
        v1::thread::NoStack::BlocksSignal => Some("it blocks the signal"),
        v1::thread::NoStack::NoAnswer => Some("it did not answer"),
        v1::thread::NoStack::Sandboxed => Some("it has a seccomp filter of its own"),
        v1::thread::NoStack::Unreadable => Some("its stack cannot be read"),
    }
}

fn function_words(frame: &Frame) -> String {
    match (Path::of_frame(frame), &frame.module) {
        (Some(path), _) => path.joined(),
        (None, Some(module)) => format!("{}+{:#x}", module.name(), frame.address),
        (None, None) => format!("{:#x}", frame.address),
    }
}

/// Ids of `tasks` that run nothing now.
pub(crate) fn idle(tasks: &[u64], running: &[Running]) -> Vec<String> {
    let runs = |task: u64| running.iter().any(|running| running.task() == Some(task));
    tasks.iter().filter(|&&task| !runs(task)).map(|&task| id_words(TaskId(task).0)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::interned::fixture::{frame, hashing, share, sleeping};
    use crate::rules::fixture::{MS, S, model, poll};

    fn options(change: impl FnOnce(&mut cli::Stacks)) -> cli::Stacks {
        let mut options = cli::Stacks {
            target: None,
            tasks: vec![],
            all_frames: false,
            json: false,
            folded: false,
            html: None::<PathBuf>,
            names: cli::Names::default(),
        };
        change(&mut options);
        options
    }

    /// A labelled task that hashes, one without a name, a bracketed job, and threads without a bracket.
    fn fixture() -> Model {
        let hashes = v1::LivePoll {
            task_id: 17,
            name_sid: 3,
            stacks: vec![share(2, 1, 100 * MS), share(1, 5, 2_900 * MS)],
            activity: Some(v1::ThreadActivity {
                state: v1::thread_activity::State::OnCpu.into(),
                on_cpu_ns: Some(3 * S),
                observed_ns: 3 * S,
                ..Default::default()
            }),
            ..poll(3_100 * MS)
        };
        let unnamed = v1::LivePoll {
            task_id: 18,
            label_sid: 0,
            stacks: vec![share(5, 1, 0)],
            activity: None,
            ..poll(200 * MS)
        };
        let none = v1::LivePoll { task_id: 19, label_sid: 0, name_sid: 5, stacks: vec![], ..poll(S / 10) };
        let worker = |tid, poll| v1::Worker { tid: Some(tid), poll: Some(poll), ..Default::default() };
        let other = |tid, name: &str, stacks, why: v1::thread::NoStack| v1::Thread {
            tid,
            name: Some(name.into()),
            activity: poll(0).activity,
            stacks,
            is_other: true,
            no_stack: why.into(),
            ..Default::default()
        };
        let thread = |tid, sid, covered_ns| v1::Thread {
            tid,
            name: Some("tokio-rt-worker".into()),
            activity: poll(0).activity,
            stacks: vec![share(sid, 2, covered_ns)],
            ..Default::default()
        };
        let mut model = model(v1::Frame {
            runtimes: vec![v1::Runtime {
                workers: vec![
                    worker(71, hashes),
                    worker(72, unnamed),
                    worker(73, none),
                    v1::Worker::default(),
                ],
                ..Default::default()
            }],
            threads: vec![
                thread(81, 3, 9 * S),
                thread(82, 4, 60 * S),
                thread(83, 5, S),
                // Of the application's: one that works, one of a pool with a name of its own that waits for a job, and two
                // that cannot be asked.
                other(91, "indexer\u{7}", vec![share(6, 1, 0)], v1::thread::NoStack::Unspecified),
                other(92, "my-pool", vec![share(4, 1, 0)], v1::thread::NoStack::Unspecified),
                other(93, "signals", vec![], v1::thread::NoStack::BlocksSignal),
                other(94, "writer", vec![], v1::thread::NoStack::NoAnswer),
            ],
            ..Default::default()
        });
        let pool = "/c/registry/src/x/tokio-1.54.1/src/runtime/blocking/pool.rs:1";
        let task = "/c/registry/src/x/tokio-1.54.1/src/runtime/blocking/task.rs:42";
        let in_pool = |inner: &[&str], run: &str| {
            let run = [format!("{run}@{task}"), format!("tokio::runtime::blocking::pool::Inner::run@{pool}")];
            inner.iter().copied().chain(run.iter().map(String::as_str)).map(frame).collect::<Vec<_>>()
        };
        model.stacks.insert(1, hashing());
        model.stacks.insert(2, sleeping(7));
        let job = "<tokio::runtime::blocking::task::BlockingTask<T> as core::future::future::Future>::poll";
        model.stacks.insert(3, in_pool(&["read", "api::thumb::make@/home/a/api/src/thumb.rs:11"], job));
        model.stacks.insert(4, in_pool(&["syscall"], "tokio::runtime::blocking::pool::Inner::run"));
        let begin =
            "std::sys::backtrace::__rust_begin_short_backtrace@/rustc/1/library/std/src/sys/backtrace.rs:1";
        let indexes = ["read", "api::index::build@/home/a/api/src/index.rs:7", begin];
        model.stacks.insert(6, indexes.into_iter().map(frame).collect());
        let unnamed = |address| Frame { function: None, address, ..frame("api::x") };
        model.stacks.insert(5, vec![unnamed(0x1f3a0), unnamed(0x20440)]);
        model
    }

    fn shown(options: cli::Stacks, show: impl Fn(&Shown<'_>) -> String) -> String {
        let model = fixture();
        show(&Shown { model: &model, running: &running(&model), options: &options })
    }

    #[test]
    fn a_block_for_each_that_runs_with_the_line_marked() {
        insta::assert_snapshot!(shown(options(|_| ()), |it| it.text()));
    }

    #[test]
    fn all_frames_are_shown_when_they_are_asked_for() {
        let all = shown(options(|it| (it.all_frames, it.tasks) = (true, vec![17])), |it| it.text());
        assert!(
            all.contains(
                "\n    tokio::runtime::task::core::Core::poll at tokio/src/runtime/task/core.rs:380\n"
            ),
            "{all}"
        );
        assert!(!shown(options(|_| ()), |it| it.text()).contains("Core::poll"));
    }

    #[test]
    fn only_the_tasks_that_were_named() {
        let text = shown(options(|it| it.tasks = vec![18]), |it| it.text());
        assert!(text.starts_with("task 18, ") && text.lines().count() == 3, "{text}");
        let none = shown(options(|it| it.tasks = vec![99]), |it| it.text());
        assert_eq!(none, "nothing runs now: no poll, and no job of a blocking pool.\n");
        assert_eq!(idle(&[17, 99, TaskId::OWN | 4], &running(&fixture())), ["99", "p4"]);
    }

    #[test]
    fn the_json_holds_its_interface() {
        insta::assert_snapshot!(shown(options(|_| ()), |shown| shown.json().expect("it serialises")));
    }

    #[test]
    fn folded_stacks_begin_with_who_and_end_with_the_count() {
        insta::assert_snapshot!(shown(options(|_| ()), |it| it.folded()));
    }

    #[test]
    fn the_page_is_as_wide_as_the_time() {
        let page = shown(options(|_| ()), |it| it.html());
        assert!(page.contains("title=\"bcrypt::hash: 2.9 s, "), "{page}");
        assert!(page.contains("<title>: where its running tasks are</title>"), "{page}");
        assert!(page.contains(">api+0x1f3a0</div>"), "{page}");
    }

    #[test]
    fn a_target_without_stacks_says_why_and_what_to_do() {
        let of = |coverage: Option<Coverage>| {
            let stacks = coverage.map(|coverage| v1::Capability {
                kind: v1::capability::Kind::Stacks.into(),
                coverage: coverage.into(),
                reason: "the application has not allowed it\u{7}".into(),
                hint: "set TASKSCOPE_STACKS=on".into(),
            });
            let description = v1::Description {
                name: "shop".into(),
                probe_version: "0.1.0".into(),
                capabilities: stacks.into_iter().collect(),
                ..Default::default()
            };
            allowed(&description, &description.capabilities).map_err(|error| error.to_string())
        };
        assert_eq!(
            of(Some(Coverage::None)),
            Err("shop takes no stacks: the application has not allowed it\u{fffd}\nhint: set TASKSCOPE_STACKS=on".into())
        );
        assert!(of(None).is_err_and(|error| error.contains("(0.1.0) knows of no stacks\nhint: ")));
        assert_eq!(of(Some(Coverage::Full)), Ok(None));
        assert!(of(Some(Coverage::Partial)).is_ok_and(|note| note.is_some()));
    }

    #[test]
    fn a_recording_shows_each_poll_as_it_was_last_seen() {
        let frame = |at_ns, polls: Vec<v1::LivePoll>, events| {
            let worker = |poll| v1::Worker { tid: Some(7), poll: Some(poll), ..Default::default() };
            let workers = polls.into_iter().map(worker).collect();
            let runtimes = vec![v1::Runtime { workers, ..Default::default() }];
            v1::Frame { at_ns, runtimes, events, ..Default::default() }
        };
        let on = |sid, since_ns| v1::LivePoll { stacks: vec![share(sid, 1, since_ns)], ..poll(since_ns) };
        let ended = v1::Event { seq: 1, tid: Some(7), poll: Some(on(1, 3 * S)), ..Default::default() };
        let mut model = fixture();
        let mut ran = Ran::default();
        for frame in [
            frame(S, vec![on(1, S)], vec![]),
            frame(2 * S, vec![on(1, 2 * S)], vec![]),
            // It ended, and another one has begun.
            frame(4 * S, vec![on(2, S / 2)], vec![ended]),
            frame(5 * S, vec![poll(S)], vec![]),
        ] {
            model.apply(frame);
            ran.take(&model);
        }
        let polls = ran.polls().expect("there are some");
        let told: Vec<_> = polls.iter().map(|poll| (poll.since_ns, poll.shares[0].stack_sid)).collect();
        assert_eq!(told, [(3 * S, 1), (S / 2, 2)]);
        assert_eq!(wanted(&polls), [1, 2]);
        assert!(Ran::default().polls().is_err_and(|error| error.to_string().contains("hint: ")));
    }
}
