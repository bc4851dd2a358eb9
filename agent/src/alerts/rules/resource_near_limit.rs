//! Of what the process has only so much of, the threshold's share is in use: open file descriptors, and the memory of its cgroup.

use taskscope_proto::v1::pool::Kind;

use super::{S, SERVICES, from};
use crate::alerts::labels::Labels;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::rules::saturated_pool::{files_sentence, memory_sentence};

pub(crate) static RULE: Rule = Rule {
    name: "ResourceNearLimit",
    about: "the threshold's share of the file descriptors or the memory that the process may have is in use",
    unit: Unit::Ratio,
    defaults: &[
        clears_soon(from(Severity::Warning, 0.9)).holding(10 * S),
        clears_soon(from(Severity::Critical, 0.97)).holding(10 * S),
    ],
    remembers_ns: 0,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

/// What is below by a twentieth is out of danger.
const fn clears_soon(mut setting: Setting) -> Setting {
    setting.timing.clear_ratio = 0.95;
    setting
}

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let readings = scene.model.frame.pools.iter().filter_map(|pool| {
        let (busy, capacity) = (pool.busy?, pool.capacity.filter(|&capacity| capacity > 0)?);
        let ratio = busy as f64 / capacity as f64;
        if ratio < scene.matters_from {
            return None;
        }
        let (name, summary) = match pool.kind() {
            Kind::FileDescriptors => ("file descriptors", files_sentence(busy, capacity)),
            Kind::Memory => ("memory", memory_sentence(busy, capacity)),
            _ => return None,
        };
        Some(Reading::new(Labels::default().with("pool", name), ratio, summary))
    });
    Seen::Readings(readings.collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::rules::fixture::{readings, scene_of};

    #[test]
    fn files_and_memory_are_read_and_other_pools_are_not() {
        let pool = |kind: Kind, busy, capacity| v1::Pool {
            name: "x".into(),
            kind: kind.into(),
            busy: Some(busy),
            capacity,
            ..Default::default()
        };
        let pools = vec![
            pool(Kind::FileDescriptors, 960, Some(1024)),
            pool(Kind::Memory, 1 << 29, Some(1 << 30)),
            pool(Kind::Memory, 7, None),
            pool(Kind::User, 9, Some(9)),
        ];
        let found = readings(&RULE, &scene_of(v1::Frame { pools, ..Default::default() }));
        let told: Vec<(f64, &str)> = found.iter().map(|it| (it.value, it.summary.as_str())).collect();
        assert_eq!(
            told,
            [
                (
                    0.9375,
                    "FILE DESCRIPTORS: 960 of 1 024 open. Do: find what does not close them, or raise the limit (ulimit -n)."
                ),
                (
                    0.5,
                    "MEMORY: 512.0 MiB of the cgroup's 1.0 GiB in use; at the limit the process is killed. Do: find what \
                     grows, or raise the limit."
                ),
            ]
        );
    }
}
