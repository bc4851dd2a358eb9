//! What a thread keeps at hand for its next hook: its line, and the slot of the bracket that is open on it.

use std::cell::Cell;

use taskscope_proto::ids::TaskId;

use crate::native;
use crate::registry::Registry;
use crate::registry::lines::{Line, line_id};
use crate::registry::slots::Slot;
use crate::stacks;

/// Of threads that have no line (yet): it works for no runtime, and is never written.
pub(crate) static NOWHERE: Line = Line::nowhere();
/// Where no bracket is open, or one whose end needs more than counting its poll: no task has its id.
pub(crate) static NOTHING: Slot = Slot::nothing();

thread_local! {
    /// All lines are taken.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread's line, or one that works for no runtime.
#[inline(always)]
pub(super) fn line() -> &'static Line {
    native::line()
}

/// The task whose poll the calling thread is in; 0: none.
pub(super) fn task() -> TaskId {
    line().open().map_or(TaskId(0), |open| open.id)
}

/// The slot that [`open`] left, if the task `id` still lives in it.
#[inline(always)]
pub(super) fn slot_of(id: TaskId) -> Option<&'static Slot> {
    let slot = native::slot();
    slot.is_of(id).then_some(slot)
}

/// A bracket was opened whose end only has to count its poll.
#[inline(always)]
pub(super) fn open(slot: &'static Slot) {
    native::set_slot(slot);
}

/// The end of the bracket that is open has to look at more than its poll. (When it is closed nothing need be said: without
/// an open bracket no end is a short poll's.)
pub(super) fn close() {
    native::set_slot(&NOTHING);
}

impl Registry {
    /// This thread's line; `None` where all are taken. The first call on a thread makes one system call; where stacks are
    /// switched on it asks the C library for the thread's, which allocates (and on the first thread reads `/proc/self/maps`).
    pub(crate) fn my_line(&self) -> Option<&'static Line> {
        let line = line();
        if !std::ptr::eq(line, &NOWHERE) {
            return Some(line);
        }
        if REFUSED.get() {
            return None;
        }
        let line = self.lines.claim(line_id());
        match line {
            Some(line) => {
                line.set_stack(if self.knows_stacks { stacks::of_this_thread() } else { None });
                native::set_line(line);
            }
            None => REFUSED.set(true),
        }
        line
    }
}
