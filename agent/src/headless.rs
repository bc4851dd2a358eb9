//! `taskscope agent`: watches many targets without a screen, and serves them to viewers and to metrics systems. One loop over a
//! closed set of inputs; nothing else changes its state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use taskscope_proto::v1::agent_target::Link;
use taskscope_proto::v1::{self, AgentTarget, Description, WatchRequest};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::address::{Address, Target};
use crate::alerts::desk::Desk;
use crate::alerts::labels::Labels;
use crate::alerts::life::Transition;
use crate::alerts::notice::{Alert, Notice};
use crate::alerts::rule::Silence;
use crate::alerts::watcher::{Wants, Watcher};
use crate::config::Config;
use crate::evidence::{Evidence, Subject};
use crate::fleet::{self, Effect, Fleet, Forgotten, MemberId, Source, lookup};
use crate::link::State;
use crate::listen::Listener;
use crate::metrics::resource::Process;
use crate::metrics::{self, Form, Itself, Pieces, Seen, Shown, otlp};
use crate::model::Model;
use crate::own::Own;
use crate::session::{Happened, Report, Session, SessionId, places};
use crate::settings::{Reloaded, Settings};
use crate::sinks::Sinks;
use crate::store::{Fired, Kept, Silenced, Store};
use crate::symbols::{Symbols, debug_dirs};
use crate::viewers::Viewers;
use crate::{alerts, complain, exposer, server};

mod evidence;
mod ready;
mod settled;

pub(crate) use settled::LastReload;
mod viewing;

pub(crate) use viewing::{Refused, Shown as ShownAlerts};

/// What is due is looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// A new socket is seen within this time.
const FOLDER_EVERY: Duration = Duration::from_secs(2);
/// Another request makes the target look anew.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A target that is well says something about as often.
const SPEAKS_EVERY: Duration = Duration::from_secs(1);
/// Questions and reports that wait for the loop.
const WAITING: usize = 64;

/// An alert of a target that has not come back by then is over.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(600);

/// Alerts under way to the sinks have this long at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Everything that can happen.
enum Input {
    Report(Report),
    Listed(Source, Result<fleet::Input, String>),
    Question(Question),
    Reloaded(Reloaded),
    Tick,
    Stop,
}

