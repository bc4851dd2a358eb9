//! A service that makes the probe lose things. Each line on its standard input is what is to be lost; when that has
//! happened it prints the line again, with the number that is lost where it knows it. Prints `ready` first.

#![cfg_attr(not(tokio_unstable), allow(dead_code, reason = "there are no hooks to lose something with"))]

use std::sync::mpsc;
use std::sync::{Arc, Barrier};
#[cfg(tokio_unstable)]
use std::time::Duration;

use taskscope_probe::{InstrumentTask, PoolSample, Probe, label, spawn, spawn_blocking, spawn_try, task};
use tokio::runtime::{Builder, Runtime};

const MEGABYTE: usize = 1 << 20;

#[cfg(tokio_unstable)]
fn main() {
    let runtime = multi();
    let _inside = runtime.enter();
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("standard input can be read");
        let lost = match line.as_str() {
            "texts cut" => cut_texts(),
            "texts past the budget" => fill_texts(&runtime),
            "names" => many_names(&runtime),
            "labels" => many_labels(),
            "nested polls" => nest_polls(),
            "threads" => many_threads(),
            "tasks" => many_tasks(&runtime),
            "hooks" => replace_a_hook(),
            "deaths" => many_deaths(&runtime),
            "cancellations" => many_cancellations(),
            "histograms" => many_histograms(),
            "pools" => broken_pools(),
            "history" => many_pools(),
            "a stack" => block_signals(&runtime),
            other => panic!("nothing is lost by {other}"),
        };
        println!("{line}: {lost}");
    }
}

#[cfg(not(tokio_unstable))]
fn main() {
    panic!("without `tokio_unstable` there are no task hooks");
}

fn with_probe(mut builder: Builder) -> Runtime {
    Probe::builder().name("losses").install(&mut builder);
    builder.enable_all().build().expect("a runtime can be built")
}

/// One worker.
fn multi() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1);
    with_probe(builder)
}

/// A name, fields, two labels and the name of a pool that no screen could show, and a name that none should.
fn cut_texts() -> usize {
    let long = "é".repeat(MEGABYTE / 2);
    drop(task(&long).spawn(std::future::pending::<()>()));
    drop(task("a name\u{1b}[2J").spawn(std::future::pending::<()>()));
    drop(task("fields").field("all", &long).spawn(std::future::pending::<()>()));
    drop(label(&long));
    drop(label("a bell\u{7}"));
    // It is known already: this one is not lost again.
    drop(label("a label"));
    drop(label("a label"));
    Probe::current().expect("it runs").pool(&long, PoolSample::default);
    6
}

/// 900 tasks, each with long fields of its own. Gives their number: the rows show which fields were kept.
fn fill_texts(runtime: &Runtime) -> usize {
    let filling = "x".repeat(200);
    for number in 0..900 {
        let _inside = runtime.enter();
        drop(task("filled").field("n", format!("{number}{filling}")).spawn(std::future::pending::<()>()));
    }
    900
}

/// 300 tasks, each with a name of its own, that end at once.
fn many_names(runtime: &Runtime) -> usize {
    runtime.block_on(async {
        for number in 0..300 {
            spawn(&format!("name {number}"), async {}).await.expect("it does not panic");
        }
    });
    300
}

/// 250 labels; 200 have figures of their own.
fn many_labels() -> usize {
    (0..250).for_each(|number| drop(label(&format!("label {number}"))));
    // This one has.
    drop(label("label 7"));
    50
}

/// Seven polls inside each other; a thread's line keeps four.
fn nest_polls() -> usize {
    fn nested(depth: u32) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        match depth {
            0 => Box::pin(async {}),
            _ => Box::pin(nested(depth - 1).instrument_task("nested")),
        }
    }
    let runtime = with_probe(Builder::new_current_thread());
    // Away from this thread, which is inside a runtime.
    on_a_thread(move || runtime.block_on(nested(7)));
    3
}

