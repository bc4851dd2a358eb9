//! A service of which every worker gets stuck after a line on its standard input.
//!
//! `--flavor multi|current --how spin|sleep --workers N --label TEXT`. Prints `ready`, then `stuck` once every worker is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use taskscope_probe::Probe;
use tokio::sync::mpsc;

#[derive(Clone)]
struct Wish {
    flavor: String,
    how: String,
    workers: usize,
    label: String,
}

impl Wish {
    fn from_args() -> Self {
        let mut wish =
            Self { flavor: "multi".into(), how: "spin".into(), workers: 2, label: "POST /resize".into() };
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            let value = args.next().unwrap_or_else(|| panic!("{flag} needs a value"));
            match flag.as_str() {
                "--flavor" => wish.flavor = value,
                "--how" => wish.how = value,
                "--workers" => wish.workers = value.parse().expect("--workers is a number"),
                "--label" => wish.label = value,
                _ => panic!("unknown flag {flag}"),
            }
        }
        wish
    }
}

fn main() -> std::io::Result<()> {
    let wish = Wish::from_args();
    let (mut runtime, workers) = match wish.flavor.as_str() {
        "multi" => (tokio::runtime::Builder::new_multi_thread(), wish.workers),
        "current" => (tokio::runtime::Builder::new_current_thread(), 1),
        other => panic!("no flavor {other}"),
    };
    runtime.worker_threads(workers).enable_all();
    Probe::builder().name("stuck").install(&mut runtime);
    runtime.build()?.block_on(async move {
        for _ in 0..20 {
            taskscope_probe::spawn("ticker", tick());
        }
        // Standard input is read on a thread of its own, so that nothing but the fault blocks a worker.
        let (go, mut gone) = mpsc::channel(1);
        std::thread::spawn(move || {
            std::io::stdin().read_line(&mut String::new()).expect("standard input can be read");
            let _ = go.blocking_send(());
        });
        println!("ready");
        let _ = gone.recv().await;
        let stuck = Arc::new(AtomicUsize::new(0));
        for _ in 0..workers {
            taskscope_probe::spawn("resizer", resize(wish.clone(), workers, Arc::clone(&stuck)));
        }
        std::future::pending::<()>().await;
    });
    Ok(())
}

async fn tick() {
    let mut interval = tokio::time::interval(Duration::from_millis(10));
    loop {
        interval.tick().await;
    }
}

/// Blocks its worker for as long as the process lives.
async fn resize(wish: Wish, workers: usize, stuck: Arc<AtomicUsize>) {
    let _label = taskscope_probe::label(&wish.label);
    if stuck.fetch_add(1, Ordering::SeqCst) + 1 == workers {
        println!("stuck");
    }
    loop {
        match wish.how.as_str() {
            "spin" => std::hint::spin_loop(),
            _ => std::thread::sleep(Duration::from_secs(3600)),
        }
    }
}
