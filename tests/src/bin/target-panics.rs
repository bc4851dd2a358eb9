//! A service whose tasks die in every way that there is, and some that only seem to. Prints `ready` once all of it has
//! happened, and `hook N: MESSAGE` from its own panic hooks: 1 was set before the probe's, 2 after it.
//!
//! `--replace-hook`: the second one does not call the hooks before it.

use std::panic::{
    AssertUnwindSafe, PanicHookInfo, catch_unwind, panic_any, resume_unwind, set_hook, take_hook,
};
use std::time::Duration;

use taskscope_probe::Probe;

fn main() -> std::io::Result<()> {
    let replace = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--replace-hook") => true,
        Some(other) => panic!("unknown flag {other}"),
    };
    set_hook(Box::new(|info| say(1, info)));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    let probe = Probe::builder().name("panics").install(&mut runtime);
    let before = take_hook();
    set_hook(Box::new(move |info| {
        say(2, info);
        if !replace {
            before(info);
        }
    }));
    runtime.build()?.block_on(async move {
        die(probe).await;
        println!("ready");
        std::future::pending::<()>().await;
    });
    Ok(())
}

fn say(hook: u32, info: &PanicHookInfo<'_>) {
    let message = info.payload().downcast_ref::<&str>().copied();
    let message = message.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
    println!("hook {hook}: {}", message.unwrap_or("no text"));
}

/// Each of these is dead, or not, before the next one begins.
async fn die(probe: Probe) {
    // Spawned as anybody spawns, and forgotten.
    let forgotten = tokio::spawn(async { panic!("forgotten for good") });
    assert!(forgotten.await.is_err());

    let wrapped = probe.spawn("wrapped", async {
        tokio::task::yield_now().await;
        let parts = [1, 2, 3];
        parts[std::hint::black_box(7)]
    });
    assert!(wrapped.await.is_err());

    let detached = probe.spawn_detached("detached", async { panic!("nobody\nhears \u{1b}[2J this") });
    while !detached.is_finished() {
        tokio::task::yield_now().await;
    }

    let odd = probe.spawn("odd", async { panic_any(7_u8) });
    assert!(odd.await.is_err());

    let long = probe.spawn("long", async { panic!("{}", "é".repeat(1000)) });
    assert!(long.await.is_err());

    let again = probe.spawn("again", async { resume_unwind(Box::new("no hook is told")) });
    assert!(again.await.is_err());
    // Who awaits a task is woken before the hook at its end is called: that one is dead once it is counted no more.
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }

    let job = probe.spawn_blocking("job", || panic!("a job of the pool"));
    assert!(job.await.is_err());

    // It catches its panic, and ends as it should.
    let survivor = probe.spawn("caught", async { caught("caught in the last poll") });
    assert!(survivor.await.is_ok());
    let earlier = tokio::spawn(async {
        caught("caught in an earlier poll");
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    assert!(earlier.await.is_ok());
    // The panic is another task's, which is polled inside the poll of this one and keeps the panic to itself.
    let host = tokio::spawn(async {
        tokio::task::block_in_place(|| {
            let local = tokio::task::LocalSet::new();
            let guest = local.run_until(async {
                let guest = tokio::task::spawn_local(async { panic!("a guest's") });
                assert!(guest.await.is_err());
            });
            tokio::runtime::Handle::current().block_on(guest);
        });
    });
    assert!(host.await.is_ok());
}

fn caught(message: &str) {
    assert!(catch_unwind(AssertUnwindSafe(|| panic!("{message}"))).is_err());
}
