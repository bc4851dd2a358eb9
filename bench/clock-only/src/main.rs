//! The least that can be done with Tokio's hooks: all four set, the time-stamp counter read around each poll, and what it
//! says stored where nobody looks.

use std::cell::Cell;
use std::process::ExitCode;

use bench_workloads::Mode;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(0) };
}

struct ClockOnly;

impl Mode for ClockOnly {
    fn build(mut builder: Builder) -> (Runtime, Self) {
        let clock = quanta::Clock::new();
        let before = clock.clone();
        let runtime = builder
            .on_task_spawn(|_| {})
            .on_before_task_poll(move |_| TICKS.set(before.raw()))
            .on_after_task_poll(move |_| TICKS.set(clock.raw()))
            .on_task_terminate(|_| {})
            .build();
        (runtime.expect("a runtime can be built"), Self)
    }
}

fn main() -> ExitCode {
    bench_workloads::main::<ClockOnly>()
}
