//! Whether a configuration that was read again replaces the one at work, as a pure decision: a bad file never does, and is
//! complained about once and not at each look.

use super::{Config, ConfigError};

/// The configuration at work, and what was last said about its file.
#[derive(Debug)]
pub(crate) struct InForce {
    config: Config,
    complaint: Option<String>,
}

/// What a look at the file leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The file says what is at work already, or what was complained about already.
    Nothing,
    /// From now on the file's configuration is at work.
    Replaced,
    /// What is at work stays; this is to be told.
    Kept(String),
}

impl InForce {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, complaint: None }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// After SIGHUP, and whenever the file has changed.
    pub(crate) fn apply(&mut self, read: Result<Config, ConfigError>) -> Decision {
        match read {
            Ok(config) => {
                let recovered = self.complaint.take().is_some();
                if !recovered && config.printed() == self.config.printed() {
                    return Decision::Nothing;
                }
                self.config = config;
                Decision::Replaced
            }
            Err(error) => {
                let text = format!("{error}\nthe configuration before it stays at work");
                if self.complaint.as_ref() == Some(&text) {
                    return Decision::Nothing;
                }
                self.complaint = Some(text.clone());
                Decision::Kept(text)
            }
        }
    }
}
