//! What the builder and the environment say. The environment wins over the builder, so that an operator can change a
//! deployed service.

use std::path::PathBuf;
use std::time::Duration;

use taskscope_proto::v1::ResourceAttribute;

use crate::cgroup::Cgroup;
use crate::{registry, resource, stacks};

/// Everything that is fixed when the probe starts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    /// `None`: the first folder that can be written.
    pub(crate) listen: Option<Listen>,
    pub(crate) slow_poll_threshold: Duration,
    /// Other thresholds, ns.
    pub(crate) thresholds_of_names: Vec<(String, u64)>,
    pub(crate) thresholds_of_classes: Vec<(taskscope_proto::v1::TaskClass, u64)>,
    pub(crate) memory_bytes: usize,
    pub(crate) disabled: bool,
    /// `None`: no stacks are taken.
    pub(crate) stacks: Option<stacks::Wanted>,
    /// Of this process, or the folder that TASKSCOPE_CGROUP_DIR names instead: simulated files, for tests.
    pub(crate) cgroup: Cgroup,
    /// What OTEL_RESOURCE_ATTRIBUTES says.
    pub(crate) resource: Vec<ResourceAttribute>,
    /// What could not be understood, each in one line for the log.
    pub(crate) complaints: Vec<String>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Unix(PathBuf),
    /// Loopback only, as long as there is no TLS and no credential.
    Tcp(std::net::SocketAddr),
}

/// The budget where nothing is said: the smaller of this and [`MEMORY_SHARE`] of the cgroup's memory limit...
const DEFAULT_MEMORY: usize = 32 << 20;
/// ... a fiftieth ...
const MEMORY_SHARE: u64 = 50;
/// ... but at least this.
const LEAST_DEFAULT_MEMORY: usize = 4 << 20;
/// Longest service name; a socket's path has to stay within the system's limit.
const MAX_NAME: usize = 40;

impl Settings {
    /// From the builder's values and the environment, read through `var`.
    pub(crate) fn new(
        name: Option<String>,
        slow_poll_threshold: Duration,
        stacks: (bool, Option<i32>),
        var: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let mut complaints = Vec::new();
        let name = var("TASKSCOPE_NAME").or(name).unwrap_or_else(executable_name);
        let listen =
            var("TASKSCOPE_LISTEN").and_then(|text| parse_listen(&text).map_err(|e| complaints.push(e)).ok());
        let cgroup = Cgroup::of_this_process(var("TASKSCOPE_CGROUP_DIR").map(PathBuf::from));
        let default_memory = default_memory(cgroup.memory_limit());
        let stacks = stacks_wanted(stacks, &var, &mut complaints);
        let least_memory = registry::MIN_BUDGET + if stacks.is_some() { stacks::LEAST_SHARE } else { 0 };
        let memory_bytes = match var("TASKSCOPE_MEMORY").map(|text| parse_bytes(&text).ok_or(text)) {
            None => default_memory,
            Some(Ok(bytes)) if bytes >= least_memory => bytes,
            Some(Ok(_)) => {
                let least = least_memory.div_ceil(1 << 20);
                complaints.push(format!(
                    "TASKSCOPE_MEMORY is too small to hold anything; hint: at least {least}MiB"
                ));
                least_memory
            }
            Some(Err(text)) => {
                complaints.push(format!(
                    "TASKSCOPE_MEMORY=`{}` is no size; hint: write it as in 32MiB",
                    taskscope_proto::words::printable(&text)
                ));
                default_memory
            }
        };
        let resource = var(resource::VARIABLE)
            .map_or_else(Vec::new, |text| resource::attributes(&text, &mut complaints));
        let disabled =
            var("TASKSCOPE_DISABLED").is_some_and(|text| !matches!(text.as_str(), "" | "0" | "false"));
        Self {
            name: clean_name(&name),
            listen,
            slow_poll_threshold,
            thresholds_of_names: Vec::new(),
            thresholds_of_classes: Vec::new(),
            memory_bytes,
            disabled,
            stacks,
            cgroup,
            resource,
            complaints,
        }
    }
}

