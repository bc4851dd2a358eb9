//! The evidence of an alert: what its target looked like when it began to fire, and in the minute before, in a file that `taskscope
//! top FILE` opens. The file is named at once and written behind, so that telling the alert waits for nothing. One is taken at a
//! time of each target, and so many a minute: a storm of alerts is no storm of questions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use taskscope_proto::v1::{Description, Frame, GroupQuery, StackQuery, WatchRequest};
use tokio::task::{JoinError, JoinHandle};

use crate::address::Target;
use crate::alerts::life::Transition;
use crate::alerts::notice::Notice;
use crate::alerts::rule::Clock;
use crate::alerts::rules::RULES;
use crate::alerts::watcher::{EVIDENCE, Watcher};
use crate::connection::Connection;
use crate::fleet::MemberId;
use crate::model::Model;
use crate::report::{stacks, tasks};
use crate::session::resolve;

mod fit;
mod folder;
mod turns;

use turns::Turns;

/// Of one file.
const MOST_BYTES: usize = 256 << 10;
/// Of all targets.
const AT_ONCE: usize = 4;
/// Those that wait for their turn; past it alerts have none.
const MOST_WAITING: usize = 64;
/// A target that stands still, or a disk, holds up the evidence of others for so long.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// How far it looks back.
const SECONDS: u32 = 60;
/// Tasks that wait, the longest first; they are the first to be cut.
const PENDING_ROWS: u32 = 300;
const GROUPS: u32 = 100;
/// Rows of those concerned: what a probe keeps in sight.
const MOST_KEPT: usize = 256;
/// Events whose tasks are concerned.
const LAST_EVENTS: usize = 32;

/// Evidence of all targets.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// `None`: nothing is kept.
    folder: Option<PathBuf>,
    turns: Turns,
    waiting: VecDeque<Job>,
    taking: BTreeMap<MemberId, Taking>,
    /// Files that alerts name which are not over.
    named: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// Why files cannot be written, as it was told last.
    trouble: Option<String>,
}

#[derive(Debug)]
struct Job {
    path: PathBuf,
    member: MemberId,
    target: Target,
    /// Another run of the target is no evidence.
    instance: String,
    /// Tasks that it is about.
    concerned: Vec<u64>,
}

#[derive(Debug)]
struct Taking {
    path: PathBuf,
    task: JoinHandle<Taken>,
}

/// What came of one.
#[derive(Debug)]
struct Taken {
    outcome: Result<(), Trouble>,
    /// Of alerts that are not over, and had to make room for it.
    gone: Vec<PathBuf>,
}

/// Why there is none.
#[derive(Debug)]
enum Trouble {
    /// Of the target, or of what it said.
    Target(String),
    /// Of the disk.
    Disk(String),
}

/// Whose alerts they are.
pub(crate) struct Subject<'a> {
    pub(crate) member: MemberId,
    pub(crate) target: &'a Target,
    pub(crate) model: &'a Model,
}

