//! What costs a call elsewhere, done in place: the processor's time-stamp counter, and two words of the thread's own.
#![allow(unsafe_code)]

use std::cell::Cell;

use crate::clock::Ticks;
use crate::registry::lines::Line;
use crate::registry::slots::Slot;

/// Whether [`counter`] can be used here.
pub(crate) const HAS_COUNTER: bool = cfg!(all(target_arch = "x86_64", not(miri)));

/// The time-stamp counter now. Where [`HAS_COUNTER`] is false, 0.
#[inline(always)]
pub(crate) fn counter() -> Ticks {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: `rdtsc` is an instruction of every x86_64 processor; it reads a register and touches no memory. Where an
    // operating system forbids it, `quanta`, which reads it first, has died of it already.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    return 0;
}

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
mod own {
    use super::Mine;
    use crate::capture::mine::{NOTHING, NOWHERE};

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

    use super::Mine;
    use crate::capture::mine::{NOTHING, NOWHERE};

    thread_local! {
        static MINE: Mine = const { Mine { line: Cell::new(&NOWHERE), slot: Cell::new(&NOTHING) } };
    }

    /// Runs `code` with the calling thread's.
    #[inline]
    pub(super) fn with<T>(code: impl FnOnce(&Mine) -> T) -> T {
        MINE.with(code)
    }
}

/// The line that the calling thread was last given.
#[inline(always)]
pub(crate) fn line() -> &'static Line {
    own::with(|mine| mine.line.get())
}

pub(crate) fn set_line(line: &'static Line) {
    own::with(|mine| mine.line.set(line));
}

/// The slot that the calling thread was last given.
#[inline(always)]
pub(crate) fn slot() -> &'static Slot {
    own::with(|mine| mine.slot.get())
}

#[inline(always)]
pub(crate) fn set_slot(slot: &'static Slot) {
    own::with(|mine| mine.slot.set(slot));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::mine::{NOTHING, NOWHERE};

    #[test]
    fn each_thread_has_its_own_words_and_begins_with_nothing() {
        static OTHER: Slot = Slot::nothing();
        let is_new = || std::ptr::eq(line(), &NOWHERE) && std::ptr::eq(slot(), &NOTHING);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(move || {
                    let new = is_new();
                    set_slot(&OTHER);
                    new && std::ptr::eq(slot(), &OTHER)
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")));
    }

    #[test]
    fn the_counter_counts() {
        let before = counter();
        assert!(!HAS_COUNTER || (0..1_000_000).any(|_| counter() > before));
    }
}
