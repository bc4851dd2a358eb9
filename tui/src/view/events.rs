//! What happened, the latest first.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::v1::event::Kind;
use taskscope_proto::words;

use crate::app::{App, CodeOf};
use crate::model::Event;
use crate::table::{Cell, Cut, Tone};
use crate::view::table::first_row;
use crate::view::{draw, poll, text, theme};

/// Lines that all events would take.
pub(crate) fn wanted(app: &App) -> u16 {
    app.events().count().clamp(1, 1000) as u16
}

pub(crate) fn facts(app: &App) -> Vec<(String, Tone)> {
    match app.events().count() {
        0 => Vec::new(),
        n => vec![(format!("{n}, latest first"), Tone::Quiet)],
    }
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    let events: Vec<&Event> = app.events().collect();
    if events.is_empty() {
        let said = match app.shown().slow_poll_ns() {
            Some(ns) => format!(" no poll took {} or longer, and no task panicked", words::duration(ns)),
            None => " none".to_owned(),
        };
        let said = text::cut(&said, width, Cut::End);
        return draw(frame, area, vec![Line::styled(said, theme.tone(Tone::Quiet))]);
    }
    let selected = app.selected_event().and_then(|it| events.iter().position(|event| event.seq == it.seq));
    let first = first_row(selected, events.len(), height);
    let rest = width.saturating_sub(1 + 9 + 7 + 8 + 2);
    let doing_width = (rest / 2).min(34);
    let what_width = rest.saturating_sub(doing_width + 2);
    let lines = events
        .iter()
        .enumerate()
        .skip(first)
        .take(height)
        .map(|(at, event)| {
            let here = selected == Some(at);
            let (word, tone) = kind(event.kind);
            let (what, what_tone) = if event.kind == Kind::ProcessPaused {
                ("the whole process stood still".to_owned(), Tone::Warning)
            } else {
                poll::what(&event.poll, what_width)
            };
            let doing = match &event.poll.activity {
                Some(activity) => poll::doing(app, activity),
                None => event.reason.clone(),
            };
            let code = app.shown().codes.of(CodeOf::Event(event.seq));
            let length = match (event.kind, event.paused_ns) {
                (_, Some(paused_ns)) => words::duration(paused_ns),
                (Kind::TaskPanic | Kind::TaskFailed, None) => String::new(),
                _ => words::duration(event.poll.since_ns),
            };
            let mut line = Line::from(vec![
                Span::raw(if here { "▸" } else { " " }),
                Span::styled(format!("{:>8} ", ago(app, event)), theme.tone(Tone::Quiet)),
                Span::styled(text::left(word, 7), theme.tone(tone)),
                Span::raw(format!("{length:>8}  ")),
                Span::styled(text::left(&what, what_width), theme.tone(what_tone)),
                Span::raw("  "),
                Span::raw(text::left(&poll::where_and_doing(code, &doing, doing_width), doing_width)),
            ]);
            if here {
                line = line.patch_style(theme.selected());
            }
            line
        })
        .collect();
    draw(frame, area, lines);
}

pub(crate) fn kind(kind: Kind) -> (&'static str, Tone) {
    match kind {
        Kind::PollStuck => ("STUCK", Tone::Critical),
        Kind::PollSlow => ("SLOW", Tone::Warning),
        Kind::TaskPanic => ("PANIC", Tone::Critical),
        Kind::TaskFailed => ("FAILED", Tone::Critical),
        Kind::ProcessPaused => ("PAUSED", Tone::Warning),
        Kind::Unspecified => ("–", Tone::Quiet),
    }
}

/// `−12 s` by the target's clock.
pub(crate) fn ago(app: &App, event: &Event) -> String {
    let now_ns = app.shown().at_ns.unwrap_or(event.at_ns);
    match now_ns.saturating_sub(event.at_ns) {
        0..1_000_000_000 => "now".to_owned(),
        ns => format!("−{}", words::duration(ns)),
    }
}

/// Every field of an event, for the pane of details.
pub(crate) fn fields(app: &App, event: &Event) -> Vec<(&'static str, Cell)> {
    let (word, tone) = kind(event.kind);
    let poll = &event.poll;
    let told = match event.kind {
        Kind::PollStuck => "STUCK: the poll was still running when this was noticed",
        Kind::PollSlow => "SLOW: the poll has ended",
        Kind::TaskPanic => "PANIC: the task ended by panic",
        Kind::TaskFailed => "FAILED: the task ended with an error that nobody awaited",
        Kind::ProcessPaused => "PAUSED: the whole process stood still; no poll is blamed for it",
        Kind::Unspecified => word,
    };
    let number = |n: Option<u64>| n.map_or_else(Cell::unknown, |n| Cell::new(n.to_string()));
    let activity = poll.activity.as_ref();
    let mut fields = vec![
        ("event", Cell::new(told).tone(tone)),
        ("noticed", Cell::new(ago(app, event))),
        ("poll length", Cell::duration(Some(poll.since_ns))),
        ("label", Cell::text(&poll.label)),
        ("under the label", Cell::duration(poll.label_since_ns)),
        ("task", number(poll.task.map(|task| task.0))),
        ("name", Cell::text(&poll.name)),
        ("spawned at", Cell::place(&poll.spawned_at)),
        ("thread", number(event.tid.map(u64::from))),
        ("thread was", Cell::text(&activity.map_or_else(String::new, |it| poll::doing(app, it)))),
        ("looked at for", Cell::duration(activity.map(|it| it.observed_ns).filter(|&ns| ns > 0))),
        ("on CPU", Cell::duration(activity.and_then(|it| it.on_cpu_ns))),
        ("waited for a CPU", Cell::duration(activity.and_then(|it| it.waiting_for_cpu_ns))),
        ("asleep", Cell::duration(activity.and_then(taskscope_proto::activity::asleep_ns))),
    ];
    // Only where there is something to say.
    if let Some(code) = app.shown().codes.of(CodeOf::Event(event.seq)) {
        fields.insert(3, ("line", Cell::text(&code.words)));
    }
    if !event.reason.is_empty() {
        fields.insert(2, ("reason", Cell::text(&event.reason)));
    }
    if event.paused_ns.is_some() {
        fields.insert(2, ("stood still", Cell::duration(event.paused_ns)));
    }
    if let Some(throttled_ns) = activity.and_then(|it| it.throttled_ns) {
        fields.push(("throttled", Cell::duration(Some(throttled_ns))));
    }
    fields
}
