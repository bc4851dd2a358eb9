//! What fires, what is silenced and what sinks are still to deliver, in a file of the agent's state folder, so that an agent that
//! is started anew can say that it is over, and neither tells it twice nor forgets it. Written as a whole and then renamed; a disk
//! that is full or slow is told and delays nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use taskscope_proto::v1::{LabelMatcher, SilenceRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

mod owing;

pub(crate) use owing::{Owed, Owing};

use crate::alerts::labels::Labels;
use crate::alerts::life::Transition;
use crate::alerts::notice::Alert;
use crate::alerts::watcher::EVIDENCE;

const FILE: &str = "alerts.json";
const LOCK: &str = "alerts.lock";
const VERSION: u32 = 1;
/// What could not be written is tried again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Between two writes; and so many times as long as the last one took, within reason: much that waits for a receiver that is down keeps
/// no disk busy.
const REST: Duration = Duration::from_millis(100);
const REST_FOR_EACH: u32 = 4;
const MOST_REST: Duration = Duration::from_secs(4);

/// What is kept of all targets.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    version: u32,
    /// What people were told that it fires, by the target's name.
    pub(crate) targets: BTreeMap<String, Vec<Fired>>,
    /// The same of the agent itself.
    #[serde(default)]
    pub(crate) own: Vec<Fired>,
    pub(crate) silences: Vec<Silenced>,
    /// What has not arrived where it was to be told.
    #[serde(default)]
    pub(crate) owing: Vec<Owing>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Fired {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    value: f64,
    threshold: f64,
    starts_at_unix_ns: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Silenced {
    pub(crate) id: String,
    matchers: Vec<Matched>,
    ends_at_unix_ns: u64,
    comment: String,
    created_by: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Matched {
    name: String,
    value: String,
    is_regex: bool,
    is_not: bool,
}

impl Kept {
    pub(crate) fn new(
        targets: BTreeMap<String, Vec<Fired>>,
        own: Vec<Fired>,
        silences: Vec<Silenced>,
    ) -> Self {
        Self { version: VERSION, targets, own, silences, owing: Vec::new() }
    }

    pub(crate) fn owing(self, owing: Vec<Owing>) -> Self {
        Self { owing, ..self }
    }

    /// An agent that was killed may have named a file that it did not write.
    fn without_lost_evidence(mut self) -> Self {
        let is_there = |name: &String, path: &mut String| name != EVIDENCE || Path::new(path).is_file();
        for fired in self.targets.values_mut().flatten() {
            fired.annotations.retain(is_there);
        }
        for owed in self.owing.iter_mut().flat_map(|owing| &mut owing.notices) {
            Arc::make_mut(&mut owed.0).alert.annotations.retain(is_there);
        }
        self
    }

    /// The values of what fires move all the time; nothing is written for that.
    pub(crate) fn names_the_same(&self, other: &Self) -> bool {
        let same =
            |(a, b): (&Fired, &Fired)| a.labels == b.labels && a.starts_at_unix_ns == b.starts_at_unix_ns;
        let all_same = |(a, b): (&Vec<Fired>, &Vec<Fired>)| a.len() == b.len() && a.iter().zip(b).all(same);
        self.version == other.version
            && self.silences == other.silences
            && self.owing == other.owing
            && all_same((&self.own, &other.own))
            && self.targets.keys().eq(other.targets.keys())
            && self.targets.values().zip(other.targets.values()).all(all_same)
    }
}

impl Silenced {
    pub(crate) fn new(id: &str, request: &SilenceRequest) -> Self {
        let matched = |it: &LabelMatcher| Matched {
            name: it.name.clone(),
            value: it.value.clone(),
            is_regex: it.is_regex,
            is_not: it.is_not,
        };
        Self {
            id: id.to_owned(),
            matchers: request.matchers.iter().map(matched).collect(),
            ends_at_unix_ns: request.ends_at_unix_ns,
            comment: request.comment.clone(),
            created_by: request.created_by.clone(),
        }
    }
}

impl From<Silenced> for SilenceRequest {
    fn from(silenced: Silenced) -> Self {
        let matcher = |it: Matched| LabelMatcher {
            name: it.name,
            value: it.value,
            is_regex: it.is_regex,
            is_not: it.is_not,
        };
        Self {
            matchers: silenced.matchers.into_iter().map(matcher).collect(),
            ends_at_unix_ns: silenced.ends_at_unix_ns,
            comment: silenced.comment,
            created_by: silenced.created_by,
        }
    }
}

impl From<&Alert> for Fired {
    fn from(alert: &Alert) -> Self {
        Self {
            labels: alert.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            annotations: alert.annotations.clone(),
            value: alert.value,
            threshold: alert.threshold,
            starts_at_unix_ns: alert.starts_at_unix_ns,
        }
    }
}

impl From<Fired> for Alert {
    fn from(fired: Fired) -> Self {
        let mut labels = Labels::default();
        fired.labels.iter().for_each(|(name, value)| labels.set(name, value));
        Self {
            fingerprint: labels.fingerprint(),
            labels,
            annotations: fired.annotations,
            value: fired.value,
            threshold: fired.threshold,
            starts_at_unix_ns: fired.starts_at_unix_ns,
            ends_at_unix_ns: None,
            state: Transition::Firing,
            resource: None,
        }
    }
}

/// The file, and a task that writes it.
#[derive(Debug)]
pub(crate) struct Store {
    news: watch::Sender<Kept>,
    writer: JoinHandle<()>,
    /// Held for as long as the agent runs.
    _lock: File,
}

impl Store {
    /// The store of this folder and what is in it; the error says why there is none, and what to do.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Kept), String> {
        let hint = "hint: name a folder that can be written, as `state` in [agent] of the configuration";
        let told = |what: &str, error: &dyn std::fmt::Display| {
            format!("what fires is not kept over a restart: {what} {}: {error}\n{hint}", folder.display())
        };
        std::fs::create_dir_all(folder).map_err(|error| told("cannot make", &error))?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK));
        let lock = lock.map_err(|error| told("cannot write in", &error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| told("another agent uses", &"each needs one of its own"))?;
        let file = folder.join(FILE);
        let kept = match read(&file) {
            Ok(kept) => kept.without_lost_evidence(),
            Err(error) => {
                // Whoever wants to know what was in it finds it there.
                let aside = file.with_extension("json.damaged");
                let moved = std::fs::rename(&file, &aside);
                let place = if moved.is_ok() { &aside } else { &file };
                crate::complain(&format!(
                    "taskscope: what fired before this start is not known: {}: {error}",
                    place.display()
                ));
                Kept::default()
            }
        };
        let (news, changed) = watch::channel(kept.clone());
        let writer = tokio::spawn(write_all(file, changed, AGAIN_AFTER));
        Ok((Self { news, writer, _lock: lock }, kept))
    }

    /// Writes it, soon, if other alerts fire, other silences stand or other notices are to arrive than before. Never waits.
    pub(crate) fn keep(&self, kept: Kept) {
        self.news.send_if_modified(|known| {
            let is_new = !known.names_the_same(&kept);
            if is_new {
                *known = kept;
            }
            is_new
        });
    }

    /// Gives what is not written yet the time.
    pub(crate) async fn close(self, within: Duration) {
        drop(self.news);
        let _ = tokio::time::timeout(within, self.writer).await;
    }
}

