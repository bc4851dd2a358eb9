//! What a thread keeps at hand for its next hook: its line, and the slot of the bracket that is open on it.

use std::cell::Cell;

use taskscope_proto::ids::TaskId;

use crate::registry::Registry;
use crate::registry::lines::{Line, line_id};
use crate::registry::slots::Slot;

/// Of threads that have no line (yet): it works for no runtime, and is never written.
static NOWHERE: Line = Line::nowhere();
/// Where no bracket is open, or one whose end needs more than counting its poll: no task has its id.
static NOTHING: Slot = Slot::nothing();

/// What one thread has.
#[repr(C)]
struct Mine {
    line: Cell<&'static Line>,
    slot: Cell<&'static Slot>,
}

/// Where the compiler reaches a thread's own data only through a call (all of a library's code must be fit for a shared
/// object), every register that the hook needs afterwards would be saved and restored: 13 instructions a poll. So the two
/// words lie in a section of thread data of our own, reached as the linker's initial-exec model has it.
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu", not(miri)))]
#[allow(unsafe_code)]
mod own {
    use super::{Mine, NOTHING, NOWHERE};

    /// The name is the crate's, with its version: two versions may be linked into one program.
    macro_rules! name {
        () => {
            concat!(
                "taskscope_probe_mine_",
                env!("CARGO_PKG_VERSION_MAJOR"),
                "_",
                env!("CARGO_PKG_VERSION_MINOR"),
                "_",
                env!("CARGO_PKG_VERSION_PATCH")
            )
        };
    }

    // SAFETY (of the declaration): one object of the layout of `Mine` (two words, `repr(C)`), aligned as such, that every
    // thread gets a copy of when it begins: both words point to statics of the right types.
    std::arch::global_asm!(
        concat!(".pushsection .tdata.", name!(), ",\"awT\",@progbits"),
        ".balign 8",
        concat!(".hidden ", name!()),
        concat!(".globl ", name!()),
        concat!(name!(), ":"),
        ".quad {nowhere}",
        ".quad {nothing}",
        ".popsection",
        nowhere = sym NOWHERE,
        nothing = sym NOTHING,
    );

    /// Runs `code` with the calling thread's.
    #[inline(always)]
    pub(super) fn with<T>(code: impl FnOnce(&Mine) -> T) -> T {
        let mine: *const Mine;
        // SAFETY: the two instructions add the thread's base (which the ABI keeps at `fs:0`) and the offset that the linker
        // or loader wrote for our symbol; they read memory that never changes while the thread lives, and nothing else.
        unsafe {
            std::arch::asm!(
                concat!("mov {mine}, qword ptr [rip + ", name!(), "@GOTTPOFF]"),
                "add {mine}, qword ptr fs:[0]",
                mine = out(reg) mine,
                options(pure, nomem, nostack),
            );
        }
        // SAFETY: it points to the calling thread's copy of the object declared above, which is initialised, lives at least
        // as long as this call, and is reached by this thread only (`Mine` is not `Sync`, and `code` cannot keep it).
        code(unsafe { &*mine })
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu", not(miri))))]
mod own {
    use std::cell::Cell;

    use super::{Mine, NOTHING, NOWHERE};

    thread_local! {
        static MINE: Mine = const { Mine { line: Cell::new(&NOWHERE), slot: Cell::new(&NOTHING) } };
    }

    /// Runs `code` with the calling thread's.
    #[inline]
    pub(super) fn with<T>(code: impl FnOnce(&Mine) -> T) -> T {
        MINE.with(code)
    }
}

thread_local! {
    /// All lines are taken.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread's line, or one that works for no runtime.
#[inline(always)]
pub(super) fn line() -> &'static Line {
    own::with(|mine| mine.line.get())
}

/// The task whose poll the calling thread is in; 0: none.
pub(super) fn task() -> TaskId {
    line().open().map_or(TaskId(0), |open| open.id)
}

/// The slot that [`open`] left, if the task `id` still lives in it.
#[inline(always)]
pub(super) fn slot_of(id: TaskId) -> Option<&'static Slot> {
    let slot = own::with(|mine| mine.slot.get());
    slot.is_of(id).then_some(slot)
}

/// A bracket was opened whose end only has to count its poll.
#[inline(always)]
pub(super) fn open(slot: &'static Slot) {
    own::with(|mine| mine.slot.set(slot));
}

/// The end of the bracket that is open has to look at more than its poll. (When it is closed nothing need be said: without
/// an open bracket no end is a short poll's.)
pub(super) fn close() {
    own::with(|mine| mine.slot.set(&NOTHING));
}

impl Registry {
    /// This thread's line; `None` where all are taken. The first call on a thread makes one system call.
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
            Some(line) => own::with(|mine| mine.line.set(line)),
            None => REFUSED.set(true),
        }
        line
    }
}
