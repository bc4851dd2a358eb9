//! The rows that a receiver has, as the frames of one stream build them up: `order` comes whole, rows only when something
//! but time has changed in them.

use std::collections::{HashMap, HashSet};

use crate::columns::{self, Malformed};
use crate::ids::TaskId;
use crate::row::TaskRow;
use crate::strings::Strings;
use crate::v1;

/// Rows and their order as of the last frame.
#[derive(Clone, Debug, Default)]
pub struct Window {
    rows: HashMap<TaskId, Held>,
    order: Vec<TaskId>,
    unknown: HashSet<TaskId>,
    matching: Option<u64>,
    at_ns: u64,
}

#[derive(Clone, Debug)]
struct Held {
    row: TaskRow,
    /// It came with the last window.
    is_fresh: bool,
    in_order: bool,
}

impl Window {
    /// Takes in the next frame of the stream, whose texts `strings` has already. A window that does not decode is left
    /// out whole. Costs in proportion to the rows that it holds.
    pub fn take(&mut self, frame: &v1::Frame, strings: &Strings) -> Result<(), Malformed> {
        if frame.resync {
            *self = Self::default();
        }
        let passed_ns = frame.at_ns.saturating_sub(self.at_ns);
        self.rows.values_mut().for_each(|held| held.row.age_by(passed_ns));
        self.at_ns = frame.at_ns;
        let Some(window) = &frame.tasks else { return Ok(()) };
        let rows = window.rows.as_ref().map(|rows| columns::decode(rows, strings)).transpose()?;
        self.rows.values_mut().for_each(|held| (held.is_fresh, held.in_order) = (false, false));
        let held = |row| Held { row, is_fresh: true, in_order: false };
        self.rows.extend(rows.into_iter().flatten().map(|row| (row.id, held(row))));
        self.order = window.order.iter().copied().map(TaskId).collect();
        for id in &self.order {
            if let Some(held) = self.rows.get_mut(id) {
                held.in_order = true;
            }
        }
        self.unknown = window.unknown_ids.iter().copied().map(TaskId).collect();
        self.matching = Some(window.matching);
        Ok(())
    }

    /// Forgets every row that is not in the order, did not come with the last window, and is not in `keep`.
    pub fn prune(&mut self, keep: &[u64]) {
        self.rows.retain(|id, held| held.in_order || held.is_fresh || keep.contains(&id.0));
    }

    pub fn row(&self, id: TaskId) -> Option<&TaskRow> {
        self.rows.get(&id).map(|held| &held.row)
    }

    /// Whether the target said that it does not know this kept id any more.
    pub fn is_unknown(&self, id: TaskId) -> bool {
        self.unknown.contains(&id)
    }

    /// Tasks matching the request's filter, in the window or not; `None` before the first window.
    pub fn matching(&self) -> Option<u64> {
        self.matching
    }

    /// The rows in the order in which the target sent them.
    pub fn ordered(&self) -> impl Iterator<Item = &TaskRow> {
        self.order.iter().filter_map(|&id| self.row(id))
    }

    /// Every row there is, in no order.
    pub fn all(&self) -> impl Iterator<Item = &TaskRow> {
        self.rows.values().map(|held| &held.row)
    }

    /// The rows in their order, and after them those that are in sight for another reason, by id.
    pub fn ordered_and_kept(&self) -> Vec<&TaskRow> {
        let kept = self.rows.values().filter(|held| !held.in_order).map(|held| &held.row);
        let mut kept: Vec<&TaskRow> = kept.collect();
        kept.sort_unstable_by_key(|row| row.id);
        self.ordered().chain(kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{TaskRows, TaskState};

    fn frame(at_ns: u64, resync: bool, order: &[u64], rows: &[(u64, u64)]) -> v1::Frame {
        let mut columns = TaskRows::default();
        for &(id, age_ns) in rows {
            columns.id.push(id);
            columns.state.push(TaskState::Idle.into());
            columns.age_ns.push(age_ns);
        }
        let tasks = v1::TaskWindow {
            order: order.to_vec(),
            rows: Some(columns),
            matching: order.len() as u64,
            ..v1::TaskWindow::default()
        };
        v1::Frame { at_ns, resync, tasks: Some(tasks), ..v1::Frame::default() }
    }

    fn ages(window: &Window) -> Vec<(u64, u64)> {
        window.ordered_and_kept().into_iter().map(|row| (row.id.0, row.age_ns)).collect()
    }

    #[test]
    fn a_row_that_is_not_sent_again_ages_and_keeps_its_place() {
        let (mut window, strings) = (Window::default(), Strings::default());
        window.take(&frame(100, true, &[1, 2], &[(1, 10), (2, 20)]), &strings).expect("columns fit");
        window.take(&frame(150, false, &[2, 1, 3], &[(3, 5)]), &strings).expect("columns fit");
        window.prune(&[]);
        assert_eq!(ages(&window), [(2, 70), (1, 60), (3, 5)]);
        // A frame without a window changes nothing but the time.
        window.take(&v1::Frame { at_ns: 160, ..v1::Frame::default() }, &strings).expect("there is nothing");
        assert_eq!(ages(&window), [(2, 80), (1, 70), (3, 15)]);
    }

    #[test]
    fn what_is_neither_in_order_nor_kept_is_forgotten_and_resync_forgets_all() {
        let (mut window, strings) = (Window::default(), Strings::default());
        window.take(&frame(100, true, &[1], &[(1, 10), (2, 20)]), &strings).expect("columns fit");
        window.take(&frame(101, false, &[3], &[(3, 1)]), &strings).expect("columns fit");
        window.prune(&[2]);
        assert_eq!(ages(&window), [(3, 1), (2, 21)]);
        window.take(&frame(102, true, &[4], &[(4, 1)]), &strings).expect("columns fit");
        assert_eq!(ages(&window), [(4, 1)]);
    }
}
