//! A service with callbacks of its own on the runtime's task hooks.
//!
//! `--give`: all four through the probe's builder. `--replace HOOK` (`spawn`, `before`, `after`, `terminate`, may be given
//! more than once): over the probe's, after it is installed. Prints `ready`, and every 100 ms how often each was called,
//! `calls SPAWN BEFORE AFTER TERMINATE`.
//!
//! It has one wrapped task `wrapped`, 20 tasks that tick, and a new short one every few milliseconds.

#![cfg_attr(not(tokio_unstable), allow(dead_code, reason = "there are no hooks to have callbacks on"))]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use taskscope_probe::Probe;

static CALLS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn count(hook: usize) {
    CALLS[hook].fetch_add(1, Relaxed);
}

#[cfg(tokio_unstable)]
fn main() -> std::io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    let mut probe = Probe::builder().name("hooks");
    let mut replaced = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--give" => {
                probe = probe
                    .on_task_spawn(|_| count(0))
                    .on_before_task_poll(|_| count(1))
                    .on_after_task_poll(|_| count(2))
                    .on_task_terminate(|_| count(3));
            }
            "--replace" => replaced.push(args.next().expect("--replace needs a hook")),
            _ => panic!("unknown flag {flag}"),
        }
    }
    let probe = probe.install(&mut runtime);
    for hook in replaced {
        match hook.as_str() {
            "spawn" => runtime.on_task_spawn(|_| count(0)),
            "before" => runtime.on_before_task_poll(|_| count(1)),
            "after" => runtime.on_after_task_poll(|_| count(2)),
            "terminate" => runtime.on_task_terminate(|_| count(3)),
            other => panic!("no hook {other}"),
        };
    }
    runtime.build()?.block_on(serve(probe));
    Ok(())
}

#[cfg(not(tokio_unstable))]
fn main() {
    panic!("without `tokio_unstable` there are no task hooks");
}

async fn serve(probe: Probe) {
    probe.spawn("wrapped", tick(Duration::from_millis(20)));
    for _ in 0..20 {
        tokio::spawn(tick(Duration::from_millis(10)));
    }
    tokio::spawn(async {
        let mut interval = tokio::time::interval(Duration::from_millis(5));
        loop {
            interval.tick().await;
            tokio::spawn(tokio::task::yield_now());
        }
    });
    println!("ready");
    let mut interval = tokio::time::interval(Duration::from_millis(100));
    loop {
        interval.tick().await;
        let calls = CALLS.each_ref().map(|calls| calls.load(Relaxed).to_string());
        println!("calls {}", calls.join(" "));
    }
}

async fn tick(every: Duration) {
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
    }
}
