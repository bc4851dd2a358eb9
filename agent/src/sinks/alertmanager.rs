//! What one instance of an Alertmanager is to be sent and when, as a machine that is told the time. Alertmanager keeps an alert
//! for as long as it is sent again, so it is sent everything that fires, over and over, and nothing holds that back.

use std::collections::BTreeMap;
use std::sync::Arc;
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
    /// When it is to be sent.
    due_ns: u64,
    /// When it ended, by the agent's clock.
    ended_ns: Option<u64>,
    /// The instance has taken it as it is now.
    arrived: bool,
    /// The instance has taken it once, as it is now or as it was before.
    is_known: bool,
    /// The last that the instance said of it as it is now is that it will not have it.
    is_refused: bool,
}

impl Kept {
    /// The instance has not been told this, and may take it.
    fn is_owed(&self) -> bool {
        !self.arrived && (self.is_known || !self.is_refused)
    }

    fn notice(&self) -> Arc<Notice> {
        let transition = if self.ended_ns.is_some() { Transition::Resolved } else { Transition::Firing };
        Arc::new(Notice { transition, alert: self.alert.clone() })
    }
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
        let is_known = self.kept.get(&alert.fingerprint).is_some_and(|kept| kept.is_known);
        let id = alert.fingerprint;
        let kept = Kept { alert, due_ns: now_ns, ended_ns, arrived: false, is_known, is_refused: false };
        self.kept.insert(id, kept);
    }

    /// The same, with about so many at most: what has ended makes room, the oldest that has arrived first. Gives how many are not told
    /// for want of room. What becomes of an alert that is there is always taken in.
    pub(super) fn apply_within(&mut self, most: usize, notice: &Notice, now_ns: u64) -> u64 {
        let is_new = !self.kept.contains_key(&notice.alert.fingerprint);
        let mut lost = 0;
        if is_new && self.kept.len() >= most && notice.transition != Transition::Pending {
            match self.oldest_end().and_then(|id| self.kept.remove(&id)) {
                // The instance ends by itself what it is not told of.
                Some(kept) => lost = u64::from(kept.is_owed()),
                None if notice.transition == Transition::Firing => return 1,
                None => {}
            }
        }
        self.apply(notice, now_ns);
        lost
    }

    fn oldest_end(&self) -> Option<Fingerprint> {
        let ended = self.kept.iter().filter_map(|(id, kept)| Some((!kept.arrived, kept.ended_ns?, *id)));
        ended.min().map(|(.., id)| id)
    }

    /// What is to be sent now, the longest due first.
    pub(super) fn due(&self, now_ns: u64) -> Vec<Fingerprint> {
        let mut due: Vec<(u64, Fingerprint)> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.due_ns <= now_ns)
            .map(|(id, kept)| (kept.due_ns, *id))
            .collect();
        due.sort_unstable();
        due.into_iter().take(MOST_AT_ONCE).map(|(_, id)| id).collect()
    }

    /// When something is due; in the past where it is already.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.kept.values().map(|kept| kept.due_ns).min()
    }

    /// The instance has taken these.
    pub(super) fn sent(&mut self, ids: &[Fingerprint], now_ns: u64) {
        for id in ids {
            let Some(kept) = self.kept.get_mut(id) else { continue };
            kept.due_ns = now_ns.saturating_add(self.resend_ns);
            (kept.arrived, kept.is_known, kept.is_refused) = (true, true, false);
        }
        self.forget(now_ns);
    }

    /// The instance would not take this one. While it fires it is sent again in its turn all the same, so that it does not lapse where
    /// another try would do. Whether it is the first time for the alert as it is.
    pub(super) fn refused(&mut self, id: Fingerprint, now_ns: u64) -> bool {
        let Some(kept) = self.kept.get_mut(&id) else { return false };
        let is_first = !kept.is_refused;
        kept.is_refused = true;
        kept.due_ns = now_ns.saturating_add(self.resend_ns);
        if kept.ended_ns.is_some() && !kept.is_known {
            // The end of an alert that it would not have.
            self.kept.remove(&id);
        }
        is_first
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

    /// What the instance has not been told, and may take.
    pub(super) fn undelivered(&self) -> Vec<Arc<Notice>> {
        self.kept.values().filter(|kept| kept.is_owed()).map(Kept::notice).collect()
    }

    /// The ends among it.
    pub(super) fn ends_owed(&self) -> Vec<Arc<Notice>> {
        let ends = self.kept.values().filter(|kept| kept.ended_ns.is_some() && kept.is_owed());
        ends.map(Kept::notice).collect()
    }

    #[cfg(test)]
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
    use std::collections::BTreeSet;

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
        Refused,
        Forward(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let transition =
            prop_oneof![Just(Transition::Pending), Just(Transition::Firing), Just(Transition::Resolved)];
        prop_oneof![
            (0..4u8, transition).prop_map(|(which, transition)| Step::Told(which, transition)),
            any::<bool>().prop_map(|taken| Step::Sent { taken }),
            Just(Step::Refused),
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
            // Ends that it would not have, of alerts that it never took.
            let mut given_up: BTreeSet<u8> = BTreeSet::new();
            // What was said of each last, and when.
            let mut said: BTreeMap<u8, (Transition, u64)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Forward(ns) => now_ns += ns,
                    Step::Told(which, transition) => {
                        active.apply(&notice("A", &which.to_string(), transition), now_ns);
                        if transition != Transition::Pending {
                            said.insert(which, (transition, now_ns));
                            given_up.remove(&which);
                        }
                    }
                    Step::Sent { taken } => {
                        let due = active.due(now_ns);
                        if taken {
                            active.sent(&due, now_ns);
                            prop_assert!(active.due(now_ns).is_empty());
                        }
                    }
                    Step::Refused => {
                        for due in active.due(now_ns) {
                            active.refused(due, now_ns);
                        }
                        prop_assert!(active.due(now_ns).is_empty());
                        given_up.extend((0..4).filter(|which| !active.kept.contains_key(&id(*which))));
                    }
                }
                active.forget(now_ns);
                for (which, (transition, at_ns)) in &said {
                    let kept = active.kept.get(&id(*which));
                    match transition {
                        Transition::Firing => {
                            let due_ns = kept.map(|kept| kept.due_ns);
                            prop_assert!(due_ns.is_some_and(|due| due <= now_ns + 60 * S));
                        }
                        _ if given_up.contains(which) => prop_assert!(kept.is_none()),
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
    fn what_was_taken_once_is_sent_again_in_its_turn_after_a_refusal() {
        let mut active = Active::new(RESEND);
        active.apply(&notice("A", "0", Transition::Firing), 0);
        active.sent(&active.due(0), 0);
        assert_eq!(active.due(60 * S), [id(0)]);
        assert!(active.refused(id(0), 60 * S));
        assert_eq!((active.due(119 * S), active.due(120 * S)), (vec![], vec![id(0)]));
        assert!(!active.refused(id(0), 120 * S), "it is the same refusal");
        active.sent(&[id(0)], 180 * S);
        assert!(active.refused(id(0), 240 * S), "it is another one");
        // Its end is owed even where that is refused once; that of an alert that was never taken is not.
        active.apply(&notice("A", "0", Transition::Resolved), 250 * S);
        assert!(active.refused(id(0), 250 * S));
        assert_eq!((active.due(310 * S), active.ends_owed().len()), (vec![id(0)], 1));
        active.apply(&notice("A", "1", Transition::Firing), 250 * S);
        assert!(active.refused(id(1), 250 * S));
        assert_eq!(active.due(310 * S).len(), 2, "it fires, and another try may do");
        active.apply(&notice("A", "1", Transition::Resolved), 311 * S);
        assert!(active.refused(id(1), 311 * S));
        assert_eq!((active.len(), active.undelivered().len()), (1, 1));
    }

    #[test]
    fn what_has_ended_makes_room_and_what_is_there_always_goes_on() {
        let of = |which: u8, transition| notice("A", &which.to_string(), transition);
        let mut active = Active::new(RESEND);
        for which in 0..3 {
            assert_eq!(active.apply_within(3, &of(which, Transition::Firing), 0), 0);
        }
        active.sent(&active.due(0), 0);
        assert_eq!(active.apply_within(3, &of(3, Transition::Firing), S), 1, "all that is there fires");
        active.apply_within(3, &of(0, Transition::Resolved), S);
        active.apply_within(3, &of(1, Transition::Resolved), 2 * S);
        active.sent(&[id(1)], 2 * S);
        // One that is known fires again: it is not told to be over any more.
        assert_eq!(active.apply_within(3, &of(0, Transition::Firing), 3 * S), 0);
        assert_eq!((active.kept[&id(0)].ended_ns, active.len()), (None, 3));
        assert_eq!(active.apply_within(3, &of(4, Transition::Firing), 4 * S), 0);
        assert!(!active.kept.contains_key(&id(1)) && active.kept.contains_key(&id(4)));
        // The end that it was not told goes, too, where there is no other room, and is counted.
        active.apply_within(3, &of(2, Transition::Resolved), 5 * S);
        assert_eq!(active.apply_within(3, &of(5, Transition::Firing), 6 * S), 1);
        assert_eq!(active.kept.keys().len(), 3);
        assert!(active.kept.values().all(|kept| kept.ended_ns.is_none()));
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
