//! Life-cycles where the agent, too, is restarted at any moment, and knows afterwards what it wrote down before.

use super::*;
use crate::store::{Fired, Kept};

/// Reads tens of the tasks that there are, so that 10 are its threshold and 8 its lower one.
static LEVEL: Rule = Rule {
    name: "Level",
    about: "for tests",
    unit: Unit::Count,
    defaults: &[],
    remembers_ns: 0,
    matches: &["service"],
    opt_in: false,
    clock: Clock::Target,
    standing: None,
    read: |scene, _| match scene.model.frame.totals {
        Some(totals) => Seen::Readings(vec![Reading {
            labels: Labels::default().with("task_group", "level"),
            value: totals.followed as f64 / 10.0,
            summary: "level".into(),
            annotations: BTreeMap::new(),
        }]),
        None => Seen::Missing("it does not say".into()),
    },
};

/// An agent of one target, with the file of its state.
struct Lived {
    played: Played,
    watched: Vec<Watched>,
    timing: Timing,
    /// What is in the file.
    kept: Vec<u8>,
    /// Since this agent began.
    agent_ns: u64,
    /// For how long at most the level was seen at its threshold without a break; `None`: it is not.
    held_ns: Option<u64>,
    /// Since the last frame: what has passed, and whether the target was restarted.
    unseen_ns: u64,
    is_other_run: bool,
    /// By fingerprint: what people know to fire, and since when.
    fires: BTreeMap<Fingerprint, u64>,
}

impl Lived {
    fn new(timing: Timing) -> Self {
        let setting =
            Setting { severity: Severity::Warning, threshold: 1.0, window_ns: 0, min_count: None, timing };
        let level = Watched { rule: &LEVEL, setting, about: Match::default() };
        let watched = [defaults(), vec![level]].concat();
        Self {
            played: Played::new(watched.clone()),
            watched,
            timing,
            kept: serde_json::to_vec(&Kept::default()).expect("it can be written"),
            agent_ns: 0,
            held_ns: None,
            unseen_ns: 0,
            is_other_run: true,
            fires: BTreeMap::new(),
        }
    }

    fn frame(&mut self, shown: &Shown) -> Result<(), TestCaseError> {
        const MOST_SEEN_NS: u64 = 3 * S;
        // How long the target was gone its wall clock says, which may say anything.
        let seen_ns = if self.is_other_run { MOST_SEEN_NS } else { self.unseen_ns.min(MOST_SEEN_NS) };
        match shown.level {
            Some(10..) => self.held_ns = Some(self.held_ns.map_or(0, |held_ns| held_ns + seen_ns)),
            Some(_) => self.held_ns = None,
            None => {}
        }
        (self.unseen_ns, self.is_other_run) = (0, false);
        let notices = self.played.frame(shown);
        self.told(&notices)
    }

    /// Of a target that has nothing to do.
    fn calm_frame(&mut self) -> Result<(), TestCaseError> {
        let worker = v1::Worker { busy_ratio: Some(0.1), ..Default::default() };
        let runtimes = vec![v1::Runtime { id: 1, workers: vec![worker], ..Default::default() }];
        let Played { watcher, model, at_ns, unix_ns, seq, .. } = &mut self.played;
        *seq += 1;
        let (seq, at_ns, unix_ns, totals) = (*seq, *at_ns, *unix_ns, Some(v1::Totals::default()));
        model.apply(v1::Frame { seq, at_ns, unix_ns, totals, runtimes, ..Default::default() });
        let notices = watcher.frame(model);
        self.held_ns = None;
        self.told(&notices)
    }

    /// The agent looks at its clock: the target has said nothing for so long.
    fn tick(&mut self, silent_ns: u64) -> Result<(), TestCaseError> {
        let silence = Silence { for_ns: silent_ns, reason: "it does not answer".into() };
        let Played { watcher, model, unix_ns, .. } = &mut self.played;
        let notices = watcher.tick(model, Some(&silence), self.agent_ns, *unix_ns);
        self.told(&notices)
    }

    fn pass(&mut self, ns: u64) {
        self.played.pass(ns);
        self.unseen_ns += ns;
        self.agent_ns += ns;
    }

    fn restart_target(&mut self) {
        self.played.restart();
        self.is_other_run = true;
    }

    /// It ends, and another one begins with what is in the file. What it watches is the same.
    fn restart_agent(&mut self) -> Result<(), TestCaseError> {
        let mut kept: Kept = serde_json::from_slice(&self.kept).expect("it wrote it");
        let fired = kept.targets.remove("shop").unwrap_or_default();
        let labels = Labels::default().with("cluster", "eu-1");
        self.played.watcher = Watcher::new(self.watched.clone(), "shop", &labels);
        let fired = fired.into_iter().map(Alert::from).collect();
        let unknown = self.played.watcher.restore(fired, 0);
        let before = std::mem::replace(&mut self.played.model, Model::new(v1::Description::default()));
        self.played.model.description = before.description;
        // The first frame has the last events of the target anew.
        self.played.model.events = before.events;
        (self.agent_ns, self.held_ns, self.unseen_ns) = (0, None, 0);
        // Nothing watches those any more, and the agent says so at once.
        let ends_at_unix_ns = Some(self.played.unix_ns);
        let over = unknown.into_iter().map(|alert| {
            let ends_at_unix_ns = ends_at_unix_ns.max(Some(alert.starts_at_unix_ns));
            let alert = Alert { ends_at_unix_ns, state: Transition::Resolved, ..alert };
            Notice { transition: Transition::Resolved, alert }
        });
        self.told(&over.collect::<Vec<_>>())
    }

