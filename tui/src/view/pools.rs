//! One line for each pool: how full, what waits for it, and for how long.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::v1::Pool;
use taskscope_proto::words;

use crate::app::App;
use crate::table::{Cut, Tone};
use crate::view::{draw, gauge, text, theme};

/// Lines that all pools would take.
pub(crate) fn wanted(app: &App) -> u16 {
    app.shown().pools.len().clamp(1, 1000) as u16
}

/// What to know about all of them where a part of `height` lines, its rule among them, shows them.
pub(crate) fn facts(app: &App, height: u16) -> Vec<(String, Tone)> {
    let pools = &app.shown().pools;
    let shown = usize::from(height.saturating_sub(1));
    let full = pools.iter().filter(|pool| pool.saturated_ns.is_some()).count();
    let mut facts = Vec::new();
    if full > 0 {
        facts.push((format!("{full} of {} full", pools.len()), Tone::Critical));
    }
    if pools.len() > shown {
        facts.push((format!("the fullest {shown} of {}", pools.len()), Tone::Quiet));
    }
    facts
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    // The fullest first: where not all fit, the others are the ones to leave out.
    let mut pools: Vec<&Pool> = app.shown().pools.iter().collect();
    pools.sort_by_key(|pool| std::cmp::Reverse((pool.saturated_ns, pool.queued)));
    if pools.is_empty() {
        return draw(frame, area, vec![Line::styled(" none was reported", theme.tone(Tone::Quiet))]);
    }
    let longest = pools.iter().map(|pool| text::width(&text::clean(&pool.name))).max().unwrap_or(0);
    let name_width = longest.clamp(8, 24).min(width / 3);
    let bar_width = if width < 60 { 8 } else { 16 };
    let lines: Vec<Line<'static>> = pools
        .iter()
        .take(height)
        .map(|pool| {
            let full = pool.saturated_ns.is_some();
            let tone = if full { Tone::Critical } else { Tone::Plain };
            let fill = match (pool.busy, pool.capacity) {
                (Some(busy), Some(capacity @ 1..)) => gauge::bar(busy as f64 / capacity as f64, bar_width),
                _ => text::left("–", bar_width),
            };
            let level = match (pool.busy, pool.capacity) {
                (Some(busy), Some(capacity)) => {
                    format!("{} of {}", words::count(busy), words::count(capacity))
                }
                (Some(busy), None) => format!("{} busy", words::count(busy)),
                (None, Some(capacity)) => format!("– of {}", words::count(capacity)),
                (None, None) => "–".to_owned(),
            };
            let mut facts = vec![match (pool.queued, pool.oldest_wait_ns) {
                (None, _) => "queue not known".to_owned(),
                (Some(0), _) => "none waits".to_owned(),
                (Some(n), None) => format!("{} wait", words::count(n)),
                (Some(n), Some(ns)) => format!("{} wait, oldest {}", words::count(n), words::duration(ns)),
            }];
            if let Some(ns) = pool.saturated_ns {
                facts.push(format!("full for {}", words::duration(ns)));
            }
            if let Some(idle @ 1..) = pool.idle {
                facts.push(format!("{} idle", words::count(idle)));
            }
            let facts = facts.join(" · ");
            let room = width.saturating_sub(3 + name_width + 1 + bar_width + 13);
            let quiet = pool.queued.is_none_or(|queued| queued == 0) && !full;
            Line::from(vec![
                Span::styled(if full { " ! " } else { "   " }, theme.tone(tone)),
                Span::raw(text::left(&text::clean(&pool.name), name_width + 1)),
                Span::styled(fill, theme.tone(if full { Tone::Critical } else { Tone::Good })),
                Span::raw(format!(" {} ", text::left(&level, 11))),
                Span::styled(
                    text::cut(&facts, room, Cut::End),
                    theme.tone(if quiet { Tone::Quiet } else { tone }),
                ),
            ])
        })
        .collect();
    draw(frame, area, lines);
}
