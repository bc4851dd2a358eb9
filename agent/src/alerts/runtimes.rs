//! What alerts call the runtimes of a target: by their names, and where several have the same, or none, by a number beside it.
//! Tokio's own numbers, and the probe's, grow with each runtime that is made, so that a service which makes one a second would
//! have a label each: here the lowest that no living runtime has is taken, in the order in which they were made.

use std::collections::{BTreeMap, BTreeSet};

use taskscope_proto::v1;

/// What a runtime without a name is called.
const UNNAMED: &str = "tokio";
/// Runtimes that share a name, told apart; those past it share one more label.
const MOST_ALIKE: usize = 32;

/// Of one run of a target.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuntimeLabels {
    /// By id. A runtime keeps its own until it ends.
    labels: BTreeMap<u32, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    /// As the target told it; a runtime that rests tells none.
    name: Option<String>,
    label: String,
    /// Not until the runtime could be asked for its name.
    is_final: bool,
}

impl RuntimeLabels {
    /// Those that are there now.
    pub(crate) fn take(&mut self, runtimes: &[v1::Runtime]) {
        let ids: BTreeSet<u32> = runtimes.iter().map(|runtime| runtime.id).collect();
        self.labels.retain(|id, known| known.is_final && ids.contains(id));
        let mut living: Vec<&v1::Runtime> = runtimes.iter().collect();
        // Who is known first, and of those who was made first. Ids are given in that order.
        living.sort_by_key(|runtime| (!was_asked(runtime), runtime.id));
        for runtime in living {
            let name = runtime.name.as_deref().filter(|name| !name.is_empty());
            let known = self.labels.get(&runtime.id);
            if known.is_some_and(|known| name.is_none() || known.name.as_deref() == name) {
                continue;
            }
            self.labels.remove(&runtime.id);
            let label = self.free(name.unwrap_or(UNNAMED));
            let (name, is_final) = (name.map(str::to_owned), was_asked(runtime));
            self.labels.insert(runtime.id, Known { name, label, is_final });
        }
    }

    /// `None`: no such runtime is there.
    pub(crate) fn label(&self, id: u32) -> Option<&str> {
        self.labels.get(&id).map(|known| known.label.as_str())
    }

    fn free(&self, base: &str) -> String {
        let is_free = |label: &String| self.labels.values().all(|known| known.label != *label);
        let numbered = (2..=MOST_ALIKE).map(|number| format!("{base}-{number}"));
        let mut all = std::iter::once(base.to_owned()).chain(numbered);
        all.find(is_free).unwrap_or_else(|| format!("{base}-other"))
    }
}

/// Before it was, nothing says whether it has a name.
fn was_asked(runtime: &v1::Runtime) -> bool {
    runtime.name.is_some() || runtime.alive_tasks.is_some() || runtime.flavor != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(id: u32, name: Option<&str>) -> v1::Runtime {
        v1::Runtime { id, name: name.map(str::to_owned), alive_tasks: Some(1), ..Default::default() }
    }

    fn labels(known: &mut RuntimeLabels, runtimes: &[v1::Runtime]) -> Vec<String> {
        known.take(runtimes);
        let label = |it: &v1::Runtime| known.label(it.id).expect("it is there").to_owned();
        runtimes.iter().map(label).collect()
    }

    #[test]
    fn those_without_a_name_are_numbered_in_the_order_in_which_they_were_made() {
        let mut known = RuntimeLabels::default();
        let all = [runtime(5, None), runtime(1, None), runtime(2, Some("io")), runtime(7, Some("io"))];
        assert_eq!(labels(&mut known, &all), ["tokio-2", "tokio", "io", "io-2"]);
        // As another agent, or this one after a restart, tells them.
        assert_eq!(labels(&mut RuntimeLabels::default(), &all), ["tokio-2", "tokio", "io", "io-2"]);
        // A name that looks like a number of another's.
        let all = [runtime(1, None), runtime(2, Some("tokio-2")), runtime(3, None)];
        assert_eq!(labels(&mut RuntimeLabels::default(), &all), ["tokio", "tokio-2", "tokio-3"]);
    }

    #[test]
    fn a_runtime_keeps_its_label_and_a_new_one_takes_the_lowest_that_is_free() {
        let mut known = RuntimeLabels::default();
        assert_eq!(labels(&mut known, &[runtime(1, None), runtime(2, None)]), ["tokio", "tokio-2"]);
        assert_eq!(labels(&mut known, &[runtime(2, None)]), ["tokio-2"]);
        for id in 3..100 {
            assert_eq!(labels(&mut known, &[runtime(2, None), runtime(id, None)]), ["tokio-2", "tokio"]);
        }
    }

    #[test]
    fn one_that_rests_and_tells_no_name_keeps_it() {
        let mut known = RuntimeLabels::default();
        let unseen = |id| v1::Runtime { id, ..Default::default() };
        // Of the first nothing is known yet.
        assert_eq!(labels(&mut known, &[unseen(1), runtime(2, None)]), ["tokio-2", "tokio"]);
        assert_eq!(labels(&mut known, &[runtime(1, Some("io")), runtime(2, None)]), ["io", "tokio"]);
        assert_eq!(labels(&mut known, &[unseen(1), unseen(2)]), ["io", "tokio"]);
    }

    #[test]
    fn of_a_thousand_that_are_alike_most_share_one_label() {
        let all: Vec<_> = (1..=1000).map(|id| runtime(id, None)).collect();
        let mut told = labels(&mut RuntimeLabels::default(), &all);
        told.dedup();
        assert_eq!((told.len(), told.last().map(String::as_str)), (MOST_ALIKE + 1, Some("tokio-other")));
    }
}
