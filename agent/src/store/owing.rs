//! What sinks are still to deliver, as it is kept over a restart.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Fired;
use crate::alerts::life::Transition;
use crate::alerts::notice::{Alert, Notice};

/// What waits for one sink, the oldest first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Owing {
    pub(crate) sink: String,
    /// `HOST:PORT` of an instance of an Alertmanager; empty for others.
    pub(crate) instance: String,
    pub(crate) notices: Vec<Owed>,
}

/// A notice that is to arrive. Cloning is cheap: it is written on no agent's loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Saved", from = "Saved")]
pub(crate) struct Owed(pub(crate) Arc<Notice>);

impl PartialEq for Owed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Saved {
    event: Transition,
    alert: Fired,
    ends_at_unix_ns: Option<u64>,
}

impl From<Owed> for Saved {
    fn from(owed: Owed) -> Self {
        let Notice { transition: event, alert } = &*owed.0;
        Self { event: *event, alert: Fired::from(alert), ends_at_unix_ns: alert.ends_at_unix_ns }
    }
}

impl From<Saved> for Owed {
    fn from(saved: Saved) -> Self {
        let Saved { event: transition, alert, ends_at_unix_ns } = saved;
        let alert = Alert { ends_at_unix_ns, state: transition, ..Alert::from(alert) };
        Self(Arc::new(Notice { transition, alert }))
    }
}
