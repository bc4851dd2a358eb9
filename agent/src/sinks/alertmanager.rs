//! What one instance of an Alertmanager is to be sent and when, as a machine that is told the time. Alertmanager keeps an alert
//! for as long as it is sent again, so it is sent everything that fires, over and over, and nothing holds that back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::alerts::labels::{Fingerprint, Labels};
use crate::alerts::life::Transition;
use crate::alerts::notice::{Alert, Notice, rfc3339};

/// For how long an end is sent again, so that an instance that was restarted meanwhile hears of it, too.
const RESOLVED_FOR_NS: u64 = 300_000_000_000;
/// In one request.
const MOST_AT_ONCE: usize = 64;

#[derive(Debug)]
struct Kept {
    alert: Alert,
    /// When it is to be sent; `None`: it is refused as it is.
    due_ns: Option<u64>,
    /// When it ended, by the agent's clock.
    ended_ns: Option<u64>,
    /// The instance has taken it as it is now.
    arrived: bool,
}

/// What fires, and what did until a short while ago.
#[derive(Debug)]
pub(super) struct Active {
    kept: BTreeMap<Fingerprint, Kept>,
    resend_ns: u64,
}

impl Active {
    pub(super) fn new(resend: Duration) -> Self {
        Self { kept: BTreeMap::new(), resend_ns: resend.as_nanos() as u64 }
    }

    pub(super) fn apply(&mut self, notice: &Notice, now_ns: u64) {
        let alert = notice.alert.clone();
        let ended_ns = match notice.transition {
            Transition::Pending => return,
            Transition::Firing => None,
            Transition::Resolved => Some(now_ns),
        };
        let kept = Kept { alert, due_ns: Some(now_ns), ended_ns, arrived: false };
        self.kept.insert(notice.alert.fingerprint, kept);
    }

    /// What is to be sent now, the longest due first.
    pub(super) fn due(&self, now_ns: u64) -> Vec<Fingerprint> {
        let mut due: Vec<(u64, Fingerprint)> = self
            .kept
            .iter()
            .filter_map(|(id, kept)| kept.due_ns.filter(|&due| due <= now_ns).map(|due| (due, *id)))
            .collect();
        due.sort_unstable();
        due.into_iter().take(MOST_AT_ONCE).map(|(_, id)| id).collect()
    }

