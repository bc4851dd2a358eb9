//! What is wrong with a target, in at most eight lines of plain words, worst first: the text that one pastes into the
//! incident channel.

use taskscope_proto::v1::pool::Kind as Pool;
use taskscope_proto::v1::{self, capability::Coverage, capability::Kind, loss::Reason};
use taskscope_proto::words;

use crate::interned::{self, Missing};
use crate::model::Model;
use crate::rules::{self, Finding, Severity};

/// Lines at most, the one about what could not be seen included.
const LINES: usize = 8;
/// Rows of tasks that were asked to stop.
const MOST_DEAF: u32 = 20;

/// The lines, and whether something is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Why {
    pub(crate) lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    Finding(Finding),
    Healthy(String),
    /// What could not be seen.
    Unseen(String),
}

impl Line {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Finding(finding) => &finding.sentence,
            Self::Healthy(text) | Self::Unseen(text) => text,
        }
    }
}

/// What can be told without a look at every task.
pub(crate) fn glance() -> v1::WatchRequest {
    v1::WatchRequest {
        groups: Some(v1::GroupQuery { limit: 200, ..Default::default() }),
        ..Default::default()
    }
}

/// What to ask a target for, so that [`Why::of`] can answer. The tasks are those that were asked to stop the longest ago: a
/// filter would say so more narrowly, in words that an older probe may not know.
pub(crate) fn request() -> v1::WatchRequest {
    let tasks = v1::TaskQuery {
        filter: "state!=ended".into(),
        sort: v1::SortKey::SortCancel.into(),
        limit: MOST_DEAF,
        ..Default::default()
    };
    v1::WatchRequest { tasks: Some(tasks), ..glance() }
}

/// What to ask once more, having seen what is wrong: a full blocking pool is explained by what its jobs are doing, and
/// their stacks are taken only on request. `None`: nothing.
pub(crate) fn ask_again(model: &Model) -> Option<v1::WatchRequest> {
    let may = interned::coverage(&model.capabilities).is_some_and(|it| it.coverage() == Coverage::Full);
    let is_full = |pool: &v1::Pool| pool.kind() == Pool::Blocking && pool.saturated_ns.is_some();
    let wants = may && model.frame.pools.iter().any(is_full) && model.jobs_untold();
    wants.then(|| v1::WatchRequest { stacks: Some(v1::StackQuery::default()), ..request() })
}

impl Why {
    pub(crate) fn of(model: &Model) -> Self {
        let found = rules::check(model);
        let wrong = found.iter().any(|finding| finding.severity > Severity::Note);
        let unseen = unseen(model);
        let room = LINES - usize::from(unseen.is_some());
        let mut lines: Vec<Line> = Vec::new();
        if !wrong {
            lines.push(Line::Healthy(healthy(model)));
        }
        let more = (found.len() + lines.len()).saturating_sub(room);
        let kept = if more > 0 { room - lines.len() - 1 } else { found.len() };
        let rest = found.len() - kept;
        lines.extend(found.into_iter().take(kept).map(Line::Finding));
        if rest > 0 {
            let sentence = format!("and {rest} more; see them with `taskscope top`.");
            lines.push(Line::Finding(Finding { severity: Severity::Note, sentence }));
        }
        lines.extend(unseen.map(Line::Unseen));
        for line in &mut lines {
            line.make_printable();
        }
        Self { lines }
    }

    /// Whether anything is wrong.
    pub(crate) fn is_wrong(&self) -> bool {
        self.lines
            .iter()
            .any(|line| matches!(line, Line::Finding(finding) if finding.severity > Severity::Note))
    }
}

impl Line {
    /// Names come from the target: none of them may write to a terminal.
    fn make_printable(&mut self) {
        match self {
            Self::Finding(finding) => finding.sentence = words::printable(&finding.sentence),
            Self::Healthy(text) | Self::Unseen(text) => *text = words::printable(text),
        }
    }
}

/// `healthy. 212 tasks, 1.1 k requests/s, workers 14 % busy, nothing waits.`
fn healthy(model: &Model) -> String {
    let totals = model.totals();
    let mut parts = vec![format!("{} tasks", words::count(totals.alive.unwrap_or(totals.followed)))];
    let per_second = |count: u64| count as f64 * 1e9 / totals.window_ns as f64;
    if totals.window_ns > 0 {
        parts.push(match totals.requests_window {
            Some(requests) => format!("{} requests/s", words::short_count(per_second(requests))),
            None => format!("{} polls/s", words::short_count(per_second(totals.polls_window))),
        });
    }
    let ratios: Vec<f64> =
        model.frame.runtimes.iter().flat_map(|r| &r.workers).filter_map(|worker| worker.busy_ratio).collect();
    if !ratios.is_empty() {
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        parts.push(format!("workers {:.0} % busy", mean * 100.0));
    }
    let ready: u64 = model.frame.runtimes.iter().filter_map(|r| r.ready_tasks.or(r.global_queue)).sum();
    // Who waits in a run queue is among the ready tasks already.
    let pools =
        model.frame.pools.iter().filter(|it| !matches!(it.kind(), Pool::GlobalQueue | Pool::LocalQueues));
    let queued: u64 = pools.filter_map(|pool| pool.queued).sum();
    // A handful of ready tasks is what a working runtime has at any moment.
    let workers = model.frame.runtimes.iter().map(|r| r.workers.len() as u64).sum::<u64>();
    parts.push(match (ready > workers.max(4) * 4, queued) {
        (false, 0) => "nothing waits".to_owned(),
        (true, 0) => format!("{} tasks are ready and wait", words::count(ready)),
        (_, queued) => format!("{} wait for a pool", words::count(queued)),
    });
    format!("healthy. {}.", parts.join(", "))
}

