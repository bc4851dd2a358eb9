//! The processor's time-stamp counter, read in place: a call into another crate costs more than the reading.
#![allow(unsafe_code)]

use crate::clock::Ticks;

/// Whether [`read`] can be used here.
pub(super) const EXISTS: bool = cfg!(all(target_arch = "x86_64", not(miri)));

/// The counter now. Where [`EXISTS`] is false, 0.
#[inline(always)]
pub(super) fn read() -> Ticks {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: `rdtsc` is an instruction of every x86_64 processor; it reads a register and touches no memory. Where an
    // operating system forbids it, `quanta`, which reads it first, has died of it already.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    return 0;
}