/// More threads than there are lines, then one that works: a spawn, 4 polls of its task, and a poll and a job that the
/// wrapper sees.
fn many_threads() -> usize {
    const MORE: usize = 200;
    let all = Arc::new(Barrier::new(MORE + 1));
    for _ in 0..MORE {
        let all = Arc::clone(&all);
        std::thread::spawn(move || {
            drop(label("takes a line"));
            all.wait();
            loop {
                std::thread::park();
            }
        });
    }
    all.wait();
    on_a_thread(|| {
        let runtime = with_probe(Builder::new_current_thread());
        runtime.block_on(async {
            tokio::spawn(async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("it does not panic");
            async {}.instrument_task("a poll").await;
            spawn_blocking("a job", || ()).await.expect("it does not panic");
        });
    });
    1 + 4 + 1 + 1
}

/// 20 000 tasks that live on. Gives their number: those that are followed have rows.
fn many_tasks(runtime: &Runtime) -> usize {
    (0..20_000).for_each(|_| drop(runtime.spawn(std::future::pending::<()>())));
    20_000
}

/// Seven tasks on a runtime one of whose hooks the application has replaced.
#[cfg(tokio_unstable)]
fn replace_a_hook() -> usize {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    Probe::builder().install(&mut builder);
    builder.on_task_spawn(|_| ());
    let runtime = builder.build().expect("a runtime can be built");
    for _ in 0..7 {
        runtime.spawn(async {
            let mut interval = tokio::time::interval(Duration::from_millis(20));
            loop {
                interval.tick().await;
            }
        });
    }
    // It goes on until the process ends.
    std::mem::forget(runtime);
    7
}

/// A poll past the threshold, once, on a thread that blocks all signals meanwhile.
fn block_signals(runtime: &Runtime) -> usize {
    let poll = runtime.spawn(async {
        #[cfg(target_os = "linux")]
        nix::sys::signal::SigSet::all().thread_block().expect("it may");
        std::thread::sleep(std::time::Duration::from_millis(200));
        #[cfg(target_os = "linux")]
        nix::sys::signal::SigSet::all().thread_unblock().expect("it may");
    });
    runtime.block_on(poll).expect("it does not panic");
    1
}

/// 5 000 tasks that nobody awaits fail faster than anything looks. Gives their number.
fn many_deaths(runtime: &Runtime) -> usize {
    const DEATHS: usize = 5_000;
    let (begin, begun) = mpsc::channel::<()>();
    // They wait until all are there, so that they end one right after the other.
    runtime.spawn(async move {
        let _ = begun.recv();
    });
    for number in 0..DEATHS {
        let _inside = runtime.enter();
        let last = number + 1 == DEATHS;
        drop(spawn_try("dies", async move { Err::<(), _>(if last { "last" } else { "first" }) }));
    }
    drop(begin);
    runtime.block_on(async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    });
    DEATHS
}

/// 1 500 tasks are aborted that cannot end, for their worker is blocked. Gives their number: the rows show which requests
/// are remembered.
fn many_cancellations() -> usize {
    let runtime = multi();
    let (blocked, is_blocked) = mpsc::channel();
    runtime.spawn(async move {
        blocked.send(()).expect("it is waited for");
        loop {
            std::thread::park();
        }
    });
    is_blocked.recv().expect("it is sent");
    let tasks: Vec<_> = {
        let _inside = runtime.enter();
        (0..1_500).map(|_| spawn("aborted", std::future::pending::<()>())).collect()
    };
    tasks.iter().for_each(|task| task.abort());
    std::mem::forget((runtime, tasks));
    1_500
}

/// 200 groups on three threads. Gives the number of polls.
fn many_histograms() -> usize {
    for _ in 0..3 {
        on_a_thread(|| {
            with_probe(Builder::new_current_thread()).block_on(async {
                for number in 0..200 {
                    spawn(&format!("group {number}"), async {}).await.expect("it does not panic");
                }
            });
        });
    }
    600
}

/// One pool of each kind that is wrong.
fn broken_pools() -> usize {
    let probe = Probe::current().expect("it runs");
    probe.pool("panics", || panic!("expected by the test"));
    probe.pool("nonsense", || PoolSample { capacity: Some(2), busy: Some(7), ..PoolSample::default() });
    probe.pool("blocks", || {
        loop {
            std::thread::park();
        }
    });
    1
}

/// More pools than the history has room for.
fn many_pools() -> usize {
    let probe = Probe::current().expect("it runs");
    (0..100).for_each(|number| probe.pool(format!("pool {number}"), PoolSample::default));
    100
}

/// Runs `work` on a thread that no runtime has entered, to its end.
fn on_a_thread(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"));
}
