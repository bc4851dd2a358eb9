//! Cause before consequence: which alerts are not told because another one says why.

use super::labels::{Fingerprint, Labels};
use super::rule::Severity;

/// Of a runtime a worker of which is stuck.
const CAUSE: &str = "TaskStuckInPoll";
const CONSEQUENCES: [&str; 4] = ["LoopLag", "RuntimeBusy", "ReadyQueueGrowing", "TaskPendingTooLong"];

/// A value of a cause from this share of its threshold on is on its way: what follows from it waits for it.
pub(crate) const LOOMS: f64 = 0.25;

/// An alert that fires, or that may be about to.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Cause {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) labels: Labels,
    pub(crate) severity: Severity,
    pub(crate) fires: bool,
}

/// Whether an alert with these labels may hold others back at all.
pub(crate) fn may_cause(labels: &Labels) -> bool {
    labels.get("alertname") == Some(CAUSE) && labels.get("runtime").is_some()
}

/// What holds an alert back; the first that does.
pub(crate) fn cause_of<'a>(causes: &'a [Cause], labels: &Labels, severity: Severity) -> Option<&'a Cause> {
    causes.iter().find(|cause| {
        let consequence = labels.get("alertname").is_some_and(|name| CONSEQUENCES.contains(&name));
        let follows =
            consequence && may_cause(&cause.labels) && labels.get("runtime") == cause.labels.get("runtime");
        // The same, only louder.
        let outdone = cause.fires && cause.severity > severity && is_same(&cause.labels, labels);
        follows || outdone
    })
}

fn is_same(a: &Labels, b: &Labels) -> bool {
    let but_severity = |labels: &Labels| labels.clone().with("severity", "");
    a.get("alertname") == b.get("alertname") && but_severity(a) == but_severity(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str, runtime: &str) -> Labels {
        Labels::default().with("alertname", name).with("runtime", runtime)
    }

    fn cause(labels: Labels) -> Cause {
        Cause { fingerprint: labels.fingerprint(), labels, severity: Severity::Critical, fires: true }
    }

    #[test]
    fn a_stuck_poll_explains_its_own_runtime_only() {
        let causes = [cause(labels("TaskStuckInPoll", "tokio"))];
        let held = |name, runtime| cause_of(&causes, &labels(name, runtime), Severity::Critical).is_some();
        assert!(held("LoopLag", "tokio") && held("RuntimeBusy", "tokio"));
        assert!(!held("LoopLag", "io") && !held("LoopLag", "") && !held("PoolSaturated", "tokio"));
        assert!(!held("TaskStuckInPoll", "tokio"));
    }

    #[test]
    fn a_warning_is_not_told_beside_the_same_at_critical() {
        let of = |severity: Severity| labels("TaskLeak", "").with("severity", severity.name());
        let causes = [cause(of(Severity::Critical))];
        assert!(cause_of(&causes, &of(Severity::Warning), Severity::Warning).is_some());
        assert!(cause_of(&causes, &of(Severity::Critical), Severity::Critical).is_none());
    }
}
