//! Cause before consequence: which alerts are not told because another one says why, or says the same.

use std::collections::BTreeMap;

use super::identity::is_of_same;
use super::labels::{Fingerprint, Labels};
use super::rule::{Severity, Unit};

/// While the cause fires, or is about to, what follows from it is not told.
struct Relation {
    cause: &'static str,
    consequences: &'static [&'static str],
    /// What both have to be about: the same value of each of these, the first of which is known.
    shares: &'static [&'static str],
    /// Of the consequence, where not any will do.
    only: Option<(&'static str, &'static str)>,
    /// From this share of its threshold on the cause is about to fire.
    looms: f64,
    /// Nor is a consequence held back that is louder than its cause.
    not_louder: bool,
}

const RELATIONS: [Relation; 7] = [
    // Nothing else of the runtime is polled by that worker.
    Relation {
        cause: "TaskStuckInPoll",
        consequences: &["LoopLag", "RuntimeBusy", "ReadyQueueGrowing", "TaskPendingTooLong"],
        shares: &["runtime"],
        only: None,
        looms: 0.25,
        not_louder: false,
    },
    // A request to stop is heard between two polls, and one poll is no turn that a task could yield at.
    Relation {
        cause: "TaskStuckInPoll",
        consequences: &["TaskIgnoresCancel", "TaskNeverYields"],
        shares: &["runtime", "task_group"],
        only: None,
        looms: 0.25,
        not_louder: true,
    },
    // Full is more than nearly so. A pool that is full looms from its first moment.
    Relation {
        cause: "PoolSaturated",
        consequences: &["PoolNearlyFull"],
        shares: &["pool", "runtime"],
        only: None,
        looms: 0.0,
        not_louder: true,
    },
    // It names what its jobs are in.
    Relation {
        cause: "PoolSaturated",
        consequences: &["BlockingJobTooLong"],
        shares: &["runtime"],
        only: None,
        looms: 0.0,
        not_louder: true,
    },
    Relation {
        cause: "LostWaker",
        consequences: &["TaskPendingTooLong"],
        shares: &["task_group", "runtime", "label"],
        only: None,
        looms: 0.25,
        not_louder: true,
    },
    // One task keeps one worker busy; of several others may be busy for another reason.
    Relation {
        cause: "TaskNeverYields",
        consequences: &["RuntimeBusy"],
        shares: &["runtime"],
        only: Some(("workers", "1")),
        looms: 0.25,
        not_louder: true,
    },
    Relation {
        cause: "SelfWakingLoop",
        consequences: &["RuntimeBusy"],
        shares: &["runtime"],
        only: Some(("workers", "1")),
        looms: 0.25,
        not_louder: true,
    },
];

/// Signs of too much to do, where they are of one runtime: the one that is told first stands for those that are not louder until it
/// is resolved. Of several in one moment, the first here.
const OVERLOAD: [&str; 3] = ["RuntimeBusy", "LoopLag", "ReadyQueueGrowing"];
/// Polls that are stuck together may be in one lock: the first that is told stands for the others while it goes on.
const STUCK: &str = "TaskStuckInPoll";

/// Nothing is held back for longer than this by a cause that does not fire yet.
const LOOMS_S: f64 = 10.0;

/// An alert that fires, or that may be about to.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Cause {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) labels: Labels,
    pub(crate) severity: Severity,
    pub(crate) fires: bool,
}

/// What may be held back.
pub(crate) struct About<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) severity: Severity,
    pub(crate) annotations: &'a BTreeMap<String, String>,
}

impl About<'_> {
    /// A label or an annotation.
    fn named(&self, name: &str) -> Option<&str> {
        self.labels.get(name).or_else(|| self.annotations.get(name).map(String::as_str))
    }
}

/// Whether what a rule of this unit read is about to fire, and may hold others back once it does. `wait_s`: its `for`, in seconds.
pub(crate) fn looms(labels: &Labels, unit: Unit, value: f64, threshold: f64, wait_s: f64) -> bool {
    // Only of a duration it is known when it will be at its threshold.
    unit == Unit::Seconds
        && (threshold - value).max(0.0) + wait_s <= LOOMS_S
        && causing(labels).any(|relation| value > 0.0 && value >= threshold * relation.looms)
}

/// From which part of its threshold on a value of this rule matters to the alerts of others: that of [`looms`], or 1.
pub(crate) fn matters_from(rule: &str, unit: Unit) -> f64 {
    let its = RELATIONS.iter().filter(|relation| relation.cause == rule && unit == Unit::Seconds);
    its.map(|relation| relation.looms).fold(1.0, f64::min)
}

