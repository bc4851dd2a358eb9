//! The link to one target, as a machine: it is told what happened and when, and answers with what to do.

use std::time::{Duration, Instant};

/// Back-off between attempts, with full jitter.
const BACK_OFF_MIN: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// Without a frame for this long a live link is stale.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// ```text
/// Disconnected(retry at) --retry time--> Connecting --Connected--> Live <--Frame-- Stale
///        |      or Appeared                  |                      |  --silence-->  |
///        ^                                   |                      |                |
///        +------------- Failed --------------+------- Ended --------+----------------+
/// any --Closed--> Closed
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Disconnected { reason: String, retry_at: Instant },
    Connecting,
    Live { heard: Instant },
    Stale { heard: Instant },
    Closed { reason: String },
}

/// What can happen to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Connected,
    Frame,
    /// The attempt failed, or the stream ended; another one may succeed.
    Failed {
        reason: String,
    },
    /// No other attempt can succeed.
    Closed {
        reason: String,
    },
    /// The target has been seen to listen: no need to wait for the retry.
    Appeared,
    /// Time has passed.
    Tick,
}

/// What its driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Connect,
    /// The state changed in a way that viewers show.
    Tell,
}

#[derive(Debug)]
pub(crate) struct Link {
    state: State,
    attempt: u32,
    /// State of the jitter's generator; never 0.
    random: u64,
}

impl Link {
    /// A link whose first attempt begins at once. `seed` spreads the attempts of many agents.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: State::Connecting, attempt: 1, random: seed | 1 }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Attempts since the link was last live.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) fn apply(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        match (&self.state, input) {
            (State::Closed { .. }, _) => vec![],
            (_, Input::Closed { reason }) => self.become_state(State::Closed { reason }),
            (State::Connecting, Input::Connected) => {
                self.attempt = 0;
                self.become_state(State::Live { heard: now })
            }
            (State::Live { .. }, Input::Frame) => {
                self.state = State::Live { heard: now };
                vec![]
            }
            (State::Stale { .. }, Input::Frame) => self.become_state(State::Live { heard: now }),
            (State::Connecting | State::Live { .. } | State::Stale { .. }, Input::Failed { reason }) => {
                let retry_at = now + self.back_off();
                self.become_state(State::Disconnected { reason, retry_at })
            }
            (State::Live { heard }, Input::Tick) if now >= *heard + STALE_AFTER => {
                let heard = *heard;
                self.become_state(State::Stale { heard })
            }
            (State::Disconnected { retry_at, .. }, Input::Tick) if now >= *retry_at => self.try_again(),
            (State::Disconnected { .. }, Input::Appeared) => self.try_again(),
            // A late word about a connection that is no more, or nothing due yet.
            (_, Input::Connected | Input::Frame | Input::Failed { .. } | Input::Appeared | Input::Tick) => {
                vec![]
            }
        }
    }

    /// When a tick may change something.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Disconnected { retry_at, .. } => Some(*retry_at),
            State::Live { heard } => Some(*heard + STALE_AFTER),
            State::Connecting | State::Stale { .. } | State::Closed { .. } => None,
        }
    }

    fn try_again(&mut self) -> Vec<Effect> {
        self.attempt += 1;
        let mut effects = self.become_state(State::Connecting);
        effects.push(Effect::Connect);
        effects
    }

    fn become_state(&mut self, state: State) -> Vec<Effect> {
        self.state = state;
        vec![Effect::Tell]
    }

    /// Somewhere between nothing and twice the last, at least the minimum.
    fn back_off(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let ceiling = BACK_OFF_MIN.saturating_mul(1 << self.attempt.min(6)).min(BACK_OFF_MAX);
        let share = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        ceiling.mul_f64(share).max(BACK_OFF_MIN)
    }
}

#[cfg(test)]
mod tests;
