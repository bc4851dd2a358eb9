//! All fields of the selected row, below its table or instead of it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::app::{App, Code, CodeOf, Screen};
use crate::table::{Cell, Cut, Tone, groups, tasks};
use crate::view::table::cut_cell;
use crate::view::{draw, events, rule, split_top, text, theme};

const NAME_WIDTH: usize = 18;
/// Functions of a stack that are shown, and how many of them lie below the line.
const FRAMES: usize = 10;
const FRAMES_AFTER_LINE: usize = 2;
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
            if let Some(code) = code(app) {
                fields.insert(0, ("line", Cell::text(&code.words)));
            }
            fields
        }
    }
}

/// Where in the code the selected event, or the poll of the selected task, is.
fn code(app: &App) -> Option<&Code> {
    let of = match app.screen() {
        Screen::Overview | Screen::Chooser => CodeOf::Event(app.selected_event()?.seq),
        Screen::Tasks | Screen::Pending => CodeOf::Task(app.selected_task()?.id.0),
        Screen::Groups => return None,
    };
    app.shown().codes.of(of)
}

/// The functions of the poll, the innermost first, one in a line; the line is marked and always among them.
fn stack(app: &App, width: usize) -> Vec<Line<'static>> {
    let theme = theme(app);
    let Some(code) = code(app) else { return Vec::new() };
    let line = code.stack.iter().position(|(_, is_line)| *is_line).unwrap_or(0);
    let first =
        (line + FRAMES_AFTER_LINE + 1).saturating_sub(FRAMES).min(code.stack.len().saturating_sub(FRAMES));
    let mut lines = Vec::new();
    for (at, (frame, is_line)) in code.stack.iter().enumerate().skip(first).take(FRAMES) {
        let name = if at == first { "stack" } else { "" };
        let (mark, tone) = if *is_line { ("▸ ", Tone::Strong) } else { ("  ", Tone::Plain) };
        let frame = text::cut(&text::clean(frame), width.saturating_sub(NAME_WIDTH + 4), Cut::Start);
        lines.push(Line::from(vec![
            Span::styled(format!(" {name:<NAME_WIDTH$}"), theme.tone(Tone::Quiet)),
            Span::styled(format!("{mark}{frame}"), theme.tone(tone)),
        ]));
    }
    let hidden = code.stack.len().saturating_sub(lines.len());
    if hidden > 0 {
        let said = format!(" {:<NAME_WIDTH$}  … {hidden} more, see `taskscope stacks`", "");
        lines.push(Line::styled(text::cut(&said, width, Cut::End), theme.tone(Tone::Quiet)));
    }
    lines
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
    lines.extend(stack(app, width));
    lines
}
