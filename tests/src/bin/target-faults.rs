//! A service that does one thing wrong at a time. A line on its standard input names what, the line `end` ends it. Prints
//! `ready`, and each line again once it has begun to do what it says. Two workers, five blocking threads.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use taskscope_probe::{AbortHandle, Probe, spawn, spawn_blocking, spawn_detached, spawn_try};

/// While it is set, what is wrong goes on.
type Wrong = Arc<AtomicBool>;

fn main() -> std::io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).max_blocking_threads(5).enable_all();
    Probe::builder().name("faults").install(&mut builder);
    let runtime = builder.build()?;
    let _inside = runtime.enter();
    for _ in 0..4 {
        drop(spawn("ticker", tick()));
    }
    println!("ready");
    let mut wrong = Wrong::default();
    let mut aborted: Vec<AbortHandle> = Vec::new();
    let mut files = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line?;
        wrong.store(false, Relaxed);
        if line == "end" {
            aborted.drain(..).for_each(|task| task.abort());
            files.clear();
        } else {
            wrong = Arc::new(AtomicBool::new(true));
        }
        match line.as_str() {
            "end" => {}
            "stuck" => (0..2).for_each(|_| drop(spawn("stuck", stuck(wrong.clone())))),
            "slow" => drop(spawn("slow", slow())),
            "ignored request" => {
                let task = spawn("deaf", stuck(wrong.clone()));
                // It is in its poll, so that it cannot be ended.
                std::thread::sleep(Duration::from_millis(50));
                task.abort();
            }
            "panic" => drop(spawn_detached("panics", async { panic!("expected by the test") })),
            "error" => drop(spawn_try("fails", async { Err::<(), _>("connection refused") })),
            "leak" => leak(&wrong, Duration::from_millis(5), 1),
            "slow leak" => leak(&wrong, Duration::from_millis(40), 10),
            "pending" => aborted.push(spawn_detached("waits", async {
                tokio::time::sleep(Duration::from_secs(3600)).await;
            })),
            "never yields" => drop(spawn("greedy", never_yields(wrong.clone()))),
            "hot loop" => drop(spawn("spins", hot_loop(wrong.clone()))),
            "lost waker" => aborted.push(spawn_detached("lost", poll_fn(|_| Poll::<()>::Pending))),
            "jobs" => (0..9).for_each(|_| {
                let wrong = wrong.clone();
                drop(spawn_blocking("job", move || hold(&wrong)));
            }),
            "files" => {
                files.extend((0..180).map(|_| std::fs::File::open("/dev/null").expect("it can be")));
            }
            "queue" => queue(&wrong),
            "tasks" => drop(runtime.spawn(async {
                for _ in 0..20_000 {
                    drop(tokio::spawn(tokio::time::sleep(Duration::from_secs(1))));
                }
            })),
            other => panic!("nothing is wrong with {other}"),
        }
        println!("{line}");
    }
    wrong.store(false, Relaxed);
    Ok(())
}

async fn tick() {
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    loop {
        interval.tick().await;
    }
}

fn hold(wrong: &Wrong) {
    while wrong.load(Relaxed) {
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// One poll until the end.
async fn stuck(wrong: Wrong) {
    hold(&wrong);
}

/// Three polls past the probe's threshold.
async fn slow() {
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        tokio::task::yield_now().await;
    }
}

#[allow(clippy::disallowed_methods, reason = "it spins for a stated time")]
async fn never_yields(wrong: Wrong) {
    while wrong.load(Relaxed) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        tokio::task::yield_now().await;
    }
}

async fn hot_loop(wrong: Wrong) {
    poll_fn(|cx| {
        if !wrong.load(Relaxed) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A task at each beat; one of so many waits for an end that comes only at the end, the others live for a second.
fn leak(wrong: &Wrong, beat: Duration, one_of: u64) {
    let wrong = wrong.clone();
    drop(spawn("leaks", async move {
        let (ended, end) = tokio::sync::watch::channel(());
        for number in 0_u64.. {
            if !wrong.load(Relaxed) {
                break;
            }
            let (mut end, is_leaked) = (end.clone(), number % one_of == 0);
            drop(spawn("leaked", async move {
                if is_leaked {
                    while end.changed().await.is_ok() {}
                } else {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }));
            tokio::time::sleep(beat).await;
        }
        drop(ended);
    }));
}

/// Both workers are stuck, and from outside come more and more tasks.
fn queue(wrong: &Wrong) {
    (0..2).for_each(|_| drop(spawn("stuck", stuck(wrong.clone()))));
    let (wrong, runtime) = (wrong.clone(), tokio::runtime::Handle::current());
    std::thread::spawn(move || {
        while wrong.load(Relaxed) {
            drop(runtime.spawn(async {}));
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}
