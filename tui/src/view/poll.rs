//! A poll in words: for whom it is, and what its thread is doing.

use taskscope_proto::activity;
use taskscope_proto::v1::{TaskKind, ThreadActivity};

use crate::app::{App, Code};
use crate::model::LivePoll;
use crate::table::{Cut, Tone, place_in_file};
use crate::view::text;

/// For whom the poll is: its label, else the task's name, else where the task was spawned, which is said to be that.
pub(crate) fn what(poll: &LivePoll, width: usize) -> (String, Tone) {
    let own = |said: &str, tone| (text::cut(&text::clean(said), width, Cut::End), tone);
    if !poll.label.is_empty() {
        let label = text::clean(&poll.label);
        let name = if poll.kind == TaskKind::Main { "main".to_owned() } else { text::clean(&poll.name) };
        let named = format!("{label} ({name})");
        let fits = !name.is_empty() && text::width(&named) <= width;
        return own(if fits { &named } else { &label }, Tone::Accent);
    }
    if !poll.name.is_empty() {
        return own(&poll.name, Tone::Strong);
    }
    match (poll.kind, poll.spawned_at.as_str(), poll.task) {
        (TaskKind::Main, _, _) => own("body of main", Tone::Strong),
        (_, "", None) => own("task not followed", Tone::Quiet),
        (_, "", Some(task)) => own(&format!("task {task}"), Tone::Plain),
        (_, place, _) => {
            let said = "spawned at ";
            let place =
                text::cut(&text::clean(place_in_file(place)), width.saturating_sub(said.len()), Cut::Start);
            own(&format!("{said}{place}"), Tone::Plain)
        }
    }
}

/// Where in the code it is and what its thread does, in `width` cells: of what is too long, the line is what stays.
pub(crate) fn where_and_doing(code: Option<&Code>, doing: &str, width: usize) -> String {
    let Some(code) = code else { return text::cut(&text::clean(doing), width, Cut::End) };
    let on = text::clean(&code.on);
    if text::width(&on) >= width {
        return text::cut(&on, width, Cut::Start);
    }
    let both = if doing.is_empty() { on } else { format!("{on}, {}", text::clean(doing)) };
    text::cut(&both, width, Cut::End)
}

/// What the thread was doing when it was last looked at.
pub(crate) fn doing(app: &App, activity: &ThreadActivity) -> String {
    let call = activity.syscall.map(|number| match app.syscall(number) {
        Some(name) => name.to_owned(),
        None => format!("system call {number}"),
    });
    activity::words(activity, call.as_deref())
}
