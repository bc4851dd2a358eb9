//! `bench-demo-dial9 FAULTS TRACES`: the demo's service as a child process, with dial9's recorder on it as its
//! documentation says to set it up for long polls: Tokio's events, samples of what is on CPU, and stacks of threads that
//! leave it. Segments are sealed every few seconds instead of once a minute, because a segment is read once it is sealed.

use std::process::ExitCode;
use std::time::Duration;

use dial9::cpu::{CpuProfilingConfig, SchedEventConfig};
use dial9::{Dial9HandleTokioExt, DiskBuffer, RecorderPerfExt, TokioAttachOptions};
use taskscope_demo::{Options, serve_on};

const TRACE_BYTES: u64 = 256 << 20;
const SEALED_EVERY: Duration = Duration::from_secs(20);
/// For the last segment to be written.
const SHUTDOWN: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(Ok(faults)), Some(traces), None) =
        (args.next().map(|faults| faults.parse()), args.next(), args.next())
    else {
        eprintln!("error: not FAULTS TRACES\nhint: `bench-demo-dial9 stuck-poll /tmp/traces`");
        return ExitCode::from(64);
    };
    let writer = DiskBuffer::builder()
        .base_path(traces)
        .max_total_size(TRACE_BYTES)
        .rotation_period(SEALED_EVERY)
        .build()
        .expect("the folder can be written");
    let recorder = dial9::recorder(writer)
        .with_cpu_profiling(CpuProfilingConfig::default())
        .with_sched_events(SchedEventConfig::default().include_kernel(true))
        .build();
    let handle = recorder.handle().clone();
    let options = Options { faults, until_stdin_closes: true, ..Options::default() };
    let served = serve_on(options, move |builder| {
        handle
            .attach_tokio_runtime(builder, TokioAttachOptions::builder().task_tracking_enabled(true).build())
    });
    recorder.graceful_shutdown(SHUTDOWN);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
