//! `taskscope save`: the frames of a target into a file, as they came.

use std::path::Path;
use std::time::Duration;

use taskscope_proto::v1::{GroupQuery, SortKey, TaskQuery, WatchRequest};
use taskscope_proto::words;

use crate::address::Target;
use crate::connection::Connection;
use crate::recording::Writer;
use crate::session::address_of;

/// Rows in each frame: enough for every screen of a service of usual size.
const ROWS: u32 = 1000;

pub(crate) async fn run(target: &Target, file: &Path, run_for: Duration) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address_of(Some(target))?).await?;
    let mut writer = Writer::create(file, &connection.description)?;
    let mut watch = connection.watch(request()).await?;
    let end = tokio::time::sleep(run_for);
    tokio::pin!(end);
    loop {
        tokio::select! {
            frame = watch.next() => match frame? {
                Some(frame) => writer.frame(&frame)?,
                None => {
                    eprintln!("taskscope: the target ended; what came before is in the file");
                    break;
                }
            },
            () = &mut end => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    let (frames, bytes) = writer.finish()?;
    eprintln!("taskscope: {frames} frames, {} in {}", words::bytes(bytes), file.display());
    Ok(())
}

fn request() -> WatchRequest {
    let tasks =
        TaskQuery { limit: ROWS, sort: SortKey::SortAge.into(), include_ended: true, ..Default::default() };
    WatchRequest {
        interval_ns: Duration::from_millis(500).as_nanos() as u64,
        tasks: Some(tasks),
        groups: Some(GroupQuery { limit: 200, histograms: true }),
        history_seconds: 900,
        ..Default::default()
    }
}
