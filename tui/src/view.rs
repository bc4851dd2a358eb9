//! The screen, drawn from the state and changing nothing of it.
//!
//! ```text
//! header    who the target is, and how the link to it stands
//!           screens
//!           what was lost and what cannot be seen, always
//!           (the link's trouble; on other screens than the overview the worst sentence)
//! body      one of overview, groups, tasks, pending, chooser; or the page of help or coverage
//!           (details of the selected row)
//! strip     the demo's truth, and what was said about it
//! footer    keys, or the filter being typed
//! ```

mod busiest;
mod chooser;
mod coverage;
mod details;
mod events;
mod footer;
mod gauge;
mod groups;
mod header;
mod help;
mod overview;
mod pending;
mod poll;
mod pools;
mod strip;
mod table;
mod tasks;
mod text;
mod theme;
mod totals;
mod waiting;
mod workers;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::Paragraph;

use crate::app::{App, Pane, Screen};
use crate::table::Tone;
use theme::Theme;

/// Nothing is drawn on a smaller terminal but the wish for a larger one.
const LEAST: (u16, u16) = (40, 8);

/// Draws the dashboard. Works at any size.
pub fn view(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let (width, height) = (area.width, area.height);
        let text = format!("terminal too small: {width}×{height}; hint: at least {}×{}", LEAST.0, LEAST.1);
        let lines = text::wrap(&text, usize::from(width)).into_iter().map(Line::raw).collect();
        return draw(frame, area, lines);
    }
    let (header, rest) = split_top(area, header::height(app));
    let (rest, footer) = split_bottom(rest, footer::height(app));
    let (body, strip) = split_bottom(rest, strip::height(app));
    header::render(frame, header, app);
    match (app.pane(), app.screen()) {
        (Some(Pane::Help { .. }), _) => help::render(frame, body, app),
        (Some(Pane::Coverage { .. }), _) => coverage::render(frame, body, app),
        (_, Screen::Chooser) => chooser::render(frame, body, app),
        (pane, screen) => {
            let details = if pane == Some(Pane::Details) { details::height(body, app) } else { 0 };
            let (body, pane) = split_bottom(body, details);
            match screen {
                Screen::Groups => groups::render(frame, body, app),
                Screen::Tasks => tasks::render(frame, body, app),
                Screen::Pending => pending::render(frame, body, app),
                Screen::Overview | Screen::Chooser => overview::render(frame, body, app),
            }
            details::render(frame, pane, app);
        }
    }
    if app.is_old() && app.screen() != Screen::Chooser {
        frame.buffer_mut().set_style(body, theme(app).tone(Tone::Quiet));
    }
    strip::render(frame, strip, app);
    footer::render(frame, footer, app);
}

fn split_top(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let rest = Rect { y: area.y + height, height: area.height - height, ..area };
    (Rect { height, ..area }, rest)
}

fn split_bottom(area: Rect, height: u16) -> (Rect, Rect) {
    let (top, bottom) = split_top(area, area.height - height.min(area.height));
    (top, bottom)
}

/// Draws lines from the top of `area`; what does not fit is cut.
fn draw(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'static>>) {
    frame.render_widget(Paragraph::new(Text::from(lines)), area);
}

fn theme(app: &App) -> Theme {
    Theme::new(app.colour())
}

/// A span of a text that may come from a target.
fn span(theme: Theme, text: &str, tone: Tone) -> Span<'static> {
    Span::styled(text::clean(text), theme.tone(tone))
}

/// Texts with ` · ` between them, as many as fit in `width`; `…` where some do not.
fn listed(theme: Theme, parts: &[(String, Tone)], width: usize) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let mut left = width;
    for (at, (part, tone)) in parts.iter().enumerate() {
        let part = text::clean(part);
        let between = if at == 0 { "" } else { " · " };
        let needed = text::width(&part) + text::width(between);
        // The last one may use what the `…` would need.
        let reserve = if at + 1 < parts.len() { 2 } else { 0 };
        if needed + reserve > left {
            let cut = text::cut(&part, left.saturating_sub(text::width(between)), crate::table::Cut::End);
            if text::width(&cut) > 8 {
                spans.push(Span::styled(between, theme.tone(Tone::Quiet)));
                spans.push(Span::styled(cut, theme.tone(*tone)));
            } else if left >= 2 {
                spans.push(Span::styled(" …", theme.tone(Tone::Quiet)));
            }
            return spans;
        }
        left -= needed;
        spans.push(Span::styled(between, theme.tone(Tone::Quiet)));
        spans.push(Span::styled(part, theme.tone(*tone)));
    }
    spans
}

/// A rule with the name of what follows, and what is worth knowing about all of it.
fn rule(theme: Theme, title: &str, facts: &[(String, Tone)], width: u16) -> Line<'static> {
    let width = usize::from(width);
    let title = text::cut(&text::clean(title), width.saturating_sub(4), crate::table::Cut::End);
    let used = text::width(&title) + 4;
    let room = width.saturating_sub(used + 4);
    let facts = if facts.is_empty() { Vec::new() } else { listed(theme, facts, room) };
    let facts_width: usize = facts.iter().map(|span| text::width(&span.content)).sum();
    let quiet = theme.tone(Tone::Quiet);
    let mut spans =
        vec![Span::styled("─ ", quiet), Span::styled(title, theme.tone(Tone::Strong)), Span::raw(" ")];
    let tail = if facts_width > 0 { facts_width + 3 } else { 0 };
    spans.push(Span::styled("─".repeat(width.saturating_sub(used - 1 + tail)), quiet));
    if facts_width > 0 {
        spans.push(Span::raw(" "));
        spans.extend(facts);
        spans.push(Span::styled(" ─", quiet));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests;
