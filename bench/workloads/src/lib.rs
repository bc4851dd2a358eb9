//! What the benches do and how it is measured. Each mode (a package beside this one) says only how it builds a runtime
//! and how it spawns; everything else is the same code.
//!
//! A process measures one thing once and prints `name value` lines. Words go to standard error.

use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::idle::Idle;
use crate::stopwatch::Taken;

mod counted;
mod echo;
mod idle;
mod load;
mod pingpong;
mod spawning;
mod stopwatch;
mod yields;

/// One way to watch a runtime, or none.
pub trait Mode: Sized + 'static {
    /// Builds what `builder` describes, watched. The second value is kept until the runtime has ended.
    fn build(builder: Builder) -> (Runtime, Self);

    /// Spawns as a service in this mode would.
    #[track_caller]
    fn spawn<F>(future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }
}

const USAGE: &str = "\
yield | pingpong | spawn
idle TASKS | idle-timer TASKS
echo CLIENT
count yield|pingpong|spawn N
count echo N CLIENT
load ADDRESS CONNECTIONS [REQUESTS]";

/// The `main` of a mode.
pub fn main<M: Mode>() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["yield"] => say_taken("yield", &stopwatch::sized::<M>(yields::run::<M>)),
        ["pingpong"] => say_taken("pingpong", &stopwatch::sized::<M>(pingpong::run::<M>)),
        ["spawn"] => say_taken("spawn", &stopwatch::sized::<M>(spawning::run::<M>)),
        ["echo", client] => {
            let cost = echo::cost::<M>(client);
            say("echo_ns", cost.worker_ns);
            say("echo_p999_ns", cost.p999_ns);
        }
        [idle @ ("idle" | "idle-timer"), tasks] => {
            let Ok(tasks) = tasks.parse() else { return usage() };
            if idle == "idle" {
                let memory = idle::memory::<M>(Idle::Plain, tasks);
                say("start_bytes", memory.start as f64);
                say("idle_task_bytes", memory.per_task);
            } else {
                say("idle_timer_task_bytes", idle::memory::<M>(Idle::Timer, tasks).per_task);
            }
        }
        ["count", work, units, ref client @ ..] => {
            let Ok(units) = units.parse() else { return usage() };
            let did = match (work, client) {
                ("yield", []) => counted::on_one_worker::<M>(yields::run::<M>, units),
                ("pingpong", []) => counted::on_one_worker::<M>(pingpong::run::<M>, units),
                ("spawn", []) => counted::on_one_worker::<M>(spawning::run::<M>, units),
                ("echo", [client]) => echo::counted::<M>(client, units),
                _ => return usage(),
            };
            say("units", did as f64);
        }
        ["load", address, connections, ref requests @ ..] => {
            let requests: Result<Vec<u64>, _> = requests.iter().map(|number| number.parse()).collect();
            let (Ok(connections), Ok(requests)) = (connections.parse(), requests) else { return usage() };
            load::run::<M>(address, connections, requests.first().copied());
        }
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn say(name: &str, value: f64) {
    println!("{name} {value}");
}

fn say_taken(work: &str, taken: &Taken) {
    say(&format!("{work}_ns"), taken.wall_ns);
    say(&format!("{work}_cpu_ns"), taken.cpu_ns);
}

fn usage() -> ExitCode {
    eprintln!("usage:\n{USAGE}");
    ExitCode::from(64)
}

/// A runtime of a mode with `workers`, all drivers on.
fn runtime<M: Mode>(workers: usize) -> (Runtime, M) {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all();
    M::build(builder)
}

/// Runs `body` as a task of the runtime: on a worker, not on the main thread.
fn on_worker<M: Mode, T: Send + 'static>(
    runtime: &Runtime,
    body: impl Future<Output = T> + Send + 'static,
) -> T {
    let task = async { M::spawn(body).await };
    runtime.block_on(task).expect("a workload does not panic")
}