/// Whether stacks are taken, and by which signal: as the builder says, unless the environment says otherwise.
fn stacks_wanted(
    (on, signal): (bool, Option<i32>),
    var: &impl Fn(&str) -> Option<String>,
    complaints: &mut Vec<String>,
) -> Option<stacks::Wanted> {
    let mut complain = |name: &str, text: &str, hint: &str| {
        let shown = taskscope_proto::words::printable(text);
        complaints.push(format!("{name}=`{shown}` is not understood; hint: {hint}"));
    };
    let on = match var("TASKSCOPE_STACKS").as_deref() {
        None | Some("") => on,
        Some("on" | "1" | "true") => true,
        Some("off" | "0" | "false") => false,
        Some(other) => {
            complain("TASKSCOPE_STACKS", other, "on or off");
            on
        }
    };
    let signal = match var("TASKSCOPE_STACK_SIGNAL").map(|text| text.parse::<i32>().map_err(|_| text)) {
        None => signal,
        Some(Ok(signal)) => Some(signal),
        Some(Err(text)) => {
            complain(
                "TASKSCOPE_STACK_SIGNAL",
                &text,
                "the number of a real-time signal, as `kill -l` lists them",
            );
            signal
        }
    };
    on.then_some(stacks::Wanted { signal })
}

/// The budget in bytes in a cgroup with this limit.
fn default_memory(limit_bytes: Option<u64>) -> usize {
    let share = limit_bytes.and_then(|limit| usize::try_from(limit / MEMORY_SHARE).ok());
    share
        .map_or(DEFAULT_MEMORY, |share| share.min(DEFAULT_MEMORY))
        .max(LEAST_DEFAULT_MEMORY)
        .max(registry::MIN_BUDGET)
}

/// Only what is safe in a file name and on a screen.
fn clean_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
    let name: String = name.chars().take(MAX_NAME).map(safe).collect();
    if name.is_empty() { "service".to_owned() } else { name }
}

fn executable_name() -> String {
    std::env::current_exe()
        .ok()
        .and_then(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .unwrap_or_default()
}

fn parse_listen(text: &str) -> Result<Listen, String> {
    let shown = taskscope_proto::words::printable(text);
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Listen::Unix(path.into()));
    }
    let address = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("tcp:"))
        .map(|rest| rest.trim_end_matches('/'));
    let Some(address) = address else {
        return Err(format!(
            "TASKSCOPE_LISTEN=`{shown}` is no address; hint: unix:PATH or http://127.0.0.1:6670"
        ));
    };
    let address = address.replace("localhost", "127.0.0.1");
    match address.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Listen::Tcp(address)),
        Ok(_) => Err(format!(
            "TASKSCOPE_LISTEN=`{shown}` is not a loopback address, and without TLS and a credential nothing else is \
             served; hint: listen on a Unix socket or on 127.0.0.1"
        )),
        Err(_) => Err(format!("TASKSCOPE_LISTEN=`{shown}` has no HOST:PORT; hint: http://127.0.0.1:6670")),
    }
}