impl Evidence {
    /// Kept in this folder; without one none is.
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            turns: Turns::default(),
            waiting: VecDeque::new(),
            taking: BTreeMap::new(),
            named: Arc::default(),
            trouble: None,
        }
    }

    /// Names the file of each alert that begins to fire, in the notice and for all later ones, and begins to fill it. Past what
    /// may be asked of a target the alert has none.
    pub(crate) fn begin(
        &mut self,
        notices: &mut [Notice],
        watcher: &mut Watcher,
        subject: &Subject<'_>,
        unix_ns: u64,
        now: Instant,
    ) {
        let Some(folder) = &self.folder else { return };
        for notice in notices.iter_mut().filter(|notice| has_evidence(notice)) {
            if self.waiting.len() >= MOST_WAITING || !self.turns.take(subject.member, now) {
                tracing::info!(
                    alert = notice.alert.name(),
                    "many alerts fire: no evidence is taken of this one"
                );
                continue;
            }
            let alert = notice.alert.fingerprint;
            let path = folder.join(folder::name(unix_ns, notice.alert.name(), alert));
            let text = path.display().to_string();
            watcher.keep_evidence(alert, &text);
            held(&self.named).insert(path.clone());
            notice.alert.annotations.insert(EVIDENCE.to_owned(), text);
            self.waiting.push_back(Job {
                path,
                member: subject.member,
                target: subject.target.clone(),
                instance: subject.model.description.instance.clone(),
                concerned: concerned(notice, watcher, subject.model),
            });
        }
        self.start();
    }

    /// Whether any is being taken, or waits for its turn.
    pub(crate) fn is_busy(&self) -> bool {
        !self.taking.is_empty() || !self.waiting.is_empty()
    }

    /// All files that alerts name which are not over, as of now.
    pub(crate) fn named(&self, all: BTreeSet<PathBuf>) {
        *held(&self.named) = all;
    }

    /// What of it is done; gives the files that an alert names and that are not there.
    pub(crate) fn tick(&mut self) -> Vec<PathBuf> {
        let mut lost = Vec::new();
        let done: Vec<MemberId> =
            self.taking.iter().filter(|(_, it)| it.task.is_finished()).map(|(id, _)| *id).collect();
        for member in done {
            let Some(Taking { path, task }) = self.taking.remove(&member) else { continue };
            // It is finished.
            let Some(taken) = task.now_or_never() else { continue };
            lost.extend(self.taken(path, taken));
        }
        self.start();
        lost
    }

    /// Gives the files that are not there.
    fn taken(&mut self, path: PathBuf, taken: Result<Taken, JoinError>) -> Vec<PathBuf> {
        let broken = |error: JoinError| Taken::failed(Trouble::Target(error.to_string()));
        let Taken { outcome, gone: mut lost } = taken.unwrap_or_else(broken);
        let is_lost = outcome.is_err();
        self.say(&path, outcome);
        lost.extend(Some(path).filter(|_| is_lost));
        lost
    }

    fn say(&mut self, path: &Path, outcome: Result<(), Trouble>) {
        match outcome {
            Ok(()) => self.trouble = None,
            Err(Trouble::Target(why)) => {
                let why = why.lines().next().unwrap_or_default();
                tracing::warn!(path = %path.display(), why, "there is no evidence");
            }
            Err(Trouble::Disk(why)) => {
                tracing::info!(path = %path.display(), why, "there is no evidence");
                if self.trouble.as_ref() != Some(&why) {
                    crate::complain(&format!(
                        "taskscope: the evidence of alerts is not kept: {why}\nhint: make room on that disk, or name another folder as \
                         `state` in [agent] of the configuration"
                    ));
                }
                self.trouble = Some(why);
            }
        }
    }

    fn start(&mut self) {
        let mut at = 0;
        while at < self.waiting.len() && self.taking.len() < AT_ONCE {
            if self.taking.contains_key(&self.waiting[at].member) {
                at += 1;
            } else if let Some(job) = self.waiting.remove(at) {
                let (member, path) = (job.member, job.path.clone());
                let task = tokio::spawn(take(job, Arc::clone(&self.named)));
                self.taking.insert(member, Taking { path, task });
            }
        }
    }

    /// Gives what is under way and what waits the time to be written. How many are not by then is told, and given.
    pub(crate) async fn close(&mut self, within: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + within;
        self.start();
        while !self.taking.is_empty() {
            let ended = poll_fn(|cx| {
                let poll = |(id, taking): (&MemberId, &mut Taking)| match Pin::new(&mut taking.task).poll(cx)
                {
                    Poll::Ready(taken) => Some((*id, taken)),
                    Poll::Pending => None,
                };
                self.taking.iter_mut().find_map(poll).map_or(Poll::Pending, Poll::Ready)
            });
            let Ok((member, taken)) = tokio::time::timeout_at(deadline, ended).await else { break };
            if let Some(Taking { path, .. }) = self.taking.remove(&member) {
                self.taken(path, taken);
            }
            self.start();
        }
        self.taking.values().for_each(|taking| taking.task.abort());
        let late = self.taking.len() + self.waiting.len();
        if late > 0 {
            crate::complain(&format!(
                "taskscope: the agent ends before the evidence of {late} alerts is kept"
            ));
        }
        late
    }
}

impl Taken {
    fn failed(trouble: Trouble) -> Self {
        Self { outcome: Err(trouble), gone: Vec::new() }
    }
}

fn held(named: &Mutex<BTreeSet<PathBuf>>) -> MutexGuard<'_, BTreeSet<PathBuf>> {
    named.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody can be asked about a target that says nothing.
fn has_evidence(notice: &Notice) -> bool {
    let rule = RULES.into_iter().find(|rule| rule.name == notice.alert.name());
    notice.transition == Transition::Firing && rule.is_none_or(|rule| rule.clock == Clock::Target)
}

/// Tasks that the alert is about, then those that run now, that something has just happened to, and the busiest.
fn concerned(notice: &Notice, watcher: &Watcher, model: &Model) -> Vec<u64> {
    let named = notice.alert.annotations.get("task_id").and_then(|id| id.parse().ok());
    let found = watcher.found_by(notice.alert.name(), model);
    let workers = model.frame.runtimes.iter().flat_map(|runtime| &runtime.workers);
    let threads = model.frame.threads.iter().filter_map(|thread| thread.poll.as_ref());
    let running = workers.filter_map(|worker| worker.poll.as_ref()).chain(threads).map(|poll| poll.task_id);
    let events = model.events.iter().rev().take(LAST_EVENTS).filter_map(|event| event.poll.as_ref());
    let busiest = model.rows().unwrap_or_default().into_iter().map(|row| row.id.0);
    let all =
        named.into_iter().chain(found).chain(running).chain(events.map(|poll| poll.task_id)).chain(busiest);
    let mut seen = BTreeSet::new();
    all.filter(|&id| id != 0 && seen.insert(id)).take(MOST_KEPT).collect()
}

