//! `taskscope demo`: starts the service with faults as a child process and shows it, on the dashboard or (without a
//! terminal) in plain lines.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use taskscope_demo::{Announcement, Edge, Faults, Options, Output};
use taskscope_proto::words;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::address::Target;
use crate::model::Model;
use crate::report::print;
use crate::session::{Happened, Session, places};
use crate::symbols::Symbols;
use crate::tour::{self, News, Told, Tour};
use crate::why::{self, Why};

/// A configuration with which each of the demo's faults is an alert within seconds.
pub(crate) const RULES: &str = include_str!("demo.toml");

/// The service has printed its address by then.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
/// After this long a service whose fault has ended is itself again.
const SETTLES: Duration = Duration::from_secs(3);
const FRAME_EVERY: Duration = Duration::from_millis(250);

/// Only the service, in this process. `child`: announcements for a parent, until standard input closes.
pub(crate) fn serve(faults: Faults, run_for: Option<Duration>, child: bool) -> anyhow::Result<()> {
    let output = if child { Output::Lines } else { Output::Words };
    taskscope_demo::serve(Options { faults, run_for, output, until_stdin_closes: child })?;
    Ok(())
}

/// The service as a child, and the dashboard or plain lines on it.
pub(crate) async fn run(
    faults: Faults,
    run_for: Option<Duration>,
    plain: bool,
    debug_dirs: &[PathBuf],
) -> anyhow::Result<()> {
    let mut service = Service::start(&faults, run_for).await?;
    let plain = plain || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal();
    let outcome = if plain {
        watch(&mut service, run_for, debug_dirs).await
    } else {
        let target = service.target.clone();
        crate::top::run(Some(target), Some(service.take_announcements()), debug_dirs).await
    };
    service.stop().await;
    outcome
}

struct Service {
    child: Child,
    target: Target,
    hooks_absent: Option<String>,
    http: String,
    announcements: Option<mpsc::Receiver<Announcement>>,
}

