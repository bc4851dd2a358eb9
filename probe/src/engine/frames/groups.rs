//! The groups and labels that a watcher sees, the busiest first.

use taskscope_proto::histogram::Packed;
use taskscope_proto::ids::GroupId;
use taskscope_proto::v1::{self, TaskClass};

use crate::engine::sampler::Sampler;
use crate::engine::windows::Window;
use crate::registry::Registry;
use crate::registry::figures::Polls;

const MAX_GROUPS: usize = 1_000;
const DEFAULT_GROUPS: usize = 50;
/// Encoded groups and labels take this much at most; histograms go first.
const ROOM_BYTES: usize = 160 << 10;
/// What they say is about the last seconds: they are not worked out more often than this.
pub(super) const EVERY_NS: u64 = 500_000_000;

pub(super) fn window(
    sampler: &mut Sampler,
    now_ns: u64,
    query: &v1::GroupQuery,
    histograms_total: bool,
) -> v1::GroupWindow {
    let limit = if query.limit == 0 { DEFAULT_GROUPS } else { (query.limit as usize).min(MAX_GROUPS) };
    let registry = &sampler.engine.registry;
    let counted_groups: Vec<_> =
        registry.groups.iter().map(|(id, group)| (id, group, registry.polls_of_group(id))).collect();
    let counted_labels: Vec<_> =
        registry.labels.iter().map(|(index, label)| (index, label, registry.polls_of_label(index))).collect();
    // So that no poll is blamed which ended since the last tick and in which the process stood still.
    sampler.take_slow_polls(now_ns);
    let threshold_ns = registry.thresholds.all_ns;
    let mut groups: Vec<v1::Group> = Vec::new();
    for (id, group, polls) in counted_groups {
        let (spawned, ended, panicked) = group.counts();
        if spawned == 0 && id != GroupId(0) {
            continue;
        }
        let windows = crate::engine::sampler::at(&mut sampler.groups, id.0 as usize);
        let polls = polls.map(|polls| {
            let threshold_ns = registry.thresholds.of(group.name(), TaskClass::Unspecified);
            let stats = poll_stats(&windows.polls, &polls, now_ns, threshold_ns, query.histograms);
            v1::PollStats { histogram_total: histograms_total.then(|| as_counted(&polls)), ..stats }
        });
        groups.push(v1::Group {
            id: id.0,
            name_sid: group.name().0,
            spawned_at_sid: group.site().0,
            live: spawned.saturating_sub(ended),
            peak_live: group.peak(),
            spawned_total: spawned,
            ended_total: ended,
            panicked_total: panicked,
            polls,
            trend: Some(windows.size.trend(now_ns, spawned, ended)),
            queue_wait: group.waits().map(|(started_total, wait_ns_total, longest_ns)| v1::QueueWait {
                started_total,
                wait_ns_total,
                longest_ns,
            }),
            scheduled_total: histograms_total.then(|| waits(registry, id)).flatten(),
        });
    }
    groups.retain(|group| group.id != 0 || group.spawned_total > 0);
    let total = groups.len() as u64;
    let weight = |polls: &Option<v1::PollStats>| polls.as_ref().map_or(0, |polls| polls.busy_ns_total);
    // A group that grows is shown however little it does.
    let growth = |group: &v1::Group| group.trend.map_or(0, |trend| trend.spawned.saturating_sub(trend.ended));
    groups.sort_by_key(|group| std::cmp::Reverse((growth(group) >= 100, weight(&group.polls))));
    groups.truncate(limit);

    let mut labels: Vec<v1::Label> = Vec::new();
    for (index, label, polls) in counted_labels {
        let window = crate::engine::sampler::at(&mut sampler.labels, index.0 as usize);
        let Some(polls) = polls.filter(|polls| polls.polls > 0) else { continue };
        let polls = poll_stats(window, &polls, now_ns, threshold_ns, query.histograms);
        labels.push(v1::Label {
            label_sid: label.sid().0,
            requests_total: label.requests(),
            polls: Some(polls),
        });
    }
    labels.sort_by_key(|label| std::cmp::Reverse(weight(&label.polls)));
    labels.truncate(limit);
    let mut window = v1::GroupWindow { total, groups, labels };
    fit(&mut window);
    window
}

fn poll_stats(
    window: &Window,
    polls: &Polls,
    now_ns: u64,
    threshold_ns: u64,
    histograms: bool,
) -> v1::PollStats {
    v1::PollStats {
        polls_total: polls.polls,
        busy_ns_total: window.busy(polls.busy_ns),
        longest_ns: window.longest(polls.longest_ns, &polls.histogram),
        histogram: histograms.then(|| Packed::from(&window.recent(&polls.histogram))),
        ..window.stats(now_ns, 0, &polls.histogram, threshold_ns)
    }
}

