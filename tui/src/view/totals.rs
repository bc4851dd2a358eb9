//! Four numbers and where they come from: tasks, polls, requests, busy share, each with its last minutes.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::words;

use crate::app::App;
use crate::model::Model;
use crate::model::history::Metric;
use crate::table::Tone;
use crate::view::theme::Theme;
use crate::view::{draw, gauge, text, theme};

struct Total {
    name: &'static str,
    now: fn(&Model) -> Option<f64>,
    metric: Metric,
    said: fn(f64) -> String,
}

const TOTALS: [Total; 4] = [
    Total {
        name: "tasks",
        now: |model| model.alive().map(|alive| alive as f64),
        metric: |sample| Some(sample.alive as f64),
        said: short,
    },
    Total {
        name: "polls/s",
        now: |model| {
            let totals = model.totals.as_ref()?;
            per_second(totals.polls_window, totals.window_ns)
        },
        metric: |sample| Some(sample.polls),
        said: words::short_count,
    },
    Total {
        name: "requests/s",
        now: |model| {
            let totals = model.totals.as_ref()?;
            per_second(totals.requests_window?, totals.window_ns)
        },
        metric: |sample| sample.requests,
        said: words::short_count,
    },
    Total {
        name: "busy",
        now: |model| model.busy_ratio().map(|ratio| ratio * 100.0),
        metric: |sample| sample.busy_permille.map(|permille| f64::from(permille) / 10.0),
        said: |percent| format!("{percent:.0} %"),
    },
];

/// Blank, name, number and a blank before the graph.
const TAKEN: usize = 1 + 10 + 8 + 1;

pub(crate) fn facts(app: &App, width: u16, height: u16) -> Vec<(String, Tone)> {
    let model = app.shown();
    let Some(totals) = &model.totals else { return Vec::new() };
    let mut facts = Vec::new();
    if totals.panicked_total > 0 {
        facts.push((format!("{} panicked", words::count(totals.panicked_total)), Tone::Critical));
    }
    facts.push((
        format!("{} spawned, {} ended", words::count(totals.spawned_total), words::count(totals.ended_total)),
        Tone::Plain,
    ));
    let series = model.history.series(TOTALS[0].metric, graph_width(width, height));
    if series.cells.len() > 1 {
        let span_ns = series.cells.len() as u64 * series.step_seconds * 1_000_000_000;
        facts.push((format!("last {}", words::duration(span_ns)), Tone::Quiet));
    }
    facts
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let width = graph_width(area.width, area.height);
    let model = app.shown();
    let lines = if columns(area.width, area.height) == 2 {
        TOTALS
            .chunks(2)
            .map(|pair| {
                Line::from(
                    pair.iter().flat_map(|total| spans(theme, model, total, width)).collect::<Vec<_>>(),
                )
            })
            .collect()
    } else {
        TOTALS.iter().map(|total| Line::from(spans(theme, model, total, width))).collect()
    };
    draw(frame, area, lines);
}

/// Two beside each other where there is no room for four lines.
fn columns(width: u16, height: u16) -> usize {
    if height < TOTALS.len() as u16 && width >= 60 { 2 } else { 1 }
}

fn graph_width(width: u16, height: u16) -> usize {
    (usize::from(width) / columns(width, height)).saturating_sub(TAKEN + 1)
}

fn spans(theme: Theme, model: &Model, total: &Total, width: usize) -> Vec<Span<'static>> {
    let said = (total.now)(model).map_or("–".to_owned(), total.said);
    let graph = gauge::spark(&model.history.series(total.metric, width).cells);
    // Now is at the right end.
    let blanks = width.saturating_sub(text::width(&graph));
    vec![
        Span::raw(format!(" {:<10}", total.name)),
        Span::styled(format!("{said:>8} "), theme.tone(Tone::Strong)),
        Span::raw(" ".repeat(blanks)),
        Span::styled(graph, theme.tone(Tone::Accent)),
        Span::raw(" "),
    ]
}

fn per_second(count: u64, window_ns: u64) -> Option<f64> {
    (window_ns > 0).then(|| count as f64 / (window_ns as f64 / 1e9))
}

fn short(n: f64) -> String {
    if n < 100_000.0 { words::count(n as u64) } else { words::short_count(n) }
}
