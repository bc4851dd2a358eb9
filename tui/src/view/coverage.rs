//! What was lost, what cannot be seen, why, and what can be done about it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::v1::capability::{Coverage, Kind};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Capability, Loss};
use taskscope_proto::words;

use crate::app::{App, Pane};
use crate::table::Tone;
use crate::view::help::scrolled;
use crate::view::{draw, text, theme};

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let model = app.shown();
    let width = usize::from(area.width).saturating_sub(2);
    let scroll = match app.pane() {
        Some(Pane::Coverage { scroll }) => usize::from(scroll),
        _ => 0,
    };
    let mut lines = Vec::new();
    let mut say = |text: &str, indent: usize, tone: Tone| {
        for line in text::wrap(&text::clean(text), width.saturating_sub(indent).max(1)) {
            lines.push(Line::styled(format!(" {}{line}", " ".repeat(indent)), theme.tone(tone)));
        }
    };
    say("lost", 0, Tone::Strong);
    let lost: Vec<&Loss> = model.losses.iter().filter(|loss| loss.count > 0).collect();
    for loss in &lost {
        say(&loss_words(loss), 2, Tone::Warning);
        say(loss_means(loss.reason()), 6, Tone::Quiet);
    }
    if lost.is_empty() {
        say(if model.at_ns.is_some() { "nothing" } else { "not known yet" }, 2, Tone::Plain);
    }
    if let Some(fault) = &model.fault {
        say(fault, 2, Tone::Critical);
    }
    if let Some(probe) = &model.probe {
        say("", 0, Tone::Plain);
        say("the probe", 0, Tone::Strong);
        let cpu = probe
            .cpu_ratio
            .map_or_else(|| "CPU not known".to_owned(), |ratio| format!("{:.1} % of a core", ratio * 100.0));
        let memory =
            format!("{} of {}", words::bytes(probe.memory_bytes), words::bytes(probe.memory_limit_bytes));
        let watchers = match probe.watchers {
            1 => "1 watcher".to_owned(),
            n => format!("{n} watchers"),
        };
        say(&format!("{memory}, {cpu}, {watchers}"), 2, Tone::Plain);
    }
    let threshold = model.slow_poll_ns().map(words::duration);
    lines.push(Line::default());
    lines.push(Line::styled(" seen", theme.tone(Tone::Strong)));
    if model.capabilities.is_empty() {
        lines.push(Line::styled("   not known yet", theme.tone(Tone::Plain)));
    }
    let worst_first = [Coverage::None, Coverage::Partial, Coverage::Unspecified, Coverage::Full];
    for coverage in worst_first {
        for capability in model.capabilities.iter().filter(|it| it.coverage() == coverage) {
            let (word, tone) = match coverage {
                Coverage::None => ("not seen", Tone::Warning),
                Coverage::Partial => ("in part", Tone::Warning),
                Coverage::Full => ("all", Tone::Good),
                Coverage::Unspecified => ("–", Tone::Quiet),
            };
            let kind = kind_word(capability.kind());
            lines.push(Line::from(vec![
                Span::styled(format!("   {}", text::left(word, 9)), theme.tone(tone)),
                Span::styled(kind, theme.tone(Tone::Strong)),
            ]));
            for (mark, said) in [("why: ", &capability.reason), ("hint: ", &capability.hint)] {
                for (at, line) in
                    text::wrap(&text::clean(said), width.saturating_sub(19).max(1)).into_iter().enumerate()
                {
                    if line.is_empty() {
                        continue;
                    }
                    let mark = if at == 0 { mark } else { "" };
                    lines.push(Line::from(vec![
                        Span::styled(format!("            {mark:6}"), theme.tone(Tone::Quiet)),
                        Span::raw(line),
                    ]));
                }
            }
        }
    }
    if let Some(threshold) = threshold {
        lines.push(Line::default());
        lines.push(Line::raw(format!(" a poll is slow from {threshold} on")));
    }
    draw(frame, area, scrolled(lines, scroll, area.height));
}

