//! A recording of one frame that fits into so many bytes. What is the least use goes first: rows of tasks that only wait, then
//! history, then the rest.

use std::collections::HashSet;

use taskscope_proto::v1::{Description, Frame, GroupWindow, TaskWindow};
use taskscope_proto::{columns, strings};

use crate::recording;

/// Fewer of what waits the longest are not worth more of something else.
const FEW_ROWS: usize = 16;
const FEW_GROUPS: usize = 8;
const FEW_EVENTS: usize = 16;

/// `None`: it does not fit, whatever is left out.
pub(super) fn fit(
    description: &Description,
    mut frame: Frame,
    concerned: &[u64],
    most: usize,
) -> Option<Vec<u8>> {
    let concerned: HashSet<u64> = concerned.iter().copied().collect();
    while recording::len(description, &frame) > most {
        if !cut(&mut frame, &concerned) {
            return None;
        }
        let used = strings::used(&frame);
        frame.strings.retain(|string| used.contains(&string.sid));
    }
    Some(recording::bytes(description, &[frame]))
}

/// Leaves out something; false where nothing is left that can be.
fn cut(frame: &mut Frame, concerned: &HashSet<u64>) -> bool {
    if let Some(window) = frame.tasks.as_mut().filter(|window| window.order.len() > FEW_ROWS) {
        window.order.truncate(window.order.len() / 2);
        retain_rows(window, |id| concerned.contains(&id));
        return true;
    }
    if let Some(history) = &mut frame.history {
        if history.groups.is_empty() {
            frame.history = None;
        } else {
            history.groups.clear();
        }
        return true;
    }
    if let Some(groups) = frame.groups.as_mut().filter(|it| it.groups.len().max(it.labels.len()) > FEW_GROUPS)
    {
        halve_groups(groups);
        return true;
    }
    if frame.events.len() > FEW_EVENTS {
        frame.events.drain(..frame.events.len() / 2);
        return true;
    }
    if !frame.stacks.is_empty() {
        frame.stacks.truncate(frame.stacks.len() / 2);
        return true;
    }
    if let Some(window) = frame.tasks.as_mut().filter(|window| row_count(window) > 1) {
        let half = row_count(window) / 2;
        if let Some(rows) = &mut window.rows {
            columns::truncate(rows, half);
        }
        let left: HashSet<u64> = window.rows.iter().flat_map(|rows| &rows.id).copied().collect();
        window.order.retain(|id| left.contains(id));
        return true;
    }
    let rest = [frame.groups.take().is_some(), frame.tasks.take().is_some(), !frame.modules.is_empty()];
    frame.modules.clear();
    rest.contains(&true)
}

fn row_count(window: &TaskWindow) -> usize {
    window.rows.as_ref().map_or(0, |rows| rows.id.len())
}

/// Those of the order, and those that are wanted besides.
fn retain_rows(window: &mut TaskWindow, also: impl Fn(u64) -> bool) {
    let order: HashSet<u64> = window.order.iter().copied().collect();
    if let Some(rows) = &mut window.rows {
        let ids = rows.id.clone();
        columns::retain(rows, |at| order.contains(&ids[at]) || also(ids[at]));
    }
}

