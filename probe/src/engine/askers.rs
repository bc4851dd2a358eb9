//! Who asks the application's pools. Their closures are somebody else's code and may block for ever: they run on a thread
//! of their own, and where one does not return, another thread goes on with the rest.
//!
//! No thread is there before the first pool is.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taskscope_proto::v1::loss::Reason;

use super::Engine;
use crate::capture::panics;
use crate::pool::{Known, PoolSample};
use crate::say::say;

/// Between two rounds, unless somebody asks for a fresh one.
const EVERY: Duration = Duration::from_secs(1);
/// A wanted round comes this much later, so that many who want one get one.
const NOT_BEFORE: Duration = Duration::from_millis(100);
/// A closure that takes longer blocks.
pub(crate) const BLOCKED_NS: u64 = 1_000_000_000;
/// Threads at most, those that do not return included.
const MAX_THREADS: u64 = 4;

/// The threads that ask.
#[derive(Default)]
pub(crate) struct Askers {
    /// Held for looking only.
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// That have not ended.
    threads: u64,
    /// Number of the thread that makes the rounds: the last one that was started.
    turn: u64,
    /// Somebody wants fresh numbers.
    wanted: bool,
}

impl Askers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a pool: starts the first thread where none is, and asks soon.
    pub(crate) fn begin(&self, engine: &'static Engine) {
        let first = self.state().turn == 0;
        if first {
            self.start_another(engine, 0);
        }
        self.nudge();
    }

    /// Somebody wants fresh numbers.
    pub(crate) fn nudge(&self) {
        let mut state = self.state();
        if state.turn > 0 && !state.wanted {
            state.wanted = true;
            self.wake.notify_all();
        }
    }

    /// Thread number `stuck` does not come back: another one takes its turn, if there may be one more.
    fn start_another(&self, engine: &'static Engine, stuck: u64) {
        let number = {
            let mut state = self.state();
            if state.turn != stuck || state.threads >= MAX_THREADS {
                return;
            }
            state.turn += 1;
            state.threads += 1;
            state.turn
        };
        let thread = std::thread::Builder::new().name("taskscope-pools".to_owned());
        let spawned = thread.spawn(move || {
            panics::guard_this_thread();
            engine.askers.make_rounds(engine, number);
            engine.askers.state().threads -= 1;
        });
        if let Err(error) = spawned {
            self.state().threads -= 1;
            say(format_args!("no thread for the pools: {error}; they are not asked, the service runs on"));
        }
    }

    /// Until another thread has the turn.
    fn make_rounds(&self, engine: &'static Engine, number: u64) {
        loop {
            for pool in engine.pools() {
                pool.ask(number, &engine.registry.clock);
                if self.state().turn != number {
                    return;
                }
            }
            let mut state = self.wait(EVERY, self.state(), |state| !state.wanted);
            if std::mem::take(&mut state.wanted) {
                drop(self.wait(NOT_BEFORE, state, |_| true));
            }
        }
    }

    fn wait<'a>(
        &'a self,
        time: Duration,
        state: MutexGuard<'a, State>,
        mut goes_on: impl FnMut(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.wake.wait_timeout_while(state, time, |state| goes_on(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What the probe's thread makes of the answers: it notices who does not answer, and says each defect once.
#[derive(Default)]
pub(crate) struct Answers {
    said: HashMap<String, Defects>,
}

#[derive(Clone, Copy, Default)]
struct Defects {
    panicked: bool,
    blocked: bool,
    nonsense: bool,
}

/// A pool as it can be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With the age of the numbers, ns.
    Sample(PoolSample, u64),
    /// Nothing can be shown.
    Silent,
    /// It has not been asked yet.
    NotYet,
}

/// Which defect an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    Panicked,
    Blocked,
    Nonsense,
}

impl Answers {
    /// All pools with what they have said. `age_ns` tells how long ago an instant was, without pauses of the process.
    pub(crate) fn take(
        &mut self,
        engine: &'static Engine,
        age_ns: impl Fn(crate::clock::Ticks) -> u64,
    ) -> Vec<(String, Answer)> {
        let mut answers = Vec::new();
        for pool in engine.pools() {
            let known = pool.known();
            let (answer, defect) = judge(&known, &age_ns);
            let lost_thread =
                matches!(defect, Some(Defect::Panicked | Defect::Blocked)).then_some(known.asked).flatten();
            if let Some(asked) = lost_thread {
                engine.askers.start_another(engine, asked.by);
            }
            if let Some(defect) = defect {
                self.tell(engine, &pool.name, defect, known.said.map(|(_, sample)| sample));
            }
            answers.push((pool.name.clone(), answer));
        }
        self.said.retain(|name, _| answers.iter().any(|(known, _)| known == name));
        answers
    }

    /// Counts and names a defect of a pool, the first time.
    fn tell(&mut self, engine: &Engine, name: &str, defect: Defect, sample: Option<PoolSample>) {
        let said = self.said.entry(name.to_owned()).or_default();
        let (flag, reason) = match defect {
            Defect::Panicked => (&mut said.panicked, Reason::PoolPanics),
            Defect::Blocked => (&mut said.blocked, Reason::PoolBlocked),
            Defect::Nonsense => (&mut said.nonsense, Reason::PoolNonsense),
        };
        if std::mem::replace(flag, true) {
            return;
        }
        engine.registry.losses.add(reason, 1);
        let name = taskscope_proto::words::printable(name);
        match defect {
            Defect::Panicked => {
                say(format_args!("the closure of pool `{name}` panicked; it is not asked again"));
            }
            Defect::Blocked => say(format_args!(
                "the closure of pool `{name}` has not returned for a second; nothing is shown of it until it does; hint: \
                 it should only read counters"
            )),
            Defect::Nonsense => {
                let PoolSample { busy, capacity, .. } = sample.unwrap_or_default();
                say(format_args!(
                    "the closure of pool `{name}` says that {} of {} are busy; it is shown as it came",
                    busy.unwrap_or_default(),
                    capacity.unwrap_or_default()
                ));
            }
        }
    }
}

fn judge(known: &Known, age_ns: impl Fn(crate::clock::Ticks) -> u64) -> (Answer, Option<Defect>) {
    if known.panicked {
        return (Answer::Silent, Some(Defect::Panicked));
    }
    if known.asked.is_some_and(|asked| age_ns(asked.since) >= BLOCKED_NS) {
        return (Answer::Silent, Some(Defect::Blocked));
    }
    match known.said {
        None => (Answer::NotYet, None),
        Some((at, sample)) => {
            let defect = sample.is_nonsense().then_some(Defect::Nonsense);
            (Answer::Sample(sample, age_ns(at)), defect)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Asked;

    const S: u64 = 1_000_000_000;

    fn judged(known: Known) -> (Answer, Option<Defect>) {
        // Ticks are nanoseconds here, and it is the tenth second.
        judge(&known, |ticks| 10 * S - ticks)
    }

    #[test]
    fn a_pool_shows_its_last_answer_with_its_age_while_it_is_being_asked() {
        let sample = PoolSample { capacity: Some(4), busy: Some(4), ..PoolSample::default() };
        let asked = Some(Asked { since: 10 * S - 999_999_999, by: 1 });
        let known = Known { asked, said: Some((8 * S, sample)), panicked: false };
        assert_eq!(judged(known), (Answer::Sample(sample, 2 * S), None));
        assert_eq!(judged(Known { said: None, ..known }), (Answer::NotYet, None));
    }

    #[test]
    fn one_that_blocks_or_panicked_shows_nothing() {
        let said = Some((8 * S, PoolSample::default()));
        let known = Known { asked: Some(Asked { since: 9 * S, by: 1 }), said, panicked: false };
        assert_eq!(judged(known), (Answer::Silent, Some(Defect::Blocked)));
        assert_eq!(judged(Known { panicked: true, ..known }), (Answer::Silent, Some(Defect::Panicked)));
    }

    #[test]
    fn nonsense_is_shown_as_it_came() {
        let sample = PoolSample { capacity: Some(2), busy: Some(7), ..PoolSample::default() };
        let known = Known { asked: None, said: Some((10 * S, sample)), panicked: false };
        assert_eq!(judged(known), (Answer::Sample(sample, 0), Some(Defect::Nonsense)));
    }
}
