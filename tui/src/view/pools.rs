//! One line for each pool: how full, what waits for it, and for how long. The application's pools and Tokio's come first;
//! what the process itself has only so much of follows where there is room, or at once where it runs out.

use std::cmp::Reverse;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::v1::Pool;
use taskscope_proto::v1::pool::Kind;
use taskscope_proto::words;

use crate::app::App;
use crate::model::Model;
use crate::table::{Cut, Tone};
use crate::view::{draw, gauge, text, theme};

/// Of file descriptors or memory in use, from which they are told as if they were full.
const NEARLY: f64 = 0.9;

/// Lines that the pools would take which are worth a line on any screen.
pub(crate) fn wanted(app: &App) -> u16 {
    let wanted = app.shown().pools.iter().filter(|pool| is_work(pool) || is_full(pool)).count();
    wanted.clamp(1, 1000) as u16
}

/// Lines that all of them would take.
pub(crate) fn all(app: &App) -> u16 {
    app.shown().pools.len().clamp(1, 1000) as u16
}

/// Pools of the application and of the runtime.
fn is_work(pool: &Pool) -> bool {
    matches!(pool.kind(), Kind::User | Kind::Blocking | Kind::Unspecified)
}

fn is_full(pool: &Pool) -> bool {
    let nearly = || match (pool.busy, pool.capacity) {
        (Some(busy), Some(capacity @ 1..)) => busy as f64 >= capacity as f64 * NEARLY,
        _ => false,
    };
    pool.saturated_ns.is_some() || matches!(pool.kind(), Kind::FileDescriptors | Kind::Memory) && nearly()
}

/// In the order in which they are shown.
fn sorted(model: &Model) -> Vec<&Pool> {
    let mut pools: Vec<&Pool> = model.pools.iter().collect();
    // The fullest first: where not all fit, the others are the ones to leave out.
    pools.sort_by_key(|pool| Reverse((is_full(pool), is_work(pool), pool.saturated_ns, pool.queued)));
    pools
}

/// Its name; where there are several runtimes, with that of its own.
fn name(model: &Model, pool: &Pool) -> String {
    let runtime = model.runtimes.iter().find(|runtime| runtime.id == pool.runtime_id);
    match runtime {
        Some(runtime) if model.runtimes.len() > 1 => {
            let runtime = runtime.name.clone().unwrap_or_else(|| format!("rt{}", runtime.id));
            text::clean(&format!("{} {runtime}", pool.name))
        }
        _ => text::clean(&pool.name),
    }
}

/// What to know about all of them where a part of `height` lines, its rule among them, shows them.
pub(crate) fn facts(app: &App, height: u16) -> Vec<(String, Tone)> {
    let pools = &app.shown().pools;
    let shown = usize::from(height.saturating_sub(1));
    let full = pools.iter().filter(|pool| is_full(pool)).count();
    let mut facts = Vec::new();
    if full > 0 {
        facts.push((format!("{full} of {} full", pools.len()), Tone::Critical));
    }
    if pools.len() > shown {
        facts.push((format!("{shown} of {}", pools.len()), Tone::Quiet));
    }
    facts
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    let model = app.shown();
    let pools = sorted(model);
    if pools.is_empty() {
        return draw(frame, area, vec![Line::styled(" none was reported", theme.tone(Tone::Quiet))]);
    }
    let shown = pools.iter().take(height);
    let longest = shown.map(|pool| text::width(&name(model, pool))).max().unwrap_or(0);
    let name_width = longest.clamp(8, 24).min(width / 3);
    let bar_width = if width < 60 { 8 } else { 16 };
    let lines: Vec<Line<'static>> = pools
        .iter()
        .take(height)
        .map(|pool| {
            let full = is_full(pool);
            let amount = if pool.kind() == Kind::Memory { words::bytes } else { words::count };
            let tone = if full { Tone::Critical } else { Tone::Plain };
            let fill = match (pool.busy, pool.capacity) {
                (Some(busy), Some(capacity @ 1..)) => gauge::bar(busy as f64 / capacity as f64, bar_width),
                _ => text::left("–", bar_width),
            };
            let level = match (pool.busy, pool.capacity) {
                // Both in one unit have no room here; the bar says the rest.
                (Some(busy), Some(_)) if pool.kind() == Kind::Memory => amount(busy),
                (Some(busy), Some(capacity)) => format!("{} of {}", amount(busy), amount(capacity)),
                (Some(busy), None) => format!("{} busy", amount(busy)),
                (None, Some(capacity)) => format!("– of {}", amount(capacity)),
                (None, None) => "–".to_owned(),
            };
            let mut facts = match (pool.kind(), pool.queued, pool.oldest_wait_ns) {
                // Nothing queues for these.
                (Kind::FileDescriptors, ..) => vec!["open".to_owned()],
                (Kind::Memory, ..) => {
                    vec![pool.capacity.map_or("in use".to_owned(), |limit| format!("of {}", amount(limit)))]
                }
                (_, None, _) => vec!["queue not known".to_owned()],
                (_, Some(0), _) => vec!["none waits".to_owned()],
                (_, Some(n), None) => vec![format!("{} wait", words::count(n))],
                (_, Some(n), Some(ns)) => {
                    vec![format!("{} wait, oldest {}", words::count(n), words::duration(ns))]
                }
            };
            if let Some(ns) = pool.saturated_ns {
                facts.push(format!("full for {}", words::duration(ns)));
            } else if let Some(ns @ 1_000_000_000..) = pool.waiting_ns {
                facts.push(format!("not empty for {}", words::duration(ns)));
            }
            if let Some(idle @ 1..) = pool.idle
                && is_work(pool)
            {
                facts.push(format!("{} idle", words::count(idle)));
            }
            if let Some(timeouts @ 1..) = pool.acquire_timeouts_total {
                facts.push(format!("{} gave up", words::count(timeouts)));
            }
            if let Some(ns) = pool.age_ns {
                facts.push(format!("{} old", words::duration(ns)));
            }
            let facts = facts.join(" · ");
            let room = width.saturating_sub(3 + name_width + 1 + bar_width + 15);
            let quiet = pool.queued.is_none_or(|queued| queued == 0) && !full;
            Line::from(vec![
                Span::styled(if full { " ! " } else { "   " }, theme.tone(tone)),
                Span::raw(text::left(&name(model, pool), name_width + 1)),
                Span::styled(fill, theme.tone(if full { Tone::Critical } else { Tone::Good })),
                Span::raw(format!(" {} ", text::left(&level, 13))),
                Span::styled(
                    text::cut(&facts, room, Cut::End),
                    theme.tone(if quiet { Tone::Quiet } else { tone }),
                ),
            ])
        })
        .collect();
    draw(frame, area, lines);
}