/// The busiest come first.
fn halve_groups(window: &mut GroupWindow) {
    window.groups.truncate(FEW_GROUPS.max(window.groups.len() / 2));
    window.labels.truncate(FEW_GROUPS.max(window.labels.len() / 2));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use taskscope_proto::v1::{self, HistoryChunk, InternedString, TaskRows};

    use super::*;
    use crate::model::Model;
    use crate::recording::Recording;

    /// A frame with so many waiting rows, groups and events, each with a text of its own, and the kept row 1.
    fn frame(rows: u32, groups: u32, events: u32, seconds: u64, text: usize) -> Frame {
        let mut sid = 0;
        let mut all = Vec::new();
        let mut said = |what: &str| {
            sid += 1;
            all.push(InternedString { sid, text: format!("{what} {sid} {}", "x".repeat(text)) });
            sid
        };
        let mut columns = TaskRows::default();
        for id in 1..=u64::from(rows) + 1 {
            columns.id.push(id);
            columns.age_ns.push(id * 1_000_000_007);
            columns.name_sid.push(said("task"));
        }
        let order = (2..=u64::from(rows) + 1).collect();
        let tasks = TaskWindow { order, rows: Some(columns), matching: rows.into(), unknown_ids: vec![] };
        let groups = (1..=groups).map(|id| v1::Group { id, name_sid: said("group"), ..Default::default() });
        let groups = GroupWindow { groups: groups.collect(), ..Default::default() };
        let event = |seq: u32, reason_sid| v1::Event { seq: seq.into(), reason_sid, ..Default::default() };
        let events = (1..=events).map(|seq| event(seq, said("event"))).collect();
        let history = HistoryChunk { alive: vec![1 << 40; seconds as usize], ..Default::default() };
        Frame {
            seq: 1,
            resync: true,
            at_ns: 5,
            tasks: Some(tasks),
            groups: Some(groups),
            events,
            history: Some(history),
            strings: all,
            ..Default::default()
        }
    }

    fn read(bytes: &[u8]) -> (Model, Frame) {
        let recording = Recording::parse(Path::new("e"), bytes).expect("it can be opened");
        let [frame] = &recording.frames[..] else { panic!("{} frames", recording.frames.len()) };
        let mut model = Model::new(recording.description);
        model.apply(frame.clone());
        (model, frame.clone())
    }

    #[test]
    fn what_fits_is_left_as_it_is_and_else_rows_go_before_history() {
        let description = Description { name: "shop".into(), ..Default::default() };
        let whole = frame(100, 20, 20, 60, 50);
        let bytes = fit(&description, whole.clone(), &[1], 256 << 10).expect("it fits");
        assert_eq!(read(&bytes).1, whole);
        let bytes =
            fit(&description, whole.clone(), &[1], bytes.len() - 2_000).expect("it fits with fewer rows");
        let (model, cut) = read(&bytes);
        let rows = model.rows().expect("the columns fit");
        assert!(rows.len() < 101 && rows.len() > FEW_ROWS, "{}", rows.len());
        assert!(rows.iter().any(|row| row.id.0 == 1 && row.name.starts_with("task 1 ")), "{rows:?}");
        assert!(rows.iter().any(|row| row.id.0 == 2), "the one that waits the longest stays");
        assert_eq!(cut.history, whole.history);
        assert_eq!(model.matching(), 100, "how many there were is still told");
        let bytes = fit(&description, whole, &[1], 4_200).expect("it fits without history");
        let (model, cut) = read(&bytes);
        assert_eq!((cut.history, model.groups().len() >= FEW_GROUPS), (None, true));
        assert!(model.row(1).is_some());
    }

    #[test]
    fn what_never_fits_is_no_file() {
        let description = Description { name: "x".repeat(5_000), ..Default::default() };
        assert_eq!(fit(&description, frame(3, 3, 3, 3, 3), &[], 4_096), None);
    }

    proptest! {
        #[test]
        fn what_comes_out_can_be_opened_and_is_small_enough(
            rows in 0..300u32, groups in 0..60u32, events in 0..60u32, seconds in 0..80u64, text in 0..200usize,
            most in 200..30_000usize,
        ) {
            let description = Description { name: "shop".into(), ..Default::default() };
            if let Some(bytes) = fit(&description, frame(rows, groups, events, seconds, text), &[1], most) {
                prop_assert!(bytes.len() <= most);
                let (model, _) = read(&bytes);
                let rows = model.rows().expect("the columns fit");
                prop_assert!(rows.iter().all(|row| row.name.starts_with("task ")));
            } else {
                prop_assert!(most < 5_000, "16 events of at most 220 bytes fit");
            }
        }
    }
}
