//! The probe's hooks on the runtime, and stacks of slow polls allowed: what that costs while no poll is slow, and, as `stuck`,
//! what a sample costs the poll of which it is taken.

use std::process::ExitCode;

use bench_workloads::Mode;
use taskscope_probe::Probe;
use tokio::runtime::{Builder, Runtime};

mod stuck;

struct Stacks;

impl Mode for Stacks {
    fn build(mut builder: Builder) -> (Runtime, Self) {
        let probe = Probe::builder().name("bench").stacks(true).install(&mut builder);
        probe.hooks().expect("this build has Tokio's hooks");
        (builder.build().expect("a runtime can be built"), Self)
    }
}

fn main() -> ExitCode {
    if std::env::args().skip(1).eq(["stuck"]) {
        let gaps = stuck::gaps::<Stacks>();
        println!("stack_sample_ns {}\nstack_sample_p99_ns {}", gaps.median_ns, gaps.p99_ns);
        return ExitCode::SUCCESS;
    }
    bench_workloads::main::<Stacks>()
}
