//! A service with steady work that measures itself: one JSON line a second, `{"second", "ops", "p99_ns", "max_ns"}`.
//!
//! `--idle N` tasks that wait, each named `idle-MARK`; `--mark TEXT` tells two runs of it apart.
#![allow(clippy::disallowed_methods, reason = "it is its own clock")]

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Round trips between two tasks that make one operation: some tens of microseconds.
const ROUND_TRIPS: usize = 64;

// One worker, so that the work keeps one core busy and leaves the other to whatever watches.
#[taskscope_probe::main(worker_threads = 1)]
async fn main() {
    let (mut idle, mut mark) = (10, "plain".to_owned());
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{flag} needs a value"));
        match flag.as_str() {
            "--idle" => idle = value.parse().expect("--idle is a number"),
            "--mark" => mark = value,
            _ => panic!("unknown flag {flag}"),
        }
    }
    for _ in 0..idle {
        taskscope_probe::spawn(&format!("idle-{mark}"), std::future::pending::<()>());
    }
    taskscope_probe::spawn("work", work()).await.expect("the work never ends");
}

async fn work() {
    let (ask, mut asked) = mpsc::channel::<u64>(1);
    let (answer, mut answered) = mpsc::channel::<u64>(1);
    tokio::spawn(async move {
        while let Some(number) = asked.recv().await {
            if answer.send(number + 1).await.is_err() {
                return;
            }
        }
    });
    let mut durations = Vec::new();
    for second in 1u64.. {
        let began = Instant::now();
        let mut last = began;
        durations.clear();
        while last.duration_since(began) < Duration::from_secs(1) {
            for number in 0..ROUND_TRIPS {
                ask.send(number as u64).await.expect("the other task lives");
                answered.recv().await.expect("the other task lives");
            }
            let now = Instant::now();
            durations.push(u64::try_from(now.duration_since(last).as_nanos()).unwrap_or(u64::MAX));
            last = now;
        }
        durations.sort_unstable();
        let p99 = durations[(durations.len() - 1) * 99 / 100];
        let max = durations[durations.len() - 1];
        println!("{{\"second\":{second},\"ops\":{},\"p99_ns\":{p99},\"max_ns\":{max}}}", durations.len());
    }
}
