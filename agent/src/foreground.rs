//! `taskscope alerts` and `taskscope rules explain`: the rules, evaluated in the foreground for as long as one wants. The driver
//! of a [`Watcher`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use taskscope_proto::v1::{Description, WatchRequest};
use taskscope_proto::words;
use tokio::sync::mpsc;

use crate::address::Target;
use crate::alerts::life::Transition;
use crate::alerts::notice::{Notice, rfc3339};
use crate::alerts::rule::Silence;
use crate::alerts::watcher::{EVIDENCE, Watcher};
use crate::config::Config;
use crate::connection::Connection;
use crate::discover;
use crate::link::State;
use crate::model::Model;
use crate::recording::{Recording, RecordingError};
use crate::report::{json_line, print};
use crate::session::{Happened, Session, address_of, places, settle};
use crate::sinks::Sinks;
use crate::symbols::Symbols;

const TICK: Duration = Duration::from_millis(250);
/// Another request makes the target look anew.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What was evaluated, and what became of it.
pub(crate) struct Evaluated {
    pub(crate) watcher: Watcher,
    name: String,
    fired: BTreeSet<String>,
    firings: usize,
    ends: usize,
    lasted: Duration,
    /// Of a recording that was not whole.
    pub(crate) cut: Option<RecordingError>,
}

impl Evaluated {
    pub(crate) fn has_fired(&self) -> bool {
        self.firings > 0
    }

    /// `2 alerts fired (TaskLeak, TaskSlowPoll), 1 is over; 30 s of shop against 24 settings of rules`
    pub(crate) fn summary(&self) -> String {
        let fired = match self.firings {
            0 => "nothing fired".to_owned(),
            n => {
                let alerts = if n == 1 { "alert" } else { "alerts" };
                let over = if self.ends == 1 { "is" } else { "are" };
                let names: Vec<&str> = self.fired.iter().map(String::as_str).collect();
                format!("{n} {alerts} fired ({}), {} {over} over", names.join(", "), self.ends)
            }
        };
        format!(
            "{fired}; {} of {} against {} settings of rules",
            words::duration(u64::try_from(self.lasted.as_nanos()).unwrap_or(u64::MAX)),
            words::printable(&self.name),
            self.watcher.settings()
        )
    }
}

/// How each transition is printed; `None`: it is not.
pub(crate) type Show = fn(&Notice, u64) -> anyhow::Result<Option<String>>;

pub(crate) fn as_json(notice: &Notice, _: u64) -> anyhow::Result<Option<String>> {
    json_line(notice).map(Some)
}

/// `2026-11-21T14:03:12.123Z FIRING   warning  TaskSlowPoll: SLOW: …`
pub(crate) fn as_text(notice: &Notice, unix_ns: u64) -> anyhow::Result<Option<String>> {
    let alert = &notice.alert;
    let also = alert.annotations.get("also").map_or(String::new(), |also| format!(" Also: {also}."));
    let said = match notice.transition {
        Transition::Resolved => {
            let lasted = unix_ns.saturating_sub(alert.starts_at_unix_ns);
            format!("over after {}. It was: {}{also}", words::duration(lasted), alert.summary())
        }
        Transition::Pending | Transition::Firing => format!("{}{also}", alert.summary()),
    };
    // Only an agent keeps evidence, and has silences. The path comes last, as it is copied.
    let evidence = alert.annotations.get(EVIDENCE).map_or(String::new(), |path| format!(" Evidence: {path}"));
    let silenced = if alert.annotations.contains_key("silenced") { " (silenced)" } else { "" };
    Ok(Some(format!(
        "{} {:8} {:8} {}{silenced}: {said}{evidence}\n",
        rfc3339(unix_ns),
        notice.transition.name().to_ascii_uppercase(),
        alert.labels.get("severity").unwrap_or_default(),
        alert.name(),
    )))
}

pub(crate) fn not_at_all(_: &Notice, _: u64) -> anyhow::Result<Option<String>> {
    Ok(None)
}

/// Evaluates until `run_for` is over, ctrl-c, or the end of a recording. A live target is followed across restarts.
pub(crate) async fn evaluate(
    target: Option<Target>,
    config: &Config,
    sinks: &Sinks,
    run_for: Option<Duration>,
    debug_dirs: &[PathBuf],
    show: Show,
) -> anyhow::Result<Evaluated> {
    if let Some(Target::Recording(path)) = &target {
        return recorded(path, config, sinks, run_for, debug_dirs, show).await;
    }
    let target = match target {
        Some(target) => target,
        None => Target::Named(discover::local_targets().only()?.name.clone()),
    };
    // What cannot be reached at all is said at once, with what to do.
    let description = Connection::open(&address_of(Some(&target))?).await?.description;
    let watcher = watcher(config, &description);
    let began = now();
    let mut live = Live {
        told: Told { evaluated: Evaluated::new(watcher, &description), show, sinks },
        model: Model::new(description),
        symbols: None,
        debug_dirs,
        heard: began,
        began,
        is_said: false,
    };
    live.follow(target, run_for).await?;
    Ok(live.told.evaluated)
}

impl Evaluated {
    fn new(watcher: Watcher, description: &Description) -> Self {
        Self {
            watcher,
            name: description.name.clone(),
            fired: BTreeSet::new(),
            firings: 0,
            ends: 0,
            lasted: Duration::ZERO,
            cut: None,
        }
    }
}

fn watcher(config: &Config, description: &Description) -> Watcher {
    Watcher::new(config.watched(), &description.name, &config.labels())
}

struct Told<'a> {
    evaluated: Evaluated,
    show: Show,
    sinks: &'a Sinks,
}

