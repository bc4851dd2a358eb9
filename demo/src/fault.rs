//! The faults that the demo can inject: their names, what each really does, and for how long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    StuckPoll,
    SlowPoll,
    Contention,
    PoolFull,
    Panic,
    Leak,
    IgnoresCancel,
    Error,
    Pending,
    NeverYields,
    HotLoop,
    LostWaker,
    LongJob,
    Files,
    Queue,
    Busy,
}

impl Fault {
    pub const ALL: [Self; 16] = [
        Self::StuckPoll,
        Self::SlowPoll,
        Self::Contention,
        Self::PoolFull,
        Self::Panic,
        Self::Leak,
        Self::IgnoresCancel,
        Self::Error,
        Self::Pending,
        Self::NeverYields,
        Self::HotLoop,
        Self::LostWaker,
        Self::LongJob,
        Self::Files,
        Self::Queue,
        Self::Busy,
    ];

    /// Those of the tour, in its order; the leak is last because it takes longest to be seen.
    pub const TOUR: [Self; 6] =
        [Self::StuckPoll, Self::SlowPoll, Self::Contention, Self::PoolFull, Self::Panic, Self::Leak];

    pub fn name(self) -> &'static str {
        match self {
            Self::StuckPoll => "stuck-poll",
            Self::SlowPoll => "slow-poll",
            Self::Contention => "contention",
            Self::PoolFull => "pool-full",
            Self::Panic => "panic",
            Self::Leak => "leak",
            Self::IgnoresCancel => "ignores-cancel",
            Self::Error => "error",
            Self::Pending => "pending",
            Self::NeverYields => "never-yields",
            Self::HotLoop => "hot-loop",
            Self::LostWaker => "lost-waker",
            Self::LongJob => "long-job",
            Self::Files => "files",
            Self::Queue => "queue",
            Self::Busy => "busy",
        }
    }

    /// What the fault does, in words: the text of the strip that the tool's own sentence is compared with.
    pub fn truth(self) -> &'static str {
        match self {
            Self::StuckPoll => "POST /resize calls std::thread::sleep on both workers, for 5 s",
            Self::SlowPoll => {
                "4 times a second POST /login hashes a password on its worker, 212 ms of CPU each"
            }
            Self::Contention => {
                "the price-import job holds a std::sync::Mutex for 1.5 s at a time, and POST /orders waits for it on its worker"
            }
            Self::PoolFull => {
                "the disk hangs: 69 jobs for the 8 threads of the blocking pool, none of which ends"
            }
            Self::Panic => {
                "the audit-writer task panics on a line that it did not expect, and nobody awaits it"
            }
            Self::Leak => {
                "39 times a second POST /login spawns a session-watch task that nobody tells to end"
            }
            Self::IgnoresCancel => "the newsletter task is told to stop, and goes on sending",
            Self::Error => "the stock-sync task ends with an error, and nobody awaits it",
            Self::Pending => {
                "a payment-confirmation task waits for a bank that has forgotten the payment, and has no limit"
            }
            Self::NeverYields => {
                "the sales-report task computes on its worker, 51 ms a poll, and awaits only what is there"
            }
            Self::HotLoop => "a print-watch task wakes itself in each of its polls until there is paper",
            Self::LostWaker => {
                "a parcel-watch task has returned Pending, and the future that it awaits has kept no waker"
            }
            Self::LongJob => {
                "the backup job keeps a thread of the blocking pool: it waits for a share that is gone"
            }
            Self::Files => {
                "an album of 240 photos is downloaded and none of its files closed; the process may open 20 more"
            }
            Self::Queue => "400 face-search tasks a second of 10 ms of CPU each are spawned for two workers",
            Self::Busy => "4 panorama tasks compute on the workers, 2 ms a poll, and never wait",
        }
    }

    /// From the start to the end of the injection; what it has broken is repaired at its end.
    pub fn duration(self) -> Duration {
        match self {
            Self::StuckPoll => Duration::from_secs(5),
            Self::SlowPoll => Duration::from_secs(8),
            Self::Contention => Duration::from_secs(8),
            Self::PoolFull => Duration::from_secs(9),
            Self::Panic => Duration::from_secs(4),
            Self::Leak => Duration::from_secs(40),
            Self::IgnoresCancel => Duration::from_secs(10),
            Self::Error => Duration::from_secs(4),
            Self::Pending | Self::LostWaker | Self::LongJob | Self::Files => Duration::from_secs(8),
            Self::NeverYields | Self::HotLoop | Self::Queue | Self::Busy => Duration::from_secs(10),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let known = Self::ALL.into_iter().find(|fault| fault.name() == text);
        known.ok_or_else(|| UnknownFault::new(text))
    }
}

