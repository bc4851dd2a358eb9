//! The threshold's share of a pool is in use. Pools of [`SMALL`] or fewer are left out: one more or less of those is no sign.

use taskscope_proto::v1::pool::Kind;
use taskscope_proto::words;

use super::{S, SERVICES, about_pool, from};
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

const SMALL: u64 = 4;

pub(crate) static RULE: Rule = Rule {
    name: "PoolNearlyFull",
    about: "the threshold's share of a pool of 5 or more is in use",
    unit: Unit::Ratio,
    defaults: &[from(Severity::Warning, 0.8).holding(300 * S)],
    remembers_ns: 0,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let pools = scene.model.frame.pools.iter().filter(|it| matches!(it.kind(), Kind::Blocking | Kind::User));
    let readings = pools.filter_map(|pool| {
        let (busy, capacity) = (pool.busy?, pool.capacity.filter(|&capacity| capacity > SMALL)?);
        let ratio = busy as f64 / capacity as f64;
        if ratio < scene.matters_from {
            return None;
        }
        let summary = format!(
            "NEARLY FULL: {} of {} of pool {} in use, for {} or longer. Do: find what holds them, or raise its capacity \
             before work has to wait.",
            words::count(busy),
            words::count(capacity),
            words::printable(&pool.name),
            words::duration(setting.timing.for_ns)
        );
        Some(Reading::new(about_pool(scene, pool), ratio, summary))
    });
    Seen::Readings(readings.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{readings, scene_of};

    #[test]
    fn the_share_in_use_is_read_of_pools_that_are_large_enough() {
        let pool = |name: &str, busy, capacity| v1::Pool {
            name: name.into(),
            kind: Kind::User.into(),
            capacity: Some(capacity),
            busy: Some(busy),
            ..Default::default()
        };
        let pools = vec![pool("database", 9, 10), pool("lock", 1, 1)];
        let found = readings(&RULE, &scene_of(v1::Frame { pools, ..Default::default() }));
        assert_eq!(found.len(), 1);
        assert!((found[0].value - 0.9).abs() < 1e-9);
        assert!(
            found[0]
                .summary
                .starts_with("NEARLY FULL: 9 of 10 of pool database in use, for 5m00s or longer.")
        );
    }
}
