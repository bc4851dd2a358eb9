//! The wrapper changes nothing for the wrapped, wherever it is used.

use std::future::poll_fn;
use std::task::{Poll, Waker};

#[taskscope_probe::main(worker_threads = 2)]
async fn spawned() -> (i32, bool, bool) {
    let value = taskscope_probe::spawn("value", async { 42 }).await.expect("it does not panic");
    let panicked = taskscope_probe::spawn("panic", async { panic!("expected by the test") })
        .await
        .is_err_and(|e| e.is_panic());
    let endless = taskscope_probe::spawn("endless", std::future::pending::<()>());
    endless.abort();
    (value, panicked, endless.await.is_err_and(|error| error.is_cancelled()))
}

#[test]
fn handles_tell_what_tokio_tells() {
    assert_eq!(spawned(), (42, true, true));
}

#[test]
fn will_wake_stays_true_from_poll_to_poll() {
    #[taskscope_probe::main(flavor = "current_thread")]
    async fn polled_twice() -> bool {
        let mut first: Option<Waker> = None;
        let twice = poll_fn(move |cx| match &first {
            None => {
                first = Some(cx.waker().clone());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(first) => Poll::Ready(first.will_wake(cx.waker())),
        });
        taskscope_probe::spawn("twice", twice).await.expect("it does not panic")
    }
    assert!(polled_twice());
}

#[test]
fn a_spawn_outside_of_a_runtime_panics_as_tokios_and_leaves_nothing_behind() {
    let outside = std::panic::catch_unwind(|| drop(taskscope_probe::spawn("never ran", async {})));
    assert!(outside.is_err());
    assert_eq!(spawned(), (42, true, true));
}

#[test]
fn labels_may_be_dropped_in_any_order_and_outside_of_every_poll() {
    let (outer, inner) = (taskscope_probe::label("outer"), taskscope_probe::label("inner"));
    drop(outer);
    drop(inner);
    assert_eq!(spawned(), (42, true, true));
}

#[test]
fn many_short_tasks_on_two_workers_keep_the_books() {
    #[taskscope_probe::main(worker_threads = 2)]
    async fn storm() -> usize {
        let mut done = 0;
        for _ in 0..200 {
            let batch: Vec<_> = (0..100)
                .map(|_| {
                    taskscope_probe::spawn("short", async {
                        tokio::task::yield_now().await;
                    })
                })
                .collect();
            for task in batch {
                done += usize::from(task.await.is_ok());
            }
        }
        done
    }
    assert_eq!(storm(), 20_000);
}
