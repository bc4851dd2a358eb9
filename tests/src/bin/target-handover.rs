//! A service of one worker whose tasks block on purpose: they hand their worker on first, with `block_in_place`.
//!
//! Prints `ready`. A line `TASKS CALLS MILLISECONDS` on standard input says how many tasks call it how often each and for how
//! long; it prints `blocking`, and when all is over `done`.

use std::time::Duration;

#[taskscope_probe::main(worker_threads = 1)]
async fn main() {
    for _ in 0..10 {
        tokio::spawn(async {
            let mut interval = tokio::time::interval(Duration::from_millis(5));
            loop {
                interval.tick().await;
            }
        });
    }
    let (go, gone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("standard input can be read");
        let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let _ = go.send(<[u64; 3]>::try_from(numbers).expect("three of them"));
    });
    println!("ready");
    let [tasks, calls, length] = gone.await.expect("somebody says so");
    println!("blocking");
    let block = move || async move {
        for _ in 0..calls {
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(length)));
            tokio::task::yield_now().await;
        }
    };
    let blocking: Vec<_> = (0..tasks).map(|_| tokio::spawn(block())).collect();
    for task in blocking {
        task.await.expect("it does not panic");
    }
    println!("done");
    std::future::pending::<()>().await;
}
