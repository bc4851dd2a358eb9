//! What fires and what is silenced, in a file of the agent's state folder, so that an agent that is started anew can say that it is
//! over, and neither tells it twice nor forgets it. Written as a whole and then renamed; a disk that is full or slow is told and
//! delays nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use taskscope_proto::v1::{LabelMatcher, SilenceRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::alerts::labels::Labels;
use crate::alerts::life::Transition;
use crate::alerts::notice::Alert;
use crate::alerts::watcher::EVIDENCE;

const FILE: &str = "alerts.json";
const LOCK: &str = "alerts.lock";
const VERSION: u32 = 1;

/// What is kept of all targets.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    version: u32,
    /// What people were told that it fires, by the target's name.
    pub(crate) targets: BTreeMap<String, Vec<Fired>>,
    pub(crate) silences: Vec<Silenced>,
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
    pub(crate) fn new(targets: BTreeMap<String, Vec<Fired>>, silences: Vec<Silenced>) -> Self {
        Self { version: VERSION, targets, silences }
    }

    /// An agent that was killed may have named a file that it did not write.
    fn without_lost_evidence(mut self) -> Self {
        for fired in self.targets.values_mut().flatten() {
            fired.annotations.retain(|name, path| name != EVIDENCE || Path::new(path).is_file());
        }
        self
    }

    /// The values of what fires move all the time; nothing is written for that.
    fn names_the_same(&self, other: &Self) -> bool {
        let same =
            |(a, b): (&Fired, &Fired)| a.labels == b.labels && a.starts_at_unix_ns == b.starts_at_unix_ns;
        self.version == other.version
            && self.silences == other.silences
            && self.targets.keys().eq(other.targets.keys())
            && self
                .targets
                .values()
                .zip(other.targets.values())
                .all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(same))
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
        let writer = tokio::spawn(write_all(file, changed));
        Ok((Self { news, writer, _lock: lock }, kept))
    }

    /// Writes it, soon, if other alerts fire or other silences stand than before. Never waits.
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

async fn write_all(file: PathBuf, mut changed: watch::Receiver<Kept>) {
    let mut trouble = None;
    while changed.changed().await.is_ok() {
        let kept = changed.borrow_and_update().clone();
        let file = file.clone();
        let path = file.display().to_string();
        // A disk may hang: the agent does not.
        let written = tokio::task::spawn_blocking(move || write(&file, &kept)).await;
        let outcome =
            written.map_err(|error| error.to_string()).and_then(|it| it.map_err(|error| error.to_string()));
        if let Err(error) = &outcome
            && trouble.as_ref() != Some(error)
        {
            crate::complain(&format!(
                "taskscope: cannot write {path}: {error}: what fires now is not kept over a restart\nhint: make room on that disk, or \
                 name another folder as `state` in [agent] of the configuration"
            ));
        }
        trouble = outcome.err();
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
        Kept::new(BTreeMap::from([("checkout".to_owned(), vec![Fired::from(&alert)])]), vec![silence])
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
}