fn causing(labels: &Labels) -> impl Iterator<Item = &'static Relation> {
    let name = labels.get("alertname").unwrap_or_default().to_owned();
    RELATIONS.iter().filter(move |relation| relation.cause == name)
}

/// What holds an alert back; the first that does.
pub(crate) fn cause_of<'a>(causes: &'a [Cause], about: &About<'_>) -> Option<&'a Cause> {
    causes.iter().filter(|cause| is_of_same(&cause.labels, about.labels)).find(|cause| {
        let follows = causing(&cause.labels).any(|relation| relation.holds(cause, about));
        // The same, only louder.
        let outdone = cause.fires && cause.severity > about.severity && is_same(&cause.labels, about.labels);
        follows || outdone
    })
}

impl Relation {
    fn holds(&self, cause: &Cause, about: &About<'_>) -> bool {
        let is_known = cause.labels.get(self.shares[0]).is_some();
        self.consequences.iter().any(|name| about.labels.get("alertname") == Some(name))
            && is_known
            && self.shares.iter().all(|share| cause.labels.get(share) == about.named(share))
            && self.only.is_none_or(|(name, value)| about.named(name) == Some(value))
            && !(self.not_louder && about.severity > cause.severity)
    }
}

/// Which of those that have been told says as much already; `fires` is of one that goes on or has only just ended.
pub(crate) fn told_by<'a>(told: &'a [Cause], about: &About<'_>) -> Option<&'a Cause> {
    let name = about.labels.get("alertname")?;
    let runtime = about.labels.get("runtime")?;
    told.iter().filter(|cause| is_of_same(&cause.labels, about.labels)).find(|cause| {
        let Some(other) = cause.labels.get("alertname") else { return false };
        let overload = other != name && OVERLOAD.contains(&other) && OVERLOAD.contains(&name);
        let stuck = other == STUCK && name == STUCK && cause.fires && !is_same(&cause.labels, about.labels);
        (overload || stuck)
            && cause.labels.get("runtime") == Some(runtime)
            && cause.severity >= about.severity
    })
}

/// Which of several that fire in one moment is told: the least.
pub(crate) fn rank(labels: &Labels) -> usize {
    let name = labels.get("alertname").unwrap_or_default();
    OVERLOAD.iter().position(|it| *it == name).unwrap_or(0)
}

