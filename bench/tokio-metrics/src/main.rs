//! tokio-metrics' monitor around each task: one for all, as for one kind of task of a service.

use std::process::ExitCode;
use std::sync::LazyLock;

use bench_workloads::Mode;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_metrics::TaskMonitor;

static MONITOR: LazyLock<TaskMonitor> = LazyLock::new(TaskMonitor::new);

struct Monitored;

impl Mode for Monitored {
    fn build(mut builder: Builder) -> (Runtime, Self) {
        (builder.build().expect("a runtime can be built"), Self)
    }

    #[track_caller]
    fn spawn<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(MONITOR.instrument(future))
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<Monitored>()
}
