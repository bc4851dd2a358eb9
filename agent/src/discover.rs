//! Targets on this machine: the sockets of this user's probes, `<name>.<instance>.sock`.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::address::Address;

/// A refused socket file older than this is left from a dead process, not from one that is about to listen.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) path: PathBuf,
    /// When the socket was made: with one name, the latest is the running one.
    pub(crate) made: SystemTime,
}

impl Found {
    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.path.clone())
    }
}

/// Which sockets answer.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// By name, the latest first.
    pub(crate) targets: Vec<Found>,
    /// Files left by dead processes, now removed.
    pub(crate) removed: usize,
}

/// The folders in which probes put their sockets; the same list as in the probe.
pub(crate) fn folders() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // /proc/self belongs to the user this process acts as; elsewhere the home folder tells.
    let owner = |path: PathBuf| std::fs::metadata(path).map(|meta| meta.uid()).ok();
    let uid = owner("/proc/self".into()).or_else(|| owner(var("HOME")?));
    let session = var("XDG_RUNTIME_DIR").or_else(|| uid.map(|uid| format!("/run/user/{uid}").into()));
    let mut folders = vec![];
    folders.extend(var("RUNTIME_DIRECTORY"));
    folders.extend(session.map(|folder| folder.join("taskscope")));
    folders.extend(uid.map(|uid| std::env::temp_dir().join(format!("taskscope-{uid}"))));
    folders
}

/// Looks through the folders and asks each socket whether somebody listens.
pub(crate) fn local_targets() -> Local {
    targets_in(&folders(), &BTreeSet::new())
}

/// The same, in these folders; sockets in `known` are not tried and taken to listen.
pub(crate) fn targets_in(folders: &[PathBuf], known: &BTreeSet<PathBuf>) -> Local {
    let mut local = Local::default();
    for folder in folders {
        look_in(folder, known, &mut local);
    }
    local.targets.sort_by(|a, b| a.name.cmp(&b.name).then(b.made.cmp(&a.made)));
    local
}

fn look_in(folder: &Path, known: &BTreeSet<PathBuf>, local: &mut Local) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Some(found) = socket(&entry.path()) else { continue };
        if known.contains(&found.path) {
            local.targets.push(found);
            continue;
        }
        match std::os::unix::net::UnixStream::connect(&found.path) {
            Ok(_) => local.targets.push(found),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                let old = found.made.elapsed().is_ok_and(|age| age > LEFT_BEHIND_AFTER);
                if old && std::fs::remove_file(&found.path).is_ok() {
                    local.removed += 1;
                }
            }
            Err(_) => {}
        }
    }
}

/// The target of a socket file; `None` for anything else.
fn socket(path: &Path) -> Option<Found> {
    let meta = std::fs::symlink_metadata(path).ok().filter(|meta| meta.file_type().is_socket())?;
    let (name, instance) = split_name(path.file_name()?.to_str()?)?;
    Some(Found { name, instance, path: path.to_owned(), made: meta.modified().ok()? })
}

/// `checkout.1a2b3c4d.sock` → `checkout`, `1a2b3c4d`.
fn split_name(file: &str) -> Option<(String, String)> {
    let (name, instance) = file.strip_suffix(".sock")?.rsplit_once('.')?;
    (!name.is_empty() && !instance.is_empty()).then(|| (name.to_owned(), instance.to_owned()))
}

/// Why a name does not lead to one target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTarget {
    #[error(
        "no target runs on this machine\nhint: start a service with the probe, or try `taskscope demo`; sockets are \
         looked for in {}", folders().iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoneRuns,
    #[error("no target is called `{wanted}`\nhint: {}", known(.have))]
    NoneCalled { wanted: String, have: Vec<String> },
    #[error("{count} targets are called `{wanted}`\nhint: name one of them: {}", .instances.join(", "))]
    Several { wanted: String, count: usize, instances: Vec<String> },
    #[error("{} targets run on this machine\nhint: name one of them: {}", .names.len(), .names.join(", "))]
    Choose { names: Vec<String> },
}

fn known(have: &[String]) -> String {
    if have.is_empty() {
        "no target runs on this machine; the service may be down, or listen elsewhere (unix:PATH, http://HOST:PORT)".into()
    } else {
        format!("these run here: {}", have.join(", "))
    }
}

impl Local {
    /// The target called `wanted`, which is a name or `name.instance`.
    pub(crate) fn named(&self, wanted: &str) -> Result<&Found, NoTarget> {
        let full = |found: &Found| format!("{}.{}", found.name, found.instance);
        let matching: Vec<&Found> =
            self.targets.iter().filter(|found| found.name == wanted || full(found) == wanted).collect();
        match matching.as_slice() {
            [one] => Ok(one),
            [] => {
                let have = self.targets.iter().map(|found| found.name.clone()).collect();
                Err(NoTarget::NoneCalled { wanted: wanted.to_owned(), have })
            }
            several => Err(NoTarget::Several {
                wanted: wanted.to_owned(),
                count: several.len(),
                instances: several.iter().map(|found| full(found)).collect(),
            }),
        }
    }

    /// The only target.
    pub(crate) fn only(&self) -> Result<&Found, NoTarget> {
        match self.targets.as_slice() {
            [one] => Ok(one),
            [] => Err(NoTarget::NoneRuns),
            several => Err(NoTarget::Choose {
                names: several.iter().map(|f| format!("{}.{}", f.name, f.instance)).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, instance: &str) -> Found {
        Found {
            name: name.into(),
            instance: instance.into(),
            path: "/x".into(),
            made: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_file_name_splits_at_the_instance() {
        assert_eq!(split_name("check.out.1a2b.sock"), Some(("check.out".into(), "1a2b".into())));
        assert_eq!((split_name("x.sock"), split_name("a.b"), split_name(".b.sock")), (None, None, None));
    }

    #[test]
    fn two_programs_of_one_name_are_told_apart_by_instance() {
        let local =
            Local { targets: vec![found("api", "11"), found("api", "22"), found("db", "33")], removed: 0 };
        assert_eq!(local.named("api.22").map(|found| found.instance.as_str()).ok(), Some("22"));
        assert_eq!(local.named("db").map(|found| found.instance.as_str()).ok(), Some("33"));
        let error = local.named("api").expect_err("there are two").to_string();
        assert_eq!(error, "2 targets are called `api`\nhint: name one of them: api.11, api.22");
        assert!(
            local
                .named("web")
                .expect_err("there is none")
                .to_string()
                .contains("these run here: api, api, db")
        );
        assert!(local.only().is_err());
    }
}
