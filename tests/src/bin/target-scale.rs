//! A service with very many tasks and nothing else, for `cargo xtask bench scale`.
//!
//! `--tasks N --polled M`: N live tasks, M of which are polled once a second; prints `ready` once all were polled.
//! `--groups G`: those M are in G groups.
//! `--short N`: then, after a line on its standard input, N short tasks with one long-lived among each thousand; prints
//! `spawned` once only those live, and after another line, once they have ended, `ended`.

use std::io::BufRead;
use std::time::Duration;

use taskscope_probe::Probe;
use tokio::sync::{mpsc, watch};

/// Short tasks that may live at once.
const AT_ONCE: usize = 5_000;

fn main() -> std::io::Result<()> {
    let (mut tasks, mut polled, mut groups, mut short) = (0usize, 0usize, 0usize, 0usize);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{flag} needs a value"));
        let value = value.parse().unwrap_or_else(|_| panic!("{flag} is a number"));
        match flag.as_str() {
            "--tasks" => tasks = value,
            "--polled" => polled = value,
            "--groups" => groups = value,
            "--short" => short = value,
            _ => panic!("unknown flag {flag}"),
        }
    }
    assert!(polled <= tasks, "--polled is a part of --tasks");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all();
    Probe::builder().name("scale").install(&mut runtime);
    let (said, mut lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if said.blocking_send(line).is_err() {
                return;
            }
        }
    });
    runtime.build()?.block_on(async move {
        let (polled_once, mut count) = mpsc::unbounded_channel::<()>();
        for _ in 0..tasks - polled {
            let polled_once = polled_once.clone();
            tokio::spawn(async move {
                drop(polled_once);
                std::future::pending::<()>().await;
            });
        }
        for number in 0..polled {
            let polled_once = polled_once.clone();
            let work = async move {
                drop(polled_once);
                // Spread over the second, as work is that nothing keeps in step.
                tokio::time::sleep(Duration::from_micros(number as u64 * 1_000_000 / polled as u64)).await;
                let mut every = tokio::time::interval(Duration::from_secs(1));
                loop {
                    every.tick().await;
                }
            };
            match number.checked_rem(groups) {
                Some(group) => drop(taskscope_probe::spawn(&format!("group-{group}"), work)),
                None => drop(tokio::spawn(work)),
            }
        }
        drop(polled_once);
        let _ = count.recv().await;
        println!("ready");
        if short > 0 {
            let _ = lines.recv().await;
            let (end, ended) = watch::channel(());
            many_short(short, ended).await;
            println!("spawned");
            let _ = lines.recv().await;
            drop(end);
            while alive() > tasks {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            println!("ended");
        }
        std::future::pending::<()>().await;
    });
    Ok(())
}

fn alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

async fn many_short(short: usize, ended: watch::Receiver<()>) {
    let before = alive();
    let mut lasting = 0;
    for number in 0..short {
        if number % 1_000 == 999 {
            let mut ended = ended.clone();
            tokio::spawn(async move { while ended.changed().await.is_ok() {} });
            lasting += 1;
        } else {
            tokio::spawn(async {});
        }
        if number % 100 == 99 {
            while alive() > before + lasting + AT_ONCE {
                tokio::task::yield_now().await;
            }
        }
    }
    while alive() > before + lasting {
        tokio::task::yield_now().await;
    }
}
