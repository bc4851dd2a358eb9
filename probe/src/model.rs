//! Root of the model tests: the registry alone, under every interleaving of its threads and every stale value that the
//! memory model lets them read. The scenarios are in registry/model.rs. `cargo xtask test` runs them.
//!
//! Built under `--cfg taskscope_loom` only. The library is empty there: loom's atomics exist inside a model only, and
//! nothing but the registry is written with them.
#![cfg(taskscope_loom)]
#![allow(dead_code, reason = "of what the probe uses, the scenarios use a part")]

mod clock;
mod registry;
