//! How long a poll may take before it is an event: as said for its group's name, else for its class, else for all.

use taskscope_proto::ids::Sid;
use taskscope_proto::v1::TaskClass;

/// Lengths in ns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) all_ns: u64,
    by_class: Vec<(TaskClass, u64)>,
    by_name: Vec<(Sid, u64)>,
}

impl Thresholds {
    pub(crate) fn of_all(all_ns: u64) -> Self {
        Self { all_ns, by_class: Vec::new(), by_name: Vec::new() }
    }

    pub(crate) fn with_class(mut self, class: TaskClass, ns: u64) -> Self {
        self.by_class.push((class, ns));
        self
    }

    pub(crate) fn with_name(mut self, name: Sid, ns: u64) -> Self {
        self.by_name.push((name, ns));
        self
    }

    /// Of a poll of a task with this name (0: none) and class. What was said last holds.
    pub(crate) fn of(&self, name: Sid, class: TaskClass) -> u64 {
        let by_name = || self.by_name.iter().rev().find(|(known, _)| *known == name && name.0 != 0);
        let by_class = self.by_class.iter().rev().find(|(known, _)| *known == class);
        let said = by_name().map(|&(_, ns)| ns).or(by_class.map(|&(_, ns)| ns));
        said.unwrap_or(self.all_ns)
    }

    /// No poll shorter than this is an event.
    pub(crate) fn least(&self) -> u64 {
        let others = self.by_class.iter().map(|&(_, ns)| ns).chain(self.by_name.iter().map(|&(_, ns)| ns));
        others.chain([self.all_ns]).min().unwrap_or(self.all_ns)
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_name_goes_before_the_class_and_the_class_before_all() {
        let thresholds = Thresholds::of_all(100)
            .with_class(TaskClass::Critical, 10)
            .with_name(Sid(7), 500)
            .with_name(Sid(7), 400);
        assert_eq!(thresholds.of(Sid(0), TaskClass::Unspecified), 100);
        assert_eq!(thresholds.of(Sid(3), TaskClass::Critical), 10);
        assert_eq!(thresholds.of(Sid(7), TaskClass::Critical), 400);
        assert_eq!(thresholds.least(), 10);
    }
}
