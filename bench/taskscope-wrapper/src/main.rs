//! The probe's own spawn on a runtime without its hooks: the way in that stable Tokio has, too.

use std::process::ExitCode;

use bench_workloads::Mode;
use taskscope_probe::Probe;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

struct Wrapper;

impl Mode for Wrapper {
    fn build(mut builder: Builder) -> (Runtime, Self) {
        let runtime = builder.build().expect("a runtime can be built");
        let inside = runtime.enter();
        Probe::builder().name("bench").start();
        drop(inside);
        (runtime, Self)
    }

    #[track_caller]
    fn spawn<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        taskscope_probe::spawn("bench", future).into()
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<Wrapper>()
}
