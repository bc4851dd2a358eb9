//! All fields of the selected row, below its table or instead of it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::app::{App, Screen};
use crate::table::{Cell, Tone, groups, tasks};
use crate::view::table::cut_cell;
use crate::view::{draw, events, rule, split_top, text, theme};

const NAME_WIDTH: usize = 18;
/// Below this the table beside the pane shows too little to be worth it.
const TABLE_HEIGHT: u16 = 7;

/// Lines that the pane takes of `area`.
pub(crate) fn height(area: Rect, app: &App) -> u16 {
    let wanted = lines(app, area.width).len() as u16 + 1;
    if area.height.saturating_sub(wanted) >= TABLE_HEIGHT { wanted } else { area.height }
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    if area.height == 0 {
        return;
    }
    let (top, body) = split_top(area, 1);
    let facts = [("Enter or Esc closes".to_owned(), Tone::Quiet)];
    draw(frame, top, vec![rule(theme(app), "details", &facts, area.width)]);
    draw(frame, body, lines(app, area.width));
}

fn fields(app: &App) -> Vec<(&'static str, Cell)> {
    let context = app.context(&[]);
    match app.screen() {
        Screen::Overview | Screen::Chooser => {
            app.selected_event().map(|event| events::fields(app, event)).unwrap_or_default()
        }
        Screen::Groups => {
            app.selected_group().map(|group| groups::fields(group, &context)).unwrap_or_default()
        }
        Screen::Tasks | Screen::Pending => {
            let mut fields = app.selected_task().map(|row| tasks::fields(row, &context)).unwrap_or_default();
            if let Some(id) = app.listing().selected.filter(|&id| app.shown().tasks.is_unknown(id)) {
                let said = format!("task {id} is gone: the target remembers it no more");
                fields.insert(0, ("note", Cell::new(said).tone(Tone::Warning)));
            }
            fields
        }
    }
}

/// Two fields in a line where both are short.
fn lines(app: &App, width: u16) -> Vec<Line<'static>> {
    let theme = theme(app);
    let width = usize::from(width);
    let fields = fields(app);
    if fields.is_empty() {
        let said = match app.screen() {
            Screen::Overview | Screen::Chooser => " no event is selected",
            Screen::Groups => " no group is selected",
            Screen::Tasks | Screen::Pending => " no task is selected",
        };
        return vec![Line::styled(said, theme.tone(Tone::Quiet))];
    }
    let half = width / 2;
    let room = half.saturating_sub(NAME_WIDTH + 2);
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut open = false;
    for (name, cell) in &fields {
        let short = width >= 76 && text::width(&text::clean(&cell.text)) <= room;
        let mut spans = vec![Span::styled(format!(" {name:<NAME_WIDTH$}"), theme.tone(Tone::Quiet))];
        if short {
            spans.push(Span::styled(text::left(&text::clean(&cell.text), room + 1), theme.tone(cell.tone)));
        } else {
            let whole = cut_cell(cell, width.saturating_sub(NAME_WIDTH + 2));
            spans.push(Span::styled(whole, theme.tone(cell.tone)));
        }
        match lines.last_mut() {
            Some(line) if open && short => {
                line.spans.extend(spans);
                open = false;
            }
            _ => {
                lines.push(Line::from(spans));
                open = short;
            }
        }
    }
    lines
}
