//! The demo's two lines: what the tool said, above what was really done.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::app::App;
use crate::table::{Cut, Tone};
use crate::view::{draw, text, theme};

pub(crate) fn height(app: &App) -> u16 {
    if app.has_strip() { 2 } else { 0 }
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let width = usize::from(area.width);
    let line = |mark: &'static str, said: Option<&str>, nothing: &str, tone: Tone| {
        let (said, tone) = said.map_or((nothing, Tone::Quiet), |said| (said, tone));
        let room = width.saturating_sub(text::width(mark) + 1);
        Line::from(vec![
            Span::styled(mark, theme.badge(tone)),
            Span::styled(format!(" {}", text::cut(&text::clean(said), room, Cut::End)), theme.tone(tone)),
        ])
    };
    let strip = app.strip();
    let said = strip.and_then(|strip| strip.said.as_deref());
    let nothing = if strip.is_some() { "nothing yet" } else { "–" };
    draw(
        frame,
        area,
        vec![
            line(" tool  ", said, nothing, Tone::Strong),
            line(
                " truth ",
                strip.map(|strip| strip.truth.as_str()),
                "no fault was injected yet",
                Tone::Accent,
            ),
        ],
    );
}
