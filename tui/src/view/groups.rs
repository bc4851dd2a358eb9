//! Groups of tasks, and below them the labels.

use ratatui::Frame;
use ratatui::layout::Rect;
use taskscope_proto::words;

use crate::app::App;
use crate::model::group::Label;
use crate::table::Tone;
use crate::table::groups::GROUPS;
use crate::table::labels::{self, LABELS};
use crate::view::table::Table;
use crate::view::{draw, rule, split_top, table, theme, waiting};

/// On fewer lines there are only groups.
const LEAST_FOR_BOTH: u16 = 12;

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let model = app.shown();
    let Some(total) = model.groups.total else {
        return waiting::render(frame, area, app);
    };
    let theme = theme(app);
    let groups = app.groups();
    let labels: Vec<&Label> = model.groups.labels.iter().collect();
    // Labels take what the groups leave, and at least a third of the screen where there are many of both.
    let wanted = labels.len().max(1) as u16 + 2;
    let left = area.height.saturating_sub(groups.len() as u16 + 2);
    let lower = if area.height < LEAST_FOR_BOTH { 0 } else { wanted.min(left.max(area.height / 3)) };
    let (upper, below) = split_top(area, (area.height - lower).min(groups.len().max(1) as u16 + 3));
    let (lower, _) = split_top(below, lower);

    let (top, body) = split_top(upper, 1);
    let mut facts = vec![(format!("{} in all", words::count(total)), Tone::Plain)];
    if (groups.len() as u64) < total {
        facts = vec![(format!("the busiest {} of {}", groups.len(), words::count(total)), Tone::Warning)];
    }
    let panicked = groups.iter().fold(0, |sum: u64, group| sum.saturating_add(group.panicked_total));
    if panicked > 0 {
        facts.insert(0, (format!("{} panicked", words::count(panicked)), Tone::Critical));
    }
    draw(frame, top, vec![rule(theme, "groups", &facts, area.width)]);
    let selected = app.selected_group().and_then(|it| groups.iter().position(|group| group.id == it.id));
    table::render(
        frame,
        body,
        app,
        &Table {
            columns: GROUPS,
            rows: &groups,
            sort: Some(app.groups_sort()),
            selected,
            empty: "no task was spawned yet",
        },
    );
    if lower.height == 0 {
        return;
    }
    let (top, body) = split_top(lower, 1);
    let hidden = labels.len().saturating_sub(usize::from(body.height).saturating_sub(1));
    let mut facts = Vec::new();
    if let Some(requests) = labels::requests_total(&model.groups.labels) {
        facts.push((format!("{requests} requests"), Tone::Plain));
    }
    if hidden > 0 {
        facts.push((format!("{hidden} more do not fit"), Tone::Quiet));
    }
    draw(frame, top, vec![rule(theme, "labels", &facts, area.width)]);
    let empty = "no label was set: polls are told apart by where their task was spawned";
    table::render(
        frame,
        body,
        app,
        &Table { columns: LABELS, rows: &labels, sort: None, selected: None, empty },
    );
}
