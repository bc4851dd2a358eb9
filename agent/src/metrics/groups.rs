//! Groups of tasks as values of a label: 200 of a target at most, the rest taken together as `other`.
//!
//! Which are told is settled when they first appear, and for as long as the target runs: a group that changed between its own
//! series and `other` would make a counter fall. Another run counts from zero, and a release has other lines: it begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use taskscope_proto::histogram::{BUCKETS, Packed, lower_bound, upper_bound};
use taskscope_proto::v1;

use super::{SECOND, Value};
use crate::model::Model;

/// Values of the label `task_group` of one target, `other` not counted.
const MOST: usize = 200;
const OTHER: &str = "other";
const _: () = assert!((BOUNDS.len() + 1).is_multiple_of(2), "the last of two is the infinite one");

/// Upper bounds of the buckets in seconds. A poll, or a wait, is counted within 1/32 of its length.
const BOUNDS: [f64; 15] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0, 60.0];

/// By bucket of a histogram, the position of the bound that it is counted under: a scrape asks it of half a million.
static PLACES: LazyLock<[u8; BUCKETS]> = LazyLock::new(|| std::array::from_fn(|bucket| place(bucket) as u8));

/// By its middle, where it lies across a bound.
fn place(bucket: usize) -> usize {
    let at = (lower_bound(bucket) as f64 + upper_bound(bucket) as f64) / 2.0 / SECOND;
    BOUNDS.iter().position(|&bound| at <= bound).unwrap_or(BOUNDS.len())
}

/// The groups of one target that have a series of their own.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The run of the target that they are of.
    instance: String,
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
    /// Of the tasks of which waits are seen. `None`: there are none, or of a part of them no histogram was sent.
    pub(crate) waits: Option<Value>,
}

#[derive(Default)]
struct Sum {
    live: u64,
    spawned: u64,
    ended: u64,
    panicked: u64,
    polls: Lengths,
    waits: Lengths,
    sees_waits: bool,
}

/// Several histograms as one.
#[derive(Default)]
struct Lengths {
    /// By bucket; the last one is of what is longer than every bound.
    buckets: [u64; BOUNDS.len() + 1],
    sum_ns: u64,
    /// One of them was not sent.
    is_short: bool,
}

impl Shown {
    /// Gives groups that are new a series of their own, as long as there is room; the busiest come first.
    pub(crate) fn take(&mut self, model: &Model) {
        if !model.groups_are_new {
            return;
        }
        if self.instance != model.description.instance {
            self.instance.clone_from(&model.description.instance);
            self.names.clear();
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
        let mut other: Option<Sum> = None;
        for group in model.groups() {
            let name = name(model, group);
            match self.names.get(name) {
                Some(name) => sums.entry(name).or_default(),
                None => other.get_or_insert_default(),
            }
            .add(group);
        }
        sums.extend(other.map(|sum| (OTHER, sum)));
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
        self.polls.add(group.polls.as_ref().and_then(|polls| polls.histogram_total.as_ref()));
        // A group without it is one whose wakes are not seen: it has none to add.
        if let Some(waits) = &group.scheduled_total {
            self.sees_waits = true;
            self.waits.add(Some(waits));
        }
    }

    fn told(self, name: &str) -> Told<'_> {
        Told {
            name,
            live: self.live,
            spawned: self.spawned,
            ended: self.ended,
            panicked: self.panicked,
            polls: self.polls.value(),
            waits: self.waits.at_every_other().filter(|_| self.sees_waits),
        }
    }
}

impl Lengths {
    fn add(&mut self, histogram: Option<&Packed>) {
        let places = &*PLACES;
        let count = |bucket: usize, count| self.buckets[usize::from(places[bucket])] += count;
        let known = histogram.and_then(|it| it.sum_ns.filter(|_| it.for_each(count).is_ok()));
        match known {
            Some(sum_ns) => self.sum_ns = self.sum_ns.saturating_add(sum_ns),
            None => self.is_short = true,
        }
    }

    /// With every other bound, for what is not looked at as closely: each is a series for each group.
    fn at_every_other(&self) -> Option<Value> {
        self.value().map(|value| match value {
            Value::Durations { sum, buckets } => {
                let both = buckets.chunks_exact(2).map(|both| (both[1].0, both[0].1 + both[1].1));
                Value::Durations { sum, buckets: both.collect() }
            }
            other => other,
        })
    }

    fn value(&self) -> Option<Value> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let sum = self.sum_ns as f64 / SECOND;
        (!self.is_short).then(|| Value::Durations { sum, buckets: bounds.zip(self.buckets).collect() })
    }
}
