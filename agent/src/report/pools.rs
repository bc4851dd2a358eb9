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
    /// How long something has waited at every look.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_timeouts_total: Option<u64>,
    /// How old the numbers are; absent: fresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ns: Option<u64>,
    /// Name of the runtime that it belongs to, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<String>,
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
            waiting_ns: pool.waiting_ns,
            acquire_timeouts_total: pool.acquire_timeouts_total,
            age_ns: pool.age_ns,
            runtime: model
                .frame
                .runtimes
                .iter()
                .find(|runtime| runtime.id == pool.runtime_id)
                .and_then(|runtime| runtime.name.as_deref().map(words::printable)),
        })
        .collect()
}

pub(crate) fn json(model: &Model) -> anyhow::Result<String> {
    of(model).iter().map(json_line).collect()
}

/// One column of the table.
struct Column {
    title: &'static str,
    /// Shown only where some pool has it.
    optional: bool,
    cell: fn(&Pool) -> Option<String>,
}

const COLUMNS: [Column; 11] = [
    Column { title: "POOL", optional: false, cell: |pool| Some(pool.name.clone()) },
    Column { title: "RUNTIME", optional: true, cell: |pool| pool.runtime.clone() },
    Column { title: "KIND", optional: false, cell: |pool| Some(pool.kind.to_owned()) },
    Column { title: "BUSY", optional: false, cell: |pool| pool.amount(pool.busy) },
    Column { title: "CAPACITY", optional: false, cell: |pool| pool.amount(pool.capacity) },
    Column { title: "IDLE", optional: false, cell: |pool| pool.amount(pool.idle) },
    Column { title: "QUEUED", optional: false, cell: |pool| pool.queued.map(words::count) },
    Column { title: "OLDEST WAIT", optional: false, cell: |pool| pool.oldest_wait_ns.map(words::duration) },
    Column { title: "FULL FOR", optional: false, cell: |pool| pool.saturated_ns.map(words::duration) },
    Column { title: "GAVE UP", optional: true, cell: |pool| pool.acquire_timeouts_total.map(words::count) },
    Column { title: "AGE", optional: true, cell: |pool| pool.age_ns.map(words::duration) },
];

impl Pool {
    fn amount(&self, value: Option<u64>) -> Option<String> {
        value.map(if self.kind == "memory" { words::bytes } else { words::count })
    }
}

pub(crate) fn text(model: &Model) -> String {
    let pools = of(model);
    let shown: Vec<&Column> = COLUMNS
        .iter()
        .filter(|column| !column.optional || pools.iter().any(|pool| (column.cell)(pool).is_some()))
        .collect();
    let mut rows = vec![shown.iter().map(|column| column.title.to_owned()).collect::<Vec<_>>()];
    let known = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
    rows.extend(pools.iter().map(|pool| shown.iter().map(|column| known((column.cell)(pool))).collect()));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{S, model};
    use taskscope_proto::v1;

    fn pools() -> Model {
        let runtime = v1::Runtime { id: 1, name: Some("http".into()), ..v1::Runtime::default() };
        let pools = vec![
            v1::Pool {
                name: "db".into(),
                kind: Kind::User.into(),
                capacity: Some(8),
                busy: Some(8),
                queued: Some(61),
                oldest_wait_ns: Some(8_700_000_000),
                saturated_ns: Some(9 * S),
                acquire_timeouts_total: Some(3),
                ..v1::Pool::default()
            },
            v1::Pool {
                name: "global queue".into(),
                kind: Kind::GlobalQueue.into(),
                queued: Some(0),
                runtime_id: 1,
                ..v1::Pool::default()
            },
            v1::Pool {
                name: "memory".into(),
                kind: Kind::Memory.into(),
                capacity: Some(2 << 30),
                busy: Some(512 << 20),
                age_ns: Some(5 * S),
                ..v1::Pool::default()
            },
        ];
        model(v1::Frame { runtimes: vec![runtime], pools, ..v1::Frame::default() })
    }

    #[test]
    fn the_json_holds_its_interface() {
        insta::assert_snapshot!(json(&pools()).expect("it serialises"));
    }

    #[test]
    fn the_table_shows_bytes_as_bytes_and_columns_that_somebody_has() {
        insta::assert_snapshot!(text(&pools()));
        let model = model(v1::Frame { pools: vec![v1::Pool::default()], ..v1::Frame::default() });
        assert!(!text(&model).contains("GAVE UP") && !text(&model).contains("AGE"));
    }
}
