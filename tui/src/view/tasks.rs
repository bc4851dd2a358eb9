//! Every task, filtered and sorted.

use ratatui::Frame;
use ratatui::layout::Rect;
use taskscope_proto::v1::SortKey;
use taskscope_proto::words;

use crate::app::App;
use crate::model::Model;
use crate::table::tasks::TASKS;
use crate::table::{Column, Tone};
use crate::view::table::{Table, first_row};
use crate::view::{draw, rule, split_top, table, theme, waiting};
use taskscope_proto::row::TaskRow;

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    list(frame, area, app, "tasks", TASKS, "no task is alive");
}

/// A list of tasks under a rule that says which part of it is on the screen.
pub(crate) fn list(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    title: &str,
    columns: &'static [Column<TaskRow, SortKey>],
    none: &str,
) {
    let model = app.shown();
    if model.at_ns.is_none() {
        return waiting::render(frame, area, app);
    }
    let rows = app.task_rows();
    let listing = app.listing();
    let selected = listing.selected.and_then(|id| rows.iter().position(|row| row.id == id));
    let (top, body) = split_top(area, 1);
    let height = usize::from(body.height).saturating_sub(1);
    let first = first_row(selected, rows.len(), height);
    let shown = height.min(rows.len() - first.min(rows.len()));
    let mut facts = Vec::new();
    if !app.filter_text().is_empty() {
        facts.push((format!("filter: {}", app.filter_text()), Tone::Accent));
    }
    facts.push((part(app, model, first, shown, rows.len()), Tone::Plain));
    if model.rows_age_ns >= 1_000_000_000 {
        facts.push((format!("rows are {} old", words::duration(model.rows_age_ns)), Tone::Warning));
    }
    draw(frame, top, vec![rule(theme(app), title, &facts, area.width)]);
    let unmatched = format!("none matches {}", app.filter_text());
    let empty = match (model.tasks.matching(), app.paused_for(), app.filter_text()) {
        (None, Some(_), _) => "the screen was paused before rows of tasks were asked for; space goes on",
        (None, None, _) => "asking for rows",
        (Some(_), _, "") => none,
        (Some(_), _, _) => unmatched.as_str(),
    };
    table::render(
        frame,
        body,
        app,
        &Table { columns, rows: &rows, sort: Some(listing.sort), selected, empty },
    );
}

/// `1–14 of 212`.
fn part(app: &App, model: &Model, first: usize, shown: usize, fetched: usize) -> String {
    let listing = app.listing();
    let Some(matching) = model.tasks.matching() else { return "–".to_owned() };
    let matching = matching.max(fetched as u64);
    if shown == 0 {
        return format!("{} match", words::count(matching));
    }
    // Rows come and go, so from the second window on the numbers are about right, and say so.
    let before = if listing.is_reversed() {
        matching.saturating_sub(listing.skipped() + fetched as u64)
    } else {
        listing.skipped()
    };
    let about = if before > 0 { "about " } else { "" };
    let from = before + first as u64 + 1;
    let to = before + (first + shown) as u64;
    if shown as u64 == matching {
        return words::count(matching);
    }
    format!("{about}{}–{} of {}", words::count(from), words::count(to), words::count(matching))
}
