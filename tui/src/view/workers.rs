//! One line for each worker: how busy, in which poll, for whom, since when, and what its thread does.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::v1::worker::State;
use taskscope_proto::words;

use crate::app::{App, Code, CodeOf};
use crate::model::{LivePoll, Runtime, Worker};
use crate::table::{Cut, Tone};
use crate::view::theme::Theme;
use crate::view::{draw, gauge, poll, text, theme};

/// One line: a worker, or another thread inside a poll.
struct Row {
    name: String,
    tid: Option<u32>,
    busy_ratio: Option<f64>,
    /// The share of a thread that is no worker is not measured.
    has_share: bool,
    state: State,
    since_ns: Option<u64>,
    poll: Option<LivePoll>,
    is_stuck: bool,
}

/// Lines that everything would take.
pub(crate) fn wanted(app: &App) -> u16 {
    let model = app.shown();
    (model.workers().count() + model.threads.len()).clamp(1, 1000) as u16
}

pub(crate) fn facts(app: &App) -> Vec<(String, Tone)> {
    let model = app.shown();
    let count = model.workers().count();
    if count == 0 {
        return Vec::new();
    }
    let in_poll = model.workers().filter(|it| matches!(it.state, State::InPoll | State::BusyUnseen)).count();
    let stuck = rows(app).iter().filter(|row| row.is_stuck && row.has_share).count();
    let mut facts = vec![match stuck {
        0 => (format!("{in_poll} of {count} in a poll"), Tone::Plain),
        stuck => (format!("{stuck} of {count} stuck"), Tone::Critical),
    }];
    if let Some(ratio) = model.busy_ratio() {
        facts.push((format!("{:.0} % busy", ratio * 100.0), Tone::Plain));
    }
    let ready: Vec<u64> = model.runtimes.iter().filter_map(|runtime| runtime.ready_tasks).collect();
    let oldest = model.runtimes.iter().filter_map(|runtime| runtime.oldest_ready_ns).max();
    if !ready.is_empty() {
        let ready = words::count(ready.iter().fold(0, |sum: u64, n| sum.saturating_add(*n)));
        let (said, tone) = match oldest {
            Some(ns) => (format!("{ready} ready, oldest {}", words::duration(ns)), Tone::Warning),
            None => (format!("{ready} ready"), Tone::Plain),
        };
        facts.push((said, tone));
    }
    facts
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let height = usize::from(area.height);
    let mut rows = rows(app);
    if rows.is_empty() {
        let line = Line::styled(" no worker was seen at work yet", theme.tone(Tone::Quiet));
        return draw(frame, area, vec![line]);
    }
    let mut hidden = Vec::new();
    if rows.len() > height {
        // The longest polls stay; the rest is told in one line.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let rank = |row: &Row| (row.is_stuck, row.poll.as_ref().map(|poll| poll.since_ns));
        order.sort_by(|&a, &b| rank(&rows[b]).cmp(&rank(&rows[a])).then(a.cmp(&b)));
        let kept = &order[..height.saturating_sub(1)];
        let mut at = 0;
        let (stay, go) = rows.into_iter().partition(|_| {
            at += 1;
            kept.contains(&(at - 1))
        });
        (rows, hidden) = (stay, go);
    }
    let doing: Vec<String> = rows.iter().map(|row| doing(app, row)).collect();
    let codes: Vec<Option<&Code>> = rows.iter().map(|row| code(app, row)).collect();
    let widest: Vec<String> = codes
        .iter()
        .zip(&doing)
        .map(|(code, doing)| poll::where_and_doing(*code, doing, usize::MAX))
        .collect();
    let columns = Columns::of(&rows, &widest, usize::from(area.width));
    let mut lines: Vec<Line<'static>> = rows
        .iter()
        .zip(codes.iter().zip(&doing))
        .map(|(row, (code, doing))| {
            line(theme, row, &poll::where_and_doing(*code, doing, columns.doing), &columns)
        })
        .collect();
    if !hidden.is_empty() {
        let count = |state: State| hidden.iter().filter(|row| row.state == state).count();
        let mut said = vec![format!(" … {} more", hidden.len())];
        for (state, word) in [
            (State::InPoll, "in a poll"),
            (State::BusyUnseen, "busy without a break"),
            (State::Active, "between polls"),
            (State::Parked, "parked"),
        ] {
            if count(state) > 0 {
                said.push(format!("{} {word}", count(state)));
            }
        }
        lines.push(Line::styled(said.join(" · "), theme.tone(Tone::Quiet)));
    }
    draw(frame, area, lines);
}