/// What the answer could not take into account, in one line; `None` where nothing that matters is missing.
fn unseen(model: &Model) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    let task_coverage = model.capabilities.iter().find(|capability| capability.kind() == Kind::Tasks);
    if let Some(tasks) = task_coverage.filter(|tasks| tasks.coverage() != Coverage::Full) {
        let hint = if tasks.hint.is_empty() { String::new() } else { format!(" ({})", tasks.hint) };
        parts.push(format!("{}{hint}", tasks.reason));
    }
    parts.extend(lines_unseen(model));
    for loss in &model.frame.losses {
        parts.push(loss_words(loss));
    }
    (!parts.is_empty()).then(|| format!("not seen: {}.", parts.join("; ")))
}

/// Why a poll that is slow now is told without its line; `None`: none is slow, or it has its line.
fn lines_unseen(model: &Model) -> Option<String> {
    if !rules::wants_line(model) {
        return None;
    }
    let stacks = interned::coverage(&model.capabilities)?;
    if stacks.coverage() == Coverage::Full {
        let said = |missing: &Missing| format!("the line: {} ({})", missing.why, missing.hint);
        return model.stacks.missing().map(said);
    }
    let hint = if stacks.hint.is_empty() { String::new() } else { format!(" ({})", stacks.hint) };
    Some(format!("the line: {}{hint}", stacks.reason))
}

