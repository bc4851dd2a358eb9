//! Where one is in a list of tasks that may be far longer than what is ever fetched of it.
//!
//! The target sends a window of a few screens, which begins after a cursor: a row, named by its sort value and id. Going
//! down near the end of the window pushes a cursor, going up near its beginning pops one; `End` asks for the order from
//! its other side. The selection is a task, so it stays on its task while rows move.

use taskscope_proto::ids::TaskId;
use taskscope_proto::top::Place;
use taskscope_proto::v1::{SortKey, TaskCursor};

use super::Move;
use crate::table::Sort;

#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) sort: Sort<SortKey>,
    pub(crate) selected: Option<TaskId>,
    /// Where the selection was last seen, for when its row is gone.
    last_at: usize,
    /// Rows are fetched from the last one of the order backwards.
    from_end: bool,
    cursors: Vec<Cursor>,
    /// What to select once the window that was asked for is here.
    settle: Option<Edge>,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    place: Place,
    /// Rows between this cursor and the one before it.
    skipped: usize,
    /// Its value was brought up to date, and the selection has not been far from it since.
    refreshed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    First,
    Last,
}

/// The rows one moves in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// As they stand on the screen.
    pub(crate) places: &'a [Place],
    /// Rows that the whole list has.
    pub(crate) matching: u64,
    /// Rows that fit on the screen.
    pub(crate) page: usize,
    /// The rows are the ones that were asked for last, and other ones can be asked for.
    pub(crate) settled: bool,
}

impl Listing {
    pub(crate) fn sorted_by(key: SortKey) -> Self {
        Self {
            sort: Sort::largest_first(key),
            selected: None,
            last_at: 0,
            from_end: false,
            cursors: Vec::new(),
            settle: None,
        }
    }

    /// Back to the top of the list, where it stays, following whatever comes first.
    pub(crate) fn rewind(&mut self) {
        *self = Self { sort: self.sort, ..Self::sorted_by(self.sort.key) };
    }

    /// The cursor to fetch after.
    pub(crate) fn after(&self) -> Option<TaskCursor> {
        self.cursors.last().map(|cursor| TaskCursor { value: cursor.place.value, task_id: cursor.place.id.0 })
    }

    /// Whether to fetch smallest first.
    pub(crate) fn ascending(&self) -> bool {
        self.sort.ascending != self.from_end
    }

    /// Whether the rows come in the reverse of the order on the screen.
    pub(crate) fn is_reversed(&self) -> bool {
        self.from_end
    }

    /// Tasks whose rows are needed wherever they stand: the selection, and the cursor, whose value may move.
    pub(crate) fn keep(&self) -> Vec<u64> {
        let cursor = self.cursors.last().map(|cursor| cursor.place.id);
        let mut ids: Vec<u64> = self.selected.into_iter().chain(cursor).map(|id| id.0).collect();
        ids.dedup();
        ids
    }

    /// Rows between the end of the list that is fetched from and the window.
    pub(crate) fn skipped(&self) -> u64 {
        self.cursors.iter().map(|cursor| cursor.skipped as u64).sum()
    }

    /// The selected row's place in the window.
    pub(crate) fn position(&self, places: &[Place]) -> Option<usize> {
        let selected = self.selected?;
        places.iter().position(|place| place.id == selected)
    }

    pub(crate) fn select(&mut self, step: Move, window: &Window<'_>) {
        let Some(last) = window.places.len().checked_sub(1) else { return };
        let at = self.selected.map(|_| self.position(window.places).unwrap_or(self.last_at).min(last));
        let to = match (step, at) {
            (Move::First, _) => {
                if window.settled && (self.from_end || !self.cursors.is_empty()) {
                    self.from_end = false;
                    self.cursors.clear();
                    self.settle = Some(Edge::First);
                }
                0
            }
            (Move::Last, _) => {
                let whole = window.places.len() as u64 >= window.matching;
                let at_end = self.from_end && self.cursors.is_empty();
                if window.settled && !whole && !at_end {
                    self.from_end = true;
                    self.cursors.clear();
                    self.settle = Some(Edge::Last);
                }
                last
            }
            (_, None) => 0,
            (Move::Up, Some(at)) => at.saturating_sub(1),
            (Move::Down, Some(at)) => at + 1,
            (Move::PageUp, Some(at)) => at.saturating_sub(window.page),
            (Move::PageDown, Some(at)) => at + window.page,
        }
        .min(last);
        self.selected = Some(window.places[to].id);
        self.last_at = to;
        self.turn(window, None);
    }

    /// A frame has come. `cursor_value` is the present sort value of the row at the cursor, where it is known: ages and
    /// the like grow, and rows would slip over a cursor that stands still.
    pub(crate) fn follow(&mut self, window: &Window<'_>, cursor_value: Option<u64>) {
        if !window.settled {
            return;
        }
        if let Some(edge) = self.settle.take() {
            let place = match edge {
                Edge::First => window.places.first(),
                Edge::Last => window.places.last(),
            };
            self.selected = place.map(|place| place.id);
        }
        if let Some(at) = self.position(window.places) {
            self.last_at = at;
        }
        self.turn(window, cursor_value);
    }

    /// The row at the cursor.
    pub(crate) fn cursor_task(&self) -> Option<TaskId> {
        self.cursors.last().map(|cursor| cursor.place.id)
    }

