//! The probe of Taskscope: it shows what every asynchronous task of a Tokio service is doing, to an agent outside.
//!
//! ```no_run
//! #[taskscope_probe::main]
//! async fn main() {
//!     // your service
//! }
//! ```
//!
//! With `--cfg tokio_unstable` (in `.cargo/config.toml`) every spawned task is seen, at its spawn site. Without it the
//! probe builds and runs, sees the tasks spawned through [`spawn`] and what [`label`] says, finds blocked workers, and
//! tells what it cannot see.
//!
//! **What it does to your service.** It opens a Unix socket for the same user and serves watching only; nothing can be
//! changed through it. It takes a fixed budget of memory ([`Builder`], `TASKSCOPE_MEMORY`), no lock that your code can
//! wait on, and one thread of its own. Where something fails in it, it says so in one line on standard error and your
//! service runs on. `TASKSCOPE_DISABLED=1` switches it off. Only if you say so ([`Builder::stacks`]) does it send signals to your
//! threads, to see where in its code a slow poll is.
//!
//! Ways in:
//! - [`macro@main`]: the attribute, for `#[tokio::main]`;
//! - [`Probe::builder`] and [`Builder::install`]: for your own `tokio::runtime::Builder`;
//! - [`Builder::start`]: inside a runtime that somebody else built; only the wrapper and labels then see tasks;
//! - [`spawn`], [`spawn_blocking`]: a name, wakes and the exact outcome for a task;
//! - [`task`]: class, fields and cancellation token of a task, too; [`JoinSet`] and (feature `tokio-util`) `TaskTracker`;
//! - [`label`], [`labelled`] and (feature `axum`) `axum::LabelLayer`: what a poll is doing for whom;
//! - [`Probe::pool`]: a pool of your own on the dashboard.

// The model tests take the registry in by themselves: see model.rs.
#![cfg(not(taskscope_loom))]
#![cfg_attr(
    not(tokio_unstable),
    allow(dead_code, reason = "on stable Tokio what serves the task hooks has no user")
)]
// Both macros panic where their stream is closed.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod builder;
mod callbacks;
mod capture;
mod cgroup;
mod clock;
mod deployment;
mod engine;
mod native;
mod own_threads;
mod pool;
mod registry;
mod resource;
mod runtimes;
mod say;
mod settings;
mod stacks;

#[cfg(feature = "axum")]
pub mod axum;

pub use builder::{Builder, Probe};
pub use capture::handle::{AbortHandle, JoinHandle};
pub use capture::join_set::JoinSet;
pub use capture::label::{LabelGuard, Labelled, label, labelled};
pub use capture::task::{Class, InstrumentTask, Task};
#[cfg(feature = "tokio-util")]
pub use capture::task_tracker::TaskTracker;
pub use capture::wrapper::Instrumented;
pub use pool::PoolSample;
pub use taskscope_probe_macros::main;

/// Says what a task is, before it is spawned: see [`Task`].
#[track_caller]
pub fn task(name: &str) -> Task {
    Task::new(name)
}

/// Spawns a task on the current runtime, as `tokio::spawn` does, and follows it under `name`.
///
/// Beside what the runtime's hooks see, its wakes (and who woke it), the time it was scheduled, how it ended, and requests
/// to stop it are known. Tasks of one name and spawn site are one group. Without a running probe this is `tokio::spawn`.
///
/// Cost: one allocation of 48 bytes and 40 bytes of the probe's memory a task; two clock reads and a few stores a poll and
/// a wake.
///
/// # Panics
/// Outside of a Tokio runtime, as `tokio::spawn` does.
///
/// ```no_run
/// # #[taskscope_probe::main]
/// # async fn main() {
/// let mailer = taskscope_probe::spawn("mailer", async { 42 });
/// assert_eq!(mailer.await.unwrap(), 42);
/// # }
/// ```
#[track_caller]
pub fn spawn<F>(name: &str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    task(name).spawn(future)
}

/// As [`spawn`], for a task that may fail: one that ends with an `Err` has the outcome `failed`, with the error's text, and
/// where its handle goes without having been awaited, before that or after, it is told as an event: the exception that
/// vanished with its task.
///
/// Cost: beside that of [`spawn`], an allocation of 40 bytes, and one of 72 for an error while the handle is held.
///
/// ```no_run
/// # #[taskscope_probe::main]
/// # async fn main() {
/// taskscope_probe::spawn_try("mailer", async {
///     tokio::net::TcpStream::connect("mail.internal:25").await?;
///     Ok::<(), std::io::Error>(())
/// });
/// # }
/// ```
#[track_caller]
pub fn spawn_try<F, T, E>(name: &str, future: F) -> JoinHandle<Result<T, E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    task(name).spawn_try(future)
}

/// As [`spawn`], on the current `LocalSet` or `LocalRuntime`, as `tokio::task::spawn_local` does. Tasks of a `LocalSet`
/// (those of actix-web among them) are seen this way only: Tokio's hooks do not fire for them.
///
/// # Panics
/// Outside of both, as `tokio::task::spawn_local` does.
#[track_caller]
pub fn spawn_local<F>(name: &str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    task(name).spawn_local(future)
}

/// Spawns a task that nobody will await, as [`spawn`] does, and gives only a handle to abort it. A panic of it is told as
/// what it is: `DIED SILENTLY: audit-writer panicked at src/audit.rs:88; nobody awaited it`. (So is that of any followed
/// task whose [`JoinHandle`] was dropped.)
///
/// # Panics
/// Outside of a Tokio runtime, as `tokio::spawn` does.
#[track_caller]
pub fn spawn_detached<F>(name: &str, future: F) -> AbortHandle
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    task(name).spawn_detached(future)
}

/// Runs a closure on the blocking pool, as `tokio::task::spawn_blocking` does, and follows the job under `name`: how long
/// it waited for a thread, and how long it has run.
///
/// # Panics
/// Outside of a Tokio runtime, as `tokio::task::spawn_blocking` does.
#[track_caller]
pub fn spawn_blocking<F, T>(name: &str, job: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    task(name).spawn_blocking(job)
}

/// For the attribute macro only; not part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::builder::{Installed, install, main_body};
}
