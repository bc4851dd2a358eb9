//! The application's own callbacks are called as Tokio calls them, whether the probe's stand beside them or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use taskscope_probe::Probe;
use tokio::runtime::Builder;

#[test]
fn a_park_callback_is_called_and_a_second_one_replaces_the_first() {
    let calls = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let (first, second) = (Arc::clone(&calls), Arc::clone(&calls));
    let mut runtime = Builder::new_current_thread();
    Probe::builder()
        .on_thread_park(move || {
            first[0].fetch_add(1, Relaxed);
        })
        .on_thread_park(move || {
            second[1].fetch_add(1, Relaxed);
        })
        .install(&mut runtime);
    let runtime = runtime.enable_all().build().expect("a runtime can be built");
    runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(5)).await });
    assert_eq!(calls[0].load(Relaxed), 0);
    assert!(calls[1].load(Relaxed) > 0);
}

#[cfg(tokio_unstable)]
mod task_hooks {
    use super::*;
    use std::sync::Mutex;
    use tokio::runtime::TaskMeta;

    type Calls = Arc<Mutex<Vec<(&'static str, tokio::task::Id)>>>;

    fn noting(calls: &Calls, what: &'static str) -> impl Fn(&TaskMeta<'_>) + Send + Sync + 'static {
        let calls = Arc::clone(calls);
        move |meta| calls.lock().expect("no holder panics").push((what, meta.id()))
    }

    #[test]
    fn a_task_is_told_in_tokios_order() {
        let calls = Calls::default();
        let mut runtime = Builder::new_current_thread();
        Probe::builder()
            .on_task_spawn(noting(&calls, "spawn"))
            .on_before_task_poll(noting(&calls, "before"))
            .on_after_task_poll(noting(&calls, "after"))
            .on_task_terminate(noting(&calls, "terminate"))
            .install(&mut runtime);
        let runtime = runtime.build().expect("a runtime can be built");
        let id = runtime.block_on(async {
            let task = tokio::spawn(tokio::task::yield_now());
            let id = task.id();
            task.await.expect("it does not panic");
            id
        });
        let of_it: Vec<_> =
            calls.lock().expect("no holder panics").iter().filter(|(_, it)| *it == id).copied().collect();
        let words: Vec<&str> = of_it.into_iter().map(|(what, _)| what).collect();
        assert_eq!(words, ["spawn", "before", "after", "before", "terminate", "after"]);
    }

    #[test]
    fn others_are_told_the_line_of_whoever_spawned_through_the_wrapper() {
        let sites = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&sites);
        let mut runtime = Builder::new_current_thread();
        let probe = Probe::builder()
            .on_task_spawn(move |meta| {
                let at = meta.spawned_at();
                noted.lock().expect("no holder panics").push((at.file(), at.line()));
            })
            .install(&mut runtime);
        let runtime = runtime.build().expect("a runtime can be built");
        let here = runtime.block_on(async {
            let handle = tokio::runtime::Handle::current();
            let first = line!();
            let by_function = taskscope_probe::spawn("by-function", async {});
            let by_probe = probe.spawn("by-probe", async {});
            let elsewhere = taskscope_probe::task("elsewhere").spawn_on(async {}, &handle);
            let mut set = taskscope_probe::JoinSet::new();
            set.spawn("in-a-set", async {});
            for task in [by_function, by_probe, elsewhere] {
                task.await.expect("it does not panic");
            }
            set.join_next().await;
            [1, 2, 3, 5].map(|after| (file!(), first + after))
        });
        assert_eq!(*sites.lock().expect("no holder panics"), here);
    }

    #[test]
    fn a_callback_that_panics_at_a_spawn_panics_into_the_spawner() {
        let mut runtime = Builder::new_current_thread();
        Probe::builder().on_task_spawn(|_| panic!("expected by the test")).install(&mut runtime);
        let runtime = runtime.build().expect("a runtime can be built");
        let spawned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop(runtime.handle().spawn(async {}));
        }));
        assert!(spawned.is_err());
    }
}