    fn turn(&mut self, window: &Window<'_>, cursor_value: Option<u64>) {
        let len = window.places.len();
        if !window.settled || self.settle.is_some() || self.selected.is_none() {
            return;
        }
        // Counted from the end of the list that is fetched from.
        let fetched = |at: usize| if self.from_end { len - 1 - at } else { at };
        let at = self.position(window.places).map(fetched);
        // Another page in either direction must be at hand.
        if let Some(at) = at
            && at + window.page >= len
            && at > window.page
            && self.skipped() + (len as u64) < window.matching
        {
            let skipped = at - window.page;
            let place = window.places[fetched(skipped - 1)];
            self.cursors.push(Cursor { place, skipped, refreshed: false });
            return;
        }
        let near = at.is_none_or(|at| at < window.page);
        let Some(cursor) = self.cursors.last_mut() else { return };
        match cursor_value {
            _ if !near => cursor.refreshed = false,
            Some(value) if value != cursor.place.value && !cursor.refreshed => {
                cursor.place.value = value;
                cursor.refreshed = true;
            }
            // The selection is gone from the list: stay.
            _ if at.is_none() => {}
            _ => {
                self.cursors.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target with tasks 1..=n, sorted by a value that is 1000 − id.
    struct Target(u64);

    const PAGE: usize = 10;
    const LIMIT: usize = 30;

    impl Target {
        fn fetch(&self, listing: &Listing) -> Vec<Place> {
            let mut all: Vec<Place> =
                (1..=self.0).map(|id| Place { value: 1000 - id, id: TaskId(id) }).collect();
            if listing.ascending() {
                all.reverse();
            }
            let from = listing.after().map_or(0, |after| {
                all.iter().position(|place| place.id.0 == after.task_id).map_or(0, |at| at + 1)
            });
            let mut window: Vec<Place> = all.into_iter().skip(from).take(LIMIT).collect();
            if listing.is_reversed() {
                window.reverse();
            }
            window
        }

        fn go(&self, listing: &mut Listing, step: Move) {
            let matching = self.0;
            let places = self.fetch(listing);
            listing.select(step, &Window { places: &places, matching, page: PAGE, settled: true });
            let places = self.fetch(listing);
            listing.follow(&Window { places: &places, matching, page: PAGE, settled: true }, None);
            let places = self.fetch(listing);
            assert!(listing.position(&places).is_some(), "{listing:?} lost its selection in {places:?}");
        }
    }

    #[test]
    fn down_reaches_every_task_and_up_comes_back() {
        let target = Target(200);
        let mut listing = Listing::sorted_by(SortKey::SortAge);
        for id in 1..=200 {
            target.go(&mut listing, Move::Down);
            assert_eq!(listing.selected, Some(TaskId(id)));
        }
        target.go(&mut listing, Move::Down);
        assert_eq!(listing.selected, Some(TaskId(200)));
        for id in (1..200).rev() {
            target.go(&mut listing, Move::Up);
            assert_eq!(listing.selected, Some(TaskId(id)));
        }
        assert_eq!(listing.after(), None);
    }

    #[test]
    fn end_and_home_jump_and_pages_turn_from_there() {
        let target = Target(200);
        let mut listing = Listing::sorted_by(SortKey::SortAge);
        target.go(&mut listing, Move::Last);
        assert_eq!((listing.selected, listing.ascending()), (Some(TaskId(200)), true));
        for step in 1..20 {
            target.go(&mut listing, Move::PageUp);
            assert_eq!(listing.selected, Some(TaskId(200 - step * 10)));
        }
        target.go(&mut listing, Move::First);
        assert_eq!((listing.selected, listing.ascending()), (Some(TaskId(1)), false));
        target.go(&mut listing, Move::PageDown);
        assert_eq!(listing.selected, Some(TaskId(11)));
    }

    #[test]
    fn a_short_list_never_asks_for_another_window() {
        let target = Target(7);
        let mut listing = Listing::sorted_by(SortKey::SortAge);
        for step in [Move::Down, Move::PageDown, Move::Last, Move::First, Move::PageUp, Move::Up] {
            target.go(&mut listing, step);
            assert_eq!((listing.after(), listing.is_reversed()), (None, false));
        }
    }

    #[test]
    fn a_cursor_whose_value_grew_is_brought_up_to_date_once() {
        let target = Target(200);
        let mut listing = Listing::sorted_by(SortKey::SortAge);
        for _ in 0..26 {
            target.go(&mut listing, Move::Down);
        }
        let before = listing.after().expect("the second window");
        // Rows slipped over the cursor: the selection is the first row of the window now.
        let places: Vec<Place> = (26..56).map(|id| Place { value: 0, id: TaskId(id) }).collect();
        let window = Window { places: &places, matching: 200, page: PAGE, settled: true };
        listing.follow(&window, Some(before.value + 5));
        assert_eq!(listing.after(), Some(TaskCursor { value: before.value + 5, ..before }));
        listing.follow(&window, Some(before.value + 9));
        assert_eq!(listing.after(), None);
    }

    #[test]
    fn a_selected_task_that_left_the_list_leaves_the_place_where_it_was() {
        let mut listing = Listing::sorted_by(SortKey::SortAge);
        let places: Vec<Place> = (1..6).map(|id| Place { value: 0, id: TaskId(id) }).collect();
        let window = Window { places: &places, matching: 5, page: PAGE, settled: true };
        for _ in 0..3 {
            listing.select(Move::Down, &window);
        }
        let fewer: Vec<Place> = places.iter().copied().filter(|place| place.id != TaskId(3)).collect();
        let window = Window { places: &fewer, ..window };
        listing.follow(&window, None);
        assert_eq!((listing.selected, listing.position(&fewer)), (Some(TaskId(3)), None));
        listing.select(Move::Down, &window);
        assert_eq!(listing.selected, Some(TaskId(5)));
    }
}