impl Service {
    async fn start(faults: &Faults, run_for: Option<Duration>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(["demo", "--serve", "--child", "--faults", &faults.to_string()]);
        if let Some(run_for) = run_for {
            command.arg("--for").arg(format!("{}ms", run_for.as_millis()));
        }
        // The end of our side of its standard input is the end of the service, however we end. What the probe prints at
        // its start would be drawn over the dashboard.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the demo's service")?;
        let lines = child.stdout.take().context("the service has no standard output")?;
        let (send, mut announcements) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut lines = BufReader::new(lines).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(announcement) = line.parse()
                    && send.send(announcement).await.is_err()
                {
                    break;
                }
            }
        });
        let first = tokio::time::timeout(STARTS_WITHIN, announcements.recv()).await;
        let Ok(Some(Announcement::Serving { http, probe, hooks_absent, .. })) = first else {
            bail!("the demo's service did not start\nhint: `taskscope demo --serve` shows why");
        };
        let Some(probe) = probe else {
            bail!("the demo's probe cannot listen anywhere\nhint: `taskscope demo --serve` shows why");
        };
        Ok(Self { child, target: probe.parse()?, hooks_absent, http, announcements: Some(announcements) })
    }

    fn take_announcements(&mut self) -> mpsc::Receiver<Announcement> {
        // Taken once, by whichever of the two ways of showing it.
        self.announcements.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    async fn stop(mut self) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(Duration::from_secs(2), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Plain lines: what is injected, what the tool says of it and after how long; ends after the tour with a summary.
async fn watch(
    service: &mut Service,
    run_for: Option<Duration>,
    debug_dirs: &[PathBuf],
) -> anyhow::Result<()> {
    let sees = match &service.hooks_absent {
        Some(cause) => format!("on the wrapper and labels alone: {cause}"),
        None => "with Tokio's task hooks".to_owned(),
    };
    print(&format!("taskscope demo: a photo shop at {}, watched {sees}\n", service.http))?;

    let mut announcements = service.take_announcements();
    let (reports, mut inbox) = mpsc::channel(16);
    let request =
        taskscope_proto::v1::WatchRequest { interval_ns: FRAME_EVERY.as_nanos() as u64, ..why::request() };
    let mut session = Session::start(service.target.clone(), request, reports, now());
    let began = now();
    let mut plain = Plain {
        began,
        tour: Tour::default(),
        model: None,
        symbols: None,
        debug_dirs: debug_dirs.to_vec(),
        healthy_due: Some(began + SETTLES),
        worst: None,
    };
    let end = run_for.map(|run_for| plain.began + run_for);
    let mut tick = tokio::time::interval(FRAME_EVERY);
    loop {
        tokio::select! {
            announcement = announcements.recv() => match announcement {
                Some(announcement) => plain.announced(announcement)?,
                None => break,
            },
            Some(report) = inbox.recv() => {
                for happened in session.handle(report, now()) {
                    plain.happened(happened)?;
                }
            }
            _ = tick.tick() => {
                session.tick(now());
            }
            _ = tokio::signal::ctrl_c() => break,
        }
        let over = plain.tour.is_over() && end.is_none();
        if over || end.is_some_and(|end| now() >= end) {
            break;
        }
    }
    plain.summary()
}

struct Plain {
    began: Instant,
    tour: Tour,
    model: Option<Model>,
    symbols: Option<Symbols>,
    debug_dirs: Vec<PathBuf>,
    /// When the next sentence about a healthy service is due: once at the start, and once after each fault.
    healthy_due: Option<Instant>,
    worst: Option<Duration>,
}

impl Plain {
    fn line(&self, text: &str) -> anyhow::Result<()> {
        print(&format!("{:>6.1} s  {text}\n", now().duration_since(self.began).as_secs_f64()))
    }

    fn announced(&mut self, announcement: Announcement) -> anyhow::Result<()> {
        if let Announcement::Fault { name, state, truth, .. } = &announcement {
            match state {
                Edge::Start => {
                    self.healthy_due = None;
                    self.line(&format!("injected: {name}: {truth}"))?;
                }
                Edge::End => {
                    self.healthy_due = Some(now() + SETTLES);
                    self.line(&format!("ended:    {name}"))?;
                }
            }
        }
        self.tour.announced(announcement, now());
        Ok(())
    }

    fn happened(&mut self, happened: Happened) -> anyhow::Result<()> {
        match happened {
            Happened::Described { description, process, .. } => {
                self.symbols = Some(Symbols::of(places(&description, process, &self.debug_dirs)));
                self.model = Some(Model::new(*description));
            }
            Happened::Frame(frame) => {
                let Some(model) = &mut self.model else { return Ok(()) };
                model.apply(*frame);
                if let Some(symbols) = &self.symbols {
                    // What has no name yet has one at the next frame.
                    model.look_up(symbols, &[]);
                }
                let why = Why::of(model);
                let (word, said) = match self.tour.said(&why, now()) {
                    Some(News::Named(injected)) => ("named:   ", injected.named),
                    Some(News::Located(injected)) => ("line:    ", injected.located),
                    None => ("", None),
                };
                if let Some((after, sentence)) = said {
                    self.worst = self.worst.max(Some(after));
                    self.line(&format!("{word} {sentence}  (after {})", delay(after)))?;
                }
                if !why.is_wrong() && self.healthy_due.is_some_and(|due| now() >= due) {
                    self.line(&format!("now:      {}", why.lines.first().map_or("", |line| line.text())))?;
                    self.healthy_due = None;
                }
            }
            Happened::Link => {}
        }
        Ok(())
    }

    fn summary(&self) -> anyhow::Result<()> {
        let faults = self.tour.faults();
        let named = faults.iter().filter(|injected| injected.named.is_some()).count();
        if faults.is_empty() {
            return print("summary: nothing was injected\n");
        }
        let of_rules = faults.iter().filter_map(|injected| match tour::told(injected.fault) {
            Told::ByWhy(..) => None,
            Told::ByRule(rule) => Some((injected.fault, rule)),
        });
        let of_rules: Vec<_> = of_rules.collect();
        let slowest =
            self.worst.map_or(String::new(), |worst| format!(", the slowest after {}", delay(worst)));
        let places = faults.iter().filter(|injected| tour::guilty_file(injected.fault).is_some()).count();
        let located = faults.iter().filter(|injected| injected.located.is_some()).count();
        let lines =
            if places == 0 { String::new() } else { format!("; {located} of {places} at their line") };
        let of_why = faults.len() - of_rules.len();
        if of_why > 0 {
            print(&format!("summary: {named} of {of_why} faults named{lines}{slowest}\n"))?;
        }
        let is_of_why = |fault| matches!(tour::told(fault), Told::ByWhy(..));
        for injected in faults.iter().filter(|it| it.named.is_none() && is_of_why(it.fault)) {
            print(&format!("summary: {} was not named\n", injected.fault))?;
        }
        for (fault, rule) in of_rules {
            print(&format!(
                "summary: {fault} takes longer than `why` looks: `taskscope alerts` tells it, as {rule} (`taskscope demo --rules`)\n"
            ))?;
        }
        Ok(())
    }
}

fn delay(after: Duration) -> String {
    words::duration(after.as_nanos() as u64)
}

#[allow(clippy::disallowed_methods, reason = "the driver of the demo is where its time comes from")]
fn now() -> Instant {
    Instant::now()
}
