//! Of what the agent needs to watch in time, the threshold's share is used up over the window: turns of its loop that come late, the
//! core that its one thread runs on, the memory that it may have.

use taskscope_proto::words;

use super::{S, SERVICES, from};
use crate::alerts::labels::Labels;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::alerts::vitals::KEPT_NS;

pub(crate) static RULE: Rule = Rule {
    name: "AgentDegraded",
    about: "over the window the agent's loop was late for the threshold's share of the time, or the agent uses that share of a \
            core or of its memory",
    unit: Unit::Ratio,
    defaults: &[looking_back(from(Severity::Warning, 0.8))],
    remembers_ns: KEPT_NS,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Own,
    standing: None,
    read,
};

const fn looking_back(mut setting: Setting) -> Setting {
    setting.window_ns = 30 * S;
    setting
}

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let Some(vitals) = scene.vitals else { return super::not_the_agent() };
    let window = words::duration(setting.window_ns);
    let about = |resource, value: f64, summary| {
        Reading::new(Labels::default().with("resource", resource), value, summary)
    };
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let late = vitals.late_share(setting.window_ns).map(|share| {
        let summary = format!(
            "DEGRADED: the agent's loop was late for {} of the last {window}: alerts come late, too. Do: see what else runs on \
             its machine, or let it watch fewer targets.",
            percent(share)
        );
        about("loop", share, summary)
    });
    let cpu = vitals.cpu_share(setting.window_ns).map(|share| {
        let summary = format!(
            "DEGRADED: the agent has used {} of a core for {window}, and its loop has one. Do: let it watch fewer targets.",
            percent(share)
        );
        about("cpu", share, summary)
    });
    let memory = vitals.memory().filter(|memory| memory.limit > 0).map(|memory| {
        let summary = format!(
            "DEGRADED: the agent holds {} of the {} that it may have. Do: raise the limit of its cgroup, or let it watch fewer \
             targets.",
            words::bytes(memory.held),
            words::bytes(memory.limit)
        );
        about("memory", memory.held as f64 / memory.limit as f64, summary)
    });
    Seen::Readings([late, cpu, memory].into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::fixture::of_the_agent;
    use crate::alerts::vitals::{Memory, Vitals};

    #[test]
    fn what_is_late_busy_and_large_is_told_and_what_is_not_known_is_left_out() {
        let mut vitals = Vitals::default();
        assert_eq!(of_the_agent(&RULE, &vitals), []);
        for second in 0..40 {
            vitals.turn(S * 9 / 10, second * S);
            vitals.uses(Some(second * S / 2), Some(Memory { held: 100 << 20, limit: 128 << 20 }));
        }
        let found = of_the_agent(&RULE, &vitals);
        let values: Vec<f64> = found.iter().map(|it| it.value).collect();
        assert_eq!(
            found.iter().map(|it| it.labels.get("resource")).collect::<Vec<_>>(),
            [Some("loop"), Some("cpu"), Some("memory")]
        );
        assert!((values[0] - 0.9).abs() < 1e-9 && (values[1] - 0.5).abs() < 1e-9, "{values:?}");
        assert!(
            found[0].summary.starts_with("DEGRADED: the agent's loop was late for 90 % of the last 30 s")
        );
        assert!(found[2].summary.contains("100.0 MiB of the 128.0 MiB"), "{}", found[2].summary);
    }
}
