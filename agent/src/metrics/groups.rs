//! Groups of tasks as values of a label: 200 of a target at most, the rest taken together as `other`.
//!
//! Which are told is settled when they first appear, and for good: a group that changed between its own series and `other`
//! would make a counter fall.

use std::collections::{BTreeMap, BTreeSet};

use taskscope_proto::histogram::{Sparse, lower_bound, upper_bound};
use taskscope_proto::v1;

use super::{SECOND, Value};
use crate::model::Model;

/// Values of the label `task_group` of one target, `other` not counted.
const MOST: usize = 200;
const OTHER: &str = "other";

/// Upper bounds of the buckets in seconds. A poll is counted within 1/32 of its length.
const BOUNDS: [f64; 15] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0, 60.0];

/// The groups of one target that have a series of their own.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    names: BTreeSet<String>,
}

/// What is told of one value of the label.
pub(crate) struct Told<'a> {
    pub(crate) name: &'a str,
    pub(crate) live: u64,
    pub(crate) spawned: u64,
    pub(crate) ended: u64,
    pub(crate) panicked: u64,
    /// `None`: of a part of it no histogram was sent.
    pub(crate) polls: Option<Value>,
}

#[derive(Default)]
struct Sum {
    live: u64,
    spawned: u64,
    ended: u64,
    panicked: u64,
    /// By bucket; the last one is of what is longer than every bound.
    buckets: [u64; BOUNDS.len() + 1],
    sum_ns: u64,
    histogram_missing: bool,
}

impl Shown {
    /// Gives groups that are new a series of their own, as long as there is room; the busiest come first.
    pub(crate) fn take(&mut self, model: &Model) {
        if !model.groups_are_new {
            return;
        }
        for group in model.groups() {
            if self.names.len() == MOST {
                return;
            }
            let name = name(model, group);
            if name != OTHER && !self.names.contains(name) {
                self.names.insert(name.to_owned());
            }
        }
    }

    /// By name; groups of one name are one.
    pub(crate) fn groups<'a>(&'a self, model: &'a Model) -> Vec<Told<'a>> {
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for group in model.groups() {
            let name = name(model, group);
            let told = if self.names.contains(name) { name } else { OTHER };
            sums.entry(told).or_default().add(group);
        }
        sums.into_iter().map(|(name, sum)| sum.told(name)).collect()
    }
}

/// As alerts name it: the name that it was given, or else where it was spawned.
fn name<'a>(model: &'a Model, group: &v1::Group) -> &'a str {
    let of = |sid| model.some_text(sid);
    of(group.name_sid).or_else(|| of(group.spawned_at_sid)).unwrap_or(OTHER)
}

impl Sum {
    fn add(&mut self, group: &v1::Group) {
        self.live += group.live;
        self.spawned += group.spawned_total;
        self.ended += group.ended_total;
        self.panicked += group.panicked_total;
        let histogram = group.polls.as_ref().and_then(|polls| polls.histogram_total.as_ref());
        let known = histogram.and_then(|it| Some((Sparse::try_from(it).ok()?, it.sum_ns?)));
        let Some((counted, sum_ns)) = known else {
            self.histogram_missing = true;
            return;
        };
        self.sum_ns = self.sum_ns.saturating_add(sum_ns);
        for (bucket, count) in counted.iter() {
            // By its middle, where it lies across a bound.
            let at = (lower_bound(bucket) as f64 + upper_bound(bucket) as f64) / 2.0 / SECOND;
            let bucket = BOUNDS.iter().position(|&bound| at <= bound).unwrap_or(BOUNDS.len());
            self.buckets[bucket] += count;
        }
    }

    fn told(self, name: &str) -> Told<'_> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let polls = Value::Durations {
            sum: self.sum_ns as f64 / SECOND,
            buckets: bounds.zip(self.buckets).collect(),
        };
        Told {
            name,
            live: self.live,
            spawned: self.spawned,
            ended: self.ended,
            panicked: self.panicked,
            polls: (!self.histogram_missing).then_some(polls),
        }
    }
}