/// What those who serve ask of the loop.
pub(crate) enum Question {
    Targets {
        answer: oneshot::Sender<Vec<AgentTarget>>,
    },
    /// The target of that name; without one the only target there is. The error has a hint.
    Target {
        name: Option<String>,
        answer: oneshot::Sender<Result<Target, String>>,
    },
    Metrics {
        form: Form,
        answer: oneshot::Sender<Pieces>,
    },
    /// The same, for a collector.
    Figures {
        answer: oneshot::Sender<Vec<ResourceMetrics>>,
    },
    /// Whether every source has been asked and every target been tried once; the error says which has not.
    Ready {
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// The new silence's id, or what is wrong with it.
    Silence {
        request: v1::SilenceRequest,
        answer: oneshot::Sender<Result<String, String>>,
    },
    Silences {
        answer: oneshot::Sender<Vec<v1::SilenceStatus>>,
    },
    /// Whether there was one.
    Unsilence {
        id: String,
        answer: oneshot::Sender<bool>,
    },
    WatchAlerts {
        request: v1::WatchAlertsRequest,
        answer: oneshot::Sender<Result<ShownAlerts, Refused>>,
    },
    Explain {
        request: v1::ExplainRequest,
        answer: oneshot::Sender<Result<Vec<v1::Evaluation>, Refused>>,
    },
    /// That it is answered is the answer.
    Alive {
        answer: oneshot::Sender<()>,
    },
}

/// Runs until it is told to stop.
pub(crate) async fn run(settings: Settings, config: &Config) -> anyhow::Result<()> {
    // Signals first: one that comes during the start is not lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = Listener::bind(&config.listen.to_string().parse()?).await?;
    let file = listener.file();
    complain(&format!("taskscope: listening on {}", listener.address()));
    let (questions, mut asked) = mpsc::channel(WAITING);
    let exposer = match config.metrics {
        Some(address) => {
            let listener = exposer::bind(address).await?;
            complain(&format!("taskscope: metrics at http://{}/metrics", listener.local_addr()?));
            Some(tokio::spawn(exposer::serve(listener, questions.clone())))
        }
        None => None,
    };
    let mut sinks = Sinks::start(settings.prepared(), Some(&questions));
    let mut server = tokio::spawn(server::serve(listener, questions));
    let (reports, mut inbox) = mpsc::channel(WAITING);
    let (listings, mut listed) = mpsc::channel(WAITING);
    let (store, kept) = match Store::open(&config.state) {
        Ok((store, mut kept)) => {
            sinks.take_up(std::mem::take(&mut kept.owing)).iter().for_each(|line| complain(line));
            (Some(store), kept)
        }
        Err(why) => {
            complain(&format!("taskscope: {why}"));
            (None, Kept::default())
        }
    };
    let (reloads, mut reloaded) = mpsc::channel(1);
    let settings = tokio::spawn(settings.follow(config.clone(), reloads));
    let evidence = Evidence::new(store.as_ref().map(|_| config.state.join("evidence")));
    let mut agent = Agent::new(config, sinks, evidence, reports, listings, kept, now());
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let outcome = loop {
        let input = tokio::select! {
            _ = interrupt.recv() => Input::Stop,
            _ = terminate.recv() => Input::Stop,
            Some(report) = inbox.recv() => Input::Report(report),
            Some((source, listing)) = listed.recv() => Input::Listed(source, listing),
            Some(question) = asked.recv() => Input::Question(question),
            Some(news) = reloaded.recv() => Input::Reloaded(news),
            served = &mut server => break served?.map_err(anyhow::Error::msg),
            _ = tick.tick() => Input::Tick,
        };
        if matches!(input, Input::Stop) {
            break Ok(());
        }
        // What arrives is no news each time: it is looked at with the tick.
        let is_tick = matches!(input, Input::Tick);
        agent.apply(input, now());
        if let Some(store) = &store
            && (agent.desk.take_changed() | (is_tick && agent.sinks.take_changed()))
        {
            store.keep(agent.kept());
        }
    };
    let (kept, left) = (agent.kept(), agent.sinks.left());
    // What fires goes on to fire: an agent that ends is no news about its targets.
    let (healths, _) = tokio::join!(agent.sinks.close(CLOSE_WITHIN), agent.evidence.close(CLOSE_WITHIN));
    for health in healths {
        tracing::info!("{health}");
    }
    if let Some(store) = store {
        store.keep(kept.owing(left.owing()));
        store.close(CLOSE_WITHIN).await;
    }
    server.abort();
    settings.abort();
    if let Some(exposer) = exposer {
        exposer.abort();
    }
    if let Some(file) = file {
        file.remove();
    }
    outcome
}

#[allow(clippy::disallowed_methods, reason = "the driver of the agent is where its time comes from")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the driver of the agent is where its time comes from")]
fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A source and when it is asked.
struct Asked {
    source: Source,
    every: Duration,
    due: Instant,
    /// An answer is awaited.
    waiting: bool,
    /// Why it could not be asked the last time.
    trouble: Option<String>,
}

/// What is known of one target.
struct Watched {
    /// `None`: it has gone.
    session: Option<Session>,
    /// What it was last asked for, of what changes; and when it may.
    asked: Option<(Wants, bool)>,
    next_ask: Instant,
    model: Model,
    /// Whether the model is of a target that has answered, ever.
    known: bool,
    /// When the last frame came, or it was first watched.
    heard: Instant,
    /// When rules about its link were last evaluated.
    looked: Instant,
    process: Option<u32>,
    /// Made with the first stack: most targets send none.
    symbols: Option<Symbols>,
    shown: Shown,
    watcher: Watcher,
}

impl Watched {
    /// What its rules and its metrics need.
    fn request(&mut self, histograms: bool) -> WatchRequest {
        self.asked = Some((self.watcher.wants(&self.model), histograms));
        WatchRequest { histograms_total: histograms, ..self.watcher.request(&self.model) }
    }

    /// What was found makes the rules ask for more.
    fn ask_anew(&mut self, histograms: bool, now: Instant) {
        if now < self.next_ask || self.asked == Some((self.watcher.wants(&self.model), histograms)) {
            return;
        }
        self.next_ask = now + ASK_EVERY;
        let request = self.request(histograms);
        if let Some(session) = &mut self.session {
            session.ask(request);
        }
    }

