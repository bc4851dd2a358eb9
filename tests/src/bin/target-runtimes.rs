//! A service that lives on more than one runtime, or on none for a while. One argument says what it does; each prints what
//! a test waits for.

use std::io::BufRead;
use std::time::Duration;

use taskscope_probe::Probe;
use tokio::runtime::{Builder, Handle, Runtime};

fn main() {
    let scenario = std::env::args().nth(1).expect("a scenario");
    match scenario.as_str() {
        "several" => several(),
        "nested-drop" => nested_drop(),
        "outlive" => outlive(),
        "closed" => closed(),
        "short" => short(),
        "abort" => abort(),
        "foreign" => foreign(),
        "churn" => churn(),
        "fork" => fork(),
        "panicking-callback" => panicking_callback(),
        other => panic!("no scenario {other}"),
    }
}

/// A runtime with the probe on it.
fn runtime(mut builder: Builder) -> Runtime {
    Probe::builder().name("runtimes").install(&mut builder);
    builder.enable_all().build().expect("a runtime can be built")
}

fn multi(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers);
    runtime(builder)
}

/// For as long as the process lives.
fn stay() {
    loop {
        std::thread::park();
    }
}

/// The next line of standard input.
fn told() -> String {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("standard input can be read");
    line.trim().to_owned()
}

async fn tick() {
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    loop {
        interval.tick().await;
    }
}

/// Three kinds of runtime at once, five tasks on each; prints `line KIND N` with the line that spawns them.
fn several() {
    let many = multi(2);
    many.block_on(async {
        println!("line multi_thread {}", line!() + 1);
        (0..5).for_each(|_| drop(tokio::spawn(tick())));
    });
    std::thread::spawn(|| {
        runtime(Builder::new_current_thread()).block_on(async {
            println!("line current_thread {}", line!() + 1);
            (0..5).for_each(|_| drop(tokio::spawn(tick())));
            std::future::pending::<()>().await;
        });
    });
    std::thread::spawn(|| {
        let mut builder = Builder::new_current_thread();
        Probe::builder().install(&mut builder);
        let local = builder.enable_all().build_local(Default::default()).expect("a runtime can be built");
        local.block_on(async {
            println!("line local {}", line!() + 1);
            (0..5).for_each(|_| drop(tokio::task::spawn_local(tick())));
            std::future::pending::<()>().await;
        });
    });
    println!("ready");
    stay();
}

/// A runtime with tasks is dropped inside another one's blocking pool. Prints `both`, and after a line `dropped`.
fn nested_drop() {
    let outer = multi(1);
    outer.spawn(tick());
    let inner = multi(1);
    for _ in 0..5 {
        inner.spawn(tick());
    }
    println!("both");
    told();
    let dropped = outer.block_on(async { tokio::task::spawn_blocking(move || drop(inner)).await });
    dropped.expect("it does not panic");
    println!("dropped");
    stay();
}

/// A runtime is left to end by itself while one of its tasks is in a poll. Prints `busy`, then `left`; after another line
/// that poll ends.
fn outlive() {
    let runtime = multi(2);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    for _ in 0..5 {
        runtime.spawn(tick());
    }
    runtime.spawn(async move {
        println!("busy");
        // The fault on purpose: it blocks its worker.
        let _ = ended.recv();
    });
    told();
    runtime.shutdown_background();
    println!("left");
    told();
    drop(end);
    println!("ended");
    stay();
}

/// Tasks are spawned on a runtime that has ended: there the hooks tell the end before the begin.
fn closed() {
    let live = multi(1);
    live.spawn(tick());
    let ended = multi(1);
    let handle = ended.handle().clone();
    drop(ended);
    println!("line closed {}", line!() + 1);
    (0..100).for_each(|_| drop(handle.spawn(tick())));
    println!("ready");
    stay();
}

/// 100 tasks that each end at once, faster than anything looks.
fn short() {
    multi(1).block_on(async {
        for _ in 0..50 {
            taskscope_probe::spawn("short-wrapped", async {}).await.expect("it does not panic");
            println!("line short {}", line!() + 1);
            tokio::spawn(async {}).await.expect("it does not panic");
        }
        println!("ready");
        std::future::pending::<()>().await;
    });
}

/// Two idle tasks are aborted. Prints `idle`, and after a line `aborted`.
fn abort() {
    let runtime = multi(1);
    let guard = runtime.enter();
    let wrapped = taskscope_probe::spawn("aborted-wrapped", std::future::pending::<()>());
    println!("line abort {}", line!() + 1);
    let plain = tokio::spawn(std::future::pending::<()>());
    drop(guard);
    println!("idle");
    told();
    wrapped.abort();
    plain.abort();
    assert!(runtime.block_on(wrapped).is_err_and(|error| error.is_cancelled()));
    assert!(runtime.block_on(plain).is_err_and(|error| error.is_cancelled()));
    println!("aborted");
    stay();
}

