//! The dashboard's driver: one loop over a closed set of inputs. Nothing else changes its state.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use taskscope_demo::Announcement;
use taskscope_proto::v1::{AgentTarget, GroupQuery, WatchRequest};
use taskscope_tui::{App, Command, LinkView, Message, Options, Sentence, Severity, TargetChoice, Terminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::address::{Address, Target};
use crate::code;
use crate::connection::targets_of;
use crate::discover::{self, NoTarget};
use crate::link::State;
use crate::model::Model;
use crate::rules;
use crate::session::{Happened, Report, Session, places};
use crate::symbols::Symbols;
use crate::tour::Tour;
use crate::why::{Line, Why};

/// Between redraws without news: clocks on the screen run on, also when the target is gone.
const REDRAW: Duration = Duration::from_millis(250);
/// Frames are drawn as they come, but not more often than this.
const FASTEST: Duration = Duration::from_millis(30);
/// Local targets are looked up again this often while the list is shown.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Groups that the rules want to see, whatever the screen shows.
const GROUPS: u32 = 200;

/// Everything that can happen.
enum Input {
    Terminal(Event),
    /// The terminal cannot be read.
    TerminalClosed,
    Report(Report),
    Announcement(Announcement),
    /// The targets of the agent that was named.
    Offered(Vec<TargetChoice>),
    /// Names of functions were looked up.
    Names,
    /// The demo's service has ended.
    ServiceEnded,
    Redraw,
    Stop,
}

/// Announcements of the demo, if this is one.
pub(crate) type Announcements = Option<mpsc::Receiver<Announcement>>;

/// Runs the dashboard until the user leaves. Without a target the local ones are offered.
pub(crate) async fn run(
    target: Option<Target>,
    mut announcements: Announcements,
    debug_dirs: &[PathBuf],
) -> anyhow::Result<()> {
    // Before the terminal is taken: one that is told to end gives it back, however early.
    let mut stop = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<Result<Vec<_>, _>>()?;
    // Before anything else is set up: without a terminal there is one clear line.
    let mut terminal = Terminal::enter()?;
    let (reports, mut inbox) = mpsc::channel(16);
    let (offers, mut offered) = mpsc::channel(1);
    let agent = tokio::select! {
        agent = agent_with_a_choice(target.as_ref()) => agent.map(|agent| Offers { agent, offers }),
        _ = any(&mut stop) => return Ok(()),
    };
    let mut dashboard = Dashboard::new(target, agent, announcements.is_some(), reports, debug_dirs)?;
    let mut keys = EventStream::new();
    let mut redraw = tokio::time::interval(REDRAW);
    redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    dashboard.update(terminal.resized()?, now());
    let mut drawn = now() - FASTEST;
    while !dashboard.done {
        let input = tokio::select! {
            key = keys.next() => match key {
                Some(Ok(event)) => Input::Terminal(event),
                Some(Err(_)) | None => Input::TerminalClosed,
            },
            Some(report) = inbox.recv() => Input::Report(report),
            announcement = next(&mut announcements) => match announcement {
                Some(announcement) => Input::Announcement(announcement),
                None => {
                    announcements = None;
                    Input::ServiceEnded
                }
            },
            Some(choices) = offered.recv() => Input::Offered(choices),
            () = answered(&mut dashboard.answers) => Input::Names,
            _ = any(&mut stop) => Input::Stop,
            _ = redraw.tick() => Input::Redraw,
        };
        let at = now();
        let urgent = matches!(input, Input::Terminal(_) | Input::Redraw);
        dashboard.apply(input, at);
        if terminal.is_gone() {
            break;
        }
        if urgent || at >= drawn + FASTEST {
            terminal.draw(&dashboard.app)?;
            drawn = at;
        }
    }
    Ok(())
}

/// An agent whose targets are to be offered: only where there is nothing to choose, it is shown at once.
async fn agent_with_a_choice(target: Option<&Target>) -> Option<Address> {
    let Some(Target::At(address @ (Address::Unix(_) | Address::Http(_)))) = target else { return None };
    // Whatever is wrong with it, the link says so.
    let targets = targets_of(address).await.ok().flatten()?;
    (targets.len() != 1).then(|| address.clone())
}

/// The targets of an agent, for the list that one chooses from.
struct Offers {
    agent: Address,
    offers: mpsc::Sender<Vec<TargetChoice>>,
}

impl Offers {
    /// Asks the agent anew; an agent that does not answer leaves the list as it was.
    fn ask(&self) {
        let (agent, offers) = (self.agent.clone(), self.offers.clone());
        tokio::spawn(async move {
            if let Ok(Some(targets)) = targets_of(&agent).await {
                let choices = targets.into_iter().map(|target| choice(&agent, target)).collect();
                // Two answers at once say the same.
                let _ = offers.try_send(choices);
            }
        });
    }
}

fn choice(agent: &Address, target: AgentTarget) -> TargetChoice {
    let through = Address::Through { agent: Box::new(agent.clone()), target: target.name.clone() };
    TargetChoice {
        address: through.to_string(),
        name: target.name,
        pid: target.pid,
        instance: String::new(),
        up_ns: None,
        trouble: Some(target.reason).filter(|reason| !reason.is_empty()),
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver of the dashboard is where its time comes from")]
fn now() -> Instant {
    Instant::now()
}

async fn next(announcements: &mut Announcements) -> Option<Announcement> {
    match announcements {
        Some(announcements) => announcements.recv().await,
        None => std::future::pending().await,
    }
}

async fn answered(answers: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = answers
        && receiver.changed().await.is_ok()
    {
        return;
    }
    // Nobody looks anything up: there is nothing to wait for.
    *answers = None;
    std::future::pending::<()>().await;
}

async fn any(signals: &mut [tokio::signal::unix::Signal]) {
    let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(waits).await;
}

/// The loop's state.
struct Dashboard {
    app: App,
    session: Option<Session>,
    model: Option<Model>,
    /// Of the target that is shown.
    symbols: Option<Symbols>,
    answers: Option<watch::Receiver<u64>>,
    debug_dirs: Vec<PathBuf>,
    /// Events whose code the dashboard knows.
    told: BTreeSet<u64>,
    tour: Option<Tour>,
    reports: mpsc::Sender<Report>,
    /// Whose targets are offered; `None`: those of this machine.
    agent: Option<Offers>,
    looked: Option<Instant>,
    done: bool,
}

impl Dashboard {
    fn new(
        target: Option<Target>,
        agent: Option<Offers>,
        strip: bool,
        reports: mpsc::Sender<Report>,
        debug_dirs: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let local = discover::local_targets();
        let target = match target {
            Some(_) if agent.is_some() => None,
            Some(target) => Some(target),
            None => match local.only() {
                // By name, so that it is followed across restarts.
                Ok(only) => Some(Target::Named(only.name.clone())),
                Err(NoTarget::Choose { .. }) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let options = Options {
            target: target.as_ref().map_or_else(|| "choose a target".to_owned(), Target::to_string),
            colour: crate::colour(),
            strip,
            syscall_name: crate::syscalls::name,
        };
        let mut dashboard = Self {
            app: App::new(options),
            session: None,
            model: None,
            symbols: None,
            answers: None,
            debug_dirs: debug_dirs.to_vec(),
            told: BTreeSet::new(),
            tour: strip.then(Tour::default),
            reports,
            agent,
            looked: None,
            done: false,
        };
        match target {
            Some(target) => dashboard.attach(target, now()),
            None => dashboard.offer_targets(now()),
        }
        Ok(dashboard)
    }

    fn attach(&mut self, target: Target, now: Instant) {
        let request = for_rules(self.app.watch_request());
        self.session = Some(Session::start(target, request, self.reports.clone(), now));
        self.tell_link(now);
    }

    fn apply(&mut self, input: Input, now: Instant) {
        match input {
            Input::Terminal(event) => {
                if let Some(message) = taskscope_tui::keymap(&event, &self.app) {
                    self.update(message, now);
                }
            }
            Input::Report(report) => {
                let happened =
                    self.session.as_mut().map_or_else(Vec::new, |session| session.handle(report, now));
                happened.into_iter().for_each(|happened| self.happened(happened, now));
            }
            Input::Offered(choices) => {
                if self.session.is_none() {
                    self.update(Message::Targets(choices), now);
                }
            }
            Input::Announcement(announcement) => {
                if let Some(tour) = &mut self.tour {
                    tour.announced(announcement, now);
                }
            }
            Input::ServiceEnded => {
                if let Some(tour) = &mut self.tour {
                    tour.ended();
                }
            }
            Input::Names => {
                self.tell_code(now);
                self.say(now);
            }
            Input::Redraw => self.tick(now),
            Input::Stop | Input::TerminalClosed => self.done = true,
        }
        if let Some(strip) = self.tour.as_ref().and_then(|tour| tour.strip(now)) {
            self.update(Message::Strip(strip), now);
        }
    }

    fn tick(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            let happened = session.tick(now);
            happened.into_iter().for_each(|happened| self.happened(happened, now));
        }
        if self.session.is_some() {
            // Its count-downs run on.
            self.tell_link(now);
        } else if self.looked.is_none_or(|looked| now >= looked + LOOK_AGAIN) {
            self.offer_targets(now);
        }
        self.update(Message::Tick, now);
    }

    fn happened(&mut self, happened: Happened, now: Instant) {
        match happened {
            Happened::Link => self.tell_link(now),
            Happened::Described { description, process, .. } => {
                let symbols = Symbols::of(places(&description, process, &self.debug_dirs));
                self.answers = Some(symbols.answers());
                self.symbols = Some(symbols);
                self.told.clear();
                self.model = Some(Model::new((*description).clone()));
                self.update(Message::Described(description), now);
            }
            Happened::Frame(frame) => {
                let Some(model) = &mut self.model else { return };
                model.apply((*frame).clone());
                self.update(Message::Frame(frame), now);
                self.tell_code(now);
                self.say(now);
            }
        }
    }

    /// What is wrong, in words.
    fn say(&mut self, now: Instant) {
        let Some(model) = &self.model else { return };
        let why = Why::of(model);
        if let Some(tour) = &mut self.tour {
            tour.said(&why, now);
        }
        let sentences = why.lines.iter().map(sentence).collect();
        self.update(Message::Sentences(sentences), now);
    }

    /// Where in the code polls are, as far as names are known by now; what is missing is being looked up.
    fn tell_code(&mut self, now: Instant) {
        let (Some(model), Some(symbols)) = (&mut self.model, &self.symbols) else { return };
        model.look_up(symbols, &[]);
        let code = code::of(model, &mut self.told);
        self.update(Message::Code(code), now);
    }

    fn tell_link(&mut self, now: Instant) {
        let Some(session) = &self.session else { return };
        let view = match session.state() {
            State::Connecting => LinkView::Connecting { attempt: session.attempt().max(1) },
            State::Live { .. } => LinkView::Live,
            State::Stale { heard } => {
                LinkView::Stale { for_ns: now.duration_since(*heard).as_nanos() as u64 }
            }
            State::Disconnected { reason, retry_at } => LinkView::Disconnected {
                reason: reason.lines().next().unwrap_or("").to_owned(),
                retry_in_ns: retry_at.saturating_duration_since(now).as_nanos() as u64,
            },
            State::Closed { reason } => LinkView::Closed { reason: reason.clone() },
        };
        self.update(Message::Link(view), now);
    }

    fn offer_targets(&mut self, now: Instant) {
        self.looked = Some(now);
        if let Some(agent) = &self.agent {
            return agent.ask();
        }
        let choices = discover::local_targets().targets.into_iter().map(|found| TargetChoice {
            address: found.address().to_string(),
            name: found.name,
            pid: None,
            instance: found.instance,
            up_ns: None,
            trouble: None,
        });
        self.update(Message::Targets(choices.collect()), now);
    }

    fn update(&mut self, message: Message, now: Instant) {
        for command in self.app.update(message, now) {
            match command {
                Command::Quit => self.done = true,
                Command::Watch(request) => {
                    if let Some(session) = &mut self.session {
                        session.ask(for_rules(*request));
                    }
                }
                Command::Attach(address) => {
                    if let Ok(target) = address.parse() {
                        self.attach(target, now);
                    }
                }
            }
        }
    }
}

/// The sentences need the groups, also where the screen does not show them.
fn for_rules(request: WatchRequest) -> WatchRequest {
    let limit = request.groups.map_or(GROUPS, |groups| groups.limit.max(GROUPS));
    WatchRequest { groups: Some(GroupQuery { limit, histograms: false, ..Default::default() }), ..request }
}

fn sentence(line: &Line) -> Sentence {
    let severity = match line {
        Line::Finding(finding) => match finding.severity {
            rules::Severity::Critical => Severity::Critical,
            rules::Severity::Warning => Severity::Warning,
            rules::Severity::Note => Severity::Note,
        },
        Line::Healthy(_) => Severity::Healthy,
        Line::Unseen(_) => Severity::Note,
    };
    Sentence { severity, text: line.text().to_owned() }
}