fn rows(app: &App) -> Vec<Row> {
    let model = app.shown();
    let several = model.runtimes.iter().filter(|runtime| !runtime.workers.is_empty()).count() > 1;
    let slow_ns = model.slow_poll_ns();
    let is_slow = |poll: Option<&LivePoll>| match (poll, slow_ns) {
        (Some(poll), Some(slow_ns)) => poll.since_ns >= slow_ns,
        _ => false,
    };
    let worker = |runtime: &Runtime, worker: &Worker| Row {
        name: match (&runtime.name, several) {
            (_, false) => worker.index.to_string(),
            (Some(name), true) => format!("{}/{}", text::cut(&text::clean(name), 8, Cut::End), worker.index),
            (None, true) => format!("rt{}/{}", runtime.id, worker.index),
        },
        tid: worker.tid,
        busy_ratio: worker.busy_ratio,
        has_share: true,
        state: worker.state,
        since_ns: worker.since_ns,
        is_stuck: worker.state == State::BusyUnseen || is_slow(worker.poll.as_ref()),
        poll: worker.poll.clone(),
    };
    let workers =
        model.runtimes.iter().flat_map(|runtime| runtime.workers.iter().map(move |it| worker(runtime, it)));
    let threads = model.threads.iter().map(|thread| Row {
        name: "–".to_owned(),
        tid: Some(thread.tid),
        busy_ratio: None,
        has_share: false,
        state: State::InPoll,
        since_ns: Some(thread.poll.since_ns),
        // The body of `main` and blocking jobs may take as long as they like.
        is_stuck: false,
        poll: Some(thread.poll.clone()),
    });
    workers.chain(threads).collect()
}

/// Where in the code the poll is, where that is known.
fn code<'a>(app: &'a App, row: &Row) -> Option<&'a Code> {
    row.poll.as_ref().and(row.tid).and_then(|tid| app.shown().codes.of(CodeOf::Thread(tid)))
}

/// What the thread does, or which state it is in.
fn doing(app: &App, row: &Row) -> String {
    let activity = row.poll.as_ref().and_then(|poll| poll.activity.as_ref());
    match (row.state, activity) {
        (State::InPoll | State::BusyUnseen, Some(activity)) => poll::doing(app, activity),
        _ => String::new(),
    }
}

/// For whom the worker is busy, or that it is not.
fn what(row: &Row, width: usize) -> (String, Tone) {
    match (&row.poll, row.state) {
        (_, State::BusyUnseen) => ("busy, poll not seen".to_owned(), Tone::Critical),
        (Some(poll), _) => poll::what(poll, width),
        (None, State::InPoll) => ("in a poll".to_owned(), Tone::Plain),
        (None, State::Active) => ("between polls".to_owned(), Tone::Quiet),
        (None, State::Parked) => ("parked".to_owned(), Tone::Quiet),
        (None, State::Unspecified) => ("–".to_owned(), Tone::Quiet),
    }
}

/// Cells of each column.
struct Columns {
    name: usize,
    tid: usize,
    bar: usize,
    what: usize,
    doing: usize,
}

impl Columns {
    fn of(rows: &[Row], doing: &[String], width: usize) -> Self {
        let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let name = widest(&mut rows.iter().map(|row| text::width(&row.name))).max(2);
        // Whom and what is told before which thread.
        let tid = if width < 100 { 0 } else { 11 };
        let bar = match width {
            0..60 => 0,
            60..100 => 8,
            _ => 16,
        };
        // Mark and name, ` 100 %`, the duration, each with its blanks, and one at the end.
        let rest = width.saturating_sub(2 + name + 1 + tid + bar + 8 + 10 + 1);
        let what = widest(&mut rows.iter().map(|row| text::width(&what(row, rest).0)));
        // Either may take what the other leaves of its half.
        let doing = widest(&mut doing.iter().map(|doing| text::width(doing))).max(26);
        let doing = doing.min((rest / 2).max(rest.saturating_sub(what)));
        Self { name, tid, bar, what: rest - doing, doing }
    }
}

fn line(theme: Theme, row: &Row, doing: &str, columns: &Columns) -> Line<'static> {
    let loud = if row.is_stuck { Tone::Critical } else { Tone::Plain };
    let (what, what_tone) = what(row, columns.what);
    let since_ns = row.poll.as_ref().map_or(row.since_ns, |poll| Some(poll.since_ns));
    let since = since_ns.map_or("–".to_owned(), words::duration);
    let quiet = theme.tone(Tone::Quiet);
    let mark = if row.is_stuck { "!" } else { " " };
    let mut spans = vec![
        Span::styled(format!(" {mark}"), theme.tone(loud)),
        Span::raw(format!("{:>width$} ", row.name, width = columns.name)),
    ];
    if columns.tid > 0 {
        let tid = row.tid.map_or("tid –".to_owned(), |tid| format!("tid {tid}"));
        spans.push(Span::styled(text::left(&tid, columns.tid), quiet));
    }
    let ratio = row.busy_ratio.unwrap_or(0.0);
    let full = if ratio >= 0.9 { Tone::Warning } else { Tone::Good };
    if columns.bar > 0 {
        let bar = if row.has_share { gauge::bar(ratio, columns.bar) } else { " ".repeat(columns.bar) };
        spans.push(Span::styled(bar, theme.tone(full)));
    }
    let share = match (row.busy_ratio, row.has_share) {
        (_, false) => String::new(),
        (None, true) => "–".to_owned(),
        (Some(ratio), true) => format!("{:.0} %", ratio * 100.0),
    };
    spans.push(Span::raw(format!("{share:>6}  ")));
    spans.push(Span::styled(text::left(&what, columns.what), theme.tone(what_tone)));
    spans.push(Span::styled(format!("{since:>8}  "), theme.tone(loud)));
    spans.push(Span::styled(doing.to_owned(), theme.tone(Tone::Plain)));
    Line::from(spans)
}
