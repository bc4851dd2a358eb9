//! When a configuration file is read again, and what changes with that, as machines that do no I/O but for [`Stamp::of`].

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Config;

/// A file is looked at this often.
const EVERY: Duration = Duration::from_secs(2);
/// And again after this long while it changes: who writes it may not be done.
const AGAIN: Duration = Duration::from_millis(250);

/// One state of a file. A file that was replaced, by a rename or by another place of a link, is another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// With all links followed.
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// As the file is now; the error is why it cannot be looked at.
    pub(crate) fn of(path: &Path) -> Result<Self, io::ErrorKind> {
        let kind = |error: io::Error| error.kind();
        let path = path.canonicalize().map_err(kind)?;
        let it = path.metadata().map_err(kind)?;
        Ok(Self {
            device: it.dev(),
            inode: it.ino(),
            size: it.size(),
            modified: (it.mtime(), it.mtime_nsec()),
            changed: (it.ctime(), it.ctime_nsec()),
            path,
        })
    }
}

/// A look at the file; also that it is not there is something to be read, once.
pub(crate) type Look = Result<Stamp, io::ErrorKind>;

/// ```text
/// Known --looks another way--> Changing --looks the same twice--> (read) Known
///   ^                            |   ^--looks yet another way--+
///   +---looks as it was read-----+
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    /// What was read last, whether it was right or not.
    read: Look,
    /// How it looked last, if that is not how it was read.
    changing: Option<Look>,
}

impl Reload {
    pub(crate) fn new(read: Look) -> Self {
        Self { read, changing: None }
    }

    /// Whether it is to be read now.
    pub(crate) fn looked(&mut self, look: Look) -> bool {
        if look == self.read {
            self.changing = None;
            return false;
        }
        if self.changing.as_ref() != Some(&look) {
            self.changing = Some(look);
            return false;
        }
        self.asked(look);
        true
    }

    /// Somebody wants it to be read, however it looks.
    pub(crate) fn asked(&mut self, look: Look) {
        (self.read, self.changing) = (look, None);
    }

    /// When it is to be looked at again.
    pub(crate) fn next(&self) -> Duration {
        if self.changing.is_some() { AGAIN } else { EVERY }
    }
}

/// What one configuration says otherwise than another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Change {
    /// What can change while the agent runs, in words.
    pub(crate) taken: Vec<String>,
    /// Keys that cannot.
    pub(crate) fixed: Vec<&'static str>,
}

impl Change {
    pub(crate) fn between(before: &Config, after: &Config) -> Self {
        let mut change = Self::default();
        let rules = after.rules.iter().filter(|(name, ruled)| before.rules.get(*name) != Some(ruled));
        change.taken.extend(rules.map(|(name, _)| (*name).to_owned()));
        if before.labels != after.labels {
            change.taken.push("labels".to_owned());
        }
        if before.targets != after.targets {
            change.taken.push("targets".to_owned());
        }
        let names: BTreeSet<&str> =
            [before, after].into_iter().flat_map(|it| &it.sinks).map(|it| it.name.as_str()).collect();
        for name in names {
            let of = |config: &Config| config.sinks.iter().find(|sink| sink.name == name).cloned();
            if of(before) != of(after) {
                change.taken.push(format!("sink {name}"));
            }
        }
        let fixed = [
            ("agent.listen", before.listen != after.listen),
            ("agent.metrics", before.metrics != after.metrics),
            ("agent.state", before.state != after.state),
        ];
        change.fixed = fixed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        change
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::rules::untouched;

    fn config(source: &str) -> Config {
        Config::read("a.toml", source, &|_| None, &untouched()).expect(source)
    }

    #[test]
    fn what_changes_is_named_and_what_cannot_is_told_apart() {
        let before = config(
            "[agent]\nstate = \"/a\"\n[[sinks]]\ntype = \"stdout\"\n[[sinks]]\ntype = \"webhook\"\nurl = \"http://x\"\n",
        );
        assert_eq!(Change::between(&before, &before), Change::default());
        let after = config(
            "[agent]\nstate = \"/b\"\nmetrics = \"off\"\nlisten = \"unix:/x\"\nlabels = { a = \"b\" }\n[targets]\nfixed = [\"x\"]\n\
             [rules.TaskLeak]\nmatch = { task_group = \"x\" }\n[rules.RuntimeBusy]\nenabled = false\n\
             [[sinks]]\ntype = \"webhook\"\nurl = \"http://x\"\ntimeout = \"1s\"\n[[sinks]]\nname = \"new\"\ntype = \"stdout\"\n",
        );
        let change = Change::between(&before, &after);
        let taken =
            ["RuntimeBusy", "TaskLeak", "labels", "targets", "sink new", "sink stdout", "sink webhook"];
        assert_eq!(change.taken, taken);
        assert_eq!(change.fixed, ["agent.listen", "agent.metrics", "agent.state"]);
    }

    #[test]
    fn a_file_is_read_when_it_has_come_to_rest() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "one").expect("it is written");
        let mut reload = Reload::new(Stamp::of(&file));
        assert!(!reload.looked(Stamp::of(&file)));
        assert_eq!(reload.next(), EVERY);
        std::fs::write(&file, "").expect("it is written");
        assert!(!reload.looked(Stamp::of(&file)), "whoever writes it is not done");
        assert_eq!(reload.next(), AGAIN);
        std::fs::write(&file, "another").expect("it is written");
        assert!(!reload.looked(Stamp::of(&file)));
        assert!(reload.looked(Stamp::of(&file)));
        assert!(!reload.looked(Stamp::of(&file)), "once");
        // It goes, and comes again.
        std::fs::remove_file(&file).expect("it is there");
        assert!(!reload.looked(Stamp::of(&file)));
        assert!(reload.looked(Err(io::ErrorKind::NotFound)));
        assert!(!reload.looked(Stamp::of(&file)));
        std::fs::write(&file, "another").expect("it is written");
        assert!(!reload.looked(Stamp::of(&file)));
        assert!(reload.looked(Stamp::of(&file)));
    }

    #[test]
    fn a_link_that_is_swapped_is_another_file() {
        // As Kubernetes does it: the file is a link through `..data`, which is renamed over.
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            std::fs::create_dir(at(version)).expect("it can be made");
            std::fs::write(at(version).join("a.toml"), "same").expect("it is written");
        }
        symlink("..1", at("..data")).expect("a link can be made");
        symlink("..data/a.toml", at("a.toml")).expect("a link can be made");
        let mut reload = Reload::new(Stamp::of(&at("a.toml")));
        symlink("..2", at("..next")).expect("a link can be made");
        std::fs::rename(at("..next"), at("..data")).expect("it is swapped");
        assert!(!reload.looked(Stamp::of(&at("a.toml"))));
        assert!(reload.looked(Stamp::of(&at("a.toml"))));
    }
}
