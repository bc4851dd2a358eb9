//! The processor's time-stamp counter, read in place: a call into another crate costs more than the reading.
#![allow(unsafe_code)]

use crate::clock::Ticks;

/// Whether [`read`] can be used on this architecture.
pub(super) const EXISTS: bool = cfg!(target_arch = "x86_64");

/// The counter now. Where [`EXISTS`] is false, 0.
#[inline(always)]
pub(super) fn read() -> Ticks {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `rdtsc` is an instruction of every x86_64 processor; it reads a register and touches no memory. Where an
    // operating system forbids it, `quanta`, which reads it first, has died of it already.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    return 0;
}