    fn happened(&mut self, happened: Happened, now: Instant) -> Vec<Notice> {
        match happened {
            Happened::Link => return vec![],
            Happened::Described { description, process, refused } => {
                self.watcher.refused(refused);
                self.known = true;
                self.process = process;
                self.symbols = None;
                self.model = Model::new(*description);
                return vec![];
            }
            Happened::Frame(frame) => {
                self.heard = now;
                if self.symbols.is_none() && !frame.stacks.is_empty() {
                    self.symbols =
                        Some(Symbols::of(places(&self.model.description, self.process, &debug_dirs(&[]))));
                }
                self.model.apply(*frame);
            }
        }
        if let Some(symbols) = &self.symbols {
            // What has no name yet has one at the next frame.
            self.model.look_up(symbols, &[]);
        }
        self.shown.take(&self.model);
        self.watcher.frame(&self.model)
    }

    /// Of a target that has just spoken there is little to say: that is looked at less often.
    fn is_due(&mut self, now: Instant) -> bool {
        let speaks = now.saturating_duration_since(self.heard) <= SPEAKS_EVERY * 3 / 2;
        let is_due = !speaks || now.saturating_duration_since(self.looked) >= SPEAKS_EVERY;
        if is_due {
            self.looked = now;
        }
        is_due
    }