fn request(description: &Description, concerned: &[u64]) -> WatchRequest {
    let may = stacks::allowed(description, &description.capabilities).is_ok();
    WatchRequest {
        keep_task_ids: concerned.to_vec(),
        groups: Some(GroupQuery { limit: GROUPS, histograms: true, ..Default::default() }),
        history_seconds: SECONDS,
        stacks: may.then(StackQuery::default),
        ..tasks::request("", None, false, PENDING_ROWS, true)
    }
}

async fn take(job: Job, named: Arc<Mutex<BTreeSet<PathBuf>>>) -> Taken {
    let (description, frame) = match asked(&job).await {
        Ok(answer) => answer,
        Err(trouble) => return Taken::failed(trouble),
    };
    // A disk may hang: the agent does not.
    let written = tokio::task::spawn_blocking(move || {
        let Some(bytes) = fit::fit(&description, frame, &job.concerned, MOST_BYTES) else {
            let why = format!("what it said does not fit into {MOST_BYTES} bytes");
            return Taken::failed(Trouble::Target(why));
        };
        let (named, mut gone) = (held(&named).clone(), Vec::new());
        let outcome = folder::write(&job.path, &bytes, &named, &mut gone).map_err(|error| {
            let folder = job.path.parent().unwrap_or(&job.path);
            Trouble::Disk(format!("cannot write in {}: {error}", folder.display()))
        });
        Taken { outcome, gone }
    });
    match tokio::time::timeout(WRITTEN_WITHIN, written).await {
        Ok(written) => written.unwrap_or_else(|error| Taken::failed(Trouble::Target(error.to_string()))),
        Err(_) => Taken::failed(Trouble::Disk("the disk does not answer".to_owned())),
    }
}