fn as_counted(polls: &Polls) -> Packed {
    Packed::from(&polls.histogram).with_sum_ns(Some(polls.busy_ns))
}

/// How long the tasks of a group have waited for a worker; `None`: none of them did as far as is seen.
fn waits(registry: &Registry, id: GroupId) -> Option<Packed> {
    match registry.waits_of_group(id) {
        Some(waits) => (waits.polls > 0).then(|| as_counted(&waits)),
        // It had some, and they are those of `other` now.
        None => Some(Packed::UNTOLD),
    }
}

/// Histograms go first, those of waits before the others, and of the least busy before the busier; then the least busy
/// themselves.
fn fit(window: &mut v1::GroupWindow) {
    use prost::Message;
    let mut over = window.encoded_len().saturating_sub(ROOM_BYTES);
    if over == 0 {
        return;
    }
    // Without a word that there are some a group would seem to be one whose wakes are not seen, and a sum over groups to have
    // fallen.
    for waits in window.groups.iter_mut().rev().filter_map(|group| group.scheduled_total.as_mut()) {
        if over > 0 {
            over = over.saturating_sub(std::mem::replace(waits, Packed::UNTOLD).encoded_len());
        }
    }
    let groups = window.groups.iter_mut().filter_map(|group| group.polls.as_mut());
    let labels = window.labels.iter_mut().filter_map(|label| label.polls.as_mut());
    for polls in groups.chain(labels).rev() {
        for histogram in [&mut polls.histogram, &mut polls.histogram_total] {
            if let Some(it) = histogram.take_if(|_| over > 0) {
                over = over.saturating_sub(it.encoded_len());
            }
        }
    }
    while window.encoded_len() > ROOM_BYTES {
        window.groups.truncate(window.groups.len() / 2);
        window.labels.truncate(window.labels.len() / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use taskscope_proto::histogram::Sparse;

    fn with_buckets(count: usize) -> Packed {
        let sparse = Sparse::from_counts((0..count).map(|bucket| (bucket, 1 << 40)));
        Packed::from(&sparse).with_sum_ns(Some(1))
    }

    #[test]
    fn where_there_is_no_room_the_least_busy_lose_their_histograms_first() {
        let histogram = with_buckets(500);
        let group = |id| v1::Group {
            id,
            polls: Some(v1::PollStats { histogram_total: Some(histogram.clone()), ..Default::default() }),
            ..Default::default()
        };
        let mut window = v1::GroupWindow { groups: (1..=100).map(group).collect(), ..Default::default() };
        assert!(window.encoded_len() > ROOM_BYTES);
        fit(&mut window);
        assert!(window.encoded_len() <= ROOM_BYTES);
        let has = |group: &v1::Group| group.polls.as_ref().is_some_and(|it| it.histogram_total.is_some());
        let with = window.groups.iter().filter(|group| has(group)).count();
        assert_eq!(window.groups.len(), 100, "a group without a histogram takes little room");
        assert!(with > 40, "{with} of 100 still have one");
        assert!(window.groups[..with].iter().all(has), "the busiest keep theirs");
    }

    #[test]
    fn waits_make_room_for_polls_and_say_that_there_were_some() {
        let group = |id| v1::Group {
            id,
            polls: Some(v1::PollStats { histogram_total: Some(with_buckets(100)), ..Default::default() }),
            // Of one group no wait was ever seen.
            scheduled_total: (id != 7).then(|| with_buckets(300)),
            ..Default::default()
        };
        let mut window = v1::GroupWindow { groups: (1..=150).map(group).collect(), ..Default::default() };
        assert!(window.encoded_len() > ROOM_BYTES);
        fit(&mut window);
        assert!(window.encoded_len() <= ROOM_BYTES);
        let polls = |group: &v1::Group| group.polls.as_ref().is_some_and(|it| it.histogram_total.is_some());
        assert!(window.groups.len() == 150 && window.groups.iter().all(polls), "no poll goes for a wait");
        let told = |group: &&v1::Group| group.scheduled_total.as_ref().is_some_and(|it| it.sum_ns.is_some());
        let with = window.groups.iter().filter(told).count();
        assert!((10..100).contains(&with), "{with} of 149 still have theirs");
        assert!(window.groups[..with].iter().filter(|group| group.id != 7).all(|group| told(&group)));
        let untold =
            window.groups.iter().filter(|group| group.scheduled_total == Some(Packed::UNTOLD)).count();
        assert_eq!(with + untold, 149);
        assert_eq!(window.groups[6].scheduled_total, None);
    }
}
