//! A pool has had all of its capacity in use, with work waiting, for at least [`FULL_NS`].

use taskscope_proto::v1::{self, pool::Kind};
use taskscope_proto::words;

use super::{Finding, Severity};
use crate::model::Model;

const FULL_NS: u64 = 500_000_000;

pub(crate) fn check(model: &Model) -> Vec<Finding> {
    model.frame.pools.iter().filter_map(full).collect()
}

fn full(pool: &v1::Pool) -> Option<Finding> {
    let saturated_ns = pool.saturated_ns.filter(|&ns| ns >= FULL_NS)?;
    let (busy, capacity, queued) = (pool.busy?, pool.capacity?, pool.queued?);
    let blocking = pool.kind() == Kind::Blocking;
    let name =
        if blocking { "blocking pool".to_owned() } else { format!("pool {}", words::printable(&pool.name)) };
    let what = if blocking { "job" } else { "request" };
    let waits = if queued == 1 {
        format!("1 {what} waits")
    } else {
        format!("{} {what}s wait", words::count(queued))
    };
    let oldest = pool.oldest_wait_ns.map_or(String::new(), |ns| format!(", oldest {}", words::duration(ns)));
    let remedy = if blocking {
        "find what its jobs block on, or raise max_blocking_threads"
    } else {
        "find what holds its members, or raise its capacity"
    };
    Some(Finding {
        severity: Severity::Warning,
        sentence: format!(
            "FULL: {name} {busy} of {capacity} for {}, {waits}{oldest}. Do: {remedy}.",
            words::duration(saturated_ns)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{MS, S, model, sentences};
    use super::*;

    #[test]
    fn a_full_pool_says_how_long_and_who_waits() {
        let blocking = v1::Pool {
            kind: Kind::Blocking.into(),
            capacity: Some(8),
            busy: Some(8),
            queued: Some(61),
            oldest_wait_ns: Some(8_700 * MS),
            saturated_ns: Some(9 * S),
            ..Default::default()
        };
        let database = v1::Pool {
            name: "db".into(),
            kind: Kind::User.into(),
            capacity: Some(2),
            busy: Some(2),
            queued: Some(1),
            saturated_ns: Some(S),
            ..Default::default()
        };
        let calm = v1::Pool { saturated_ns: None, ..database.clone() };
        let model = model(v1::Frame { pools: vec![blocking, database, calm], ..Default::default() });
        assert_eq!(
            sentences(&check(&model)),
            [
                "FULL: blocking pool 8 of 8 for 9.0 s, 61 jobs wait, oldest 8.7 s. Do: find what its jobs block on, or \
                 raise max_blocking_threads.",
                "FULL: pool db 2 of 2 for 1.0 s, 1 request waits. Do: find what holds its members, or raise its capacity.",
            ]
        );
    }
}
