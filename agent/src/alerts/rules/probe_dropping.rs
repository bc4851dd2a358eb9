//! Within the window the probe has dropped as much as the threshold of what the rules need: tasks past its budget, events that
//! nobody read in time, texts, threads, requests to stop.

use taskscope_proto::words;

use super::{S, SERVICES, from};
use crate::alerts::labels::Labels;
use crate::alerts::memory::LONG_NS;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "ProbeDropping",
    about: "within the window the probe has dropped as many tasks, events, texts or threads as the threshold, and min_count of \
            them",
    unit: Unit::Count,
    defaults: &[from(Severity::Info, 1.0).within(60 * S, 1)],
    remembers_ns: LONG_NS,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let dropped = &scene.memory.dropped;
    let began_ns = scene.model.frame.at_ns.saturating_sub(setting.window_ns);
    // What was dropped before anyone looked is no news.
    let before = dropped.before(began_ns).or(dropped.first().map(|(_, count)| count));
    let (Some(before), Some(now)) = (before, dropped.last()) else { return Seen::Readings(vec![]) };
    let count = now.saturating_sub(before);
    if count == 0 || !setting.is_enough(count) {
        return Seen::Readings(vec![]);
    }
    let losses: Vec<String> = scene
        .model
        .frame
        .losses
        .iter()
        .filter(|loss| crate::alerts::memory::blinds(loss))
        .map(crate::why::loss_words)
        .collect();
    let summary = format!(
        "BLIND: in the last {} the probe has dropped {} things that rules look at; since its start: {}. Do: raise its budget \
         (TASKSCOPE_MEMORY), or see `taskscope status`.",
        words::duration(setting.window_ns),
        words::count(count),
        losses.join("; ")
    );
    Seen::Readings(vec![Reading::new(Labels::default(), count as f64, summary)])
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1::{self, loss::Reason};

    use super::*;
    use crate::alerts::rules::fixture::{readings_after, readings_of_after};

    fn said(count: impl Fn(u64) -> u64, reason: Reason) -> Vec<Reading> {
        let frames = (0..90).map(|second| v1::Frame {
            at_ns: second * S,
            losses: vec![v1::Loss { reason: reason.into(), count: count(second) }],
            ..Default::default()
        });
        readings_after(&RULE, frames)
    }

    #[test]
    fn what_was_dropped_within_the_window_is_told() {
        let found = said(|second| 100 + second.saturating_sub(80) * 3, Reason::EvictedTasks);
        assert_eq!(
            found.iter().map(|it| (it.value, it.summary.as_str())).collect::<Vec<_>>(),
            [(
                27.0,
                "BLIND: in the last 1m00s the probe has dropped 27 things that rules look at; since its start: 127 tasks were \
                 past the memory budget (TASKSCOPE_MEMORY). Do: raise its budget (TASKSCOPE_MEMORY), or see `taskscope status`."
            )]
        );
    }

    #[test]
    fn as_much_is_told_as_is_asked_for() {
        let frame = |at_ns, count| v1::Frame {
            at_ns,
            losses: vec![v1::Loss { reason: Reason::EvictedTasks.into(), count }],
            ..Default::default()
        };
        let told = |min_count| {
            let setting = Setting { min_count: Some(min_count), ..RULE.defaults[0].clone() };
            readings_of_after(&RULE, &setting, [frame(S, 100), frame(9 * S, 127)].into_iter()).len()
        };
        assert_eq!((told(27), told(28)), (1, 0));
    }

    #[test]
    fn what_was_dropped_before_and_what_is_only_folded_is_no_news() {
        assert_eq!(said(|_| 100, Reason::EvictedTasks), []);
        assert_eq!(said(|second| second * 9, Reason::FoldedGroups), []);
    }
}
