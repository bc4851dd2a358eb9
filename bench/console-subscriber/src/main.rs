//! console-subscriber as its documentation says to start it, on a port that is free. Nobody attaches.

use std::process::ExitCode;

use bench_workloads::Mode;
use console_subscriber::ConsoleLayer;
use tokio::runtime::{Builder, Runtime};

struct Console;

impl Mode for Console {
    fn build(mut builder: Builder) -> (Runtime, Self) {
        ConsoleLayer::builder().server_addr(([127, 0, 0, 1], 0)).init();
        (builder.build().expect("a runtime can be built"), Self)
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<Console>()
}
