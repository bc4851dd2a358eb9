//! Root of the model tests: the registry alone, under every interleaving of its threads and every stale value that the
//! memory model lets them read. The scenarios are in registry/model.rs. `cargo xtask test` runs them.
//!
//! Built under `--cfg taskscope_loom` only. The library is empty there: loom's atomics exist inside a model only, and
//! nothing but the registry is written with them.
#![cfg(taskscope_loom)]
#![allow(dead_code, reason = "of what the probe uses, the scenarios use a part")]

mod clock;
mod registry;

/// In place of the processor's counter: loom's time does not pass.
mod native {
    pub(crate) const HAS_COUNTER: bool = false;

    pub(crate) fn counter() -> u64 {
        0
    }
}

/// In place of the probe's thread, of which the registry asks only how much the history takes.
mod engine {
    pub(crate) mod history {
        pub(crate) const fn share_of(budget: usize) -> usize {
            budget / 8
        }
    }
}
