//! Keyset top-N: the rows after a cursor in a sort order, in memory proportional to N and not to the rows seen.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::ids::TaskId;
use crate::v1::TaskCursor;

/// Where a row stands in the order: by value, then by id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub value: u64,
    pub id: TaskId,
}

impl From<&TaskCursor> for Place {
    fn from(cursor: &TaskCursor) -> Self {
        Self { value: cursor.value, id: TaskId(cursor.task_id) }
    }
}

/// Largest value first, or smallest first; equal values by ascending id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Descending,
    Ascending,
}

impl Direction {
    /// Which of two places comes first.
    pub fn compare(self, a: &Place, b: &Place) -> Ordering {
        let by_value = match self {
            Self::Descending => b.value.cmp(&a.value),
            Self::Ascending => a.value.cmp(&b.value),
        };
        by_value.then(a.id.cmp(&b.id))
    }
}

struct Entry<T> {
    place: Place,
    direction: Direction,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.direction.compare(&self.place, &other.place)
    }
}

/// Collects the first N rows after the cursor.
pub struct Top<T> {
    limit: usize,
    direction: Direction,
    after: Option<Place>,
    /// The last of the order is on top, ready to be pushed out.
    heap: BinaryHeap<Entry<T>>,
    matching: u64,
}

impl<T> Top<T> {
    pub fn new(limit: usize, direction: Direction, after: Option<Place>) -> Self {
        Self { limit, direction, after, heap: BinaryHeap::new(), matching: 0 }
    }

    /// Offers a row; `item` is made only if the row is (for now) in the window.
    pub fn offer(&mut self, place: Place, item: impl FnOnce() -> T) {
        self.matching += 1;
        if self.limit == 0 {
            return;
        }
        if self.after.is_some_and(|after| self.direction.compare(&place, &after) != Ordering::Greater) {
            return;
        }
        let full = self.heap.len() >= self.limit;
        if full && self.heap.peek().is_some_and(|last| self.direction.compare(&place, &last.place).is_ge()) {
            return;
        }
        let entry = Entry { place, direction: self.direction, item: item() };
        if !full {
            self.heap.push(entry);
        } else if let Some(mut last) = self.heap.peek_mut() {
            *last = entry;
        }
    }

    /// Rows offered, in the window or not.
    pub fn matching(&self) -> u64 {
        self.matching
    }

    /// The window in its order.
    pub fn into_sorted(self) -> Vec<(Place, T)> {
        self.heap.into_sorted_vec().into_iter().map(|entry| (entry.place, entry.item)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(
        rows: &[(u64, u64)],
        limit: usize,
        direction: Direction,
        after: Option<Place>,
    ) -> Vec<(u64, u64)> {
        let mut top = Top::new(limit, direction, after);
        for &(value, id) in rows {
            top.offer(Place { value, id: TaskId(id) }, || ());
        }
        top.into_sorted().into_iter().map(|(place, ())| (place.value, place.id.0)).collect()
    }

    #[test]
    fn ties_are_ordered_by_id() {
        let rows = [(5, 3), (5, 1), (9, 2)];
        assert_eq!(window(&rows, 3, Direction::Descending, None), [(9, 2), (5, 1), (5, 3)]);
        assert_eq!(window(&rows, 3, Direction::Ascending, None), [(5, 1), (5, 3), (9, 2)]);
    }

    proptest! {
        #[test]
        fn pages_joined_by_cursors_are_the_sorted_whole(
            values in prop::collection::vec(0u64..20, 0..60),
            limit in 1usize..9,
            descending: bool,
        ) {
            let direction = if descending { Direction::Descending } else { Direction::Ascending };
            let rows: Vec<(u64, u64)> = values.into_iter().zip(1..).collect();
            let mut whole = rows.clone();
            whole.sort_by(|a, b| direction.compare(
                &Place { value: a.0, id: TaskId(a.1) },
                &Place { value: b.0, id: TaskId(b.1) },
            ));
            let mut joined = Vec::new();
            let mut after = None;
            loop {
                let page = window(&rows, limit, direction, after);
                let Some(&(value, id)) = page.last() else { break };
                after = Some(Place { value, id: TaskId(id) });
                joined.extend(page);
            }
            prop_assert_eq!(joined, whole);
        }
    }
}