/// A loss in words.
pub(crate) fn loss_words(loss: &v1::Loss) -> String {
    let (one, many) = match loss.reason() {
        Reason::Unspecified => (
            "# loss of a kind that this version does not know",
            "# losses of a kind that this version does not know",
        ),
        Reason::DroppedEvents => ("# event was dropped", "# events were dropped"),
        Reason::EvictedTasks => (
            "# task was past the memory budget (TASKSCOPE_MEMORY)",
            "# tasks were past the memory budget (TASKSCOPE_MEMORY)",
        ),
        Reason::FoldedGroups => (
            "# task counts in `other`, its group being past the limit",
            "# tasks count in `other`, their groups being past the limit",
        ),
        Reason::LostStrings => ("# text was past the text budget", "# texts were past the text budget"),
        Reason::DeepBrackets => ("# poll was nested too deep", "# polls were nested too deep"),
        Reason::UnlinedThreads => {
            ("# poll ran on a thread past the limit", "# polls ran on threads past the limit")
        }
        Reason::UninstrumentedTasks => ("not instrumented: # task", "not instrumented: # tasks"),
        Reason::PoolPanics => ("# pool closure panicked", "# pool closures panicked"),
        Reason::PoolNonsense => (
            "# pool says what cannot be (busy above capacity)",
            "# pools say what cannot be (busy above capacity)",
        ),
        Reason::FoldedLabels => {
            ("# stretch counts in the label `other`", "# stretches count in the label `other`")
        }
        Reason::FoldedHistograms => {
            ("# histogram was folded into that of `other`", "# histograms were folded into that of `other`")
        }
        Reason::UnsortedPolls => ("# poll is in no histogram", "# polls are in no histogram"),
        Reason::CutStrings => ("# text was cut or cleaned", "# texts were cut or cleaned"),
        Reason::UnpairedHooks => {
            ("# hook fired without its counterpart", "# hooks fired without their counterpart")
        }
        Reason::PoolBlocked => ("# pool closure did not return", "# pool closures did not return"),
        Reason::LostEndings => (
            "# task ended faster than its row could be kept",
            "# tasks ended faster than their rows could be kept",
        ),
        Reason::LostCancellations => {
            ("# cancellation request was not remembered", "# cancellation requests were not remembered")
        }
        Reason::LostHistory => ("# part of the history did not fit", "# parts of the history did not fit"),
        Reason::LostStacks => ("# stack could not be taken", "# stacks could not be taken"),
    };
    if loss.count == 1 { one } else { many }.replace('#', &words::count(loss.count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{S, model, poll};

    fn lines(frame: v1::Frame) -> Vec<String> {
        Why::of(&model(frame)).lines.iter().map(|line| line.text().to_owned()).collect()
    }

    #[test]
    fn a_healthy_service_is_said_to_be_in_one_line() {
        let worker = |busy| v1::Worker { busy_ratio: Some(busy), ..Default::default() };
        let frame = v1::Frame {
            totals: Some(v1::Totals {
                alive: Some(212),
                window_ns: 10 * S,
                requests_window: Some(11_200),
                ..Default::default()
            }),
            runtimes: vec![v1::Runtime {
                workers: vec![worker(0.1), worker(0.18)],
                ready_tasks: Some(1),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(lines(frame), ["healthy. 212 tasks, 1.1 k requests/s, workers 14 % busy, nothing waits."]);
    }

    fn stuck(poll: v1::LivePoll, stacks: v1::Capability) -> Model {
        let worker =
            v1::Worker { state: v1::worker::State::InPoll.into(), poll: Some(poll), ..Default::default() };
        model(v1::Frame {
            runtimes: vec![v1::Runtime { workers: vec![worker], ..Default::default() }],
            capabilities: vec![stacks],
            ..Default::default()
        })
    }

    fn stacks_are(coverage: Coverage) -> v1::Capability {
        v1::Capability {
            kind: Kind::Stacks.into(),
            coverage: coverage.into(),
            reason: "stacks are off".into(),
            hint: "TASKSCOPE_STACKS=on".into(),
        }
    }

    #[test]
    fn where_stacks_are_off_the_way_to_them_is_told_once_and_only_where_one_is_missing() {
        let last = |model: &Model| Why::of(model).lines.last().map(|line| line.text().to_owned());
        let off = stuck(poll(2 * S), stacks_are(Coverage::None));
        assert_eq!(last(&off).as_deref(), Some("not seen: the line: stacks are off (TASKSCOPE_STACKS=on)."));
        let healthy =
            model(v1::Frame { capabilities: vec![stacks_are(Coverage::None)], ..Default::default() });
        assert!(last(&healthy).is_some_and(|line| line.starts_with("healthy.")));
        let mut stripped = stuck(poll(2 * S), stacks_are(Coverage::Full));
        assert!(last(&stripped).is_some_and(|line| line.starts_with("STUCK")), "nothing is missing");
        stripped.stacks.say_missing("/srv/bin/api is stripped");
        assert_eq!(
            last(&stripped).as_deref(),
            Some(
                "not seen: the line: /srv/bin/api is stripped (give the folder of its unstripped copy or debug file with \
                 --debug-dir DIR or TASKSCOPE_DEBUG_DIR)."
            )
        );
    }

    #[test]
    fn stacks_of_jobs_are_asked_for_only_where_a_pool_is_full_and_they_are_allowed() {
        let full = |coverage, saturated_ns| {
            let pool = v1::Pool { kind: Pool::Blocking.into(), saturated_ns, ..Default::default() };
            let capabilities = vec![stacks_are(coverage)];
            ask_again(&model(v1::Frame { pools: vec![pool], capabilities, ..Default::default() }))
        };
        assert!(full(Coverage::Full, Some(S)).is_some_and(|request| request.stacks.is_some()));
        assert_eq!((full(Coverage::None, Some(S)), full(Coverage::Full, None)), (None, None));
    }

    #[test]
    fn at_most_eight_lines_and_what_was_lost_is_always_among_them() {
        let full = |n: u64| v1::Pool {
            name: format!("pool-{n}\u{1b}[2J"),
            kind: v1::pool::Kind::User.into(),
            capacity: Some(1),
            busy: Some(1),
            queued: Some(n),
            saturated_ns: Some(S),
            ..Default::default()
        };
        let frame = v1::Frame {
            pools: (1..20).map(full).collect(),
            losses: vec![v1::Loss { reason: Reason::EvictedTasks.into(), count: 7 }],
            ..Default::default()
        };
        let lines = lines(frame);
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[6], "and 13 more; see them with `taskscope top`.");
        assert_eq!(lines[7], "not seen: 7 tasks were past the memory budget (TASKSCOPE_MEMORY).");
        assert!(lines.iter().all(|line| !line.contains('\u{1b}')));
    }

    #[test]
    fn the_worst_comes_first() {
        let worker = v1::Worker {
            state: v1::worker::State::InPoll.into(),
            poll: Some(poll(2 * S)),
            ..Default::default()
        };
        let frame = v1::Frame {
            pools: vec![v1::Pool {
                kind: v1::pool::Kind::Blocking.into(),
                capacity: Some(1),
                busy: Some(1),
                queued: Some(1),
                saturated_ns: Some(S),
                ..Default::default()
            }],
            runtimes: vec![v1::Runtime { workers: vec![worker], ..Default::default() }],
            ..Default::default()
        };
        let why = Why::of(&model(frame));
        assert!(why.lines[0].text().starts_with("STUCK"), "{why:?}");
        assert!(why.lines[1].text().starts_with("FULL"), "{why:?}");
        assert!(why.is_wrong());
    }
}
