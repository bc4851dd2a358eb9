//! The evidence of an alert: what its target looked like when it began to fire, and in the minute before, in a file that `taskscope
//! top FILE` opens. The file is named at once and written behind, so that telling the alert waits for nothing. One is taken at a
//! time of each target, and so many a minute: a storm of alerts is no storm of questions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use taskscope_proto::v1::{Description, GroupQuery, StackQuery, WatchRequest};
use tokio::task::JoinHandle;

use crate::address::Target;
use crate::alerts::labels::Fingerprint;
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
    /// Why files cannot be written, as it was told last.
    trouble: Option<String>,
}

#[derive(Debug)]
struct Job {
    path: PathBuf,
    member: MemberId,
    alert: Fingerprint,
    target: Target,
    /// Another run of the target is no evidence.
    instance: String,
    /// Tasks that it is about.
    concerned: Vec<u64>,
}

#[derive(Debug)]
struct Taking {
    alert: Fingerprint,
    path: PathBuf,
    task: JoinHandle<Result<(), Trouble>>,
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
            watcher.keep_evidence(alert, Some(&text));
            notice.alert.annotations.insert(EVIDENCE.to_owned(), text);
            self.waiting.push_back(Job {
                path,
                member: subject.member,
                alert,
                target: subject.target.clone(),
                instance: subject.model.description.instance.clone(),
                concerned: concerned(notice, watcher, subject.model),
            });
        }
        self.start();
    }

    /// What of it is done; gives the alerts whose evidence could not be had.
    pub(crate) fn tick(&mut self) -> Vec<(MemberId, Fingerprint)> {
        let mut failed = Vec::new();
        let done: Vec<MemberId> =
            self.taking.iter().filter(|(_, it)| it.task.is_finished()).map(|(id, _)| *id).collect();
        for member in done {
            let Some(Taking { alert, path, task }) = self.taking.remove(&member) else { continue };
            let outcome = task.now_or_never().unwrap_or(Ok(Ok(())));
            let outcome = outcome.unwrap_or_else(|error| Err(Trouble::Target(error.to_string())));
            if outcome.is_err() {
                failed.push((member, alert));
            }
            self.say(&path, outcome);
        }
        self.start();
        failed
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
                let (member, alert, path) = (job.member, job.alert, job.path.clone());
                self.taking.insert(member, Taking { alert, path, task: tokio::spawn(take(job)) });
            }
        }
    }

    /// Gives what is under way the time to be written.
    pub(crate) async fn close(self, within: Duration) {
        let deadline = tokio::time::Instant::now() + within;
        for Taking { task, .. } in self.taking.into_values() {
            let _ = tokio::time::timeout_at(deadline, task).await;
        }
    }
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

async fn take(job: Job) -> Result<(), Trouble> {
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
    let description = connection.description;
    // A disk may hang: the agent does not.
    let written = tokio::task::spawn_blocking(move || {
        let Some(bytes) = fit::fit(&description, frame, &job.concerned, MOST_BYTES) else {
            return Err(Trouble::Target(format!("what it said does not fit into {MOST_BYTES} bytes")));
        };
        folder::write(&job.path, &bytes).map_err(|error| {
            let folder = job.path.parent().unwrap_or(&job.path);
            Trouble::Disk(format!("cannot write in {}: {error}", folder.display()))
        })
    });
    match tokio::time::timeout(WRITTEN_WITHIN, written).await {
        Ok(written) => written.unwrap_or_else(|error| Err(Trouble::Target(error.to_string()))),
        Err(_) => Err(Trouble::Disk("the disk does not answer".to_owned())),
    }
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
        assert_eq!(named, [None, Some(path), None, None]);
        // Nobody listens there.
        let failed = loop {
            let failed = evidence.tick();
            if !failed.is_empty() {
                break failed;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(failed, [(member, id)]);
        assert!(evidence.tick().is_empty());
        // Without a folder nothing is named.
        let mut none = Evidence::new(None);
        let mut notices = [of("TaskSlowPoll", Transition::Firing)];
        none.begin(&mut notices, &mut watcher(), &subject, 1, at);
        assert_eq!(notices[0].alert.annotations.get(EVIDENCE), None);
    }
}
