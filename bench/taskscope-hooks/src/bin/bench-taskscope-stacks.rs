//! The probe's hooks on the runtime, and stacks of slow polls allowed: what that costs while no poll is slow.

use std::process::ExitCode;

use bench_workloads::Mode;
use taskscope_probe::Probe;
use tokio::runtime::{Builder, Runtime};

struct Stacks;

impl Mode for Stacks {
    fn build(mut builder: Builder) -> (Runtime, Self) {
        let probe = Probe::builder().name("bench").stacks(true).install(&mut builder);
        probe.hooks().expect("this build has Tokio's hooks");
        (builder.build().expect("a runtime can be built"), Self)
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<Stacks>()
}
