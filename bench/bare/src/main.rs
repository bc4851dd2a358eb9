//! A runtime that nobody watches: what all others are compared with.

use std::process::ExitCode;

use bench_workloads::Mode;
use tokio::runtime::{Builder, Runtime};

struct Bare;

impl Mode for Bare {
    fn build(mut builder: Builder) -> (Runtime, Self) {
        (builder.build().expect("a runtime can be built"), Self)
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<Bare>()
}
