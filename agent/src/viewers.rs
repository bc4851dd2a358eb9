//! Who watches the agent's alerts. Each viewer is told what has changed since it came, over a queue of its own; one that does not
//! read is told so and sent away, and costs no more than that queue. Told the time; sending never waits.

use std::collections::{BTreeMap, BTreeSet};

use taskscope_proto::v1;
use tokio::sync::mpsc;
use v1::alert::State;

use crate::alerts::notice::unseen;
use crate::alerts::watcher::EVIDENCE;

/// Changes that wait for one viewer.
const WAITING: usize = 256;
/// More are a mistake: each alert is sent to all of them.
const MOST: usize = 64;

/// A change, or why there are no more.
pub(crate) type Told = Result<v1::AlertUpdate, String>;

#[derive(Debug, Default)]
pub(crate) struct Viewers {
    /// Alerts as viewers know them, by target and fingerprint. Nothing while nobody watches.
    known: BTreeMap<String, BTreeMap<u64, v1::Alert>>,
    viewers: Vec<Viewer>,
}

#[derive(Debug)]
struct Viewer {
    /// `None`: it watches all.
    target: Option<String>,
    changes: mpsc::Sender<Told>,
}

impl Viewers {
    /// Whether nobody watches; then nothing has to be looked at.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.viewers.retain(|viewer| !viewer.changes.is_closed());
        if self.viewers.is_empty() {
            self.known.clear();
        }
        self.viewers.is_empty()
    }

    /// What is pending or fires at a target now, all of it: what is new, or different, or missing is told.
    pub(crate) fn look(&mut self, target: &str, standing: Vec<v1::Alert>, unix_ns: u64) {
        let before = self.known.remove(target).unwrap_or_default();
        let now: BTreeMap<u64, v1::Alert> = standing.into_iter().map(|it| (it.fingerprint, it)).collect();
        let ended =
            before.iter().filter(|(id, _)| !now.contains_key(*id)).map(|(_, alert)| over(alert, unix_ns));
        // The end of what was comes before what is told in its place.
        for alert in ended {
            self.tell(target, &alert);
        }
        for (id, alert) in &now {
            if before.get(id).is_none_or(|known| is_news(known, alert)) {
                self.tell(target, alert);
            }
        }
        if !now.is_empty() {
            self.known.insert(target.to_owned(), now);
        }
    }

    /// Targets that are not among these have gone, and their alerts with them: nobody saw how those ended.
    pub(crate) fn retain(&mut self, targets: &BTreeSet<&str>, unix_ns: u64) {
        let gone = self.known.keys().filter(|name| !targets.contains(name.as_str())).cloned();
        for name in gone.collect::<Vec<_>>() {
            for alert in self.known.get_mut(&name).into_iter().flat_map(BTreeMap::values_mut) {
                let summary = alert.annotations.get("summary").map_or("", String::as_str);
                let unseen = unseen(summary, "its target is not known any more");
                alert.annotations.extend(unseen.map(|(name, value)| (name.to_owned(), value)));
            }
            self.look(&name, Vec::new(), unix_ns);
        }
    }

    /// One more viewer, of one target or of all. It is to be shown first what was looked at last. The error has a hint.
    pub(crate) fn add(
        &mut self,
        target: Option<&str>,
    ) -> Result<(Vec<v1::Alert>, mpsc::Receiver<Told>), String> {
        if self.viewers.len() >= MOST {
            return Err(format!(
                "{MOST} viewers watch the alerts of this agent already\nhint: end one of them, or ask with `once`"
            ));
        }
        let (changes, receiver) = mpsc::channel(WAITING);
        let of_it = self.known.iter().filter(|(name, _)| target.is_none_or(|target| target == name.as_str()));
        let standing = of_it.flat_map(|(_, alerts)| alerts.values().cloned()).collect();
        self.viewers.push(Viewer { target: target.map(str::to_owned), changes });
        Ok((standing, receiver))
    }

    fn tell(&mut self, target: &str, alert: &v1::Alert) {
        self.viewers.retain(|viewer| {
            if viewer.target.as_ref().is_some_and(|wanted| wanted != target) {
                return true;
            }
            // The last place is for saying why nothing comes any more.
            if viewer.changes.capacity() > 1 {
                return viewer.changes.try_send(Ok(v1::AlertUpdate { alert: Some(alert.clone()) })).is_ok();
            }
            let _ = viewer.changes.try_send(Err(format!(
                "this viewer has left {} changes unread\nhint: watch again; it begins with what stands then",
                WAITING - 1
            )));
            false
        });
    }
}

