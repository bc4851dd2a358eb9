//! The driver of a link: it performs what the machine asks for (resolve the target, connect, watch) on tasks of its own,
//! and turns what they tell into what happened.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use taskscope_proto::v1::{Description, Frame, WatchRequest};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;

use crate::address::{Address, Target};
use crate::connection::{ConnectError, Connection, Refused, leave_out};
use crate::discover;
use crate::link::{Effect, Input, Link, State};
use crate::model::Model;
use crate::recording::Recording;
use crate::symbols::{Places, Symbols};

/// A lost local target is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What has no name by then is shown by its address: a file of gigabytes is not worth a longer wait.
const NAMES_WITHIN: Duration = Duration::from_secs(10);

/// What the tasks of a session tell its owner's loop.
#[derive(Debug)]
pub(crate) struct Report {
    session: SessionId,
    /// Of an attempt that has been given up, it is ignored.
    attempt: u64,
    news: News,
}

impl Report {
    /// Where one loop owns several sessions: whose it is.
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }
}

/// Names a session within this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SessionId(u64);

#[derive(Debug)]
enum News {
    Connected {
        description: Box<Description>,
        process: Option<u32>,
        requests: Option<mpsc::Sender<WatchRequest>>,
        refused: Refused,
    },
    Frame(Box<Frame>),
    Failed(String),
    Closed(String),
}

/// What happened to the session, for its owner.
#[derive(Debug)]
pub(crate) enum Happened {
    Described {
        description: Box<Description>,
        /// As this machine numbers it; `None`: it is not known to be on this machine.
        process: Option<u32>,
        /// Standing queries that it does not understand, and is not asked.
        refused: Refused,
    },
    Frame(Box<Frame>),
    /// The link's state changed.
    Link,
}

pub(crate) struct Session {
    id: SessionId,
    /// The attempt under way; it ends with the session.
    task: Option<AbortHandle>,
    target: Target,
    link: Link,
    attempt: u64,
    request: WatchRequest,
    /// What the attempt under way was begun with.
    begun_with: WatchRequest,
    requests: Option<mpsc::Sender<WatchRequest>>,
    /// There was no room in the queue for the last request.
    owes: bool,
    /// By the target of this connection; the next one may be newer.
    refused: Refused,
    reports: mpsc::Sender<Report>,
    /// When it was last looked whether a lost local target is back.
    looked: Instant,
}

