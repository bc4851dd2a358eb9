//! Tasks that neither run nor have ended, the longest waiting first.

use ratatui::Frame;
use ratatui::layout::Rect;

use crate::app::App;
use crate::table::tasks::PENDING;
use crate::view::tasks;

pub(crate) fn render(frame: &mut Frame<'_>, area: Rect, app: &App) {
    tasks::list(frame, area, app, "pending tasks", PENDING, "no task waits");
}
