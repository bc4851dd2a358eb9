//! Tasks by what they are doing and by the runtime that they are of. All series together are the tasks that have a row, whichever
//! of them the probe can count to a runtime.

use super::{MOST_RUNTIMES, runtime_name};
use crate::model::Model;

/// Tasks, and how many of them are in a poll, or wait for a worker where that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct States {
    pub(super) tasks: u64,
    pub(super) running: u64,
    pub(super) scheduled: Option<u64>,
}

impl States {
    /// Each state with its count.
    pub(super) fn told(self) -> Vec<(&'static str, u64)> {
        let waiting = self.tasks.saturating_sub(self.running);
        match self.scheduled {
            Some(scheduled) => vec![
                ("running", self.running),
                ("scheduled", scheduled),
                ("idle", waiting.saturating_sub(scheduled)),
            ],
            None => vec![("running", self.running), ("waiting", waiting)],
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            tasks: self.tasks.saturating_sub(other.tasks),
            running: self.running.saturating_sub(other.running),
            scheduled: self.scheduled.map(|all| all.saturating_sub(other.scheduled.unwrap_or(0))),
        }
    }
}

/// Of each runtime by its name, and what is left of `all`, which may be nothing: a series that came and went would be worse.
pub(super) fn by_runtime(model: &Model, all: States) -> (Vec<(String, States)>, States) {
    let (mut told, mut rest) = (Vec::new(), all);
    for runtime in model.frame.runtimes.iter().take(MOST_RUNTIMES) {
        let (Some(tasks), Some(running)) = (runtime.followed, runtime.running) else { continue };
        // A count of all was not taken at the very moment of those of its parts.
        let states = States { tasks, running, scheduled: all.scheduled.and(runtime.scheduled) };
        told.push((runtime_name(model, runtime.id), states));
        rest = rest.without(states);
    }
    (told, rest)
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;

    const ALL: States = States { tasks: 10, running: 3, scheduled: Some(2) };

    fn runtime(id: u32, name: &str, counts: Option<(u64, u64, u64)>) -> v1::Runtime {
        v1::Runtime {
            id,
            name: Some(name.into()),
            followed: counts.map(|it| it.0),
            running: counts.map(|it| it.1),
            scheduled: counts.map(|it| it.2),
            ..Default::default()
        }
    }

    fn told(runtimes: Vec<v1::Runtime>) -> Vec<String> {
        let mut model = Model::new(v1::Description::default());
        model.apply(v1::Frame { runtimes, ..Default::default() });
        let (told, rest) = by_runtime(&model, ALL);
        let all = told.into_iter().chain([("none".to_owned(), rest)]);
        all.map(|(name, states)| format!("{name}: {:?}", states.told())).collect()
    }

    #[test]
    fn runtimes_are_told_apart_and_all_together_are_all() {
        assert_eq!(
            told(vec![runtime(1, "web", Some((6, 2, 1))), runtime(2, "io", Some((3, 0, 1)))]),
            [
                r#"web: [("running", 2), ("scheduled", 1), ("idle", 3)]"#,
                r#"io: [("running", 0), ("scheduled", 1), ("idle", 2)]"#,
                r#"none: [("running", 1), ("scheduled", 0), ("idle", 0)]"#,
            ]
        );
        assert_eq!(
            told(vec![runtime(1, "web", Some((10, 3, 2)))]),
            [
                r#"web: [("running", 3), ("scheduled", 2), ("idle", 5)]"#,
                r#"none: [("running", 0), ("scheduled", 0), ("idle", 0)]"#,
            ]
        );
    }

    #[test]
    fn a_probe_that_does_not_tell_of_which_they_are_tells_how_many() {
        assert_eq!(
            told(vec![runtime(1, "web", None)]),
            [r#"none: [("running", 3), ("scheduled", 2), ("idle", 5)]"#]
        );
    }
}
