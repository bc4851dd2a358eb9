//! Notices that wait for one sink. Putting one in never waits; where there is no room the oldest goes, for what it says is over
//! soonest, and is counted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::alerts::notice::Notice;

#[derive(Debug)]
pub(super) struct Queue {
    held: Mutex<Held>,
    news: Notify,
    end: Notify,
    most: usize,
}

#[derive(Debug, Default)]
struct Held {
    notices: VecDeque<Notice>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { held: Mutex::default(), news: Notify::new(), end: Notify::new(), most }
    }

    /// Whether another one had to go for it.
    pub(super) fn push(&self, notice: Notice) -> bool {
        let mut held = self.held();
        let is_full = held.notices.len() >= self.most;
        if is_full {
            held.notices.pop_front();
        }
        held.notices.push_back(notice);
        drop(held);
        self.news.notify_one();
        is_full
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        self.held().is_closed = true;
        self.news.notify_one();
        self.end.notify_one();
    }

    /// What was taken, and did not arrive, before all others. There is room for it: nobody else knows of it.
    pub(super) fn put_back(&self, notices: Vec<Notice>) {
        let mut held = self.held();
        notices.into_iter().rev().for_each(|notice| held.notices.push_front(notice));
        drop(held);
        self.news.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.held().is_closed
    }

    /// Takes from the front while they belong together with those before them; empty where none waits.
    pub(super) fn take_while(&self, belongs: impl Fn(&[Notice], &Notice) -> bool) -> Vec<Notice> {
        let mut held = self.held();
        let mut taken = Vec::new();
        while held.notices.front().is_some_and(|next| taken.is_empty() || belongs(&taken, next)) {
            taken.extend(held.notices.pop_front());
        }
        taken
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
        self.held().notices.len()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
