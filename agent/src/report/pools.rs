//! `taskscope pools`.

use serde::Serialize;
use taskscope_proto::v1::pool::Kind;
use taskscope_proto::words;

use super::{json_line, table};
use crate::model::Model;

#[derive(Serialize)]
pub(crate) struct Pool {
    name: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    busy: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_wait_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saturated_ns: Option<u64>,
}

pub(crate) fn of(model: &Model) -> Vec<Pool> {
    let pools = model.frame.pools.iter();
    pools
        .map(|pool| Pool {
            name: words::printable(&pool.name),
            kind: match pool.kind() {
                Kind::Blocking => "blocking",
                Kind::User => "user",
                Kind::FileDescriptors => "file_descriptors",
                Kind::Memory => "memory",
                Kind::AcceptBacklog => "accept_backlog",
                Kind::GlobalQueue => "global_queue",
                Kind::LocalQueues => "local_queues",
                Kind::Unspecified => "unknown",
            },
            capacity: pool.capacity,
            busy: pool.busy,
            idle: pool.idle,
            queued: pool.queued,
            oldest_wait_ns: pool.oldest_wait_ns,
            saturated_ns: pool.saturated_ns,
        })
        .collect()
}

pub(crate) fn json(model: &Model) -> anyhow::Result<String> {
    of(model).iter().map(json_line).collect()
}

pub(crate) fn text(model: &Model) -> String {
    let titles = ["POOL", "KIND", "BUSY", "CAPACITY", "IDLE", "QUEUED", "OLDEST WAIT", "FULL FOR"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let number = |value: Option<u64>| value.map_or("–".to_owned(), words::count);
    let time = |value: Option<u64>| value.map_or("–".to_owned(), words::duration);
    for pool in of(model) {
        rows.push(vec![
            pool.name,
            pool.kind.to_owned(),
            number(pool.busy),
            number(pool.capacity),
            number(pool.idle),
            number(pool.queued),
            time(pool.oldest_wait_ns),
            time(pool.saturated_ns),
        ]);
    }
    table(&rows)
}