    /// For how long it has said nothing, and why, as far as that is known.
    fn silence(&self, now: Instant) -> Silence {
        let reason = match self.session.as_ref().map(Session::state) {
            None => "nothing listens there any more".to_owned(),
            Some(State::Disconnected { reason, .. } | State::Closed { reason }) => reason.clone(),
            Some(State::Connecting) => "it does not answer".to_owned(),
            Some(State::Live { .. } | State::Stale { .. }) => "it is connected and silent".to_owned(),
        };
        Silence { for_ns: nanoseconds(now.saturating_duration_since(self.heard)), reason }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Alerts of a target that fire, or are pending.
fn count(watched: Option<&Watched>, fires: bool) -> u32 {
    let standing = watched.into_iter().flat_map(|watched| watched.watcher.standing());
    u32::try_from(standing.filter(|alert| alert.fires == fires).count()).unwrap_or(u32::MAX)
}

/// The loop's state.
struct Agent {
    fleet: Fleet,
    watched: BTreeMap<MemberId, Watched>,
    by_session: BTreeMap<SessionId, MemberId>,
    sources: Vec<Asked>,
    watched_rules: Vec<alerts::watcher::Watched>,
    labels: Labels,
    histograms: bool,
    process: Process,
    desk: Desk,
    sinks: Sinks,
    own: Own,
    reload: LastReload,
    viewers: Viewers,
    evidence: Evidence,
    /// Every target was tried once.
    has_tried: bool,
    /// Alerts that fired before this start, of targets that have not been seen since.
    missed: BTreeMap<String, Vec<Fired>>,
    began: Instant,
    reports: mpsc::Sender<Report>,
    listings: mpsc::Sender<(Source, Result<fleet::Input, String>)>,
}

impl Agent {
    fn new(
        config: &Config,
        sinks: Sinks,
        evidence: Evidence,
        reports: mpsc::Sender<Report>,
        listings: mpsc::Sender<(Source, Result<fleet::Input, String>)>,
        kept: Kept,
        now: Instant,
    ) -> Self {
        let own = kept.own.into_iter().map(Alert::from);
        for alert in own.clone() {
            sinks.resume(&Notice { transition: Transition::Firing, alert });
        }
        let (labels, process) = (config.labels(), Process::this(unix_ns()));
        let (own, unknown) = Own::new(config.watched_of_agent(), &labels, &process, own.collect(), now);
        let mut agent = Self {
            fleet: Fleet::default(),
            watched: BTreeMap::new(),
            by_session: BTreeMap::new(),
            sources: Vec::new(),
            watched_rules: config.watched(),
            labels,
            histograms: config.wants_histograms(),
            process,
            desk: Desk::default(),
            sinks,
            own,
            reload: LastReload { is_good: true, good_unix_ns: unix_ns() },
            viewers: Viewers::default(),
            evidence,
            has_tried: false,
            missed: kept.targets,
            began: now,
            reports,
            listings,
        };
        for silenced in kept.silences {
            // One that has ended meanwhile is refused, and no loss.
            let id = silenced.id.clone();
            if let Err(why) = agent.desk.resume(&id, silenced.into(), unix_ns()) {
                tracing::info!(why, "a silence of before is not taken up again");
            }
        }
        for fired in agent.missed.values().flatten() {
            let alert = Alert::from(fired.clone());
            agent.sinks.resume(&Notice { transition: Transition::Firing, alert });
        }
        agent.resolve(unknown.into_iter());
        agent.aim(&config.targets, now);
        agent
    }

    fn apply(&mut self, input: Input, now: Instant) {
        match input {
            Input::Report(report) => return self.report(report, now),
            Input::Listed(source, listing) => self.listed(&source, listing, now),
            Input::Question(question) => self.answer(question),
            Input::Reloaded(reloaded) => self.reloaded(reloaded, now),
            Input::Tick => self.tick(now),
            Input::Stop => {}
        }
        self.look();
    }

    fn tick(&mut self, now: Instant) {
        let mut broke = false;
        for watched in self.watched.values_mut() {
            if let Some(session) = &mut watched.session {
                broke |=
                    !session.tick(now).is_empty() && matches!(session.state(), State::Disconnected { .. });
            }
        }
        self.hurry(broke, now);
        let (now_ns, unix_ns) = (nanoseconds(now.saturating_duration_since(self.began)), unix_ns());
        for watched in self.watched.values_mut() {
            if !watched.is_due(now) {
                continue;
            }
            let silence = watched.silence(now);
            let notices = watched.watcher.tick(&watched.model, Some(&silence), now_ns, unix_ns);
            tell(&mut self.desk, &self.sinks, &notices);
        }
        self.tend_evidence();
        for notice in self.desk.tick(unix_ns) {
            self.sinks.send(&notice);
        }
        self.turn(now);
        if !self.missed.is_empty() && now >= self.began + COMES_BACK_WITHIN {
            let missed = std::mem::take(&mut self.missed);
            let missed = missed.into_values().flatten().map(Alert::from);
            self.resolve(missed.map(|alert| alert.unseen(Forgotten::GivenUp.words())));
        }
        self.list(fleet::Input::Tick, now);
        let is_due = |asked: &Asked| !asked.waiting && now >= asked.due;
        let linked = if self.sources.iter().any(is_due) { self.linked() } else { BTreeSet::new() };
        for asked in &mut self.sources {
            if is_due(asked) {
                asked.waiting = true;
                let (source, linked, listings) =
                    (asked.source.clone(), linked.clone(), self.listings.clone());
                tokio::spawn(async move {
                    let listing = lookup::ask(source.clone(), linked).await;
                    // The loop has ended if nobody takes it.
                    let _ = listings.send((source, listing)).await;
                });
            }
        }
    }

    /// Sockets over which a target is heard, or was until a moment ago: they are not tried.
    fn linked(&self) -> BTreeSet<PathBuf> {
        let linked = |(id, member): (MemberId, &fleet::Member)| {
            let session = self.watched.get(&id)?.session.as_ref()?;
            let is_open = matches!(session.state(), State::Live { .. } | State::Stale { .. });
            match &member.target {
                Target::At(Address::Unix(path)) if is_open => Some(path.clone()),
                _ => None,
            }
        };
        self.fleet.members().filter_map(linked).collect()
    }

    fn listed(&mut self, source: &Source, listing: Result<fleet::Input, String>, now: Instant) {
        let Some(asked) = self.sources.iter_mut().find(|asked| asked.source == *source) else { return };
        asked.waiting = false;
        asked.due = now + asked.every;
        match listing {
            Ok(input) => {
                asked.trouble = None;
                self.list(input, now);
            }
            // Nothing is known: what was there is not gone for that.
            Err(trouble) => {
                if asked.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(?source, trouble, "targets cannot be listed");
                }
                asked.trouble = Some(trouble);
            }
        }
    }

    fn list(&mut self, input: fleet::Input, now: Instant) {
        for effect in self.fleet.apply(input, now) {
            match effect {
                Effect::Begin { id, target } => {
                    tracing::info!(target = %target, "watching");
                    self.begin(id, target, now);
                }
                Effect::Lose(id) => {
                    tracing::info!(?id, "lost");
                    self.end_session(id);
                }
                Effect::Forget { id, why } => {
                    self.end_session(id);
                    let notices = self.watched.remove(&id).map(|watched| watched.watcher.close(unix_ns()));
                    let unseen: Vec<Notice> =
                        notices.into_iter().flatten().map(|it| it.unseen(why.words())).collect();
                    tell(&mut self.desk, &self.sinks, &unseen);
                }
            }
        }
    }

    fn begin(&mut self, id: MemberId, target: Target, now: Instant) {
        self.end_session(id);
        let member = self.fleet.member(id);
        let name = member.map_or(String::new(), |member| member.name.clone());
        let missed = self.missed.remove(&name);
        let missed = missed.or_else(|| self.missed.remove(&member?.name_of_before())).unwrap_or_default();
        let is_near = matches!(target, Target::Named(_) | Target::At(Address::Unix(_)));
        let host = self.process.host.as_deref().filter(|_| is_near);
        let watched = self.watched.entry(id).or_insert_with(|| Watched {
            session: None,
            asked: None,
            next_ask: now,
            model: Model::new(Description::default()),
            known: false,
            heard: now,
            looked: now,
            process: None,
            symbols: None,
            shown: Shown::default(),
            watcher: Watcher::new(self.watched_rules.clone(), &name, &self.labels).on(host),
        });
        // Its rules' clocks begin at zero.
        let unknown = watched.watcher.restore(missed.into_iter().map(Alert::from).collect(), 0);
        let request = watched.request(self.histograms);
        let session = Session::start(target, request, self.reports.clone(), now);
        self.by_session.insert(session.id(), id);
        watched.session = Some(session);
        self.resolve(unknown.into_iter());
    }

    /// Alerts that nothing watches any more.
    fn resolve(&mut self, alerts: impl Iterator<Item = Alert>) {
        for alert in alerts {
            let ends_at_unix_ns = Some(unix_ns().max(alert.starts_at_unix_ns));
            let alert = Alert { ends_at_unix_ns, state: Transition::Resolved, ..alert };
            tell(&mut self.desk, &self.sinks, [&Notice { transition: Transition::Resolved, alert }]);
        }
    }

    /// What has to be known after a restart.
    fn kept(&self) -> Kept {
        let mut targets = self.missed.clone();
        for (id, watched) in &self.watched {
            let told = watched.watcher.fired().filter(|alert| !self.desk.holds(alert.fingerprint));
            let fired: Vec<Fired> = told.map(|alert| Fired::from(&alert)).collect();
            if let Some(member) = self.fleet.member(*id)
                && !fired.is_empty()
            {
                targets.insert(member.name.clone(), fired);
            }
        }
        let own = self.own.watcher().fired().filter(|alert| !self.desk.holds(alert.fingerprint));
        let own = own.map(|alert| Fired::from(&alert)).collect();
        let silences = self.desk.requests().map(|(id, request)| Silenced::new(id, request));
        Kept::new(targets, own, silences.collect()).owing(self.sinks.left().owing())
    }

    fn end_session(&mut self, id: MemberId) {
        let ended = self.watched.get_mut(&id).and_then(|watched| watched.session.take());
        if let Some(session) = ended {
            self.by_session.remove(&session.id());
        }
    }

    fn report(&mut self, report: Report, now: Instant) {
        let Some(&id) = self.by_session.get(&report.session()) else { return };
        let Some(watched) = self.watched.get_mut(&id) else { return };
        let Some(session) = &mut watched.session else { return };
        let happened = session.handle(report, now);
        let broke = matches!(session.state(), State::Disconnected { .. });
        for happened in happened {
            let mut notices = watched.happened(happened, now);
            if let Some(target) = self.fleet.member(id).map(|member| &member.target) {
                let subject = Subject { member: id, target, model: &watched.model };
                self.evidence.begin(&mut notices, &mut watched.watcher, &subject, unix_ns(), now);
            }
            tell(&mut self.desk, &self.sinks, &notices);
        }
        watched.ask_anew(self.histograms, now);
        self.name_evidence();
        self.hurry(broke, now);
        if let Some(name) = self.fleet.member(id).map(|member| member.name.clone()) {
            self.look_at(&name);
        }
    }

    /// Where a link broke, the folders tell whether the target is there anew.
    fn hurry(&mut self, broke: bool, now: Instant) {
        if broke {
            self.sources
                .iter_mut()
                .filter(|asked| matches!(asked.source, Source::Folder(_)))
                .for_each(|asked| asked.due = now);
        }
    }

    fn answer(&mut self, question: Question) {
        // Whoever does not wait any more has gone.
        match question {
            Question::Targets { answer } => drop(answer.send(self.targets())),
            Question::Target { name, answer } => drop(answer.send(self.target(name.as_deref()))),
            Question::Metrics { form, answer } => drop(answer.send(self.metrics(form))),
            Question::Figures { answer } => drop(answer.send(self.figures())),
            Question::Ready { answer } => drop(answer.send(self.ready())),
            Question::Silence { request, answer } => {
                drop(answer.send(self.desk.silence(request, unix_ns())));
            }
            Question::Silences { answer } => drop(answer.send(self.desk.silences(unix_ns()))),
            Question::Unsilence { id, answer } => drop(answer.send(self.desk.unsilence(&id))),
            Question::WatchAlerts { request, answer } => drop(answer.send(self.watch_alerts(&request))),
            Question::Explain { request, answer } => drop(answer.send(self.explain(&request))),
            Question::Alive { answer } => drop(answer.send(())),
        }
    }

    fn targets(&self) -> Vec<AgentTarget> {
        let mut targets: Vec<AgentTarget> = self
            .fleet
            .members()
            .map(|(id, member)| {
                let watched = self.watched.get(&id);
                let (link, reason) = link(member, watched);
                AgentTarget {
                    name: member.name.clone(),
                    address: member.target.to_string(),
                    link: link.into(),
                    reason,
                    pid: watched.filter(|watched| watched.known).map(|watched| watched.model.description.pid),
                    firing: count(watched, true),
                    pending: count(watched, false),
                }
            })
            .collect();
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        targets
    }

    fn target(&self, name: Option<&str>) -> Result<Target, String> {
        let known = match name {
            Some(name) => self.fleet.named(name),
            None => {
                let mut members = self.fleet.members();
                members.next().filter(|_| members.next().is_none())
            }
        };
        known.map(|(_, member)| member.target.clone()).ok_or_else(|| match name {
            Some(name) => self.no_target(name),
            None => self.which_target(),
        })
    }

    fn metrics(&self, form: Form) -> Pieces {
        let missed = self.missed.iter().flat_map(|(name, fired)| fired.iter().map(move |it| (name, it)));
        let missed: Vec<_> = missed.map(|(name, it)| (name.clone(), Alert::from(it.clone()))).collect();
        let itself = Itself { watcher: self.own.watcher(), reload: self.reload, missed: &missed };
        form.write(metrics::families(self.seen(), self.fleet.turned_away(), &self.sinks.health(), &itself))
    }

    fn figures(&self) -> Vec<ResourceMetrics> {
        let agent = otlp::Agent {
            process: &self.process,
            labels: &self.labels,
            turned_away: self.fleet.turned_away(),
            sinks: &self.sinks.health(),
            reload: self.reload,
        };
        otlp::export(&agent, self.seen(), unix_ns())
    }

    /// Each target, as metrics show it.
    fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.fleet.members().map(|(id, member)| {
            let watched = self.watched.get(&id);
            let is_up = link(member, watched).0 == Link::Live;
            let known = watched.filter(|watched| watched.known);
            Seen {
                name: &member.name,
                description: known.map(|watched| &watched.model.description),
                model: watched.filter(|_| is_up).map(|watched| &watched.model),
                shown: watched.map(|it| &it.shown),
                watcher: watched.map(|it| &it.watcher),
            }
        })
    }
}

/// To the sinks, unless it is silenced.
fn tell<'a>(desk: &mut Desk, sinks: &Sinks, notices: impl IntoIterator<Item = &'a Notice>) {
    for notice in notices {
        if desk.hear(notice, unix_ns()) {
            sinks.send(notice);
        }
    }
}

/// How a target stands, and why it is not live.
fn link(member: &fleet::Member, watched: Option<&Watched>) -> (Link, String) {
    let Some(session) = watched.and_then(|watched| watched.session.as_ref()) else {
        return (Link::Lost, "nothing listens there any more".to_owned());
    };
    let heard = watched.is_some_and(|watched| watched.known);
    match session.state() {
        _ if member.is_lost() => (Link::Lost, "nothing listens there any more".to_owned()),
        State::Connecting if session.attempt() <= 1 && !heard => {
            (Link::Connecting, "the first attempt is under way".to_owned())
        }
        State::Connecting => (Link::Lost, "another attempt is under way".to_owned()),
        State::Live { .. } => (Link::Live, String::new()),
        State::Stale { .. } => (Link::Stale, "connected, and it says nothing".to_owned()),
        State::Disconnected { reason, .. } | State::Closed { reason } => {
            (Link::Lost, reason.lines().next().unwrap_or_default().to_owned())
        }
    }
}