/// No file is nothing kept.
fn read(file: &Path) -> Result<Kept, String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error.to_string()),
    };
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if kept.version == VERSION { Ok(kept) } else { Err(format!("it is of version {}", kept.version)) }
}

/// At each change; and what could not be written is tried again with time, until it is.
async fn write_all(file: PathBuf, mut changed: watch::Receiver<Kept>, again_after: Duration) {
    let mut trouble: Option<String> = None;
    let mut rests_until = Instant::now();
    let path = file.display().to_string();
    loop {
        let has_failed = trouble.is_some();
        let mut is_over = tokio::select! {
            news = changed.changed() => news.is_err(),
            () = tokio::time::sleep(again_after), if has_failed => false,
        };
        // At the end once more, where the last attempt failed.
        if is_over && !has_failed {
            return;
        }
        while !is_over {
            tokio::select! {
                () = tokio::time::sleep_until(rests_until) => break,
                news = changed.changed() => is_over = news.is_err(),
            }
        }
        let kept = changed.borrow_and_update().clone();
        let (to, began) = (file.clone(), Instant::now());
        // A disk may hang: the agent does not.
        let written = tokio::task::spawn_blocking(move || write(&to, &kept)).await;
        let outcome =
            written.map_err(|error| error.to_string()).and_then(|it| it.map_err(|error| error.to_string()));
        if let Some(line) = told(&path, trouble.as_deref(), outcome.as_ref().err().map(String::as_str)) {
            crate::complain(&line);
        }
        trouble = outcome.err();
        if is_over {
            return;
        }
        rests_until = Instant::now() + (began.elapsed() * REST_FOR_EACH).clamp(REST, MOST_REST);
    }
}

