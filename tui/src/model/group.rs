//! Groups and labels, with the busy share that only two frames together can tell.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use taskscope_proto::ids::{GroupId, Sid};
use taskscope_proto::strings::Strings;
use taskscope_proto::v1;

/// The busy share slides over this many samples, a second or more apart.
const SAMPLES: usize = 10;
const S: u64 = 1_000_000_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    /// Groups in all, shown or not; `None` until the target sent any.
    pub(crate) total: Option<u64>,
    pub(crate) groups: Vec<Group>,
    pub(crate) labels: Vec<Label>,
    group_busy: Shares<GroupId>,
    label_busy: Shares<String>,
}

/// Tasks of one name or spawn site.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    /// Empty: it has none.
    pub(crate) name: String,
    /// Empty: not known, or of many sites.
    pub(crate) spawned_at: String,
    pub(crate) live: u64,
    pub(crate) peak_live: u64,
    pub(crate) spawned_total: u64,
    pub(crate) ended_total: u64,
    pub(crate) panicked_total: u64,
    pub(crate) polls: v1::PollStats,
    pub(crate) trend: Option<v1::Trend>,
    /// Only of jobs of the blocking pool.
    pub(crate) queue_wait: Option<v1::QueueWait>,
    /// Seconds of finished polls per second, over the last seconds; `None` until two samples are there.
    pub(crate) busy_cores: Option<f64>,
}

/// Stretches of polls under one label.
#[derive(Clone, Debug, Default)]
pub(crate) struct Label {
    pub(crate) text: String,
    pub(crate) requests_total: Option<u64>,
    pub(crate) polls: v1::PollStats,
    /// As in [`Group`].
    pub(crate) busy_cores: Option<f64>,
}

impl Groups {
    pub(crate) fn take(&mut self, window: &v1::GroupWindow, at_ns: u64, strings: &Strings) {
        let text = |sid: u32| strings.text(Sid(sid)).to_owned();
        self.total = Some(window.total);
        self.groups = window
            .groups
            .iter()
            .map(|group| Group {
                id: GroupId(group.id),
                name: if group.id == 0 { "other".into() } else { text(group.name_sid) },
                spawned_at: text(group.spawned_at_sid),
                live: group.live,
                peak_live: group.peak_live,
                spawned_total: group.spawned_total,
                ended_total: group.ended_total,
                panicked_total: group.panicked_total,
                polls: group.polls.clone().unwrap_or_default(),
                trend: group.trend,
                queue_wait: group.queue_wait,
                busy_cores: None,
            })
            .collect();
        self.labels = window
            .labels
            .iter()
            .map(|label| Label {
                text: if label.label_sid == 0 { "other".into() } else { text(label.label_sid) },
                requests_total: label.requests_total,
                polls: label.polls.clone().unwrap_or_default(),
                busy_cores: None,
            })
            .collect();
        let busy = self.groups.iter().map(|group| (group.id, group.polls.busy_ns_total));
        self.group_busy.take(at_ns, busy);
        for group in &mut self.groups {
            group.busy_cores = self.group_busy.share(&group.id);
        }
        let busy = self.labels.iter().map(|label| (label.text.clone(), label.polls.busy_ns_total));
        self.label_busy.take(at_ns, busy);
        for label in &mut self.labels {
            label.busy_cores = self.label_busy.share(&label.text);
        }
    }
}

/// Growth per time of a counter of each key.
#[derive(Clone, Debug)]
struct Shares<K> {
    samples: HashMap<K, VecDeque<(u64, u64)>>,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self { samples: HashMap::new() }
    }
}

impl<K: Eq + Hash> Shares<K> {
    /// Takes a sample of every key that still exists and forgets the others.
    fn take(&mut self, at_ns: u64, counters: impl Iterator<Item = (K, u64)>) {
        let mut before = std::mem::take(&mut self.samples);
        for (key, value) in counters {
            let mut samples = before.remove(&key).unwrap_or_default();
            if samples.back().is_some_and(|&(then, was)| then > at_ns || was > value) {
                samples.clear();
            }
            if samples.back().is_none_or(|&(then, _)| at_ns - then >= S) {
                samples.push_back((at_ns, value));
            }
            while samples.len() > SAMPLES {
                samples.pop_front();
            }
            self.samples.insert(key, samples);
        }
    }

    fn share(&self, key: &K) -> Option<f64> {
        let samples = self.samples.get(key)?;
        let (&(from_ns, from), &(to_ns, to)) = (samples.front()?, samples.back()?);
        (to_ns > from_ns).then(|| (to - from) as f64 / (to_ns - from_ns) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(busy_ns_total: u64) -> v1::GroupWindow {
        let polls = v1::PollStats { busy_ns_total, ..v1::PollStats::default() };
        let group = v1::Group { id: 3, polls: Some(polls), ..v1::Group::default() };
        v1::GroupWindow { total: 1, groups: vec![group], labels: Vec::new() }
    }

    #[test]
    fn the_busy_share_is_unknown_until_a_second_has_passed_and_then_slides() {
        let mut groups = Groups::default();
        let strings = Strings::default();
        groups.take(&window(0), 0, &strings);
        groups.take(&window(100_000_000), S / 2, &strings);
        assert_eq!(groups.groups[0].busy_cores, None);
        groups.take(&window(S / 4), S, &strings);
        assert_eq!(groups.groups[0].busy_cores, Some(0.25));
        for second in 2..30 {
            groups.take(&window(S / 4), second * S, &strings);
        }
        assert_eq!(groups.groups[0].busy_cores, Some(0.0));
    }

    #[test]
    fn a_counter_that_falls_begins_anew() {
        let mut groups = Groups::default();
        let strings = Strings::default();
        groups.take(&window(5 * S), 0, &strings);
        groups.take(&window(S), S, &strings);
        assert_eq!(groups.groups[0].busy_cores, None);
    }
}
