//! A service that is built with `panic = "abort"`: a panic of its own ends it, one on the probe's thread does not.
//!
//! Prints `ready`, and after a line on standard input lets a task panic. `--pool`: it has a pool whose closure panics.

use taskscope_probe::{PoolSample, Probe};

#[taskscope_probe::main(worker_threads = 1)]
async fn main() {
    if let Some(probe) = Probe::current()
        && std::env::args().any(|arg| arg == "--pool")
    {
        probe.pool("broken", || -> PoolSample { panic!("this pool is broken on purpose") });
    }
    let (go, gone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::io::stdin().read_line(&mut String::new()).expect("standard input can be read");
        let _ = go.send(());
    });
    println!("ready");
    let _ = gone.await;
    let dead = taskscope_probe::spawn("dead", async { panic!("the service panics on purpose") });
    let _ = dead.await;
    println!("it lives");
}