    /// When something is due; in the past where it is already.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.kept.values().filter_map(|kept| kept.due_ns).min()
    }

    /// The instance has taken these.
    pub(super) fn sent(&mut self, ids: &[Fingerprint], now_ns: u64) {
        for id in ids {
            let Some(kept) = self.kept.get_mut(id) else { continue };
            kept.due_ns = Some(now_ns.saturating_add(self.resend_ns));
            kept.arrived = true;
        }
        self.forget(now_ns);
    }

    /// The instance will not take this one as it is.
    pub(super) fn refused(&mut self, id: Fingerprint) {
        match self.kept.get_mut(&id) {
            // The end of an alert that it would not have.
            Some(kept) if kept.ended_ns.is_some() => {
                self.kept.remove(&id);
            }
            Some(kept) => kept.due_ns = None,
            None => {}
        }
    }

    /// What has ended, and has been said to have for long enough. One that never arrived ends by itself, when the time is over
    /// that the instance was told last.
    pub(super) fn forget(&mut self, now_ns: u64) {
        let itself_ns = 4 * self.resend_ns;
        self.kept.retain(|_, kept| {
            let Some(ended_ns) = kept.ended_ns else { return true };
            let keep_ns = if kept.arrived { RESOLVED_FOR_NS } else { RESOLVED_FOR_NS + itself_ns };
            now_ns < ended_ns.saturating_add(keep_ns)
        });
    }

    /// The body of a request: always a list.
    pub(super) fn body(&self, ids: &[Fingerprint], unix_ns: u64) -> Vec<u8> {
        let posted = |id: &Fingerprint| {
            let kept = self.kept.get(id)?;
            let starts_ns = kept.alert.starts_at_unix_ns;
            let ends_ns = match (kept.ended_ns, kept.alert.ends_at_unix_ns) {
                (None, _) => unix_ns.saturating_add(4 * self.resend_ns),
                (Some(_), Some(ends_ns)) => ends_ns,
                (Some(_), None) => unix_ns,
            };
            Some(Posted {
                labels: &kept.alert.labels,
                annotations: &kept.alert.annotations,
                starts_at: rfc3339(starts_ns),
                // An end before the beginning is refused; a clock may have been put back.
                ends_at: rfc3339(ends_ns.max(starts_ns)),
            })
        };
        let list: Vec<Posted<'_>> = ids.iter().filter_map(posted).collect();
        serde_json::to_vec(&list).expect("texts are always JSON")
    }

    /// What the instance has not been told, and would not refuse.
    pub(super) fn undelivered(&self) -> Vec<Notice> {
        let waits = self.kept.values().filter(|kept| !kept.arrived && kept.due_ns.is_some());
        let notice = |kept: &Kept| Notice {
            transition: if kept.ended_ns.is_some() { Transition::Resolved } else { Transition::Firing },
            alert: kept.alert.clone(),
        };
        waits.map(notice).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: &'a Labels,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sinks::fixture::notice;

    const S: u64 = 1_000_000_000;
    const RESEND: Duration = Duration::from_secs(60);

    #[derive(Clone, Debug)]
    enum Step {
        Told(u8, Transition),
        /// What is due is sent, and taken or not.
        Sent {
            taken: bool,
        },
        Forward(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let transition =
            prop_oneof![Just(Transition::Pending), Just(Transition::Firing), Just(Transition::Resolved)];
        prop_oneof![
            (0..4u8, transition).prop_map(|(which, transition)| Step::Told(which, transition)),
            any::<bool>().prop_map(|taken| Step::Sent { taken }),
            (0..200 * S).prop_map(Step::Forward),
        ]
    }

    fn id(which: u8) -> Fingerprint {
        notice("A", &which.to_string(), Transition::Firing).alert.fingerprint
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_fires_is_always_sent_again_and_what_ended_is_forgotten_in_time(
            steps in proptest::collection::vec(step(), 0..120)
        ) {
            let mut active = Active::new(RESEND);
            let mut now_ns = 0;
            // What was said of each last, and when.
            let mut said: BTreeMap<u8, (Transition, u64)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Forward(ns) => now_ns += ns,
                    Step::Told(which, transition) => {
                        active.apply(&notice("A", &which.to_string(), transition), now_ns);
                        if transition != Transition::Pending {
                            said.insert(which, (transition, now_ns));
                        }
                    }
                    Step::Sent { taken } => {
                        let due = active.due(now_ns);
                        if taken {
                            active.sent(&due, now_ns);
                            prop_assert!(active.due(now_ns).is_empty());
                        }
                    }
                }
                active.forget(now_ns);
                for (which, (transition, at_ns)) in &said {
                    let kept = active.kept.get(&id(*which));
                    match transition {
                        Transition::Firing => {
                            let due_ns = kept.and_then(|kept| kept.due_ns);
                            prop_assert!(due_ns.is_some_and(|due| due <= now_ns + 60 * S));
                        }
                        _ if now_ns < at_ns + 300 * S => prop_assert!(kept.is_some()),
                        _ if now_ns >= at_ns + 540 * S => prop_assert!(kept.is_none()),
                        _ => {}
                    }
                }
            }
        }
    }

    #[test]
    fn an_end_that_was_taken_is_sent_for_five_minutes_more() {
        let mut active = Active::new(RESEND);
        active.apply(&notice("A", "0", Transition::Firing), 0);
        active.sent(&active.due(0), 0);
        active.apply(&notice("A", "0", Transition::Resolved), 10 * S);
        let mut sent = 0;
        for second in 10..1000 {
            let due = active.due(second * S);
            sent += due.len();
            active.sent(&due, second * S);
        }
        // At once, and then once a minute.
        assert_eq!((sent, active.len()), (6, 0));
    }

    #[test]
    fn the_body_is_a_list_with_an_end_ahead_while_it_fires() {
        let mut active = Active::new(RESEND);
        active.apply(&notice("TaskSlowPoll", "0", Transition::Firing), 0);
        let body = active.body(&active.due(0), 1_795_225_800_000_000_000);
        assert_eq!(
            String::from_utf8(body).expect("it is text"),
            r#"[{"labels":{"alertname":"TaskSlowPoll","service":"checkout","severity":"warning","task_group":"0"},"#
                .to_owned()
                + r#""annotations":{"summary":"tasks of 0 are slow"},"startsAt":"2026-11-21T01:49:39.822Z","#
                + r#""endsAt":"2026-11-21T01:54:00.000Z"}]"#
        );
    }

    #[test]
    fn an_end_before_the_beginning_is_the_beginning() {
        let mut active = Active::new(RESEND);
        let mut ended = notice("A", "0", Transition::Resolved);
        ended.alert.ends_at_unix_ns = Some(5);
        active.apply(&ended, 0);
        let json: serde_json::Value =
            serde_json::from_slice(&active.body(&active.due(0), 7)).expect("it is JSON");
        assert_eq!(json[0]["startsAt"], json[0]["endsAt"]);
    }
}
