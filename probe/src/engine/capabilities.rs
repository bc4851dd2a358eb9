//! What this target can and cannot tell, and why.

use taskscope_proto::v1::Capability;
use taskscope_proto::v1::capability::{Coverage, Kind};

use super::Engine;
use crate::runtimes::{Hook, RuntimeEntry, unstable};

/// Why `tokio_unstable` is missing although the project may set it.
const HIDDEN_CFG: &str = "RUSTFLAGS in the environment of the build replaces the flags of .cargo/config.toml";

/// Why there are no task hooks, in one sentence with its cause; `None` where they are compiled in.
pub(crate) fn missing_hooks() -> Option<String> {
    (!unstable::HOOKS).then(|| {
        format!("task hooks are absent: built without `--cfg tokio_unstable` ({HIDDEN_CFG}, or the cfg was never set)")
    })
}

const ADD_CFG: &str =
    "add `--cfg tokio_unstable` to rustflags in .cargo/config.toml, and to RUSTFLAGS where it is set";
const USE_WRAPPER: &str = "spawn through `taskscope_probe::spawn`";

/// Hooks that a runtime has lost to another call.
pub(crate) struct Replaced {
    pub(crate) reason: String,
    pub(crate) hint: String,
}

/// `None`: it has lost none.
pub(crate) fn replaced(runtime: &RuntimeEntry) -> Option<Replaced> {
    let methods: Vec<&str> = runtime.lost_hooks().into_iter().map(Hook::method).collect();
    let last = methods.last()?;
    Some(Replaced {
        reason: format!(
            "on runtime {} another call replaced the probe's {}: only tasks spawned through the wrapper are seen there",
            runtime.id,
            methods.join(" and ")
        ),
        hint: format!("use `Probe::builder().{last}(..)`: it runs yours and the probe's"),
    })
}

const CANCELLATIONS: &str =
    "only requests through the handles that the wrapper returns, and tokens handed to it, are seen";

impl Engine {
    pub(crate) fn capabilities(&self) -> Vec<Capability> {
        let runtimes = self.runtimes();
        let hooked = unstable::HOOKS && runtimes.iter().any(|runtime| runtime.has_hooks());
        let replaced = runtimes.iter().find_map(|runtime| replaced(runtime));
        let full = |kind: Kind| capability(kind, Coverage::Full, "", "");
        let no_hooks = || match missing_hooks() {
            Some(reason) => (reason, ADD_CFG),
            None => (
                "no runtime that lives has the probe's hooks".to_owned(),
                "use `#[taskscope_probe::main]` or `Probe::builder().install(&mut builder)`, and give hooks of your own \
                 to `Probe::builder()`",
            ),
        };
        let tasks = |kind: Kind| {
            if let Some(lost) = &replaced {
                return capability(kind, Coverage::Partial, &lost.reason, &lost.hint);
            }
            if hooked {
                return full(kind);
            }
            let (reason, hint) = no_hooks();
            capability(
                kind,
                Coverage::Partial,
                &format!("only tasks spawned through the wrapper are seen; {reason}"),
                hint,
            )
        };
        let wakes = if hooked {
            "tasks spawned without the wrapper show no wakes: a woken task that waits for a worker reads idle"
        } else {
            "only tasks spawned through the wrapper show wakes"
        };
        let outcomes =
            "of tasks spawned without the wrapper only panics are known, not completed versus cancelled";
        let labels = "set by `label`, `labelled` or the label layer; a stretch without one has none";
        let blocking = if unstable::HOOKS {
            full(Kind::BlockingPool)
        } else {
            let reason = "only jobs of the wrapper's `spawn_blocking` are counted";
            capability(Kind::BlockingPool, Coverage::Partial, reason, ADD_CFG)
        };
        let threads = if super::activity::is_refused() {
            let reason = "the system does not let the process read its own threads in /proc";
            let hint = "allow `openat` in the service's seccomp profile";
            capability(Kind::ThreadActivity, Coverage::None, reason, hint)
        } else if cfg!(target_os = "linux") {
            full(Kind::ThreadActivity)
        } else {
            capability(Kind::ThreadActivity, Coverage::None, "read from /proc, which only Linux has", "")
        };
        let throttling = if self.settings.cgroup.tells_throttling {
            full(Kind::Throttling)
        } else {
            let reason = "no cgroup of this process with a `cpu.stat` can be read";
            capability(Kind::Throttling, Coverage::None, reason, "")
        };
        vec![
            tasks(Kind::Tasks),
            tasks(Kind::Polls),
            capability(Kind::Wakes, Coverage::Partial, wakes, USE_WRAPPER),
            capability(Kind::Outcomes, Coverage::Partial, outcomes, USE_WRAPPER),
            capability(Kind::Labels, Coverage::Partial, labels, "put `LabelLayer` on the router"),
            full(Kind::Workers),
            blocking,
            threads,
            full(Kind::History),
            full(Kind::StandingQueries),
            capability(Kind::Cancellations, Coverage::Partial, CANCELLATIONS, USE_WRAPPER),
            throttling,
            self.process_pools(),
            crate::stacks::capability(self.stacks.as_ref()),
        ]
    }
}

impl Engine {
    fn process_pools(&self) -> Capability {
        let kind = Kind::ProcessPools;
        let missing = self.missing_pools.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match missing.as_deref() {
            None => capability(kind, Coverage::None, "the process was not looked at yet", ""),
            Some([]) => capability(kind, Coverage::Full, "", ""),
            Some(some) => capability(kind, Coverage::Partial, &some.join("; "), ""),
        }
    }
}

fn capability(kind: Kind, coverage: Coverage, reason: &str, hint: &str) -> Capability {
    Capability {
        kind: kind.into(),
        coverage: coverage.into(),
        reason: reason.to_owned(),
        hint: hint.to_owned(),
    }
}
