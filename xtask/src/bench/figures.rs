//! What is measured, and all that was: each figure of each mode, over the rounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::modes::Mode;
use super::sample::{Sample, Spread};

/// One kind of number. Its name is what programs print and what `--json` calls it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Figure {
    YieldInstructions,
    PingpongInstructions,
    SpawnInstructions,
    EchoInstructions,
    YieldNs,
    PingpongNs,
    SpawnNs,
    YieldCpuNs,
    PingpongCpuNs,
    SpawnCpuNs,
    EchoNs,
    EchoP999Ns,
    IdleTaskBytes,
    IdleTimerTaskBytes,
    StartBytes,
    StackSampleNs,
    StackSampleP99Ns,
}

impl Figure {
    pub(crate) const ALL: [Self; 17] = [
        Self::YieldInstructions,
        Self::PingpongInstructions,
        Self::SpawnInstructions,
        Self::EchoInstructions,
        Self::YieldNs,
        Self::PingpongNs,
        Self::SpawnNs,
        Self::YieldCpuNs,
        Self::PingpongCpuNs,
        Self::SpawnCpuNs,
        Self::EchoNs,
        Self::EchoP999Ns,
        Self::IdleTaskBytes,
        Self::IdleTimerTaskBytes,
        Self::StartBytes,
        Self::StackSampleNs,
        Self::StackSampleP99Ns,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::YieldInstructions => "yield_instructions",
            Self::PingpongInstructions => "pingpong_instructions",
            Self::SpawnInstructions => "spawn_instructions",
            Self::EchoInstructions => "echo_instructions",
            Self::YieldNs => "yield_ns",
            Self::PingpongNs => "pingpong_ns",
            Self::SpawnNs => "spawn_ns",
            Self::YieldCpuNs => "yield_cpu_ns",
            Self::PingpongCpuNs => "pingpong_cpu_ns",
            Self::SpawnCpuNs => "spawn_cpu_ns",
            Self::EchoNs => "echo_ns",
            Self::EchoP999Ns => "echo_p999_ns",
            Self::IdleTaskBytes => "idle_task_bytes",
            Self::IdleTimerTaskBytes => "idle_timer_task_bytes",
            Self::StartBytes => "start_bytes",
            Self::StackSampleNs => "stack_sample_ns",
            Self::StackSampleP99Ns => "stack_sample_p99_ns",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::YieldInstructions => "a yield-poll, instructions",
            Self::PingpongInstructions => "a ping-pong message, instructions",
            Self::SpawnInstructions => "spawn and finish, instructions a task",
            Self::EchoInstructions => "an HTTP echo, instructions a request",
            Self::YieldNs => "64 tasks yielding on 2 workers, ns a poll",
            Self::PingpongNs => "32 channel ping-pongs on 2 workers, ns a message",
            Self::SpawnNs => "spawn and finish on 2 workers, ns a task",
            Self::YieldCpuNs => "64 tasks yielding on 2 workers, CPU ns a poll",
            Self::PingpongCpuNs => "32 channel ping-pongs on 2 workers, CPU ns a message",
            Self::SpawnCpuNs => "spawn and finish on 2 workers, CPU ns a task",
            Self::EchoNs => "an HTTP echo, CPU ns a request",
            Self::EchoP999Ns => "an HTTP echo, 99.9th percentile of latency, ns",
            Self::IdleTaskBytes => "an idle task, resident bytes",
            Self::IdleTimerTaskBytes => "an idle task with a timer, resident bytes",
            Self::StartBytes => "a process without tasks, resident bytes",
            Self::StackSampleNs => "a stack sample, CPU ns of the thread it is taken of",
            Self::StackSampleP99Ns => "a stack sample, 99th percentile of the CPU ns of its thread",
        }
    }

    /// What is done, and how it is counted.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::YieldInstructions => {
                "64 tasks on one worker yield. Callgrind counts the worker's thread only, in a run of some size and in one \
                 of twice that; the difference is divided by the polls that the larger one had more, so starting and \
                 ending cancel out."
            }
            Self::PingpongInstructions => "32 pairs of tasks on one worker; counted like a yield-poll.",
            Self::SpawnInstructions => {
                "Batches of 1 000 empty tasks, spawned and joined by one task on one worker; counted like a yield-poll. \
                 console-subscriber in runs of a few thousand: what a task costs it depends on how many there were."
            }
            Self::EchoInstructions => {
                "One connection with one request under way, so that no two share a wake; the server's worker is counted, \
                 like a yield-poll."
            }
            Self::YieldNs => {
                "Wall time of the process divided by all polls: with two workers busy, a poll takes a core twice as long."
            }
            Self::PingpongNs => {
                "Each pair hands one message to and fro over two unbounded channels. Wall time divided by all messages."
            }
            Self::SpawnNs => {
                "One task spawns batches of 1 000 empty tasks and joins each. Wall time divided by the tasks."
            }
            Self::YieldCpuNs => {
                "Of the same runs, the CPU time of all threads of the process: what others take of the machine is not in \
                 it, what a mode's own threads take is."
            }
            Self::PingpongCpuNs | Self::SpawnCpuNs => {
                "Of the same runs, the CPU time of all threads of the process."
            }
            Self::EchoNs => {
                "hyper 1 over loopback, 64 bytes to and fro, 16 connections with one request under way each. The server \
                 has one worker and is in the mode; the client has one worker, is bare, and another process. CPU time of \
                 the server's worker, as the kernel adds it up, divided by the requests."
            }
            Self::EchoP999Ns => "Of the same requests, as the client sees them.",
            Self::IdleTaskBytes => {
                "Resident memory of the process with all tasks waiting, less what it was before, divided by the tasks; the \
                 first 16 are not counted. Each waits for a future that is never ready. 100 000 tasks; 20 000 for \
                 console-subscriber."
            }
            Self::IdleTimerTaskBytes => "The same, each in `tokio::time::sleep` for an hour.",
            Self::StartBytes => {
                "Of the same processes as the idle tasks, before them: what each process pays once."
            }
            Self::StackSampleNs => {
                "One poll on one worker reads the clock of its thread's CPU time for 15 s and does nothing else; it is slow, \
                 and looked at some four times a second. The gap between the two readings around a sample is the kernel's \
                 delivery of the signal, the handler, and the way back; the median of a run's. Which gaps they are is told by \
                 the thread that sends the signal: it was given a CPU then, and not for long before. Time in which another \
                 thread had the worker's CPU is not in it."
            }
            Self::StackSampleP99Ns => "Of the same gaps. There are some fifty in a run: nearly the longest.",
        }
    }
}

