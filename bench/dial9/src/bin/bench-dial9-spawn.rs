//! dial9's hooks, and its own spawn, which records wakes, too.

use std::process::ExitCode;

use bench_workloads::Mode;
use dial9::Recorder;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

struct Spawned {
    _recorder: Recorder,
}

impl Mode for Spawned {
    fn build(builder: Builder) -> (Runtime, Self) {
        let (runtime, recorder) = bench_dial9::recorded(builder);
        (runtime, Self { _recorder: recorder })
    }

    #[track_caller]
    fn spawn<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        dial9::spawn(future)
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<Spawned>()
}
