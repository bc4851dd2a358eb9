//! The window of task rows, as the frames build it up.

use std::collections::{HashMap, HashSet};

use taskscope_proto::columns::{self, Malformed};
use taskscope_proto::ids::TaskId;
use taskscope_proto::row::TaskRow;
use taskscope_proto::strings::Strings;
use taskscope_proto::v1;

#[derive(Clone, Debug, Default)]
pub(crate) struct TaskWindow {
    rows: HashMap<TaskId, TaskRow>,
    order: Vec<TaskId>,
    unknown: HashSet<TaskId>,
    /// Tasks matching the request's filter, in the window or not; `None` before the first window.
    pub(crate) matching: Option<u64>,
    /// The request that this window answers.
    pub(crate) request_id: u64,
}

impl TaskWindow {
    /// Drops rows and order: the next window stands alone.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes in a window made for request `request_id`. What does not decode is left out whole.
    pub(crate) fn take(
        &mut self,
        window: &v1::TaskWindow,
        request_id: u64,
        strings: &Strings,
    ) -> Result<(), Malformed> {
        if let Some(rows) = &window.rows {
            self.rows.extend(columns::decode(rows, strings)?.into_iter().map(|row| (row.id, row)));
        }
        self.order = window.order.iter().copied().map(TaskId).collect();
        self.unknown = window.unknown_ids.iter().copied().map(TaskId).collect();
        self.matching = Some(window.matching);
        self.request_id = request_id;
        Ok(())
    }

    /// Forgets every row that is neither in the order nor in `keep`.
    pub(crate) fn prune(&mut self, keep: &[u64]) {
        let order: HashSet<TaskId> = self.order.iter().copied().collect();
        self.rows.retain(|id, _| order.contains(id) || keep.contains(&id.0));
    }

    pub(crate) fn row(&self, id: TaskId) -> Option<&TaskRow> {
        self.rows.get(&id)
    }

    /// Whether the target said that it does not know this kept id any more.
    pub(crate) fn is_unknown(&self, id: TaskId) -> bool {
        self.unknown.contains(&id)
    }

    /// The rows in the order in which the target sent them.
    pub(crate) fn ordered(&self) -> impl Iterator<Item = &TaskRow> {
        self.order.iter().filter_map(|id| self.rows.get(id))
    }

    /// Every row there is, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &TaskRow> {
        self.rows.values()
    }
}
