//! The probe's hooks on the runtime: every task is followed, and spawned as ever.

use std::process::ExitCode;

use bench_workloads::Mode;
use taskscope_probe::Probe;
use tokio::runtime::{Builder, Runtime};

struct Hooks;

impl Mode for Hooks {
    fn build(mut builder: Builder) -> (Runtime, Self) {
        let probe = Probe::builder().name("bench").install(&mut builder);
        probe.hooks().expect("this build has Tokio's hooks");
        (builder.build().expect("a runtime can be built"), Self)
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<Hooks>()
}
