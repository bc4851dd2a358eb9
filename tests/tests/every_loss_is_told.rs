//! Whatever the probe could not keep is counted, by reason, and the count is on every surface: `--json`, `status`, `why` and
//! the dashboard. And nothing is counted that was not lost, or counted twice.

use std::ops::RangeInclusive;
use std::time::Duration;

use taskscope_proto::v1::loss::Reason;
use taskscope_proto::words;
use taskscope_tests::agent::{Agent, status, tasks, why};
use taskscope_tests::screen::Screen;
use taskscope_tests::target::Target;
use taskscope_tests::{Build, eventually, peer};

/// A reason, in the words of `status` and `why`, and in those of the dashboard; `#` is the count.
struct Words {
    reason: Reason,
    report: [&'static str; 2],
    screen: [&'static str; 2],
}

const fn words_of(reason: Reason, report: [&'static str; 2], screen: [&'static str; 2]) -> Words {
    Words { reason, report, screen }
}

/// All that can be forced from outside of a process.
const WORDS: [Words; 18] = [
    words_of(
        Reason::DroppedEvents,
        ["# event was dropped", "# events were dropped"],
        ["dropped # event", "dropped # events"],
    ),
    words_of(
        Reason::EvictedTasks,
        [
            "# task was past the memory budget (TASKSCOPE_MEMORY)",
            "# tasks were past the memory budget (TASKSCOPE_MEMORY)",
        ],
        ["evicted # task", "evicted # tasks"],
    ),
    words_of(
        Reason::FoldedGroups,
        [
            "# task counts in `other`, its group being past the limit",
            "# tasks count in `other`, their groups being past the limit",
        ],
        ["folded # task into other", "folded # tasks into other"],
    ),
    words_of(
        Reason::LostStrings,
        ["# text was past the text budget", "# texts were past the text budget"],
        ["lost # text", "lost # texts"],
    ),
    words_of(
        Reason::DeepBrackets,
        ["# poll was nested too deep", "# polls were nested too deep"],
        ["# poll nested too deep", "# polls nested too deep"],
    ),
    words_of(
        Reason::UnlinedThreads,
        ["# poll ran on a thread past the limit", "# polls ran on threads past the limit"],
        ["# poll on an unfollowed thread", "# polls on unfollowed threads"],
    ),
    words_of(
        Reason::UninstrumentedTasks,
        ["not instrumented: # task", "not instrumented: # tasks"],
        ["# task not instrumented", "# tasks not instrumented"],
    ),
    words_of(
        Reason::PoolPanics,
        ["# pool closure panicked", "# pool closures panicked"],
        ["# pool closure panicked", "# pool closures panicked"],
    ),
    words_of(
        Reason::PoolNonsense,
        [
            "# pool says what cannot be (busy above capacity)",
            "# pools say what cannot be (busy above capacity)",
        ],
        ["# impossible pool report", "# impossible pool reports"],
    ),
    words_of(
        Reason::FoldedLabels,
        ["# stretch counts in the label `other`", "# stretches count in the label `other`"],
        ["folded # stretch into other", "folded # stretches into other"],
    ),
    words_of(
        Reason::FoldedHistograms,
        ["# histogram was folded into that of `other`", "# histograms were folded into that of `other`"],
        ["# histogram folded into other", "# histograms folded into other"],
    ),
    words_of(
        Reason::UnsortedPolls,
        ["# poll is in no histogram", "# polls are in no histogram"],
        ["# poll in no histogram", "# polls in no histogram"],
    ),
    words_of(
        Reason::CutStrings,
        ["# text was cut or cleaned", "# texts were cut or cleaned"],
        ["cut # text", "cut # texts"],
    ),
    words_of(
        Reason::PoolBlocked,
        ["# pool closure did not return", "# pool closures did not return"],
        ["# pool closure blocked", "# pool closures blocked"],
    ),
    words_of(
        Reason::LostEndings,
        [
            "# task ended faster than its row could be kept",
            "# tasks ended faster than their rows could be kept",
        ],
        ["lost # ending", "lost # endings"],
    ),
    words_of(
        Reason::LostCancellations,
        ["# cancellation request was not remembered", "# cancellation requests were not remembered"],
        ["lost # cancellation", "lost # cancellations"],
    ),
    words_of(
        Reason::LostHistory,
        ["# part of the history did not fit", "# parts of the history did not fit"],
        ["# gap in the history", "# gaps in the history"],
    ),
    words_of(
        Reason::LostStacks,
        ["# stack could not be taken", "# stacks could not be taken"],
        ["lost # stack", "lost # stacks"],
    ),
];

/// What a target is to lose, and how many of it.
struct Losing {
    target: Target,
    expected: Vec<(Reason, RangeInclusive<u64>)>,
}

impl Losing {
    /// `memory` is the probe's; without one it has its default.
    fn start(memory: Option<&str>) -> Self {
        let memory = memory.map(|memory| ("TASKSCOPE_MEMORY", memory));
        Self::start_with(memory.as_slice())
    }

    fn start_with(variables: &[(&str, &str)]) -> Self {
        let target = Target::program("target-losses");
        let target = variables.iter().fold(target, |target, (name, value)| target.env(name, value)).start();
        target.said("ready");
        Self { target, expected: Vec::new() }
    }

    /// Has it lose `what`; gives the number that it says.
    #[track_caller]
    fn lose(&mut self, what: &str) -> u64 {
        self.target.process.say(what);
        self.target.said(&format!("{what}: ")).parse().expect("a number")
    }

    /// That much of `reason` is lost, whatever comes.
    fn expect(&mut self, reason: Reason, count: RangeInclusive<u64>) {
        self.expected.push((reason, count));
    }

    fn exactly(&mut self, reason: Reason, count: u64) {
        self.expect(reason, count..=count);
    }

    /// The count of `reason` in `status --json`, once there is one.
    #[track_caller]
    fn lost(&self, reason: Reason) -> u64 {
        eventually(Duration::from_secs(10), || {
            let losses = &status(&self.target.address)["losses"];
            losses[key(reason)].as_u64().filter(|&count| count > 0).ok_or_else(|| losses.to_string())
        })
    }

    /// All that was expected, and nothing else, is in `status --json`, `status`, `why` and on the dashboard.
    #[track_caller]
    fn is_told(&self) {
        let address = &self.target.address;
        let wrong = |reason: Reason, count: u64| match self.expected.iter().find(|(it, _)| *it == reason) {
            Some((_, expected)) => !expected.contains(&count),
            None => count != 0,
        };
        eventually(Duration::from_secs(15), || {
            let losses = &status(address)["losses"];
            let reasons = (1..=i32::MAX).map_while(|n| Reason::try_from(n).ok());
            let bad: Vec<_> = reasons
                .map(|reason| (reason, losses[key(reason)].as_u64().unwrap_or(0)))
                .filter(|&(reason, count)| wrong(reason, count))
                .collect();
            if bad.is_empty() { Ok(()) } else { Err(format!("{bad:?} in {losses}")) }
        });
        let said = Agent::with(["status", address]).run().expect_code(0).stdout;
        let said: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("lost: ")).collect();
        self.each_is_in(&said, |words| words.report);
        let lines = why(address).0;
        let unseen = lines.iter().find_map(|line| line.strip_prefix("not seen: ")).unwrap_or_default();
        self.each_is_in(&unseen.trim_end_matches('.').split("; ").collect::<Vec<_>>(), |words| words.report);
        if peer("tmux") {
            let screen = Screen::open(120, 60, &[]);
            screen.run(&format!("{} top {address}", Build::Hooks.program("taskscope").display()));
            screen.shows(Duration::from_secs(10), |text| text.contains("lost: "));
            screen.keys(&["c"]);
            let text = screen.shows(Duration::from_secs(10), |text| text.lines().any(|line| line == " lost"));
            self.each_is_in(&text.lines().map(str::trim).collect::<Vec<_>>(), |words| words.screen);
            screen.keys(&["q"]);
        }
    }

    /// Each reason's words with its count are one of `parts`.
    #[track_caller]
    fn each_is_in(&self, parts: &[&str], of: impl Fn(&Words) -> [&'static str; 2]) {
        for (reason, expected) in &self.expected {
            let words = WORDS.iter().find(|words| words.reason == *reason).expect("it has words");
            let [one, many] = of(words);
            let count = parts.iter().find_map(|part| count_in(part, one, many));
            assert!(
                count.is_some_and(|count| expected.contains(&count)),
                "`{many}` with {expected:?} is not among\n{}",
                parts.join("\n")
            );
        }
    }
}

/// The count in a text that says `one` or `many`.
fn count_in(text: &str, one: &str, many: &str) -> Option<u64> {
    let (start, end) = many.split_once('#').expect("it has a place for the count");
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok();
    if text == one.replace('#', "1") {
        return Some(1);
    }
    let count: u64 = digits(text.strip_prefix(start)?.strip_suffix(end)?)?;
    // As every number on a screen is written.
    (text == many.replace('#', &words::count(count))).then_some(count)
}

/// The key of a reason in `status --json`.
fn key(reason: Reason) -> String {
    reason.as_str_name().to_lowercase()
}

#[test]
fn no_reason_is_left_out() {
    let reasons = (1..=i32::MAX).map_while(|n| Reason::try_from(n).ok());
    let without: Vec<Reason> =
        reasons.filter(|reason| WORDS.iter().all(|words| words.reason != *reason)).collect();
    // Tokio calls hooks in pairs, and nothing outside of it can call ours; `probe/src/capture.rs` tests what would be.
    assert_eq!(without, [Reason::UnpairedHooks]);
}

#[test]
fn texts() {
    let mut losing = Losing::start(None);
    let cut = losing.lose("texts cut");
    losing.exactly(Reason::CutStrings, cut);
    losing.is_told();

    let mut losing = Losing::start(Some("2MiB"));
    let all = losing.lose("texts past the budget");
    let lost = losing.lost(Reason::LostStrings);
    let kept = tasks(&losing.target.address, "fields~n=").len() as u64;
    assert_eq!(kept + lost, all, "each text is kept, or it is counted");
    losing.exactly(Reason::LostStrings, lost);
    losing.is_told();
}

#[test]
fn groups_and_labels() {
    let mut losing = Losing::start(None);
    let names = losing.lose("names");
    // 255 beside `other`.
    losing.exactly(Reason::FoldedGroups, names - 255);
    let folded = losing.lose("labels");
    losing.exactly(Reason::FoldedLabels, folded);
    losing.is_told();
}

#[test]
fn polls_and_threads() {
    let mut losing = Losing::start(Some("2MiB"));
    let deep = losing.lose("nested polls");
    losing.exactly(Reason::DeepBrackets, deep);
    let unlined = losing.lose("threads");
    losing.exactly(Reason::UnlinedThreads, unlined);
    losing.is_told();
}

/// How many rows there are, as `tasks` says under the one that it shows.
fn rows(address: &str) -> u64 {
    let said = Agent::with(["tasks", address, "--limit", "1"]).run().expect_code(0).stdout;
    let more = said.lines().find_map(|line| line.strip_suffix(" more match; hint: --limit"));
    let more: String = more.unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    1 + more.parse::<u64>().unwrap_or_else(|_| panic!("how many more is not said:\n{said}"))
}

#[test]
fn tasks_without_a_row() {
    let mut losing = Losing::start(Some("2MiB"));
    let all = losing.lose("tasks");
    let evicted = losing.lost(Reason::EvictedTasks);
    let rows = rows(&losing.target.address);
    assert_eq!(rows + evicted, all, "each task has a row, or it is counted");
    // All of these are past the budget; one group is taken.
    let names = losing.lose("names");
    losing.exactly(Reason::EvictedTasks, evicted + names);
    losing.exactly(Reason::FoldedGroups, names - 254);
    let without_hooks = losing.lose("hooks");
    losing.exactly(Reason::UninstrumentedTasks, without_hooks);
    losing.is_told();
}

#[test]
fn events_endings_and_cancellations() {
    let mut losing = Losing::start(None);
    let deaths = losing.lose("deaths");
    // The ring of deaths holds 128, that of endings 1 024, and they are read while tasks die.
    losing.expect(Reason::DroppedEvents, deaths / 2..=deaths - 128);
    // The task that held them back has ended, too.
    losing.expect(Reason::LostEndings, 1..=deaths + 1 - 1_024);
    let asked = losing.lose("cancellations");
    let lost = losing.lost(Reason::LostCancellations);
    let remembered = tasks(&losing.target.address, "cancel>0s").len() as u64;
    assert_eq!(remembered + lost, asked, "each request is remembered, or it is counted");
    losing.exactly(Reason::LostCancellations, lost);
    losing.is_told();
}

#[test]
fn histograms() {
    let mut losing = Losing::start(Some("2MiB"));
    let polls = losing.lose("histograms");
    // Each of its tasks has waited for its poll, too: at most all of these waits are counted with them.
    losing.expect(Reason::UnsortedPolls, 100..=2 * polls - 400);
    losing.expect(Reason::FoldedHistograms, 1..=3);
    losing.is_told();
}

#[test]
fn stacks() {
    let mut losing = Losing::start_with(&[("TASKSCOPE_STACKS", "on")]);
    let lost = losing.lose("a stack");
    losing.exactly(Reason::LostStacks, lost);
    losing.is_told();
}

#[test]
fn pools_and_history() {
    let mut losing = Losing::start(None);
    let each = losing.lose("pools");
    losing.exactly(Reason::PoolPanics, each);
    losing.exactly(Reason::PoolNonsense, each);
    losing.exactly(Reason::PoolBlocked, each);
    let pools = losing.lose("history");
    // Of 64 pools, each second.
    losing.expect(Reason::LostHistory, pools - 64..=u64::MAX);
    losing.is_told();
}