/// What to inject: `tour`, `none`, or names joined by commas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Faults {
    /// Every fault of [`Fault::TOUR`] once, in its order.
    #[default]
    Tour,
    None,
    /// These, once each, in the order given.
    Only(Vec<Fault>),
}

impl Faults {
    pub fn list(&self) -> &[Fault] {
        match self {
            Self::Tour => &Fault::TOUR,
            Self::None => &[],
            Self::Only(faults) => faults,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tour => f.write_str("tour"),
            Self::None => f.write_str("none"),
            Self::Only(faults) => {
                let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl FromStr for Faults {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text.trim() {
            "tour" => Ok(Self::Tour),
            "none" => Ok(Self::None),
            names => {
                names.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Self::Only)
            }
        }
    }
}

#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown fault `{name}`\nhint: {hint}")]
pub struct UnknownFault {
    name: String,
    hint: String,
}

impl UnknownFault {
    fn new(name: &str) -> Self {
        let known = Fault::ALL.map(Fault::name);
        let nearest = known
            .into_iter()
            .map(|candidate| (edits(name, candidate), candidate))
            .min()
            // Half of the letters wrong is another word, not a slip of the finger.
            .filter(|(edits, candidate)| *edits * 2 <= candidate.len());
        let all = format!(
            "`tour`, `none`, or any of {} joined by commas",
            known.map(|n| format!("`{n}`")).join(", ")
        );
        let hint = match nearest {
            _ if matches!(name, "tour" | "none") => format!("`{name}` stands alone; give {all}"),
            Some((_, candidate)) => format!("did you mean `{candidate}`? Give {all}"),
            None => format!("give {all}"),
        };
        Self { name: name.to_owned(), hint }
    }
}

/// Levenshtein's distance, in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_as_on_the_command_line() {
        assert_eq!("tour".parse(), Ok(Faults::Tour));
        assert_eq!("none".parse(), Ok(Faults::None));
        assert_eq!("stuck-poll,leak".parse(), Ok(Faults::Only(vec![Fault::StuckPoll, Fault::Leak])));
        assert_eq!(" leak , slow-poll ".parse(), Ok(Faults::Only(vec![Fault::Leak, Fault::SlowPoll])));
        for faults in [Faults::Tour, Faults::None, Faults::Only(Fault::ALL.to_vec())] {
            assert_eq!(faults.to_string().parse(), Ok(faults));
        }
    }

    #[test]
    fn an_unknown_fault_is_answered_with_the_nearest_and_all_known() {
        let said = "stuck-pol".parse::<Faults>().unwrap_err().to_string();
        assert_eq!(
            said,
            "unknown fault `stuck-pol`\nhint: did you mean `stuck-poll`? Give `tour`, `none`, or any of `stuck-poll`, \
             `slow-poll`, `contention`, `pool-full`, `panic`, `leak`, `ignores-cancel`, `error`, `pending`, `never-yields`, \
             `hot-loop`, `lost-waker`, `long-job`, `files`, `queue`, `busy` joined by commas"
        );
        for (text, hint) in [
            ("gremlins", "hint: give `tour`"),
            ("", "hint: give `tour`"),
            ("leak,", "hint: give `tour`"),
            ("leaks", "did you mean `leak`?"),
            ("panics", "did you mean `panic`?"),
            ("pool_full", "did you mean `pool-full`?"),
            ("slow-poll,tour", "hint: `tour` stands alone"),
            ("STUCK-POLL", "hint: give"),
        ] {
            let said = text.parse::<Faults>().unwrap_err().to_string();
            assert!(said.contains(hint), "{text}: {said}");
        }
    }

    #[test]
    fn an_edit_is_a_letter_more_less_or_other() {
        assert_eq!(edits("leak", "leak"), 0);
        assert_eq!(edits("", "leak"), 4);
        assert_eq!(edits("lek", "leak"), 1);
        assert_eq!(edits("leaky", "leak"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
