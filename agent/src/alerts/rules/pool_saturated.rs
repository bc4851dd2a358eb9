//! A pool has had all of its capacity in use, with work waiting, for the threshold.

use taskscope_proto::v1::pool::Kind;

use super::{SERVICES, about_pool, from, seconds};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::rules::saturated_pool::{full, jobs};

pub(crate) static RULE: Rule = Rule {
    name: "PoolSaturated",
    about: "all of a pool has been in use, with work waiting for it, for the threshold",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 10.0), from(Severity::Critical, 60.0)],
    remembers_ns: 0,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let pools = scene.model.frame.pools.iter().filter_map(|pool| {
        let jobs = match pool.kind() {
            Kind::Blocking => jobs(scene.model),
            Kind::User => String::new(),
            _ => return None,
        };
        let summary = full(pool, &jobs)?.sentence;
        Some(Reading::new(about_pool(scene, pool), seconds(pool.saturated_ns?), summary))
    });
    Seen::Readings(pools.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{S, readings, scene_of};

    #[test]
    fn a_full_pool_is_told_with_who_waits() {
        let pool = v1::Pool {
            name: "blocking".into(),
            kind: Kind::Blocking.into(),
            capacity: Some(8),
            busy: Some(8),
            queued: Some(61),
            saturated_ns: Some(12 * S),
            runtime_id: 1,
            ..Default::default()
        };
        let idle =
            v1::Pool { name: "db".into(), kind: Kind::User.into(), saturated_ns: None, ..pool.clone() };
        let runtimes = vec![v1::Runtime { id: 1, name: Some("io".into()), ..Default::default() }];
        let model = scene_of(v1::Frame { pools: vec![pool, idle], runtimes, ..Default::default() });
        let found = readings(&RULE, &model);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].labels.iter().collect::<Vec<_>>(), [("pool", "blocking"), ("runtime", "io")]);
        assert_eq!(
            found[0].summary,
            "FULL: blocking pool 8 of 8 for 12 s, 61 jobs wait. Do: find what its jobs block on, or raise \
             max_blocking_threads."
        );
    }
}