impl Session {
    /// Begins to connect. Reports go to `reports`; give each to [`Session::handle`].
    pub(crate) fn start(
        target: Target,
        request: WatchRequest,
        reports: mpsc::Sender<Report>,
        now: Instant,
    ) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Relaxed) + 1;
        // So that the attempts of many agents, and of many sessions of one, do not fall together.
        let seed = u64::from(std::process::id()) ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (link, id) = (Link::new(seed), SessionId(id));
        let mut session = Self {
            id,
            task: None,
            target,
            link,
            attempt: 0,
            begun_with: request.clone(),
            request,
            requests: None,
            owes: false,
            refused: Refused::new(),
            reports,
            looked: now,
        };
        session.connect();
        session
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn state(&self) -> &State {
        self.link.state()
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.link.attempt()
    }

    /// Asks for something else from now on, over this connection and later ones. A target that does not read what it was asked
    /// before is asked again at each [`Session::tick`], for what was wanted last.
    pub(crate) fn ask(&mut self, request: WatchRequest) {
        self.request = request;
        self.send();
    }

    fn send(&mut self) {
        let Some(requests) = &self.requests else { return };
        let mut request = self.request.clone();
        leave_out(&mut request, &self.refused);
        // A connection that has ended is followed by one that begins with it.
        self.owes = matches!(requests.try_send(request), Err(TrySendError::Full(_)));
    }

    pub(crate) fn handle(&mut self, report: Report, now: Instant) -> Vec<Happened> {
        if (report.session, report.attempt) != (self.id, self.attempt) {
            return vec![];
        }
        let (input, happened) = match report.news {
            News::Connected { description, process, requests, refused } => {
                self.requests = requests;
                self.refused.clone_from(&refused);
                if self.request != self.begun_with {
                    // It was asked for meanwhile.
                    self.send();
                }
                (Input::Connected, Some(Happened::Described { description, process, refused }))
            }
            News::Frame(frame) => (Input::Frame, Some(Happened::Frame(frame))),
            News::Failed(reason) => (Input::Failed { reason }, None),
            News::Closed(reason) => (Input::Closed { reason }, None),
        };
        let mut all = self.apply(input, now);
        all.extend(happened);
        all
    }

    /// Time has passed. A local target that is back is not kept waiting by the back-off: whether somebody listens is
    /// cheap to see.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Happened> {
        if self.owes {
            self.send();
        }
        let due = self.link.next_timeout().is_some_and(|at| now >= at);
        let mut happened = if due { self.apply(Input::Tick, now) } else { vec![] };
        let waiting = matches!(self.link.state(), State::Disconnected { .. });
        if waiting && now >= self.looked + LOOK_EVERY {
            self.looked = now;
            if listens(&self.target) {
                happened.extend(self.apply(Input::Appeared, now));
            }
        }
        happened
    }

    fn apply(&mut self, input: Input, now: Instant) -> Vec<Happened> {
        let mut happened = Vec::new();
        for effect in self.link.apply(input, now) {
            match effect {
                Effect::Connect => self.connect(),
                Effect::Tell => {
                    tracing::info!(target = %self.target, state = ?self.link.state(), "link");
                    happened.push(Happened::Link);
                }
            }
        }
        happened
    }

    fn connect(&mut self) {
        self.attempt += 1;
        self.requests = None;
        self.owes = false;
        self.begun_with.clone_from(&self.request);
        let attempt = Attempt { session: self.id, number: self.attempt, reports: self.reports.clone() };
        let task = tokio::spawn(attempt.run(self.target.clone(), self.request.clone()));
        if let Some(before) = self.task.replace(task.abort_handle()) {
            before.abort();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Attempt {
    session: SessionId,
    number: u64,
    reports: mpsc::Sender<Report>,
}

impl Attempt {
    /// Tells the owner; false where it has gone.
    async fn tell(&self, news: News) -> bool {
        self.reports.send(Report { session: self.session, attempt: self.number, news }).await.is_ok()
    }

    async fn run(self, target: Target, request: WatchRequest) {
        if let Target::Recording(path) = &target {
            let news = match Recording::open(path) {
                Ok(recording) => return self.replay(recording).await,
                Err(error) => News::Closed(error.to_string()),
            };
            self.tell(news).await;
            return;
        }
        let outcome = match resolve(&target) {
            Ok(address) => self.watch(&address, request).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let reason = outcome.err().unwrap_or_else(|| "the target closed the connection".to_owned());
        self.tell(News::Failed(reason)).await;
    }

    async fn watch(&self, address: &Address, request: WatchRequest) -> Result<(), ConnectError> {
        let mut connection = Connection::open(address).await?;
        let mut watch = connection.watch(request).await?;
        let description = Box::new(connection.description.clone());
        let requests = Some(watch.requests());
        let refused = std::mem::take(&mut watch.refused);
        for (filter, said) in &refused {
            tracing::warn!(target = %address, filter, said, "the target's probe is too old for a standing query");
        }
        let process = connection.process;
        let mut open = self.tell(News::Connected { description, process, requests, refused }).await;
        while open {
            match watch.next().await? {
                Some(frame) => open = self.tell(News::Frame(Box::new(frame))).await,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Frames at the pace at which they came.
    async fn replay(self, recording: Recording) {
        let description = Box::new(recording.description);
        self.tell(News::Connected { description, process: None, requests: None, refused: Refused::new() })
            .await;
        let mut last_ns = None;
        for mut frame in recording.frames {
            // Nobody asked for it: the dashboard filters and sorts its rows itself.
            frame.request_id = 0;
            let pause_ns = last_ns.map_or(0, |last| frame.at_ns.saturating_sub(last));
            last_ns = Some(frame.at_ns);
            tokio::time::sleep(Duration::from_nanos(pause_ns).min(Duration::from_secs(2))).await;
            if !self.tell(News::Frame(Box::new(frame))).await {
                return;
            }
        }
        self.tell(News::Closed("end of the recording".to_owned())).await;
    }
}

/// Where a target is now. A name is looked up anew each time: a restarted service has another socket.
pub(crate) fn resolve(target: &Target) -> Result<Address, discover::NoTarget> {
    match target {
        Target::At(address) => Ok(address.clone()),
        Target::Named(name) => discover::local_targets().named(name).map(discover::Found::address),
        Target::Recording(path) => Ok(Address::Unix(path.clone())),
    }
}

/// Whether a target on this machine has a socket on which somebody listens.
fn listens(target: &Target) -> bool {
    match target {
        Target::Named(name) => discover::local_targets().named(name).is_ok(),
        Target::At(Address::Unix(path)) => std::os::unix::net::UnixStream::connect(path).is_ok(),
        Target::At(Address::Http(_) | Address::Through { .. }) | Target::Recording(_) => false,
    }
}

/// The target as of now: one answer of a live one, the whole of a recording. What was seen may make it worth asking once
/// more: `again` says so. The names of its stacks are looked up where `debug_dirs` are given.
pub(crate) async fn fetch(
    target: Option<Target>,
    request: WatchRequest,
    again: impl Fn(&Model) -> Option<WatchRequest>,
    debug_dirs: Option<&[PathBuf]>,
) -> anyhow::Result<Model> {
    let (mut model, process) = match &target {
        Some(Target::Recording(path)) => {
            let recording = Recording::open(path)?;
            let mut model = Model::new(recording.description);
            recording.frames.into_iter().for_each(|frame| model.apply(frame));
            (model, None)
        }
        target => {
            let mut connection = Connection::open(&address_of(target.as_ref())?).await?;
            let mut model = Model::new(connection.description.clone());
            model.apply(connection.ask(request).await?);
            if let Some(request) = again(&model) {
                // Another stream, with ids of its own.
                model = Model::new(connection.description.clone());
                model.apply(connection.ask(request).await?);
            }
            (model, connection.process)
        }
    };
    if let Some(debug_dirs) = debug_dirs {
        let symbols = Symbols::of(places(&model.description, process, debug_dirs));
        settle(&mut model, &symbols, &[]).await;
    }
    Ok(model)
}

/// Where the files of a target's modules may be.
pub(crate) fn places(description: &Description, process: Option<u32>, debug_dirs: &[PathBuf]) -> Places {
    let own_pid = Some(description.pid).filter(|&pid| pid != 0 && Some(pid) != process);
    Places { debug_dirs: debug_dirs.to_vec(), process, own_pid }
}

/// Waits for the names of the stacks that the model's last frame shows, and of those in `besides`, at most [`NAMES_WITHIN`].
pub(crate) async fn settle(model: &mut Model, symbols: &Symbols, besides: &[u32]) {
    let mut answers = symbols.answers();
    let limit = tokio::time::sleep(NAMES_WITHIN);
    tokio::pin!(limit);
    loop {
        answers.borrow_and_update();
        if model.look_up(symbols, besides) {
            return;
        }
        tokio::select! {
            changed = answers.changed() => if changed.is_err() { return },
            () = &mut limit => return model.stacks.say_late(NAMES_WITHIN.as_secs()),
        }
    }
}

/// The address of what was named, or of the only local target.
pub(crate) fn address_of(target: Option<&Target>) -> anyhow::Result<Address> {
    Ok(match target {
        Some(target) => resolve(target)?,
        None => discover::local_targets().only().map(discover::Found::address)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(request_id: u64) -> WatchRequest {
        WatchRequest { request_id, ..WatchRequest::default() }
    }

    /// A session whose target has connected just now, and reads from the queue.
    fn connected(room: usize) -> (Session, mpsc::Receiver<WatchRequest>, Instant) {
        let target = "unix:/nowhere/shop.sock".parse().expect("an address");
        let now = tokio::time::Instant::now().into_std();
        let mut session = Session::start(target, request(0), mpsc::channel(1).0, now);
        session.ask(request(1));
        let (requests, read) = mpsc::channel(room);
        let (description, refused) = (Box::default(), Refused::new());
        let news = News::Connected { description, process: None, requests: Some(requests), refused };
        session.handle(Report { session: session.id, attempt: session.attempt, news }, now);
        (session, read, now)
    }

    fn read_of(queue: &mut mpsc::Receiver<WatchRequest>) -> Vec<u64> {
        std::iter::from_fn(|| queue.try_recv().ok()).map(|request| request.request_id).collect()
    }

    #[tokio::test]
    async fn what_is_asked_for_while_it_connects_is_asked_once_it_has() {
        let (mut session, mut queue, now) = connected(2);
        assert_eq!(read_of(&mut queue), [1]);
        session.tick(now);
        assert_eq!(read_of(&mut queue), Vec::<u64>::new(), "once");
    }

    #[tokio::test]
    async fn what_a_full_queue_refused_is_asked_again_and_only_what_was_wanted_last() {
        let (mut session, mut queue, now) = connected(2);
        (2..=5).for_each(|id| session.ask(request(id)));
        session.tick(now);
        assert_eq!(read_of(&mut queue), [1, 2], "it does not read");
        session.tick(now);
        assert_eq!(read_of(&mut queue), [5]);
        session.tick(now);
        assert_eq!(read_of(&mut queue), Vec::<u64>::new(), "once");
    }
}