/// What is said of an attempt, after what the one before came to; each trouble is told once, and its end.
fn told(path: &str, before: Option<&str>, now: Option<&str>) -> Option<String> {
    match (before, now) {
        (before, Some(error)) if before != Some(error) => Some(format!(
            "taskscope: cannot write {path}: {error}: what fires now is not kept over a restart, until that works again\nhint: \
             make room on that disk, or name another folder as `state` in [agent] of the configuration"
        )),
        (Some(_), None) => {
            Some(format!("taskscope: {path} can be written again: what fires is kept over a restart"))
        }
        _ => None,
    }
}

fn write(file: &Path, kept: &Kept) -> io::Result<()> {
    let beside = file.with_extension("json.new");
    let mut new = File::create(&beside)?;
    new.write_all(&serde_json::to_vec(kept)?)?;
    new.sync_all()?;
    std::fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::fixture::notice;

    const SOON: Duration = Duration::from_secs(10);

    fn kept() -> Kept {
        let alert = notice("TaskStuckInPoll", "é \"quoted\"", Transition::Firing).alert;
        let matcher = Matched { name: "a".into(), value: "b|c".into(), is_regex: true, is_not: false };
        let silence = Silenced {
            id: "7".into(),
            matchers: vec![matcher],
            ends_at_unix_ns: u64::MAX,
            comment: "known".into(),
            created_by: "ops".into(),
        };
        Kept::new(
            BTreeMap::from([("checkout".to_owned(), vec![Fired::from(&alert)])]),
            vec![Fired::from(&alert)],
            vec![silence],
        )
    }

    #[tokio::test]
    async fn what_is_kept_is_read_again_and_an_alert_is_the_same_one() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (store, before) = Store::open(folder.path()).expect("it can be written");
        assert_eq!(before, Kept::default());
        store.keep(kept());
        store.close(SOON).await;
        let (store, mut after) = Store::open(folder.path()).expect("it can be read");
        assert_eq!(after, kept());
        let fired = after.targets.remove("checkout").and_then(|mut all| all.pop()).expect("it is there");
        assert_eq!(Alert::from(fired), notice("TaskStuckInPoll", "é \"quoted\"", Transition::Firing).alert);
        store.close(SOON).await;
    }

    #[tokio::test]
    async fn evidence_is_known_after_a_restart_if_it_is_there() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let there = folder.path().join("there.tskscop");
        std::fs::write(&there, "x").expect("it can be written");
        let mut before = kept();
        for (target, path) in [("shop", there.clone()), ("mail", folder.path().join("lost.tskscop"))] {
            let mut alert = notice("TaskStuckInPoll", "a", Transition::Firing).alert;
            alert.annotations.insert(EVIDENCE.to_owned(), path.display().to_string());
            before.targets.insert(target.to_owned(), vec![Fired::from(&alert)]);
        }
        let (store, _) = Store::open(folder.path()).expect("it can be written");
        store.keep(before);
        store.close(SOON).await;
        let (store, after) = Store::open(folder.path()).expect("it can be read");
        let evidence = |target: &str| after.targets[target][0].annotations.get(EVIDENCE).cloned();
        assert_eq!((evidence("shop"), evidence("mail")), (Some(there.display().to_string()), None));
        store.close(SOON).await;
    }

    #[tokio::test]
    async fn a_second_agent_is_refused_and_a_damaged_file_is_put_aside() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join(FILE), "{\"version\":1,").expect("it can be written");
        let (_store, kept) = Store::open(folder.path()).expect("it is told and put aside");
        assert_eq!(kept, Kept::default());
        assert!(folder.path().join("alerts.json.damaged").exists());
        let why = Store::open(folder.path()).expect_err("the first one holds it");
        assert!(why.contains("another agent") && why.contains("\nhint: "), "{why}");
    }

    #[tokio::test]
    async fn what_a_full_disk_did_not_take_is_written_when_there_is_room() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (file, beside) = (folder.path().join(FILE), folder.path().join("alerts.json.new"));
        // As a disk without room: what is written there fails with ENOSPC.
        std::os::unix::fs::symlink("/dev/full", &beside).expect("a link can be made");
        assert!(write(&file, &kept()).is_err_and(|error| error.kind() == io::ErrorKind::StorageFull));
        let (news, changed) = watch::channel(Kept::default());
        let writer = tokio::spawn(write_all(file.clone(), changed, Duration::from_millis(20)));
        news.send(kept()).expect("it is written by somebody");
        let mut again = tokio::time::interval(Duration::from_millis(10));
        for _ in 0..10 {
            again.tick().await;
            assert!(!file.exists());
        }
        std::fs::remove_file(&beside).expect("it is there");
        // Nothing changes any more; it is written all the same.
        let written = async {
            while read(&file) != Ok(kept()) {
                again.tick().await;
            }
        };
        tokio::time::timeout(SOON, written).await.expect("it is tried again");
        drop(news);
        tokio::time::timeout(SOON, writer).await.expect("it ends").expect("it does not panic");
    }

    #[tokio::test]
    async fn what_waits_for_a_sink_is_kept_in_its_order_with_its_beginning_and_its_end() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let all = [Transition::Pending, Transition::Firing, Transition::Resolved];
        let notices: Vec<Owed> =
            all.map(|it| Owed(Arc::new(notice("A", "é \"quoted\"", it)))).into_iter().collect();
        let owing = |notices: &[Owed]| {
            let instance = "am-0:9093".to_owned();
            vec![Owing { sink: "am".into(), instance, notices: notices.to_vec() }]
        };
        let (store, _) = Store::open(folder.path()).expect("it can be written");
        store.keep(kept().owing(owing(&notices)));
        store.close(SOON).await;
        let (store, after) = Store::open(folder.path()).expect("it can be read");
        assert_eq!(after.owing, owing(&notices));
        let ends = after.owing[0].notices.iter().map(|owed| owed.0.alert.ends_at_unix_ns.is_some());
        assert_eq!(ends.collect::<Vec<_>>(), [false, false, true]);
        // That one has arrived is written, though all fires that did.
        store.keep(kept().owing(owing(&notices[1..])));
        store.close(SOON).await;
        let (store, after) = Store::open(folder.path()).expect("it can be read");
        assert_eq!(after.owing, owing(&notices[1..]));
        store.close(SOON).await;
    }

    #[tokio::test]
    async fn a_storm_of_changes_is_written_now_and_then_and_the_last_of_it_at_the_end() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join(FILE);
        let (store, _) = Store::open(folder.path()).expect("it can be written");
        let (began, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(5)));
        let (mut last, mut writes) = (None, 0);
        let owed: Vec<Owed> =
            (0..100).map(|_| Owed(Arc::new(notice("A", "a", Transition::Resolved)))).collect();
        let owing = |count: usize| {
            vec![Owing { sink: "hook".into(), instance: String::new(), notices: owed[..count].to_vec() }]
        };
        for count in 1..=100 {
            ticks.tick().await;
            store.keep(kept().owing(owing(count)));
            let now = std::fs::metadata(&file).ok().map(|it| (it.ino(), it.mtime(), it.mtime_nsec()));
            writes += u32::from(now != last);
            last = now;
        }
        // One at once, and then one at most in a hundred milliseconds.
        let most = began.elapsed().as_millis() / REST.as_millis() + 1;
        assert!((1..=most).contains(&u128::from(writes)), "{writes} writes, {most} at most");
        store.close(SOON).await;
        assert_eq!(read(&file).map(|kept| kept.owing), Ok(owing(100)));
    }

    #[test]
    fn a_file_of_before_owes_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join(FILE);
        std::fs::write(&file, r#"{"version":1,"targets":{},"own":[],"silences":[]}"#).expect("it is written");
        assert_eq!(read(&file), Ok(Kept::new(BTreeMap::new(), vec![], vec![])));
    }

    #[test]
    fn a_trouble_is_told_once_and_so_is_its_end() {
        let full = Some("no space left on device");
        let said = told("/x", None, full).expect("it is told");
        assert!(said.starts_with("taskscope: cannot write /x: no space left") && said.contains("\nhint: "));
        assert_eq!(told("/x", full, full), None);
        assert!(told("/x", full, Some("input/output error")).is_some());
        assert!(told("/x", full, None).is_some_and(|line| line.contains("can be written again")));
        assert_eq!(told("/x", None, None), None);
    }
}
