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
/// Frames hold only what changed. Asking anew makes one that stands alone, from which a reader can begin.
const ASK_EVERY: Duration = Duration::from_secs(10);

pub(crate) async fn run(target: &Target, file: &Path, run_for: Duration) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address_of(Some(target))?).await?;
    let mut writer = Writer::create(file, &connection.description)?;
    let mut watch = connection.watch(request(0)).await?;
    let requests = watch.requests();
    let mut asked = 0;
    let mut ask = tokio::time::interval(ASK_EVERY);
    ask.reset();
    let end = tokio::time::sleep(run_for);
    tokio::pin!(end);
    loop {
        tokio::select! {
            frame = watch.next() => match frame? {
                Some(frame) => writer.frame(&frame)?,
                None => {
                    crate::complain("taskscope: the target ended; what came before is in the file");
                    break;
                }
            },
            _ = ask.tick() => {
                asked += 1;
                // Where the queue is full the target does not read: it is asked again the next time.
                let _ = requests.try_send(request(asked));
            }
            () = &mut end => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    let (frames, bytes) = writer.finish()?;
    crate::complain(&format!("taskscope: {frames} frames, {} in {}", words::bytes(bytes), file.display()));
    Ok(())
}

fn request(request_id: u64) -> WatchRequest {
    let tasks =
        TaskQuery { limit: ROWS, sort: SortKey::SortAge.into(), include_ended: true, ..Default::default() };
    WatchRequest {
        request_id,
        interval_ns: Duration::from_millis(500).as_nanos() as u64,
        tasks: Some(tasks),
        groups: Some(GroupQuery { limit: 200, histograms: true, ..Default::default() }),
        history_seconds: 900,
        ..Default::default()
    }
}
