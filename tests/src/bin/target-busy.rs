//! A service whose workers are always in a poll: two tasks a worker spin for `--poll-ms` and yield. Prints `ready`.
//!
//! `--workers N`, `--poll-ms N`, `--threshold-ms N` from which a poll is slow, and `--nice N` to be of little weight among
//! others on the same core.

use std::time::Duration;

use taskscope_probe::Probe;
use taskscope_tests::stopwatch::ThreadTime;

fn main() -> std::io::Result<()> {
    let (mut workers, mut poll_ms, mut threshold_ms) = (2, 5, 100);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().and_then(|value| value.parse().ok());
        let value: u64 = value.unwrap_or_else(|| panic!("{flag} needs a number"));
        match flag.as_str() {
            "--workers" => workers = value as usize,
            "--poll-ms" => poll_ms = value,
            "--nice" => drop(rustix::process::nice(value as i32).expect("it may be nicer")),
            "--threshold-ms" => threshold_ms = value,
            _ => panic!("unknown flag {flag}"),
        }
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(workers).enable_all();
    let threshold = Duration::from_millis(threshold_ms);
    Probe::builder().name("busy").slow_poll_threshold(threshold).install(&mut runtime);
    runtime.build()?.block_on(async move {
        for _ in 0..2 * workers {
            taskscope_probe::spawn("spinner", spin(Duration::from_millis(poll_ms)));
        }
        println!("ready");
        std::future::pending::<()>().await;
    });
    Ok(())
}

/// Every poll takes this much CPU time, however long that takes.
async fn spin(poll: Duration) {
    loop {
        let label = taskscope_probe::label("spin");
        let began = ThreadTime::now();
        while began.elapsed() < poll {
            std::hint::spin_loop();
        }
        drop(label);
        tokio::task::yield_now().await;
    }
}