/// What the target says of itself and of what is concerned.
async fn asked(job: &Job) -> Result<(Description, Frame), Trouble> {
    let told = |error: &dyn std::fmt::Display| Trouble::Target(error.to_string());
    let target = job.target.clone();
    // A name is looked for in folders, whose sockets may hang.
    let address =
        tokio::task::spawn_blocking(move || resolve(&target)).await.map_err(|error| told(&error))?;
    let address = address.map_err(|error| told(&error))?;
    let mut connection = Connection::open(&address).await.map_err(|error| told(&error))?;
    if connection.description.instance != job.instance {
        return Err(Trouble::Target("the target was started anew meanwhile".to_owned()));
    }
    let request = request(&connection.description, &job.concerned);
    let frame = tokio::time::timeout(ANSWERS_WITHIN, connection.ask(request))
        .await
        .map_err(|_| Trouble::Target("it did not answer in time".to_owned()))?
        .map_err(|error| told(&error))?;
    Ok((connection.description, frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture::{S, model, poll};
    use crate::sinks::fixture::notice;
    use taskscope_proto::v1;

    fn watcher() -> Watcher {
        Watcher::new(Vec::new(), "shop", &crate::alerts::labels::Labels::default())
    }

    #[test]
    fn those_concerned_are_the_named_one_and_what_runs_and_what_just_happened() {
        let mut fires = notice("TaskSlowPoll", "a", Transition::Firing);
        fires.alert.annotations.insert("task_id".into(), "40".into());
        let worker = v1::Worker { poll: Some(poll(S)), ..Default::default() };
        let runtimes = vec![v1::Runtime { id: 1, workers: vec![worker; 2], ..Default::default() }];
        let of = |task_id| Some(v1::LivePoll { task_id, ..poll(S) });
        let events = vec![
            v1::Event { seq: 1, poll: of(8), ..Default::default() },
            v1::Event { seq: 2, poll: of(0), ..Default::default() },
            v1::Event { seq: 3, poll: of(9), ..Default::default() },
        ];
        let model = model(v1::Frame { runtimes, events, ..Default::default() });
        assert_eq!(concerned(&fires, &watcher(), &model), [40, 17, 9, 8]);
    }

    #[tokio::test]
    async fn a_file_is_named_at_once_and_a_disk_that_takes_nothing_costs_the_name_only() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut evidence = Evidence::new(Some(folder.path().join("evidence")));
        let target: Target = "unix:/nowhere/shop.sock".parse().expect("an address");
        let model = model(v1::Frame::default());
        let member = crate::fleet::fixture::member(1);
        let subject = Subject { member, target: &target, model: &model };
        let of = |rule, transition| notice(rule, "a", transition);
        let mut notices = [
            of("TaskSlowPoll", Transition::Pending),
            of("TaskSlowPoll", Transition::Firing),
            of("TargetLost", Transition::Firing),
            of("TaskSlowPoll", Transition::Resolved),
        ];
        let at = tokio::time::Instant::now().into_std();
        evidence.begin(&mut notices, &mut watcher(), &subject, 1_795_225_779_822_000_000, at);
        let named = notices.each_ref().map(|it| it.alert.annotations.get(EVIDENCE).cloned());
        let id = notices[1].alert.fingerprint;
        let path =
            format!("{}/evidence/20261121T014939.822Z-TaskSlowPoll-{id}.tskscop", folder.path().display());
        assert_eq!(named, [None, Some(path.clone()), None, None]);
        // Nobody listens there.
        let failed = loop {
            let failed = evidence.tick();
            if !failed.is_empty() {
                break failed;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(failed, [PathBuf::from(path)]);
        assert!(evidence.tick().is_empty());
        // Without a folder nothing is named.
        let mut none = Evidence::new(None);
        let mut notices = [of("TaskSlowPoll", Transition::Firing)];
        none.begin(&mut notices, &mut watcher(), &subject, 1, at);
        assert_eq!(notices[0].alert.annotations.get(EVIDENCE), None);
    }
    /// A firing alert of a target at that address; gives its file.
    fn begun(evidence: &mut Evidence, watcher: &mut Watcher, at: &Path, unix_ns: u64) -> PathBuf {
        let target: Target = format!("unix:{}", at.display()).parse().expect("an address");
        let model = model(v1::Frame::default());
        let member = crate::fleet::fixture::member(1);
        let subject = Subject { member, target: &target, model: &model };
        let mut notices = [notice("TaskSlowPoll", "a", Transition::Firing)];
        let now = tokio::time::Instant::now().into_std();
        evidence.begin(&mut notices, watcher, &subject, unix_ns, now);
        PathBuf::from(&notices[0].alert.annotations[EVIDENCE])
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_had_costs_its_own_name_and_not_that_of_the_next() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let untouched = crate::config::rules::untouched();
        let config = crate::config::Config::read("a.toml", "", &|_| None, &untouched).expect("it is empty");
        let mut watcher = Watcher::new(config.watched(), "checkout", &Default::default());
        // It fires, is over, and fires again before its first file is given up.
        watcher.restore(vec![notice("TaskSlowPoll", "a", Transition::Firing).alert], 0);
        let mut evidence = Evidence::new(Some(folder.path().join("evidence")));
        let nowhere = folder.path().join("nowhere.sock");
        let first = begun(&mut evidence, &mut watcher, &nowhere, S);
        let second = begun(&mut evidence, &mut watcher, &nowhere, 2 * S);
        let named = |watcher: &Watcher| watcher.evidence().map(PathBuf::from).collect::<Vec<_>>();
        let mut failed = Vec::new();
        while failed.is_empty() {
            failed = evidence.tick();
            tokio::task::yield_now().await;
        }
        assert_eq!(failed, std::slice::from_ref(&first));
        watcher.forget_evidence(&first.display().to_string());
        assert_eq!(named(&watcher), std::slice::from_ref(&second));
        watcher.forget_evidence(&second.display().to_string());
        assert_eq!(named(&watcher), [] as [PathBuf; 0]);
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_taken_and_what_there_is_no_time_for_is_counted() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = folder.path().join("shop.sock");
        let listener = tokio::net::UnixListener::bind(&at).expect("it can listen");
        let mut evidence = Evidence::new(Some(folder.path().join("evidence")));
        let two = |evidence: &mut Evidence| {
            for unix_ns in [S, 2 * S] {
                begun(evidence, &mut watcher(), &at, unix_ns);
            }
            assert_eq!((evidence.taking.len(), evidence.waiting.len()), (1, 1), "one at a time of a target");
        };
        two(&mut evidence);
        // Nobody speaks there; both are asked for all the same.
        let hangs_up = async {
            for _ in 0..2 {
                drop(listener.accept().await.expect("somebody comes"));
            }
            std::future::pending::<()>().await;
        };
        let late = tokio::select! {
            late = evidence.close(Duration::from_secs(20)) => late,
            () = hangs_up => unreachable!("it waits for ever"),
        };
        assert_eq!((late, evidence.is_busy()), (0, false));
        let mut evidence = Evidence::new(Some(folder.path().join("evidence")));
        two(&mut evidence);
        assert_eq!(evidence.close(Duration::from_millis(20)).await, 2, "the target does not answer");
    }
}
