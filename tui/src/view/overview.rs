//! What is wrong, and the few numbers that show it: sentences, workers, pools, totals, what is
//! busiest, events.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::app::{App, Pane, Sentence};
use crate::table::{Cut, Tone};
use crate::view::theme::severity;
use crate::view::{busiest, draw, events, pools, rule, split_top, text, theme, totals, waiting, workers};

/// Sentences shown at most.
const SENTENCES: usize = 8;

/// On fewer lines than this the list of events would have no room beside its details.
const LEAST_BESIDE_DETAILS: u16 = 18;

/// Lines that a part of the screen needs, and would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    least: u16,
    most: u16,
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    if app.shown().at_ns.is_none() {
        return waiting::render(frame, area, app);
    }
    if app.pane() == Some(Pane::Details) && area.height < LEAST_BESIDE_DETAILS {
        // The pane shows an event: what must stay is the list it is of.
        let (top, rest) = split_top(area, (area.height / 3).min(app.shown().sentences.len() as u16));
        draw(frame, top, said(app, area.width, top.height));
        return section(frame, rest, app, "events", &events::facts(app), events::render);
    }
    let sentences = app.shown().sentences.len().min(SENTENCES);
    let whole = said(app, area.width, u16::MAX).len() as u16;
    let workers = workers::wanted(app);
    let heights = share(
        area.height,
        [
            Wish { least: sentences.min(3) as u16, most: whole.min(area.height * 2 / 5) },
            Wish { least: 1 + workers.min(4), most: 1 + workers.min((area.height * 2 / 5).max(4)) },
            Wish {
                least: 1 + pools::wanted(app).min(2),
                most: 1 + if area.height >= 30 { pools::all(app).min(9) } else { pools::wanted(app) },
            },
            Wish { least: 3, most: if area.height >= 30 { 5 } else { 3 } },
            Wish { least: 1 + events::wanted(app).min(1), most: 1 + events::wanted(app).min(5) },
            Wish { least: 0, most: if area.height >= 30 { busiest::wanted(app) } else { 0 } },
        ],
    );
    // What is left goes to the events, which have most to tell.
    let used: u16 = heights.iter().sum();
    let [sentences, workers_height, pools_height, totals_height, events_height, busiest_height] = heights;
    let (top, rest) = split_top(area, sentences);
    draw(frame, top, said(app, area.width, sentences));
    let (part, rest) = split_top(rest, workers_height);
    section(frame, part, app, "workers", &workers::facts(app), workers::render);
    let (part, rest) = split_top(rest, pools_height);
    section(frame, part, app, "pools", &pools::facts(app, part.height), pools::render);
    let (part, rest) = split_top(rest, totals_height);
    let facts = totals::facts(app, part.width, part.height.saturating_sub(1));
    section(frame, part, app, "totals", &facts, totals::render);
    let (part, rest) = split_top(rest, busiest_height);
    section(frame, part, app, "busiest", &busiest::facts(app), busiest::render);
    let (part, _) = split_top(rest, events_height + (area.height - used));
    section(frame, part, app, "events", &events::facts(app), events::render);
}

/// A rule and what stands below it.
fn section(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    title: &str,
    facts: &[(String, Tone)],
    render: fn(&mut Frame<'_>, Rect, &App),
) {
    if area.height > 0 {
        let (top, body) = split_top(area, 1);
        draw(frame, top, vec![rule(theme(app), title, facts, area.width)]);
        render(frame, body, app);
    }
}

/// The sentences in at most `height` lines: all of them whole; or each in one line; or as many as there is room for.
fn said(app: &App, width: u16, height: u16) -> Vec<Line<'static>> {
    let theme = theme(app);
    let room = usize::from(width).saturating_sub(5).max(1);
    let height = usize::from(height);
    let sentences: Vec<&Sentence> = app.shown().sentences.iter().take(SENTENCES).collect();
    let mut lines = Vec::new();
    for (at, sentence) in sentences.iter().enumerate() {
        let behind = sentences.len() - at - 1;
        let left = height.saturating_sub(lines.len());
        let (mark, tone) = severity(sentence.severity);
        let said = text::clean(&sentence.text);
        let wrapped = text::wrap(&said, room);
        let whole = wrapped.len() <= left.saturating_sub(behind).max(1);
        let wrapped = if whole { wrapped } else { vec![text::cut(&said, room, Cut::End)] };
        for (line, part) in wrapped.into_iter().enumerate() {
            let mark = if line == 0 { mark } else { "  " };
            lines.push(Line::from(vec![
                Span::styled(format!(" {mark} "), theme.tone(tone)),
                Span::styled(part, theme.tone(tone)),
            ]));
        }
    }
    if lines.len() > height
        && let Some(last) = height.checked_sub(1)
    {
        let hidden = sentences.len().saturating_sub(last);
        lines.truncate(last);
        lines.push(Line::styled(format!(" …  {hidden} more do not fit"), theme.tone(Tone::Quiet)));
    }
    lines
}

/// Gives each part its least, the first ones first, and then what it would use as long as there is some left.
fn share<const N: usize>(height: u16, wishes: [Wish; N]) -> [u16; N] {
    let mut left = height;
    let mut heights = [0; N];
    for (given, wish) in heights.iter_mut().zip(&wishes) {
        // A rule with nothing below it tells nothing.
        let least = if left >= wish.least.min(2) { wish.least.min(left) } else { 0 };
        *given = least;
        left -= least;
    }
    for (given, wish) in heights.iter_mut().zip(&wishes) {
        let more = wish.most.saturating_sub(*given).min(left);
        if *given > 0 || more > 1 {
            *given += more;
            left -= more;
        }
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_never_take_more_than_there_is_and_the_first_come_first() {
        let wishes = [Wish { least: 2, most: 5 }, Wish { least: 3, most: 9 }, Wish { least: 2, most: 2 }];
        for height in 0..40 {
            let given = share(height, wishes);
            assert!(given.iter().sum::<u16>() <= height);
            for (given, wish) in given.iter().zip(&wishes) {
                assert!(*given <= wish.most);
            }
        }
        assert_eq!(share(3, wishes), [3, 0, 0]);
        assert_eq!(share(7, wishes), [2, 3, 2]);
        assert_eq!(share(9, wishes), [4, 3, 2]);
        assert_eq!(share(39, wishes), [5, 9, 2]);
    }
}