    /// Each is told to people, after which what fires is written down.
    fn told(&mut self, notices: &[Notice]) -> Result<(), TestCaseError> {
        for notice in notices {
            let alert = &notice.alert;
            let began = self.fires.get(&alert.fingerprint).copied();
            match notice.transition {
                Transition::Pending => prop_assert!(began.is_none(), "{notice:?}"),
                Transition::Firing => {
                    prop_assert!(began.is_none(), "it fires already: {notice:?}");
                    if alert.name() == LEVEL.name {
                        let for_ns = self.timing.for_ns;
                        prop_assert!(self.held_ns >= Some(for_ns), "{:?} of {for_ns}", self.held_ns);
                    }
                    self.fires.insert(alert.fingerprint, alert.starts_at_unix_ns);
                }
                Transition::Resolved => {
                    // Alertmanager takes another beginning for another alert.
                    prop_assert_eq!(began, Some(alert.starts_at_unix_ns), "{:?}", notice);
                    prop_assert!(alert.ends_at_unix_ns >= Some(alert.starts_at_unix_ns));
                    self.fires.remove(&alert.fingerprint);
                }
            }
        }
        if !notices.is_empty() {
            let fired: Vec<Fired> = self.played.watcher.fired().map(|alert| Fired::from(&alert)).collect();
            let targets = BTreeMap::from([("shop".to_owned(), fired)]);
            let kept = Kept::new(targets, vec![], vec![]);
            let known: Kept = serde_json::from_slice(&self.kept).expect("it wrote it");
            if !known.names_the_same(&kept) {
                self.kept = serde_json::to_vec(&kept).expect("it can be written");
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Frame(Shown),
    /// The same level for some frames, a second apart.
    Frames(u64, u64),
    Silent(u64),
    Pass(u64),
    RestartTarget,
    RestartAgent,
    /// The agent's clock goes on without the target's, as where its machine was suspended.
    AgentClock(u64),
    WallClock(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let level = || prop_oneof![Just(0_u64), Just(9), Just(10), Just(70)];
    let shown = (
        proptest::option::of(0..15 * S),
        proptest::option::of(100 * MS..3 * S),
        prop_oneof![4 => Just(0_u64), 1 => 1..3_u64],
        proptest::option::of(level()),
    );
    let shown =
        shown.prop_map(|(stuck_ns, slow_ns, panics, level)| Shown { stuck_ns, slow_ns, panics, level });
    prop_oneof![
        6 => shown.prop_map(Step::Frame),
        3 => (level(), 1..12_u64).prop_map(|(level, count)| Step::Frames(level, count)),
        2 => (0..40 * S).prop_map(Step::Silent),
        4 => (0..3 * S).prop_map(Step::Pass),
        1 => (0..7200 * S).prop_map(Step::Pass),
        1 => Just(Step::RestartTarget),
        2 => Just(Step::RestartAgent),
        1 => (0..7200 * S).prop_map(Step::AgentClock),
        1 => (900_000 * S..1_100_000 * S).prop_map(Step::WallClock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_restart_of_the_agent_loses_an_end_doubles_an_alert_or_makes_one_fire_without_its_for(
        steps in proptest::collection::vec(step(), 0..80), for_s in 0..8u64, keep_s in 0..6u64
    ) {
        let timing = Timing { for_ns: for_s * S, keep_firing_ns: keep_s * S, clear_ratio: 0.8 };
        let mut lived = Lived::new(timing);
        for step in steps {
            match step {
                Step::Frame(shown) => lived.frame(&shown)?,
                Step::Frames(level, count) => for _ in 0..count {
                    lived.pass(S);
                    lived.frame(&Shown { level: Some(level), ..Shown::default() })?;
                },
                Step::Silent(ns) => lived.tick(ns)?,
                Step::Pass(ns) => lived.pass(ns),
                Step::RestartTarget => lived.restart_target(),
                Step::RestartAgent => lived.restart_agent()?,
                Step::AgentClock(ns) => lived.agent_ns += ns,
                Step::WallClock(ns) => lived.played.unix_ns = ns,
            }
        }
        // All is well from now on, for longer than any window.
        for _ in 0..200 {
            lived.pass(S);
            lived.calm_frame()?;
            lived.tick(0)?;
        }
        prop_assert!(lived.fires.is_empty(), "still fire: {:?}", lived.fires);
        prop_assert!(lived.played.watcher.lives.is_empty());
    }
}
