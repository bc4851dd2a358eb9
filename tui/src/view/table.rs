//! Draws a table from the description of its columns.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::app::App;
use crate::table::{Align, Cell, Column, Cut, Sort, Tone, fit};
use crate::view::{draw, text, theme};

/// The rows of one table and how they stand.
pub(crate) struct Table<'a, R: 'static, S: 'static> {
    pub(crate) columns: &'static [Column<R, S>],
    pub(crate) rows: &'a [&'a R],
    pub(crate) sort: Option<Sort<S>>,
    /// Place of the selected row.
    pub(crate) selected: Option<usize>,
    /// What stands there where no row does.
    pub(crate) empty: &'a str,
}

/// The first row on the screen, so that the selected one stays in the middle where it can.
pub(crate) fn first_row(selected: Option<usize>, rows: usize, height: usize) -> usize {
    let at = selected.unwrap_or(0);
    at.saturating_sub(height / 2).min(rows.saturating_sub(height))
}

pub(crate) fn render<R: 'static, S: Copy + PartialEq>(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    table: &Table<'_, R, S>,
) {
    let theme = theme(app);
    // One blank before the first column and one behind the last, so that a selected row has an edge.
    let columns = fit(table.columns, area.width.saturating_sub(2));
    let titles: Vec<&'static str> = columns.iter().map(|(column, _)| column.title).collect();
    let context = app.context(&titles);
    let mut header = vec![Span::raw(" ")];
    for (at, (column, width)) in columns.iter().enumerate() {
        let sorted = table.sort.filter(|sort| column.sort == Some(sort.key));
        let title = match (sorted, column.align) {
            (Some(sort), Align::Right) => format!("{}{}", sort.mark(), column.title),
            (Some(sort), Align::Left) => format!("{}{}", column.title, sort.mark()),
            (None, _) => column.title.to_owned(),
        };
        let tone = if sorted.is_some() { Tone::Strong } else { Tone::Quiet };
        let blank = if at == 0 { "" } else { " " };
        header.push(Span::styled(
            format!("{blank}{}", aligned(&Cell::new(title), column.align, *width)),
            theme.tone(tone),
        ));
    }
    let mut lines = vec![Line::from(header)];
    let height = usize::from(area.height).saturating_sub(1);
    let first = first_row(table.selected, table.rows.len(), height);
    for (at, row) in table.rows.iter().enumerate().skip(first).take(height) {
        let selected = table.selected == Some(at);
        let mut spans = vec![Span::raw(if selected { "▸" } else { " " })];
        for (place, (column, width)) in columns.iter().enumerate() {
            let cell = (column.cell)(row, &context);
            let tone = theme.tone(cell.tone);
            if place > 0 {
                spans.push(Span::raw(" "));
            }
            spans.push(Span::styled(aligned(&cell, column.align, *width), tone));
        }
        let used: usize = spans.iter().map(|span| text::width(&span.content)).sum();
        spans.push(Span::raw(" ".repeat(usize::from(area.width).saturating_sub(used))));
        let mut line = Line::from(spans);
        if selected {
            line = line.patch_style(theme.selected());
        }
        lines.push(line);
    }
    if table.rows.is_empty() {
        for line in text::wrap(&text::clean(table.empty), usize::from(area.width.saturating_sub(2))) {
            lines.push(Line::styled(format!(" {line}"), theme.tone(Tone::Quiet)));
        }
    }
    draw(frame, area, lines);
}

fn aligned(cell: &Cell, align: Align, width: u16) -> String {
    let width = usize::from(width);
    let text = text::cut(&text::clean(&cell.text), width, cell.cut);
    let blanks = " ".repeat(width.saturating_sub(text::width(&text)));
    match align {
        Align::Left => text + &blanks,
        Align::Right => blanks + &text,
    }
}

/// A text of a target cut for a line, at the end that says less.
pub(crate) fn cut_cell(cell: &Cell, width: usize) -> String {
    text::cut(&text::clean(&cell.text), width, if width < 4 { Cut::End } else { cell.cut })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_is_always_on_the_screen() {
        for rows in 0..40 {
            for height in 0..12 {
                assert!(first_row(None, rows, height) == 0);
                for selected in 0..rows {
                    let first = first_row(Some(selected), rows, height);
                    assert!(
                        height == 0 || (first..first + height).contains(&selected),
                        "{selected} of {rows} in {height}"
                    );
                }
            }
        }
    }
}
