//! A service of one worker whose task blocks on purpose: it hands its worker on first, with `block_in_place`.
//!
//! Prints `ready`; after a line on standard input it prints `blocking`, blocks for four seconds, and prints `done`.

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
        std::io::stdin().read_line(&mut String::new()).expect("standard input can be read");
        let _ = go.send(());
    });
    println!("ready");
    let _ = gone.await;
    let blocking = tokio::spawn(async {
        println!("blocking");
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_secs(4)));
        println!("done");
    });
    blocking.await.expect("it does not panic");
    std::future::pending::<()>().await;
}