impl Told<'_> {
    fn tell(&mut self, notices: &[Notice], unix_ns: u64) -> anyhow::Result<()> {
        for notice in notices {
            match notice.transition {
                Transition::Firing => {
                    self.evaluated.firings += 1;
                    self.evaluated.fired.insert(notice.alert.name().to_owned());
                }
                Transition::Resolved => self.evaluated.ends += 1,
                Transition::Pending => {}
            }
            self.sinks.send(notice);
            if let Some(text) = (self.show)(notice, unix_ns)? {
                print(&text)?;
            }
        }
        Ok(())
    }
}

/// A recording's own time counts; it is read as fast as it can be.
async fn recorded(
    path: &Path,
    config: &Config,
    sinks: &Sinks,
    run_for: Option<Duration>,
    debug_dirs: &[PathBuf],
    show: Show,
) -> anyhow::Result<Evaluated> {
    let recording = Recording::open(path)?;
    let description = recording.description;
    let watcher = watcher(config, &description).of_recording();
    let mut told = Told { evaluated: Evaluated::new(watcher, &description), show, sinks };
    let symbols = Symbols::of(places(&description, None, debug_dirs));
    let mut model = Model::new(description);
    if recording.is_cut {
        told.evaluated.cut = Some(RecordingError::Cut(path.to_owned(), recording.frames.len()));
    }
    let first_ns = recording.frames.first().map_or(0, |frame| frame.at_ns);
    for frame in recording.frames {
        let at = Duration::from_nanos(frame.at_ns.saturating_sub(first_ns));
        if run_for.is_some_and(|run_for| at > run_for) {
            break;
        }
        told.evaluated.lasted = at;
        let has_stacks = !frame.stacks.is_empty();
        model.apply(frame);
        if has_stacks {
            settle(&mut model, &symbols, &[]).await;
        }
        let notices = told.evaluated.watcher.frame(&model);
        told.tell(&notices, model.frame.unix_ns)?;
    }
    Ok(told.evaluated)
}

struct Live<'a> {
    told: Told<'a>,
    model: Model,
    symbols: Option<Symbols>,
    debug_dirs: &'a [PathBuf],
    /// When the last frame came.
    heard: Instant,
    began: Instant,
    /// That it is watched.
    is_said: bool,
}

impl Live<'_> {
    async fn follow(&mut self, target: Target, run_for: Option<Duration>) -> anyhow::Result<()> {
        let (reports, mut inbox) = mpsc::channel(16);
        let mut asked = self.told.evaluated.watcher.request(&self.model);
        let mut session = Session::start(target, asked.clone(), reports, self.began);
        let mut next_ask = self.began;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = run_for.map(|run_for| self.began + run_for);
        loop {
            tokio::select! {
                Some(report) = inbox.recv() => {
                    for happened in session.handle(report, now()) {
                        self.happened(happened)?;
                    }
                }
                _ = tick.tick() => {
                    for happened in session.tick(now()) {
                        self.happened(happened)?;
                    }
                    self.look_at_link(session.state())?;
                }
                _ = tokio::signal::ctrl_c() => break,
            }
            let at = now();
            let wanted = self.told.evaluated.watcher.request(&self.model);
            if wanted != asked && at >= next_ask {
                next_ask = at + ASK_EVERY;
                session.ask(WatchRequest { request_id: asked.request_id, ..wanted.clone() });
                asked = wanted;
            }
            self.told.evaluated.lasted = at.saturating_duration_since(self.began);
            if end.is_some_and(|end| at >= end) {
                break;
            }
        }
        Ok(())
    }

    fn happened(&mut self, happened: Happened) -> anyhow::Result<()> {
        match happened {
            Happened::Described { description, process, refused } => {
                self.told.evaluated.watcher.refused(refused);
                self.symbols = Some(Symbols::of(places(&description, process, self.debug_dirs)));
                self.model = Model::new(*description);
            }
            Happened::Frame(frame) => {
                self.heard = now();
                self.model.apply(*frame);
                if let Some(symbols) = &self.symbols {
                    // What has no name yet has one at the next frame.
                    self.model.look_up(symbols, &[]);
                }
                if !std::mem::replace(&mut self.is_said, true) {
                    let name = words::printable(&self.told.evaluated.name);
                    let settings = self.told.evaluated.watcher.settings();
                    crate::complain(&format!("taskscope: {settings} settings of rules watch {name}"));
                }
                let notices = self.told.evaluated.watcher.frame(&self.model);
                self.told.tell(&notices, self.model.frame.unix_ns)?;
            }
            Happened::Link => {}
        }
        Ok(())
    }

    fn look_at_link(&mut self, state: &State) -> anyhow::Result<()> {
        let reason = match state {
            State::Disconnected { reason, .. } | State::Closed { reason } => reason.clone(),
            State::Connecting => "it does not answer".to_owned(),
            State::Live { .. } | State::Stale { .. } => "it is connected and silent".to_owned(),
        };
        let at = now();
        let silent = at.saturating_duration_since(self.heard);
        let silence = Silence { for_ns: u64::try_from(silent.as_nanos()).unwrap_or(u64::MAX), reason };
        let now_ns = u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        let unix_ns = unix_ns();
        let notices = self.told.evaluated.watcher.tick(&self.model, Some(&silence), now_ns, unix_ns);
        let fires = |alert| Notice { transition: Transition::Firing, alert };
        self.told.sinks.repeat(|| self.told.evaluated.watcher.fired().map(fires).collect());
        self.told.tell(&notices, unix_ns)
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver of the rules is where their time comes from")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the driver of the rules is where their time comes from")]
fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
