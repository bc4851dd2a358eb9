//! A service whose pools are full, contradict themselves, or panic, and as many as `--blocked N` says do not answer until a
//! line comes on its standard input. Prints `ready`, and `released` after that line. `--files N` keeps that many files open
//! beside those that any process has; `--listen` prints `listening on ADDRESS` and accepts nothing there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use taskscope_probe::{PoolSample, Probe};

#[taskscope_probe::main(worker_threads = 2)]
async fn main() {
    let (mut blocked, mut files, mut listen) = (0, 0, false);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut number = || args.next().and_then(|value| value.parse().ok()).expect("a number follows");
        match flag.as_str() {
            "--blocked" => blocked = number(),
            "--files" => files = number(),
            "--listen" => listen = true,
            _ => panic!("unknown flag {flag}"),
        }
    }
    let probe = Probe::current().expect("the attribute has started it");
    let asked = AtomicU64::new(0);
    probe.pool("database", move || PoolSample {
        capacity: Some(8),
        busy: Some(8),
        idle: Some(0),
        queued: Some(61),
        oldest_wait: Some(Duration::from_millis(8700)),
        // One more each time that it is asked.
        acquire_timeouts: Some(asked.fetch_add(1, Relaxed)),
    });
    probe.pool("nonsense", || PoolSample { capacity: Some(2), busy: Some(7), ..PoolSample::default() });
    probe.pool("panics", || panic!("this pool is broken on purpose"));
    probe.pool("silent", PoolSample::default);
    let released = Arc::new(AtomicBool::new(false));
    for number in 0..blocked {
        let released = Arc::clone(&released);
        probe.pool(format!("blocked-{number}"), move || {
            while !released.load(Relaxed) {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            PoolSample { capacity: Some(5), ..PoolSample::default() }
        });
    }
    let files: Vec<_> = (0..files).map(|_| std::fs::File::open("/dev/null").expect("it can be")).collect();
    let listener = listen.then(|| std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    if let Some(listener) = &listener {
        println!("listening on {}", listener.local_addr().expect("it is bound"));
    }
    std::thread::spawn(move || {
        if std::io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0) {
            released.store(true, Relaxed);
            println!("released");
        }
    });
    println!("ready");
    std::future::pending::<()>().await;
    drop((files, listener));
}