/// A loss in a few words: `evicted 12 tasks`.
pub(crate) fn loss_words(loss: &Loss) -> String {
    let n = words::count(loss.count);
    let (one, many) = match loss.reason() {
        Reason::DroppedEvents => ("dropped # event", "dropped # events"),
        Reason::EvictedTasks => ("evicted # task", "evicted # tasks"),
        Reason::FoldedGroups => ("folded # task into other", "folded # tasks into other"),
        Reason::LostStrings => ("lost # text", "lost # texts"),
        Reason::DeepBrackets => ("# poll nested too deep", "# polls nested too deep"),
        Reason::UnlinedThreads => ("# poll on an unfollowed thread", "# polls on unfollowed threads"),
        Reason::UninstrumentedTasks => ("# task not instrumented", "# tasks not instrumented"),
        Reason::PoolPanics => ("# pool closure panicked", "# pool closures panicked"),
        Reason::PoolNonsense => ("# impossible pool report", "# impossible pool reports"),
        Reason::FoldedLabels => ("folded # stretch into other", "folded # stretches into other"),
        Reason::FoldedHistograms => ("# histogram folded into other", "# histograms folded into other"),
        Reason::UnsortedPolls => ("# poll in no histogram", "# polls in no histogram"),
        Reason::CutStrings => ("cut # text", "cut # texts"),
        Reason::UnpairedHooks => ("# unpaired hook", "# unpaired hooks"),
        Reason::PoolBlocked => ("# pool closure blocked", "# pool closures blocked"),
        Reason::LostEndings => ("lost # ending", "lost # endings"),
        Reason::LostCancellations => ("lost # cancellation", "lost # cancellations"),
        Reason::LostHistory => ("# gap in the history", "# gaps in the history"),
        Reason::LostStacks => ("lost # stack", "lost # stacks"),
        Reason::Unspecified => return format!("{n} for reason {}, unknown here", loss.reason),
    };
    if loss.count == 1 { one } else { many }.replace('#', &n)
}

fn loss_means(reason: Reason) -> &'static str {
    match reason {
        Reason::DroppedEvents => "they were overwritten before they could be sent",
        Reason::EvictedTasks => "past the byte budget: counted in their group, without a row",
        Reason::FoldedGroups => "past the limit of groups: counted in the group `other`",
        Reason::LostStrings => "names, labels, reasons or places past the room for texts",
        Reason::DeepBrackets => "nested deeper than a thread keeps track of",
        Reason::UnlinedThreads => "past the limit of threads that are followed",
        Reason::UninstrumentedTasks => "alive now, and without a row here",
        Reason::PoolPanics => "their pools report nothing any more",
        Reason::PoolNonsense => "such as more busy than there are; shown as they came",
        Reason::FoldedLabels => "past the limit of labels: counted in the label `other`",
        Reason::FoldedHistograms => "histograms had reached their share of the budget",
        Reason::UnsortedPolls => "no room was left at that moment; their number and time are counted",
        Reason::CutStrings => "longer than 255 bytes, or with control characters",
        Reason::UnpairedHooks => "the end of a poll without its begin: another runtime calls our hooks",
        Reason::PoolBlocked => "their pools show nothing until they return",
        Reason::LostEndings => "tasks that ended faster than their rows could be kept",
        Reason::LostCancellations => "past the requests that are remembered",
        Reason::LostHistory => "past the share of the budget",
        Reason::LostStacks => "their thread did not answer in time, or there was no room for another one",
        Reason::Unspecified => "a newer probe knows what this means",
    }
}

pub(crate) fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "something newer",
        Kind::Tasks => "tasks",
        Kind::Polls => "polls",
        Kind::Wakes => "wakes",
        Kind::Outcomes => "outcomes",
        Kind::Labels => "labels",
        Kind::Workers => "workers",
        Kind::BlockingPool => "blocking pool",
        Kind::ThreadActivity => "thread activity",
        Kind::History => "history",
        Kind::StandingQueries => "standing queries",
        Kind::Cancellations => "cancellations",
        Kind::Throttling => "throttling",
        Kind::ProcessPools => "process pools",
        Kind::Stacks => "stacks",
    }
}

/// `wakes (runtime hooks do not see them)`.
pub(crate) fn with_reason(capability: &Capability) -> String {
    let kind = kind_word(capability.kind());
    if capability.reason.is_empty() { kind.to_owned() } else { format!("{kind} ({})", capability.reason) }
}
