//! The keys, from the table that makes them work, and the words on the screens.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::app::{App, Pane};
use crate::keymap::{Place, TABLE};
use crate::table::{Cut, Tone};
use crate::view::theme::Theme;
use crate::view::{draw, text, theme};

const WORDS: &[(&str, &str)] = &[
    ("–", "not known, which is not zero"),
    ("busy", "time inside polls"),
    ("sched", "woken, not yet polled"),
    ("idle", "neither: it waits"),
    ("since", "time in the present state"),
    ("label", "what a poll does, for whom"),
    ("@place", "spawned there, not running there"),
    ("STUCK", "the poll runs now, past the limit"),
    ("SLOW", "the poll ended, past the limit"),
];

const FILTER: &[&str] = &[
    "terms joined by spaces, all must hold",
    "state= kind= outcome=  also !=",
    "name~ label~ at~       also !~ = !=",
    "polls>100 id=7         also != >= < <=",
    "age>1.5s, so busy scheduled idle since",
    "    longest; units ns us ms s m h",
];

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let scroll = match app.pane() {
        Some(Pane::Help { scroll }) => usize::from(scroll),
        _ => 0,
    };
    let two = area.width >= 80;
    let column = usize::from(if two { area.width / 2 } else { area.width }).saturating_sub(2);
    let keys = keys(theme, Place::Table, "keys", column);
    let mut words = titled(theme, "filter");
    words.extend(FILTER.iter().map(|line| plain(line, column)));
    words.push(Line::default());
    words.extend(self::keys(theme, Place::Filter, "typing a filter", column));
    words.push(Line::default());
    words.extend(titled(theme, "words"));
    words.extend(WORDS.iter().map(|(word, meaning)| pair(theme, word, meaning, 7, column)));
    let lines: Vec<Line<'static>> = if two {
        let empty = Line::default();
        (0..keys.len().max(words.len()))
            .map(|at| {
                let mut spans = vec![Span::raw(" ")];
                let left = keys.get(at).unwrap_or(&empty);
                let used: usize = left.spans.iter().map(|span| text::width(&span.content)).sum();
                spans.extend(left.spans.iter().cloned());
                spans.push(Span::raw(" ".repeat((column + 2).saturating_sub(used))));
                spans.extend(words.get(at).unwrap_or(&empty).spans.iter().cloned());
                Line::from(spans)
            })
            .collect()
    } else {
        let between = std::iter::once(Line::default());
        keys.into_iter().chain(between).chain(words).map(|line| indented(&line)).collect()
    };
    draw(frame, area, scrolled(lines, scroll, area.height));
}

/// The part of a page that is on the screen; the end of it stays there.
pub(crate) fn scrolled(lines: Vec<Line<'static>>, scroll: usize, height: u16) -> Vec<Line<'static>> {
    let height = usize::from(height);
    if lines.len() <= height || height == 0 {
        return lines;
    }
    let first = scroll.min(lines.len() - (height - 1));
    let above = first;
    let below = lines.len().saturating_sub(first + height - 1);
    let more = match (above, below) {
        (_, 0) => format!(" ↑ {above} more lines"),
        (0, _) => format!(" ↓ {below} more lines"),
        _ => format!(" ↑ {above} and ↓ {below} more lines"),
    };
    let mut part: Vec<Line<'static>> = lines.into_iter().skip(first).take(height - 1).collect();
    part.push(Line::raw(more));
    part
}

fn titled(theme: Theme, title: &'static str) -> Vec<Line<'static>> {
    vec![Line::from(Span::styled(title, theme.tone(Tone::Strong)))]
}

fn keys(theme: Theme, place: Place, title: &'static str, width: usize) -> Vec<Line<'static>> {
    let mut lines = titled(theme, title);
    let mut merged: Vec<(String, &str)> = Vec::new();
    for binding in TABLE.iter().filter(|binding| binding.places.contains(&place)) {
        // There is little room beside the keys of the filter: the usual one of each is enough.
        let told = if place == Place::Filter { 1 } else { binding.keys.len() };
        let keys: Vec<String> = binding.keys.iter().take(told).map(|key| key.label()).collect();
        // What is bound the same on every screen is not told again for the filter.
        if place == Place::Filter && binding.places.len() > 1 {
            continue;
        }
        match merged.iter_mut().find(|(_, help)| *help == binding.help) {
            Some((known, _)) => *known = format!("{known} {}", keys.join(" ")),
            None => merged.push((keys.join(" "), binding.help)),
        }
    }
    lines.extend(merged.iter().map(|(keys, help)| pair(theme, keys, help, 13, width)));
    lines
}

fn pair(theme: Theme, left: &str, right: &str, left_width: usize, width: usize) -> Line<'static> {
    let right = text::cut(right, width.saturating_sub(left_width + 1), Cut::End);
    Line::from(vec![
        Span::styled(text::left(left, left_width), theme.tone(Tone::Accent)),
        Span::raw(format!(" {right}")),
    ])
}

fn plain(line: &str, width: usize) -> Line<'static> {
    Line::raw(text::cut(line, width, Cut::End))
}

fn indented(line: &Line<'static>) -> Line<'static> {
    let mut spans = vec![Span::raw(" ")];
    spans.extend(line.spans.iter().cloned());
    Line::from(spans)
}