/// What the annotation `also` of a cause calls what it holds back; `None`: it is the same alert.
pub(crate) fn called(cause: &Labels, held: &Labels) -> Option<String> {
    let name = held.get("alertname").unwrap_or_default();
    if cause.get("alertname") != Some(name) {
        return Some(name.to_owned());
    }
    let what = held.get("label").or(held.get("task_group")).unwrap_or_default();
    (!is_same(cause, held)).then(|| format!("{name} ({what})"))
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
        Cause { fingerprint: labels.fingerprint(), labels, severity: Severity::Warning, fires: true }
    }

    fn is_held(causes: &[Cause], labels: &Labels, severity: Severity, annotation: (&str, &str)) -> bool {
        let annotations = BTreeMap::from([(annotation.0.to_owned(), annotation.1.to_owned())]);
        cause_of(causes, &About { labels, severity, annotations: &annotations }).is_some()
    }

    #[test]
    fn a_stuck_poll_explains_its_own_runtime_only() {
        let causes = [cause(labels("TaskStuckInPoll", "tokio").with("task_group", "resize"))];
        let held = |name, runtime| is_held(&causes, &labels(name, runtime), Severity::Critical, ("", ""));
        for consequence in ["LoopLag", "RuntimeBusy", "ReadyQueueGrowing", "TaskPendingTooLong"] {
            assert!(held(consequence, "tokio"), "{consequence}");
            assert!(!held(consequence, "tokio-2"), "{consequence}");
        }
        assert!(!held("LoopLag", "io") && !held("LoopLag", "") && !held("PoolSaturated", "tokio"));
        assert!(!held("TaskStuckInPoll", "tokio"));
        let elsewhere = labels("LoopLag", "tokio").with("host", "web-2");
        assert!(!is_held(&causes, &elsewhere, Severity::Critical, ("", "")));
        let of_group = |name, group| {
            is_held(&causes, &labels(name, "tokio").with("task_group", group), Severity::Warning, ("", ""))
        };
        assert!(of_group("TaskIgnoresCancel", "resize") && !of_group("TaskIgnoresCancel", "newsletter"));
    }

    #[test]
    fn a_full_pool_explains_its_own_jobs_and_nothing_that_is_louder() {
        let pool = |name, runtime| labels(name, runtime).with("pool", "blocking");
        let causes = [cause(pool("PoolSaturated", "tokio"))];
        let held = |labels: Labels, severity| is_held(&causes, &labels, severity, ("", ""));
        assert!(held(pool("PoolNearlyFull", "tokio"), Severity::Warning));
        assert!(!held(pool("PoolNearlyFull", "tokio-2"), Severity::Warning));
        assert!(!held(pool("PoolNearlyFull", "tokio"), Severity::Critical));
        assert!(!held(pool("PoolNearlyFull", "tokio").with("pool", "db"), Severity::Warning));
        // Where a job runs is no label of its alert.
        let job = labels("BlockingJobTooLong", "").with("task_group", "report");
        let on = |runtime| is_held(&causes, &job, Severity::Warning, ("runtime", runtime));
        assert!(on("tokio") && !on("tokio-2"));
        assert!(!held(job.clone(), Severity::Warning), "it is not known where it runs");
        // Of no runtime: of the application.
        let user = [cause(pool("PoolSaturated", ""))];
        assert!(is_held(&user, &pool("PoolNearlyFull", ""), Severity::Warning, ("", "")));
        assert!(!is_held(&user, &job, Severity::Warning, ("", "")));
    }

    #[test]
    fn a_task_that_never_yields_explains_the_one_worker_that_there_is() {
        let causes = [cause(labels("TaskNeverYields", "tokio"))];
        let held = |workers| {
            is_held(&causes, &labels("RuntimeBusy", "tokio"), Severity::Warning, ("workers", workers))
        };
        assert!(held("1") && !held("8"));
    }

    #[test]
    fn a_cause_looms_for_ten_seconds_at_most() {
        let stuck = |value, threshold| {
            looms(&labels("TaskStuckInPoll", "tokio"), Unit::Seconds, value, threshold, 0.0)
        };
        assert!(stuck(0.25, 1.0) && !stuck(0.2, 1.0));
        assert!(!stuck(20.0, 60.0) && stuck(50.0, 60.0));
        let full = |value, wait| looms(&labels("PoolSaturated", "tokio"), Unit::Seconds, value, 10.0, wait);
        assert!(full(0.05, 0.0) && !full(0.0, 0.0) && !full(3.0, 5.0));
        assert!(!looms(&labels("LoopLag", "tokio"), Unit::Seconds, 9.0, 10.0, 0.0), "it explains nothing");
        assert!(!looms(&labels("TaskNeverYields", "tokio"), Unit::Ratio, 0.9, 1.0, 0.0));
    }

    #[test]
    fn of_signs_of_one_thing_the_first_is_told_and_then_what_is_louder() {
        let told = [cause(labels("ReadyQueueGrowing", "tokio"))];
        let said = |name, runtime, severity| {
            let labels = labels(name, runtime);
            let annotations = BTreeMap::new();
            told_by(&told, &About { labels: &labels, severity, annotations: &annotations }).is_some()
        };
        assert!(
            said("LoopLag", "tokio", Severity::Warning) && said("RuntimeBusy", "tokio", Severity::Warning)
        );
        assert!(!said("LoopLag", "tokio", Severity::Critical));
        assert!(!said("LoopLag", "tokio-2", Severity::Warning));
        assert!(!said("TaskStuckInPoll", "tokio", Severity::Warning));
        assert!(!said("ReadyQueueGrowing", "tokio", Severity::Warning), "that is itself");
    }

    #[test]
    fn a_warning_is_not_told_beside_the_same_at_critical() {
        let of = |severity: Severity| labels("TaskLeak", "").with("severity", severity.name());
        let causes = [Cause { severity: Severity::Critical, ..cause(of(Severity::Critical)) }];
        let held = |severity| is_held(&causes, &of(severity), severity, ("", ""));
        assert!(held(Severity::Warning) && !held(Severity::Critical));
    }

    #[test]
    fn what_is_held_back_is_called_by_what_tells_it_apart() {
        let stuck = |label| labels("TaskStuckInPoll", "tokio").with("label", label);
        assert_eq!(called(&stuck("a"), &labels("LoopLag", "tokio")).as_deref(), Some("LoopLag"));
        assert_eq!(called(&stuck("a"), &stuck("b")).as_deref(), Some("TaskStuckInPoll (b)"));
        assert_eq!(called(&stuck("a"), &stuck("a").with("severity", "warning")), None);
    }
}
