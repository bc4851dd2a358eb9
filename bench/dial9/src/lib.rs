//! dial9's recorder on a runtime, with what its quick start switches on. It writes its trace into the temporary folder;
//! whoever starts this removes that.

use dial9::{Dial9HandleTokioExt, DiskBuffer, Recorder, TokioAttachOptions};
use tokio::runtime::{Builder, Runtime};

/// All that a trace may take on disk.
const TRACE_BYTES: u64 = 256 << 20;

/// The runtime that `builder` describes, recorded.
pub fn recorded(builder: Builder) -> (Runtime, Recorder) {
    let writer = DiskBuffer::builder()
        .base_path(std::env::temp_dir().join("dial9"))
        .max_total_size(TRACE_BYTES)
        .build()
        .expect("the temporary folder can be written");
    let recorder = dial9::recorder(writer).build();
    let options = TokioAttachOptions::builder().task_tracking_enabled(true).build();
    let runtime = recorder.handle().attach_tokio_runtime(builder, options).expect("a runtime can be built");
    (runtime, recorder)
}
