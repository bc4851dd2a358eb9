//! Who the target is, how the link to it stands, and what was lost or cannot be seen: on every screen.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use taskscope_proto::v1::capability::Coverage;
use taskscope_proto::words;

use crate::app::{App, LinkView, Pane, Screen};
use crate::model::Model;
use crate::table::{Cut, Tone};
use crate::view::theme::{Theme, severity};
use crate::view::{coverage, draw, listed, text, theme};

const TABS: [(Screen, &str); 4] = [
    (Screen::Overview, "1 overview"),
    (Screen::Groups, "2 groups"),
    (Screen::Tasks, "3 tasks"),
    (Screen::Pending, "4 pending"),
];

pub(crate) fn height(app: &App) -> u16 {
    let lines = 3 + usize::from(trouble(app).is_some()) + usize::from(sentence(app).is_some());
    lines as u16
}

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let theme = theme(app);
    let width = usize::from(area.width);
    let mut lines = vec![identity(app, width), tabs(app, width), truth(app, width)];
    if let Some((said, tone)) = trouble(app) {
        let said = text::left(&format!(" {}", text::clean(&said)), width);
        lines.push(Line::styled(said, theme.badge(tone)));
    }
    if let Some((mark, said, tone)) = sentence(app) {
        let said = text::cut(&text::clean(said), width.saturating_sub(4), Cut::End);
        lines.push(Line::styled(format!(" {mark} {said}"), theme.tone(tone)));
    }
    draw(frame, area, lines);
}

fn identity(app: &App, width: usize) -> Line<'static> {
    let theme = theme(app);
    let model = app.shown();
    let mut facts = Vec::new();
    if app.screen() == Screen::Chooser {
        facts.push(("taskscope".to_owned(), Tone::Strong));
    } else if let Some(description) = &model.description {
        facts.push((description.name.clone(), Tone::Strong));
        let instance: String = description.instance.chars().take(4).collect();
        facts.push((format!("pid {} · {instance}", description.pid), Tone::Plain));
    } else {
        facts.push((app.target().to_owned(), Tone::Strong));
    }
    let model = if app.screen() == Screen::Chooser { &Model::default() } else { model };
    if let Some(alive) = model.alive() {
        facts.push((format!("{} tasks", words::count(alive)), Tone::Plain));
    }
    if let Some(at_ns) = model.at_ns {
        facts.push((format!("up {}", words::duration(at_ns)), Tone::Plain));
    }
    if let Some(host) = model.description.as_ref().and_then(|description| description.host.as_ref()) {
        facts.push((host.clone(), Tone::Quiet));
    }
    let badges = badges(app, theme);
    let badges_width: usize = badges.iter().map(|span| text::width(&span.content)).sum();
    let mut spans = vec![Span::raw(" ")];
    spans.extend(listed(theme, &facts, width.saturating_sub(badges_width + 3)));
    let used: usize = spans.iter().map(|span| text::width(&span.content)).sum();
    spans.push(Span::raw(" ".repeat(width.saturating_sub(used + badges_width + 1))));
    spans.extend(badges);
    Line::from(spans)
}

/// The link in one word, and PAUSED, at the right end.
fn badges(app: &App, theme: Theme) -> Vec<Span<'static>> {
    let mut badges = Vec::new();
    if let Some(paused) = app.paused_for() {
        badges.push(Span::styled(format!(" PAUSED {} ", spoken(paused)), theme.badge(Tone::Warning)));
        badges.push(Span::raw(" "));
    }
    let (word, tone) = match app.link() {
        _ if app.screen() == Screen::Chooser => return badges,
        LinkView::Connecting { .. } => ("CONNECTING", Tone::Warning),
        LinkView::Live => ("LIVE", Tone::Good),
        LinkView::Stale { .. } => ("STALE", Tone::Warning),
        LinkView::Disconnected { .. } => ("DISCONNECTED", Tone::Critical),
        LinkView::Closed { .. } => ("CLOSED", Tone::Critical),
    };
    badges.push(Span::styled(format!(" {word} "), theme.badge(tone)));
    badges
}

fn tabs(app: &App, width: usize) -> Line<'static> {
    let theme = theme(app);
    let mut spans = vec![Span::styled("─", theme.tone(Tone::Quiet))];
    if app.screen() == Screen::Chooser {
        spans.push(Span::styled("[choose a target]", theme.tone(Tone::Strong)));
    } else {
        for (screen, name) in TABS {
            let here = screen == app.screen();
            let (name, tone) = match here {
                true => (format!("[{name}]"), Tone::Strong),
                false => (format!(" {name} "), Tone::Quiet),
            };
            spans.push(Span::styled(name, theme.tone(tone)));
        }
    }
    let used: usize = spans.iter().map(|span| text::width(&span.content)).sum();
    spans.push(Span::styled("─".repeat(width.saturating_sub(used)), theme.tone(Tone::Quiet)));
    Line::from(spans)
}

