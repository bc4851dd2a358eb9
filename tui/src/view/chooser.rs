//! Several targets are there: which one?

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::words;

use crate::app::App;
use crate::table::{Cut, Tone};
use crate::view::table::first_row;
use crate::view::{draw, text, theme};

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let width = usize::from(area.width);
    let choices = app.choices();
    if choices.is_empty() {
        let said = "no local target is there\nhint: start a service that has the probe, or name an address";
        let lines = said.lines().map(|line| Line::raw(format!("  {line}"))).collect();
        return draw(frame, area, lines);
    }
    let at = app.chosen().and_then(|it| choices.iter().position(|choice| choice.address == it.address));
    let head = format!("  {} local targets; Enter attaches", choices.len());
    let mut lines = vec![Line::styled(head, theme.tone(Tone::Quiet)), Line::default()];
    let longest = choices.iter().map(|choice| text::width(&text::clean(&choice.name))).max().unwrap_or(0);
    let name_width = longest.clamp(8, (width / 3).max(8));
    // Two lines for each.
    let height = usize::from(area.height).saturating_sub(2) / 2;
    let first = first_row(at, choices.len(), height);
    for (place, choice) in choices.iter().enumerate().skip(first).take(height) {
        let selected = at == Some(place);
        let mut facts = Vec::new();
        if let Some(pid) = choice.pid {
            facts.push(format!("pid {pid}"));
        }
        if !choice.instance.is_empty() {
            facts.push(choice.instance.chars().take(4).collect());
        }
        if let Some(up_ns) = choice.up_ns {
            facts.push(format!("up {}", words::duration(up_ns)));
        }
        let mark = if selected { " ▸ " } else { "   " };
        let name = text::left(&text::clean(&choice.name), name_width);
        let facts =
            text::cut(&text::clean(&facts.join(" · ")), width.saturating_sub(name_width + 5), Cut::End);
        let used = text::width(mark) + name_width + 2 + text::width(&facts);
        let mut line = Line::from(vec![
            Span::raw(mark),
            Span::styled(name, theme.tone(Tone::Strong)),
            Span::raw(format!("  {facts}{}", " ".repeat(width.saturating_sub(used)))),
        ]);
        if selected {
            line = line.patch_style(theme.selected());
        }
        lines.push(line);
        let (below, tone) = match &choice.trouble {
            Some(trouble) => (trouble.replace('\n', "; "), Tone::Warning),
            None => (choice.address.clone(), Tone::Quiet),
        };
        let below = text::cut(&text::clean(&below), width.saturating_sub(6), Cut::End);
        lines.push(Line::styled(format!("     {below}"), theme.tone(tone)));
    }
    draw(frame, area, lines);
}