/// `32MiB`, `4M`, `1g`, or plain bytes.
fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Settings {
        // A folder without files: the limits of the machine that runs this do not count.
        let no_cgroup = ("TASKSCOPE_CGROUP_DIR", "/nonexistent");
        let vars: Vec<(String, String)> =
            vars.iter().chain([&no_cgroup]).map(|&(k, v)| (k.into(), v.into())).collect();
        Settings::new(Some("api".into()), Duration::from_millis(100), (false, Some(40)), move |name| {
            vars.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn the_environment_wins_over_the_builder() {
        let settings = with(&[("TASKSCOPE_NAME", "other"), ("TASKSCOPE_LISTEN", "unix:/run/a.sock")]);
        assert_eq!(
            (settings.name.as_str(), settings.listen),
            ("other", Some(Listen::Unix("/run/a.sock".into())))
        );
    }

    #[test]
    fn a_name_is_made_safe_for_a_file() {
        assert_eq!(with(&[("TASKSCOPE_NAME", "../a b\u{1b}[2J")]).name, "---a-b--2J");
        assert_eq!(with(&[("TASKSCOPE_NAME", "")]).name, "service");
    }

    #[test]
    fn bad_values_are_named_and_the_defaults_hold() {
        let settings = with(&[("TASKSCOPE_MEMORY", "lots"), ("TASKSCOPE_LISTEN", "http://0.0.0.0:6670")]);
        assert_eq!((settings.memory_bytes, settings.listen), (DEFAULT_MEMORY, None));
        assert_eq!(settings.complaints.len(), 2);
        assert!(settings.complaints.iter().all(|line| line.contains("hint: ") && !line.contains('\n')));
        assert_eq!(with(&[("TASKSCOPE_MEMORY", "1k")]).memory_bytes, registry::MIN_BUDGET);
        assert_eq!(with(&[("TASKSCOPE_MEMORY", "64MiB")]).memory_bytes, 64 << 20);
    }

    #[test]
    fn the_default_budget_is_a_fiftieth_of_the_cgroups_memory_within_bounds() {
        let least = LEAST_DEFAULT_MEMORY.max(registry::MIN_BUDGET);
        assert_eq!(default_memory(None), DEFAULT_MEMORY);
        assert_eq!(default_memory(Some(64 << 30)), DEFAULT_MEMORY);
        assert_eq!(default_memory(Some(1 << 30)), ((1 << 30) / 50).max(least));
        assert_eq!(default_memory(Some(128 << 20)), least);
        assert_eq!(default_memory(Some(0)), least);
    }

    #[test]
    fn stacks_are_taken_only_where_somebody_said_so() {
        let stacks = |vars: &[(&str, &str)]| with(vars).stacks.map(|wanted| wanted.signal);
        assert_eq!(stacks(&[]), None);
        assert_eq!(stacks(&[("TASKSCOPE_STACKS", "on")]), Some(Some(40)));
        let both = [("TASKSCOPE_STACKS", "on"), ("TASKSCOPE_STACK_SIGNAL", "50")];
        assert_eq!(stacks(&both), Some(Some(50)));
        let by_builder = |text: &'static str| {
            let settings = Settings::new(None, Duration::from_millis(100), (true, None), |name| {
                (name == "TASKSCOPE_STACKS").then(|| text.to_owned())
            });
            (settings.stacks.is_some(), settings.complaints.len())
        };
        assert_eq!((by_builder("off"), by_builder("perhaps")), ((false, 0), (true, 1)));
        let settings = with(&[("TASKSCOPE_STACKS", "on"), ("TASKSCOPE_STACK_SIGNAL", "USR1")]);
        assert!(settings.complaints.len() == 1 && settings.complaints[0].contains("hint: the number of"));
        // They have a share of the budget, which has to be there.
        let small = with(&[("TASKSCOPE_STACKS", "on"), ("TASKSCOPE_MEMORY", "2MiB")]);
        assert_eq!(small.memory_bytes, registry::MIN_BUDGET + stacks::LEAST_SHARE);
        assert!(small.complaints[0].contains("at least 3MiB"), "{:?}", small.complaints);
    }

    #[test]
    fn loopback_tcp_is_served_when_asked() {
        let listen = |text| with(&[("TASKSCOPE_LISTEN", text)]).listen;
        assert_eq!(listen("http://127.0.0.1:0"), Some(Listen::Tcp(([127, 0, 0, 1], 0).into())));
        assert_eq!(listen("tcp:localhost:6670"), Some(Listen::Tcp(([127, 0, 0, 1], 6670).into())));
    }
}
