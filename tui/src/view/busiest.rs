//! What the workers spend their time on: labels, or groups where there are no labels. The groups screen has them all.

use ratatui::Frame;
use ratatui::layout::Rect;

use crate::app::App;
use crate::model::group::{Group, Label};
use crate::table::Tone;
use crate::table::groups::GROUPS;
use crate::table::labels::LABELS;
use crate::view::table;
use crate::view::table::Table;

/// Rows shown at most.
const ROWS: usize = 5;

/// Lines that it takes with its rule; 0 where there is nothing to show.
pub(crate) fn wanted(app: &App) -> u16 {
    let groups = &app.shown().groups;
    let rows = if groups.labels.is_empty() { groups.groups.len() } else { groups.labels.len() };
    if rows == 0 { 0 } else { rows.min(ROWS) as u16 + 2 }
}

pub(crate) fn facts(app: &App) -> Vec<(String, Tone)> {
    let by = if app.shown().groups.labels.is_empty() { "groups" } else { "labels" };
    vec![(format!("{by}, all on screen 2"), Tone::Quiet)]
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let groups = &app.shown().groups;
    let labels: Vec<&Label> = groups.labels.iter().collect();
    if labels.is_empty() {
        let rows: Vec<&Group> = groups.groups.iter().collect();
        let table = Table { columns: GROUPS, rows: &rows, sort: None, selected: None, empty: "" };
        return table::render(frame, area, app, &table);
    }
    table::render(
        frame,
        area,
        app,
        &Table { columns: LABELS, rows: &labels, sort: None, selected: None, empty: "" },
    );
}
