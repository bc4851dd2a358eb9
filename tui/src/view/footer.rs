//! The keys that matter here; or the filter being typed, with what is wrong with it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::app::App;
use crate::keymap::{self, TABLE};
use crate::table::Tone;
use crate::view::{draw, span, text, theme};

const PROMPT: &str = " filter: ";

pub(crate) fn height(app: &App) -> u16 {
    match app.input() {
        Some(input) if input.error.is_some() => 3,
        Some(_) => 2,
        None => 1,
    }
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let mut lines = Vec::new();
    if let Some(input) = app.input() {
        lines.extend(prompt(app, input, usize::from(area.width)));
    }
    if app.input().is_none_or(|input| input.error.is_none()) {
        lines.push(keys(app, usize::from(area.width)));
    }
    draw(frame, area, lines);
}

fn keys(app: &App, width: usize) -> Line<'static> {
    let theme = theme(app);
    let place = keymap::place(app);
    let mut hints: Vec<(String, &str)> = Vec::new();
    for binding in TABLE.iter().filter(|binding| binding.places.contains(&place)) {
        let (Some(word), Some(key)) = (binding.footer, binding.keys.first()) else { continue };
        match hints.last_mut() {
            Some((keys, last)) if *last == word => keys.push_str(&key.label()),
            _ => hints.push((key.label(), word)),
        }
    }
    let mut spans = Vec::new();
    let mut left = width;
    for (key, word) in hints {
        let needed = text::width(&key) + text::width(word) + 3;
        if needed > left {
            break;
        }
        left -= needed;
        spans.push(Span::styled(format!(" {key}"), theme.tone(Tone::Strong)));
        spans.push(Span::styled(format!(" {word} "), theme.tone(Tone::Quiet)));
    }
    Line::from(spans)
}

fn prompt(app: &App, input: &crate::app::filter_input::FilterInput, width: usize) -> Vec<Line<'static>> {
    let theme = theme(app);
    // A control character would take no cell; the filter never holds one, but what it was pasted from might.
    let chars: Vec<char> = text::clean(&input.text()).chars().collect();
    let at = input.at.min(chars.len());
    let room = width.saturating_sub(PROMPT.len() + 1);
    // The cursor stays in sight: what stands too far before it is left out.
    let mut start = at;
    let mut used = 0;
    while start > 0 {
        used += text::width(&chars[start - 1].to_string());
        if used > room {
            break;
        }
        start -= 1;
    }
    let before: String = chars[start..at].iter().collect();
    let under: String = chars.get(at).map_or(" ".to_owned(), char::to_string);
    let after: String = chars.iter().skip(at + 1).collect();
    let column = PROMPT.len() + text::width(&before);
    let mut lines = vec![Line::from(vec![
        Span::styled(PROMPT, theme.tone(Tone::Strong)),
        Span::raw(before),
        Span::styled(under, theme.selected()),
        Span::raw(after),
    ])];
    if let Some(error) = &input.error {
        let said = text::clean(&error.what);
        // Behind the mark where there is room, before it otherwise.
        let marked = if column + 2 + text::width(&said) <= width {
            format!("{}^ {said}", " ".repeat(column))
        } else {
            let blanks = column.saturating_sub(text::width(&said) + 1);
            text::left(&format!("{}{said} ^", " ".repeat(blanks)), width)
        };
        lines.push(Line::styled(marked, theme.tone(Tone::Critical)));
        lines.push(Line::from(vec![
            Span::styled(" hint: ", theme.tone(Tone::Strong)),
            span(theme, &error.hint, Tone::Plain),
        ]));
    }
    lines
}