/// The line that says what the screen cannot say.
fn truth(app: &App, width: usize) -> Line<'static> {
    let theme = theme(app);
    let model = app.shown();
    if app.screen() == Screen::Chooser {
        return Line::default();
    }
    if model.at_ns.is_none() && model.description.is_none() {
        return Line::styled(" nothing was heard from the target yet", theme.tone(Tone::Quiet));
    }
    let losses: Vec<String> =
        model.losses.iter().filter(|loss| loss.count > 0).map(coverage::loss_words).collect();
    let mut parts = Vec::new();
    if !losses.is_empty() {
        parts.push((format!("lost: {}", losses.join(", ")), Tone::Warning));
    }
    if let Some(fault) = &model.fault {
        parts.push((fault.clone(), Tone::Critical));
    }
    let of = |wanted: Coverage| model.capabilities.iter().filter(move |it| it.coverage() == wanted);
    // The reasons are worth their room where they have it.
    let long: Vec<String> = of(Coverage::None).map(coverage::with_reason).collect();
    let short: Vec<&str> = of(Coverage::None).map(|it| coverage::kind_word(it.kind())).collect();
    let partly: Vec<&str> = of(Coverage::Partial).map(|it| coverage::kind_word(it.kind())).collect();
    let hidden = |unseen: String| {
        let mut hidden = Vec::new();
        if !unseen.is_empty() {
            hidden.push((format!("not seen: {unseen}"), Tone::Plain));
        }
        if !partly.is_empty() {
            hidden.push((format!("in part: {}", partly.join(", ")), Tone::Plain));
        }
        if !hidden.is_empty() {
            hidden.push(("c: why".to_owned(), Tone::Quiet));
        }
        hidden
    };
    let room = width.saturating_sub(2);
    let length = |parts: &[(String, Tone)]| -> usize {
        parts.iter().map(|(part, _)| text::width(part) + 3).sum::<usize>().saturating_sub(3)
    };
    let with_reasons: Vec<_> = parts.iter().cloned().chain(hidden(long.join(", "))).collect();
    let parts = if length(&with_reasons) <= room {
        with_reasons
    } else {
        parts.into_iter().chain(hidden(short.join(", "))).collect()
    };
    if parts.is_empty() {
        return Line::styled(" nothing lost, everything seen", theme.tone(Tone::Quiet));
    }
    let mut spans = vec![Span::raw(" ")];
    spans.extend(listed(theme, &parts, room));
    Line::from(spans)
}

/// What is wrong with the link, and how old that makes the screen.
fn trouble(app: &App) -> Option<(String, Tone)> {
    let one_line = |reason: &str| reason.split('\n').map(str::trim).collect::<Vec<_>>().join("; ");
    let as_of = |said: String| match app.data_age() {
        Some(age) => format!("as of {} ago · {said}", spoken(age)),
        None => said,
    };
    if app.screen() == Screen::Chooser {
        return None;
    }
    match app.link() {
        LinkView::Live => None,
        LinkView::Connecting { .. } if !app.is_old() => None,
        LinkView::Connecting { attempt } => {
            Some((as_of(format!("connecting again, attempt {attempt}")), Tone::Warning))
        }
        LinkView::Stale { for_ns } => {
            let silent = Duration::from_nanos(*for_ns).saturating_add(app.link_for());
            Some((
                format!("as of {} ago · connected, but the target is silent", spoken(silent)),
                Tone::Warning,
            ))
        }
        LinkView::Disconnected { .. } | LinkView::Closed { .. } if app.data_age().is_none() => None,
        LinkView::Disconnected { reason, retry_in_ns } => {
            let left = Duration::from_nanos(*retry_in_ns).saturating_sub(app.link_for());
            let retry = if left.is_zero() { "now".to_owned() } else { format!("in {}", spoken(left)) };
            Some((as_of(format!("next try {retry} · {}", one_line(reason))), Tone::Critical))
        }
        LinkView::Closed { reason } => Some((as_of(one_line(reason)), Tone::Critical)),
    }
}

/// The worst sentence, where the screen does not begin with all of them.
fn sentence(app: &App) -> Option<(&'static str, &str, Tone)> {
    let has_page = matches!(app.pane(), Some(Pane::Help { .. } | Pane::Coverage { .. }));
    if matches!(app.screen(), Screen::Overview | Screen::Chooser) && !has_page {
        return None;
    }
    let worst = app.shown().sentences.first()?;
    let (mark, tone) = severity(worst.severity);
    Some((mark, &worst.text, tone))
}

fn spoken(duration: Duration) -> String {
    words::duration(duration.as_nanos().min(u128::from(u64::MAX)) as u64)
}
