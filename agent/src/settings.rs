//! The agent's configuration while it runs: read again on SIGHUP and when its file has changed. A file with anything wrong is told
//! and changes nothing. The driver of [`Reload`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Headless;
use crate::complain;
use crate::config::reload::{Change, Look, Reload, Stamp};
use crate::config::{self, Config};
use crate::sinks::Prepared;

/// What came of reading it again.
pub(crate) enum Reloaded {
    /// Another one holds from now on, with what is different.
    Taken { config: Box<Config>, prepared: Prepared, change: Change, file: String },
    /// That of before goes on; why has been told.
    Refused,
}

/// Where the configuration comes from.
pub(crate) struct Settings {
    /// `None`: there is no file, and the flags and the defaults are all.
    file: Option<PathBuf>,
    flags: Arc<Headless>,
    /// The sinks that hold now, which keep their HTTP clients.
    prepared: Prepared,
    /// The file as it was read.
    read: Look,
    /// Caught from the start on: one that comes early ends nothing.
    hangup: Signal,
}

impl Settings {
    /// The configuration of the flags, over that of their file or of the environment, over the defaults.
    pub(crate) fn load(flags: Headless) -> anyhow::Result<(Self, Config)> {
        let hangup = signal(SignalKind::hangup())?;
        let file = config::file(flags.config.as_deref(), &config::environment);
        // Looked at first: what is written meanwhile is read again.
        let read = file.as_deref().map_or(Err(std::io::ErrorKind::NotFound), Stamp::of);
        let (config, prepared) = load(file.as_deref(), &flags, &Prepared::default())?;
        Ok((Self { file, flags: Arc::new(flags), prepared, read, hangup }, config))
    }

    /// The sinks that hold now.
    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Until nobody listens any more. `current` is what holds now.
    pub(crate) async fn follow(mut self, mut current: Config, news: mpsc::Sender<Reloaded>) {
        let mut reload = Reload::new(self.read);
        let mut trouble: Option<String> = None;
        loop {
            let is_asked = tokio::select! {
                Some(()) = self.hangup.recv() => true,
                () = tokio::time::sleep(reload.next()), if self.file.is_some() => false,
                () = news.closed() => return,
            };
            let Some(file) = self.file.clone() else {
                complain(
                    "taskscope: there is no configuration file that could be read again\nhint: name one with --config",
                );
                continue;
            };
            // A disk may hang: the loop does not.
            let at = file.clone();
            let Ok(look) = tokio::task::spawn_blocking(move || Stamp::of(&at)).await else { continue };
            if is_asked {
                reload.asked(look);
            } else if !reload.looked(look) {
                continue;
            }
            let (at, flags, before) = (file.clone(), self.flags.clone(), self.prepared.clone());
            let read = tokio::task::spawn_blocking(move || load(Some(&at), &flags, &before)).await;
            let reloaded = match read.map_err(anyhow::Error::from).and_then(|read| read) {
                // Nothing refuses it from here on: it is what holds.
                Ok((mut read, prepared)) => {
                    trouble = None;
                    let change = Change::between(&current, &read);
                    // What cannot change stays what it is, for whoever asks the configuration.
                    (read.listen, read.metrics, read.state) =
                        (current.listen.clone(), current.metrics, current.state.clone());
                    current = read.clone();
                    self.prepared = prepared.clone();
                    let file = file.display().to_string();
                    Reloaded::Taken { config: Box::new(read), prepared, change, file }
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if is_asked || trouble.as_ref() != Some(&text) {
                        complain(&format!(
                            "taskscope: what was configured before goes on, for this is wrong:\n{text}"
                        ));
                    }
                    trouble = Some(text);
                    Reloaded::Refused
                }
            };
            if news.send(reloaded).await.is_err() {
                return;
            }
        }
    }
}

/// With its sinks, of which those are made that are not `before`. Reads files.
fn load(file: Option<&Path>, flags: &Headless, before: &Prepared) -> anyhow::Result<(Config, Prepared)> {
    let config = flags.over(Config::load(file, &config::environment, &config::rules::untouched())?)?;
    let prepared = Prepared::of(&config.sinks, before)?;
    Ok((config, prepared))
}

impl Change {
    /// For whoever runs the agent: what of it holds now, and what cannot.
    pub(crate) fn told(&self, file: &str) -> Vec<String> {
        let file = taskscope_proto::words::printable(file);
        let taken = match self.taken.as_slice() {
            [] => "nothing in it that can change has".to_owned(),
            taken => format!("{} changed", taken.join(", ")),
        };
        let fixed = self.fixed.iter().map(|key| {
            format!(
                "taskscope: `{key}` has changed in {file}, and cannot while the agent runs: it stays as it was\nhint: start the \
                 agent anew"
            )
        });
        let line = format!("taskscope: read {file} again: {taken}");
        std::iter::once(line).chain(fixed).collect()
    }
}
