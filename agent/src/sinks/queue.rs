//! Notices that wait for one sink, and those that are under way and may come back. Putting one in never waits; where there is no room
//! the oldest that is no end goes, and is counted: whoever was told that something fires is told that it is over.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::alerts::life::Transition;
use crate::alerts::notice::Notice;

#[derive(Debug)]
pub(super) struct Queue {
    held: Mutex<Held>,
    news: Notify,
    end: Notify,
    most: usize,
    /// Only what was said of an alert last matters.
    is_of_states: bool,
}

#[derive(Debug, Default)]
struct Held {
    /// What was taken and has not arrived, before all that waits.
    under_way: VecDeque<Arc<Notice>>,
    waits: VecDeque<Arc<Notice>>,
    is_closed: bool,
    /// Another thing is owed than when this was last asked.
    has_changed: bool,
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { held: Mutex::default(), news: Notify::new(), end: Notify::new(), most, is_of_states: false }
    }

    /// For one that has to know how alerts are, and not what became of each: the last of an alert takes the place of others.
    pub(super) fn of_states(self) -> Self {
        Self { is_of_states: true, ..self }
    }

    /// How many had to go for it, itself included.
    pub(super) fn push(&self, notice: Arc<Notice>) -> u64 {
        let mut held = self.held();
        if self.is_of_states && held.waits.len() >= self.most {
            held.waits.retain(|other| other.alert.fingerprint != notice.alert.fingerprint);
        }
        held.waits.push_back(notice);
        held.has_changed = true;
        let before = held.waits.len();
        while held.waits.len() > self.most && held.give_up_one(self.most) {}
        let gone = before - held.waits.len();
        drop(held);
        self.news.notify_one();
        gone as u64
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        self.held().is_closed = true;
        self.news.notify_one();
        self.end.notify_one();
    }

    /// What was taken elsewhere, and did not arrive, before all others; nothing is under way now. There is room for it: nobody else
    /// knows of it.
    pub(super) fn put_back(&self, notices: Vec<Arc<Notice>>) {
        let mut held = self.held();
        held.has_changed |= !(notices.is_empty() && held.under_way.is_empty());
        held.under_way.clear();
        notices.into_iter().rev().for_each(|notice| held.waits.push_front(notice));
        drop(held);
        self.news.notify_one();
    }

    /// What is under way waits again.
    pub(super) fn give_back(&self) {
        let mut held = self.held();
        while let Some(notice) = held.under_way.pop_back() {
            held.waits.push_front(notice);
        }
        drop(held);
        self.news.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.held().is_closed
    }

    /// Takes from the front while they belong together with those before them; empty where none waits. They are under way until
    /// [`Self::settled`].
    pub(super) fn take_while(&self, belongs: impl Fn(&[Notice], &Notice) -> bool) -> Vec<Notice> {
        let mut held = self.held();
        let mut taken = Vec::new();
        while held.waits.front().is_some_and(|next| taken.is_empty() || belongs(&taken, next)) {
            let Some(next) = held.waits.pop_front() else { break };
            taken.push((*next).clone());
            held.under_way.push_back(next);
        }
        taken
    }

    /// The first so many of what is under way have arrived, or never will.
    pub(super) fn settled(&self, notices: usize) {
        let mut held = self.held();
        let notices = notices.min(held.under_way.len());
        held.under_way.drain(..notices);
        held.has_changed |= notices > 0;
    }

    /// This is under way, and of what was taken nothing else.
    pub(super) fn now_under_way(&self, notices: &[Arc<Notice>]) {
        let mut held = self.held();
        if !held.under_way.iter().eq(notices) {
            held.under_way = notices.iter().cloned().collect();
            held.has_changed = true;
        }
    }

    /// Until one was put in, or it was closed, since this was last awaited.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Until it is closed.
    pub(super) async fn closed(&self) {
        self.end.notified().await;
    }

    pub(super) fn len(&self) -> usize {
        self.held().waits.len()
    }

    /// All that is to arrive, the oldest first.
    pub(super) fn owed(&self) -> Vec<Arc<Notice>> {
        let held = self.held();
        held.under_way.iter().chain(&held.waits).cloned().collect()
    }

    /// Whether that may be another than when this was last asked.
    pub(super) fn take_changed(&self) -> bool {
        std::mem::take(&mut self.held().has_changed)
    }

    /// Nothing of it is to arrive any more.
    pub(super) fn clear(&self) {
        let mut held = self.held();
        held.under_way.clear();
        held.waits.clear();
        held.has_changed = true;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The oldest that is no end; else the end of an alert of which another end waits; else, where ends take twice the room, the oldest.
    /// Whether one went.
    fn give_up_one(&mut self, most: usize) -> bool {
        let is_end = |notice: &Arc<Notice>| notice.transition == Transition::Resolved;
        let mut ends = BTreeSet::new();
        let no_end = self.waits.iter().position(|notice| !is_end(notice));
        let gone = no_end
            .or_else(|| self.waits.iter().position(|notice| !ends.insert(notice.alert.fingerprint)))
            .or_else(|| (self.waits.len() > most.saturating_mul(2)).then_some(0));
        gone.is_some_and(|at| self.waits.remove(at).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::fixture::notice;

    fn of(group: &str, transition: Transition) -> Arc<Notice> {
        Arc::new(notice("TaskSlowPoll", group, transition))
    }

    fn waits(queue: &Queue) -> Vec<String> {
        let said = |notice: &Arc<Notice>| {
            let group = notice.alert.labels.get("task_group").unwrap_or_default();
            format!("{group} {}", notice.transition.name())
        };
        queue.owed().iter().map(said).collect()
    }

    #[test]
    fn an_end_is_the_last_to_go_where_there_is_no_room() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(of("a", Transition::Resolved)), 0);
        assert_eq!(queue.push(of("b", Transition::Firing)), 0);
        // The beginning goes, though the end is older.
        assert_eq!(queue.push(of("c", Transition::Firing)), 1);
        assert_eq!(waits(&queue), ["a resolved", "c firing"]);
        assert_eq!(queue.push(of("d", Transition::Resolved)), 1);
        // Ends alone: there is as much room again, and none for a beginning.
        assert_eq!(queue.push(of("e", Transition::Resolved)), 0);
        assert_eq!(queue.push(of("f", Transition::Firing)), 1);
        assert_eq!(waits(&queue), ["a resolved", "d resolved", "e resolved"]);
        // An end that is told already.
        assert_eq!(queue.push(of("d", Transition::Resolved)), 1);
        assert_eq!(queue.push(of("g", Transition::Resolved)), 0);
        assert_eq!(queue.push(of("h", Transition::Resolved)), 1);
        assert_eq!(waits(&queue), ["d resolved", "e resolved", "g resolved", "h resolved"]);
    }

    #[test]
    fn where_states_matter_the_last_one_takes_the_place_of_the_others() {
        let queue = Queue::new(2).of_states();
        for (group, transition) in [
            ("a", Transition::Firing),
            ("b", Transition::Firing),
            ("a", Transition::Resolved),
            ("b", Transition::Resolved),
            ("a", Transition::Firing),
        ] {
            assert_eq!(queue.push(of(group, transition)), 0);
        }
        assert_eq!(waits(&queue), ["b resolved", "a firing"]);
    }

    #[test]
    fn what_is_under_way_is_owed_until_it_is_settled_and_in_its_place_if_it_comes_back() {
        let queue = Queue::new(9);
        for group in ["a", "b", "c", "d"] {
            queue.push(of(group, Transition::Firing));
        }
        assert!(queue.take_changed() && !queue.take_changed());
        assert_eq!(queue.take_while(|before, _| before.len() < 3).len(), 3);
        let all = ["a firing", "b firing", "c firing", "d firing"];
        assert_eq!((waits(&queue), queue.len()), (all.map(str::to_owned).to_vec(), 1));
        assert!(!queue.take_changed(), "as much is owed as before");
        queue.settled(1);
        assert!(queue.take_changed());
        assert_eq!(waits(&queue), all[1..]);
        queue.give_back();
        assert_eq!((waits(&queue), queue.len()), (all[1..].iter().map(|&it| it.to_owned()).collect(), 3));
    }
}
