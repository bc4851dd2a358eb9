//! CPU work of a stated length: what stands for rendering, checksums and password hashing. It is stated in time and
//! not in iterations, so that the shop is as busy in a debug build, and on a slow machine, as it is in a release.

use std::hint::black_box;
use std::time::Duration;

use crate::clock;

/// Keeps this thread on its CPU for `duration`.
pub(crate) fn spend(duration: Duration) {
    let start = clock::now();
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    loop {
        for byte in 0..512_u64 {
            digest = (digest ^ byte).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
        black_box(digest);
        if start.elapsed() >= duration {
            return;
        }
    }
}
