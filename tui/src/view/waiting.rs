//! What is on the screen before anything is known: whom we are asking, since when, and why it takes so long.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::words;

use crate::app::{App, LinkView};
use crate::table::{Cut, Tone};
use crate::view::{draw, text, theme};

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let width = usize::from(area.width);
    let for_ns = app.link_for().as_nanos().min(u128::from(u64::MAX)) as u64;
    let since = words::duration(for_ns / 100_000_000 * 100_000_000);
    let (said, reason, tone) = match app.link() {
        LinkView::Connecting { attempt: 0 | 1 } => (format!("connecting for {since}"), "", Tone::Plain),
        LinkView::Connecting { attempt } => {
            (format!("connecting, attempt {attempt}, for {since}"), "", Tone::Plain)
        }
        LinkView::Live => (format!("connected {since} ago, waiting for the first frame"), "", Tone::Good),
        LinkView::Stale { .. } => {
            ("connected, but the target has said nothing yet".to_owned(), "", Tone::Warning)
        }
        LinkView::Disconnected { reason, retry_in_ns } => {
            let left = Duration::from_nanos(*retry_in_ns).saturating_sub(app.link_for());
            let left_ns = left.as_nanos().min(u128::from(u64::MAX)) as u64;
            let said = match left_ns {
                0 => "cannot connect; trying again now".to_owned(),
                ns => format!("cannot connect; next try in {}", words::duration(ns)),
            };
            (said, reason.as_str(), Tone::Critical)
        }
        LinkView::Closed { reason } => ("closed".to_owned(), reason.as_str(), Tone::Critical),
    };
    let mut lines = vec![
        Line::default(),
        Line::from(vec![
            Span::raw("   "),
            Span::styled(
                text::cut(&text::clean(app.target()), width.saturating_sub(4), Cut::End),
                theme.tone(Tone::Strong),
            ),
        ]),
        Line::styled(format!("   {said}"), theme.tone(tone)),
    ];
    if !reason.is_empty() {
        lines.push(Line::default());
    }
    for part in reason.lines() {
        for line in text::wrap(&text::clean(part), width.saturating_sub(6)) {
            lines.push(Line::raw(format!("   {line}")));
        }
    }
    draw(frame, area, lines);
}