/// Values and sentences move all the time; nobody is told of that.
fn is_news(known: &v1::Alert, now: &v1::Alert) -> bool {
    let of = |alert: &v1::Alert| (alert.state, alert.starts_at_unix_ns, alert.silenced, alert.inhibited_by);
    of(known) != of(now) || known.annotations.get(EVIDENCE) != now.annotations.get(EVIDENCE)
}

fn over(alert: &v1::Alert, unix_ns: u64) -> v1::Alert {
    v1::Alert {
        state: State::Resolved.into(),
        ends_at_unix_ns: Some(unix_ns.max(alert.starts_at_unix_ns)),
        ..alert.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(fingerprint: u64, state: State) -> v1::Alert {
        v1::Alert { fingerprint, state: state.into(), starts_at_unix_ns: 10, ..Default::default() }
    }

    /// Everything that waits, in short.
    fn told(receiver: &mut mpsc::Receiver<Told>) -> Vec<(u64, State)> {
        let mut all = Vec::new();
        while let Ok(Ok(update)) = receiver.try_recv() {
            let alert = update.alert.expect("an update has an alert");
            all.push((alert.fingerprint, alert.state()));
        }
        all
    }

    #[test]
    fn a_viewer_is_shown_what_stands_and_then_each_change_once() {
        let mut viewers = Viewers::default();
        assert!(viewers.is_empty());
        let (standing, mut first) = viewers.add(None).expect("there is room");
        assert_eq!(standing, []);
        viewers.look("shop", vec![alert(1, State::Pending)], 11);
        viewers.look("shop", vec![v1::Alert { value: 7.0, ..alert(1, State::Pending) }], 12);
        viewers.look("shop", vec![alert(1, State::Firing)], 13);
        let (standing, mut second) = viewers.add(Some("mail")).expect("there is room");
        assert_eq!(standing, [], "nothing stands there");
        assert_eq!(viewers.add(Some("shop")).expect("there is room").0, [alert(1, State::Firing)]);
        viewers.look("mail", vec![alert(1, State::Firing)], 14);
        viewers.look("shop", vec![alert(2, State::Firing)], 15);
        use State::{Firing, Pending, Resolved};
        assert_eq!(told(&mut first), [(1, Pending), (1, Firing), (1, Firing), (1, Resolved), (2, Firing)]);
        assert_eq!(told(&mut second), [(1, Firing)]);
    }

    #[test]
    fn what_is_held_back_or_kept_meanwhile_is_news() {
        let mut viewers = Viewers::default();
        let (_, mut changes) = viewers.add(None).expect("there is room");
        let fires = alert(1, State::Firing);
        let kept =
            v1::Alert { annotations: [(EVIDENCE.to_owned(), "/e".to_owned())].into(), ..fires.clone() };
        for now in [
            fires.clone(),
            v1::Alert { silenced: true, ..fires.clone() },
            v1::Alert { inhibited_by: Some(2), ..fires.clone() },
            kept.clone(),
            kept,
        ] {
            viewers.look("shop", vec![now], 11);
        }
        assert_eq!(told(&mut changes).len(), 4);
        viewers.retain(&BTreeSet::from(["mail"]), 12);
        let last = changes.try_recv().expect("it is told").expect("it is read").alert.expect("it has one");
        assert_eq!((last.fingerprint, last.state()), (1, State::Resolved));
        assert!(last.annotations["summary"].starts_with("NOT SEEN TO END: "), "{last:?}");
        assert_eq!(told(&mut changes), []);
    }

    #[test]
    fn one_that_does_not_read_is_sent_away_and_told_why() {
        let mut viewers = Viewers::default();
        let (_, mut slow) = viewers.add(None).expect("there is room");
        for turn in 0..10_000 {
            let state = if turn % 2 == 0 { State::Pending } else { State::Firing };
            viewers.look("shop", vec![alert(1, state)], turn);
        }
        assert!(viewers.is_empty());
        let mut waited = 0;
        let why = loop {
            match slow.try_recv().expect("the last one says why") {
                Ok(_) => waited += 1,
                Err(why) => break why,
            }
        };
        assert_eq!(waited, WAITING - 1);
        assert!(why.contains("\nhint: watch again"), "{why}");
    }

    #[test]
    fn there_is_room_for_so_many_and_one_that_has_gone_leaves_its_place() {
        let mut viewers = Viewers::default();
        let mut all: Vec<_> = (0..MOST).map(|_| viewers.add(None).expect("there is room").1).collect();
        assert!(viewers.add(None).is_err_and(|why| why.contains("\nhint: ")));
        all.pop();
        assert!(!viewers.is_empty());
        assert!(viewers.add(None).is_ok());
        all.clear();
        assert!(viewers.is_empty());
    }
}
