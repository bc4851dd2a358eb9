//! A poll in words: for whom it is, and what its thread is doing.

use taskscope_proto::v1::thread_activity::State;
use taskscope_proto::v1::{TaskKind, ThreadActivity};

use crate::app::App;
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

/// What the thread was doing when it was last looked at.
pub(crate) fn doing(app: &App, activity: &ThreadActivity) -> String {
    let call = activity.syscall.map(|number| match app.syscall(number) {
        Some(name) => name.to_owned(),
        None => format!("system call {number}"),
    });
    let inside =
        |state: &str| call.as_ref().map_or_else(|| state.to_owned(), |call| format!("{state} in {call}"));
    let share = |ns: Option<u64>| match (ns, activity.observed_ns) {
        (Some(ns), observed @ 1..) => Some((ns as f64 / observed as f64 * 100.0).min(100.0)),
        _ => None,
    };
    match activity.state() {
        State::OnCpu => match (share(activity.on_cpu_ns), share(activity.waiting_for_cpu_ns)) {
            (Some(on), Some(waiting)) if waiting >= 10.0 => {
                format!("on CPU {on:.0} %, starved {waiting:.0} %")
            }
            (Some(on), _) if on < 90.0 => format!("on CPU {on:.0} % of it"),
            _ => "on CPU".to_owned(),
        },
        State::Asleep => inside("asleep"),
        State::DiskSleep => inside("waiting for disk"),
        State::Stopped => "stopped".to_owned(),
        State::Unspecified => String::new(),
    }
}
