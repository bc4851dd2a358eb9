//! A service that is idle, and every three seconds has several hundred things to do at once: short tasks of its own and of
//! Tokio's, and jobs of the blocking pool, more of them than it has threads for. Prints `burst N` after each.

use std::time::Duration;

use taskscope_probe::JoinSet;

const EVERY: Duration = Duration::from_secs(3);
const TASKS: u64 = 300;
const JOBS: u64 = 200;

fn main() -> std::io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).max_blocking_threads(32).enable_all();
    taskscope_probe::Probe::builder().name("cron").install(&mut builder);
    builder.build()?.block_on(async {
        let mut every = tokio::time::interval(EVERY);
        for burst in 1_u64.. {
            every.tick().await;
            let mut all = JoinSet::new();
            for number in 0..TASKS {
                all.spawn("report", row(number));
                // One that nobody wrapped.
                all.spawn("mail", async move { tokio::spawn(row(number)).await.is_ok() });
            }
            for number in 0..JOBS {
                all.spawn_blocking("write", move || write(number));
            }
            while all.join_next().await.is_some() {}
            println!("burst {burst}");
        }
    });
    Ok(())
}

/// Waits for something twice, and computes a little.
async fn row(number: u64) -> bool {
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(1 + number % 20)).await;
        std::hint::black_box((0..number * 10).fold(0, u64::wrapping_add));
    }
    true
}

/// As long as a small write to a disk takes.
fn write(number: u64) -> bool {
    std::thread::sleep(Duration::from_millis(5 + number % 15));
    true
}