/// Every figure that was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    samples: BTreeMap<(Figure, Mode), Sample>,
}

impl Figures {
    /// The next round's.
    pub(crate) fn push(&mut self, mode: Mode, figure: Figure, value: Option<f64>) {
        self.samples.entry((figure, mode)).or_default().push(value);
    }

    pub(crate) fn spread(&self, mode: Mode, figure: Figure) -> Option<Spread> {
        self.samples.get(&(figure, mode))?.spread()
    }

    /// What `mode` adds to bare.
    pub(crate) fn added(&self, mode: Mode, figure: Figure) -> Option<Spread> {
        let bare = self.samples.get(&(figure, Mode::Bare))?;
        self.samples.get(&(figure, mode))?.added_to(bare)
    }

    /// What `mode` adds, as a share of what `other` adds. `None` also where `other` adds nothing that could be measured.
    pub(crate) fn share(&self, mode: Mode, other: Mode, figure: Figure) -> Option<f64> {
        let other = self.added(other, figure)?.median;
        (other > 0.0).then_some(self.added(mode, figure)?.median / other)
    }

    /// One object a mode, one a line: absolute medians, `null` where there is none.
    pub(crate) fn json(&self, modes: &[Mode]) -> String {
        let mut lines = String::new();
        for &mode in modes {
            let _ = write!(lines, "{{\"mode\":\"{}\"", mode.name());
            for figure in Figure::ALL {
                let _ = match self.spread(mode, figure) {
                    Some(spread) => write!(lines, ",\"{}\":{:.1}", figure.name(), spread.median),
                    None => write!(lines, ",\"{}\":null", figure.name()),
                };
            }
            lines.push_str("}\n");
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_an_object_a_line_with_absolute_medians_and_null_for_what_is_not_known() {
        let mut figures = Figures::default();
        for value in [40.0, 38.04, 39.0] {
            figures.push(Mode::Bare, Figure::YieldNs, Some(value));
        }
        figures.push(Mode::Dial9Spawn, Figure::YieldNs, None);
        let text = figures.json(&[Mode::Bare, Mode::Dial9Spawn]);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["mode"], &lines[0]["yield_ns"]), (&"bare".into(), &39.0.into()));
        assert_eq!(lines[1]["mode"], "dial9-spawn");
        for line in &lines {
            let object = line.as_object().expect("each line is an object");
            assert_eq!(object.len(), 1 + Figure::ALL.len());
            for figure in Figure::ALL {
                assert!(object.contains_key(figure.name()), "no {} in {line}", figure.name());
            }
        }
        assert!(lines[1]["yield_ns"].is_null() && lines[0]["echo_ns"].is_null());
    }

    #[test]
    fn a_share_of_nothing_is_not_known() {
        let mut figures = Figures::default();
        for (mode, value) in [(Mode::Bare, 100.0), (Mode::TaskscopeHooks, 110.0), (Mode::Dial9, 150.0)] {
            figures.push(mode, Figure::YieldNs, Some(value));
        }
        figures.push(Mode::ConsoleSubscriber, Figure::YieldNs, Some(99.0));
        let share = |other| figures.share(Mode::TaskscopeHooks, other, Figure::YieldNs);
        assert_eq!(share(Mode::Dial9), Some(0.2));
        assert_eq!(share(Mode::ConsoleSubscriber), None);
        assert_eq!(share(Mode::TokioMetrics), None);
    }
}