/// Threads that no runtime runs spawn through a handle, drop a task's future in a poll of nobody's, and end.
fn foreign() {
    let runtime = multi(1);
    println!("line foreign {}", line!() + 3);
    for _ in 0..20 {
        let handle: Handle = runtime.handle().clone();
        let spawn = move || drop(handle.spawn(tick()));
        std::thread::spawn(spawn).join().expect("it does not panic");
    }
    // A runtime that is dropped by a thread that never ran it.
    let other = multi(1);
    other.spawn(tick());
    std::thread::spawn(move || drop(other)).join().expect("it does not panic");
    println!("ready");
    stay();
}

/// As many runtimes as it is told, created, used and dropped, one after the other; says `done` each time.
fn churn() {
    let live = multi(1);
    live.spawn(tick());
    loop {
        let count: usize = told().parse().expect("a number");
        for number in 0..count {
            let runtime = match number % 2 {
                0 => multi(1),
                _ => runtime(Builder::new_current_thread()),
            };
            let task = async {
                taskscope_probe::spawn("churned", tokio::time::sleep(Duration::from_micros(1))).await
            };
            runtime.block_on(task).expect("it does not panic");
        }
        println!("done");
    }
}

/// Forks twenty times while the probe is at work. Each child builds a runtime with the probe, spawns tasks on it and
/// panics in one; prints `children ended well: N`.
fn fork() {
    // Of current-thread runtimes only: their threads park in the kernel. Those of the other kind park in `parking_lot`,
    // whose table of parked threads would be in the child without the threads, and hang it with or without a probe.
    let (begun, has_begun) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime(Builder::new_current_thread()).block_on(async {
            (0..20).for_each(|_| drop(tokio::spawn(tick())));
            begun.send(()).expect("it is waited for");
            std::future::pending::<()>().await;
        });
    });
    has_begun.recv().expect("it begins");
    let mut well = 0;
    for number in 0..20 {
        match fork::fork().expect("a process can be forked") {
            fork::Fork::Child => {
                std::process::exit(i32::from(!works_in_a_child(number)));
            }
            fork::Fork::Parent(child) => {
                let status = fork::waitpid(child).expect("a child can be waited for");
                well += u32::from(fork::WIFEXITED(status) && fork::WEXITSTATUS(status) == 0);
            }
        }
    }
    println!("children ended well: {well}");
    stay();
}

/// What a service does, in a process in which the probe's thread is not.
fn works_in_a_child(number: u32) -> bool {
    let runtime = multi(1 + number as usize % 2);
    let sum = runtime.block_on(async {
        let plain: Vec<_> = (0..50).map(|n| tokio::spawn(async move { n })).collect();
        let work = taskscope_probe::labelled("in a child", tokio::time::sleep(Duration::from_millis(1)));
        let wrapped = taskscope_probe::spawn("child", async {
            work.await;
            7
        });
        let dead = taskscope_probe::spawn("dead child", async { panic!("expected by the test") });
        let mut sum = wrapped.await.expect("it does not panic");
        for task in plain {
            sum += task.await.expect("it does not panic");
        }
        sum + i32::from(dead.await.is_err_and(|error| error.is_panic()))
    });
    if let Some(probe) = Probe::current() {
        probe.pool("of a child", taskscope_probe::PoolSample::default);
        return false;
    }
    drop(runtime);
    sum == (0..50).sum::<i32>() + 7 + 1
}

/// A callback of the application's panics once before a poll, and once after one; Tokio lets that end `block_on`. Prints
/// `caught N`.
#[cfg(tokio_unstable)]
fn panicking_callback() {
    type Give = fn(taskscope_probe::Builder) -> taskscope_probe::Builder;
    let before: Give = |probe| probe.on_before_task_poll(|_| panic!("expected by the test"));
    let after: Give = |probe| probe.on_after_task_poll(|_| panic!("expected by the test"));
    let mut caught = 0;
    for give in [before, after] {
        let mut builder = Builder::new_current_thread();
        give(Probe::builder().name("runtimes")).install(&mut builder);
        let runtime = builder.enable_all().build().expect("a runtime can be built");
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = runtime.block_on(async { tokio::spawn(tick()).await });
        }));
        caught += u32::from(ended.is_err());
        // What Tokio has left of it is not dropped: that is not what this is about.
        std::mem::forget(runtime);
    }
    println!("caught {caught}");
    stay();
}

#[cfg(not(tokio_unstable))]
fn panicking_callback() {
    panic!("without `tokio_unstable` there are no task hooks");
}
