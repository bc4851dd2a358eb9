//! dial9's hooks; tasks are spawned as ever.

use std::process::ExitCode;

use bench_workloads::Mode;
use dial9::Recorder;
use tokio::runtime::{Builder, Runtime};

struct Recorded {
    _recorder: Recorder,
}

impl Mode for Recorded {
    fn build(builder: Builder) -> (Runtime, Self) {
        let (runtime, recorder) = bench_dial9::recorded(builder);
        (runtime, Self { _recorder: recorder })
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<Recorded>()
}
