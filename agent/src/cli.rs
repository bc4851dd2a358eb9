//! The command line: what can be typed, and nothing of what it does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use taskscope_demo::Faults;
use taskscope_proto::filter::{self, Filter};
use taskscope_proto::ids::TaskId;
use taskscope_proto::row::SORT_KEYS;
use taskscope_proto::v1::SortKey;

use crate::address::Target;
use crate::config;
use crate::listen::Listen;
use crate::silence::Matcher;

#[derive(Parser, Debug)]
#[command(
    name = "taskscope",
    version,
    about = "Shows what every asynchronous task in a running service is doing, and says when one misbehaves",
    long_about = "Shows what every asynchronous task in a running service is doing, and says when one misbehaves.\n\n\
                  Alone it opens the dashboard on the only local target, or offers a list.",
    after_help = "TARGET is a name from `taskscope ls` (followed across restarts), unix:PATH, http://HOST:PORT, or a file \
                  that `taskscope save` wrote. Without one it is the only target on this machine.\n\n\
                  Exit codes: 0 done; 1 something is wrong with the target (`why`, `alerts`, `check`); 2 error; 64 usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Open the dashboard
    Top {
        target: Option<Target>,
        #[command(flatten)]
        names: Names,
    },
    /// List the targets on this machine, or those of an agent
    Ls {
        /// unix:PATH or http://HOST:PORT of an agent; its targets are ADDRESS#NAME
        agent: Option<Target>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Say what is wrong, in at most eight lines; exit 1 if anything is
    Why {
        target: Option<Target>,
        #[command(flatten)]
        names: Names,
    },
    /// Show runtimes, workers, pools, losses and the probe's own cost
    Status {
        target: Option<Target>,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        names: Names,
    },
    /// List tasks
    Tasks(List),
    /// List tasks that wait, the longest-waiting first
    Pending(List),
    /// List pools
    Pools {
        target: Option<Target>,
        #[command(flatten)]
        output: Output,
    },
    /// Check how the service was built and is deployed; exit 1 if something fails
    Check {
        target: Option<Target>,
        /// One JSON object a check
        #[arg(long)]
        json: bool,
    },
    /// Show where in its code each running task is now, and each job of the blocking pool
    Stacks(Stacks),
    /// Watch many targets without a screen: serve them to viewers and to metrics systems
    Agent(Headless),
    /// Evaluate the rules, and print each alert as it fires and ends; exit 1 if any fires
    Alerts {
        /// Of an agent, what fires there now and from now on is printed as the agent tells it
        #[arg(value_name = "TARGET|AGENT")]
        target: Option<Target>,
        /// How long, such as 30s; without it until ctrl-c, or the end of a recording
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        run_for: Option<Duration>,
        /// One JSON object a transition
        #[arg(long)]
        json: bool,
        /// The configuration; without it that of TASKSCOPE_CONFIG, or the defaults. Its sinks are told, too
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        names: Names,
    },
    /// The rules: what there is, why one does or does not fire, and whether a configuration of them is right
    #[command(subcommand)]
    Rules(Rules),
    /// Silences of an agent: list them, make one, or end one
    Silence(Silence),
    /// The agent's configuration
    #[command(subcommand)]
    Config(Config),
    /// Write the frames of a target to a file, for `taskscope top FILE`
    Save {
        target: Target,
        file: PathBuf,
        /// How long, such as 30s
        #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = duration)]
        run_for: Duration,
    },
    /// Run a service with faults, and the dashboard on it
    Demo {
        /// Run only the service, and print its address as the first line
        #[arg(long)]
        serve: bool,
        /// tour, none, or faults joined by commas: stuck-poll, slow-poll, contention, pool-full, panic, leak,
        /// ignores-cancel, error, pending, never-yields, hot-loop, lost-waker, long-job, files, queue, busy
        #[arg(long, default_value = "tour", value_name = "FAULTS")]
        faults: Faults,
        /// End after this long, such as 20s
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        run_for: Option<Duration>,
        /// Plain text instead of the dashboard, as without a terminal
        #[arg(long)]
        plain: bool,
        /// Only print rules with windows of seconds, for `taskscope alerts --config`: each of these faults fires one
        #[arg(long, conflicts_with_all = ["serve", "faults", "run_for", "plain"])]
        rules: bool,
        /// For the dashboard's own child: announcements as JSON, until standard input closes
        #[arg(long, hide = true, requires = "serve")]
        child: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum Rules {
    /// List the rules with their conditions and settings
    List {
        /// One JSON object a rule
        #[arg(long)]
        json: bool,
    },
    /// Show what a rule reads, and how long until it fires or is resolved
    Explain {
        /// As in `taskscope rules list`
        name: String,
        /// An agent (or AGENT#NAME) tells what it has evaluated; other targets are evaluated here
        #[arg(value_name = "TARGET|AGENT")]
        target: Option<Target>,
        /// How long a target is looked at
        #[arg(long = "for", value_name = "DURATION", default_value = "3s", value_parser = duration)]
        run_for: Duration,
        /// One JSON object an evaluation
        #[arg(long)]
        json: bool,
        /// The configuration; without it that of TASKSCOPE_CONFIG, or the defaults
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Say everything that is wrong with a configuration file, with line and column; exit 1 if anything is
    Check { file: PathBuf },
}

#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    /// Print what is configured, as TOML; a comment says where each value came from
    Print {
        /// The file; without it that of TASKSCOPE_CONFIG, or the defaults
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Output {
    /// One JSON object a line; what is not known is absent
    #[arg(long)]
    pub(crate) json: bool,
    /// Again every second
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Names {
    /// A folder of unstripped programs or debug files, found by build-id; may be repeated, and is followed by those of
    /// TASKSCOPE_DEBUG_DIR
    #[arg(long, value_name = "DIR")]
    pub(crate) debug_dir: Vec<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "With matchers it makes a silence, which needs an end; without, it lists those that there are. Sinks are told \
                        nothing of what a silence matches until it ends; `taskscope alerts AGENT` still shows it.\n\n\
                        taskscope silence AGENT alertname=TaskSlowPoll 'service=~check.*' --for 2h --comment deploy"
)]
pub(crate) struct Silence {
    /// unix:PATH or http://HOST:PORT of an agent
    pub(crate) agent: Target,
    /// What labels say, all of it: NAME=TEXT, NAME!=TEXT, and NAME=~REGEX, NAME!~REGEX for the whole of the label
    #[arg(value_name = "MATCHER", conflicts_with_all = ["end", "json"], requires = "run_for")]
    pub(crate) matchers: Vec<Matcher>,
    /// Until when, from now, such as 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, requires = "matchers")]
    pub(crate) run_for: Option<Duration>,
    /// Why
    #[arg(long, value_name = "TEXT", requires = "matchers")]
    pub(crate) comment: Option<String>,
    /// End this one now
    #[arg(long, value_name = "ID", conflicts_with = "json")]
    pub(crate) end: Option<String>,
    /// One JSON object a silence
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Headless {
    /// The configuration; without it that of TASKSCOPE_CONFIG, or the defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Watch this target, wherever it is and whether it runs or not, instead of what the configuration says; may be repeated
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<Target>,
    /// Watch every target whose socket is on this machine, instead of what the configuration says
    #[arg(long)]
    folder: bool,
    /// Watch every address that this name stands for, instead of what the configuration says; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    dns: Vec<String>,
    /// Serve /metrics, /livez and /readyz here, as in 127.0.0.1:9465; `off`: nowhere
    #[arg(long, value_name = "ADDR", value_parser = metrics)]
    metrics: Option<Metrics>,
    /// Where viewers reach it: unix:PATH or http://127.0.0.1:PORT
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Metrics(Option<SocketAddr>);

fn metrics(text: &str) -> Result<Metrics, String> {
    if text == "off" {
        return Ok(Metrics(None));
    }
    text.parse()
        .map(|address| Metrics(Some(address)))
        .map_err(|_| "no IP:PORT\nhint: write it as in 127.0.0.1:9465, or `off`".to_owned())
}

impl Headless {
    /// A flag is before the configuration.
    pub(crate) fn over(&self, mut config: config::Config) -> anyhow::Result<config::Config> {
        if let Some(Target::Recording(path)) =
            self.targets.iter().find(|it| matches!(it, Target::Recording(_)))
        {
            anyhow::bail!(
                "{} is a saved file\nhint: an agent watches what runs; `taskscope top FILE` shows it",
                path.display()
            );
        }
        if self.folder || !self.targets.is_empty() || !self.dns.is_empty() {
            let folder = if self.folder { config::Folder::Usual } else { config::Folder::None };
            config.targets = config::Targets {
                fixed: self.targets.clone(),
                folder,
                dns: self.dns.clone(),
                ..config.targets
            };
        }
        if let Some(Metrics(address)) = self.metrics {
            config.metrics = address;
        }
        if let Some(text) = &self.listen {
            config.listen = text.parse::<Listen>()?.address();
        }
        Ok(config)
    }
}

/// A name and a port to look up.
fn host_port(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if port != 0 => Ok(text.to_owned()),
        _ => Err("no HOST:PORT\nhint: write it as in checkout-headless.shop:6670".to_owned()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct Stacks {
    pub(crate) target: Option<Target>,
    /// Only of this task; may be given more than once
    #[arg(long = "task", value_name = "ID", value_parser = task_id)]
    pub(crate) tasks: Vec<u64>,
    /// Also the frames of the runtime and of what began the thread
    #[arg(long)]
    pub(crate) all_frames: bool,
    /// One JSON object a task; what is not known is absent
    #[arg(long, group = "form")]
    pub(crate) json: bool,
    /// Folded stacks, `outer;…;inner samples`, for tools that draw flame graphs
    #[arg(long, group = "form")]
    pub(crate) folded: bool,
    /// Write a flame graph that needs nothing but a browser; `-` is standard output
    #[arg(long, value_name = "FILE", group = "form")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) names: Names,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// The target (optional), then terms such as `state=idle age>30s label~resize at~conn.rs`
    #[arg(value_name = "[TARGET] [FILTER]")]
    words: Vec<String>,
    /// Sort by age, id, polls, busy, scheduled, idle, since or longest; largest first
    #[arg(long, value_name = "KEY", value_parser = sort_key)]
    pub(crate) sort: Option<SortKey>,
    /// Smallest first
    #[arg(long)]
    pub(crate) ascending: bool,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl List {
    /// The target, if one was named, and the filter. A first word with an operator in it begins the filter.
    pub(crate) fn split(&self) -> anyhow::Result<(Option<Target>, String)> {
        let is_term = |word: &str| {
            word.contains(['=', '<', '>', '~']) && !word.starts_with("unix:") && !word.contains("://")
        };
        let (target, terms) = match self.words.split_first() {
            Some((first, rest)) if !is_term(first) => (Some(first.parse()?), rest),
            _ => (None, self.words.as_slice()),
        };
        let text = terms.join(" ");
        text.parse::<Filter>()?;
        Ok((target, text))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let ns = filter::duration_ns(text).filter(|&ns| ns > 0);
    ns.map(Duration::from_nanos)
        .ok_or_else(|| "no duration\nhint: write a number and a unit, as in 30s, 500ms or 2m".to_owned())
}

/// As `taskscope tasks` shows it: `p` is before the probe's own.
fn task_id(text: &str) -> Result<u64, String> {
    let (digits, own) = text.strip_prefix('p').map_or((text, 0), |digits| (digits, TaskId::OWN));
    let id = digits.parse::<u64>().ok().filter(|&id| id > 0 && id & TaskId::OWN == 0);
    id.map(|id| id | own)
        .ok_or_else(|| "no task's id\nhint: `taskscope tasks` shows them, as in 17 or p17".to_owned())
}

fn sort_key(text: &str) -> Result<SortKey, String> {
    let known = || SORT_KEYS.iter().map(|(word, _)| *word);
    SORT_KEYS.iter().find(|(word, _)| *word == text).map(|(_, key)| *key).ok_or_else(
        || match filter::nearest(text, known()) {
            Some(near) => format!("no such key\nhint: did you mean `{near}`?"),
            None => format!("no such key\nhint: it is one of {}", known().collect::<Vec<_>>().join(", ")),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_what_it_was() {
        let mut command = Cli::command().term_width(100);
        let mut all = command.render_long_help().to_string();
        for name in [
            "top", "ls", "why", "status", "tasks", "pending", "pools", "stacks", "alerts", "rules",
            "silence", "config", "agent", "save", "demo",
        ] {
            let sub = command.find_subcommand_mut(name).expect(name);
            all.push_str(&format!("\n--- {name}\n{}", sub.clone().term_width(100).render_help()));
        }
        insta::assert_snapshot!(all);
    }

    #[test]
    fn a_task_is_named_as_the_lists_show_it() {
        assert_eq!((task_id("17"), task_id("p17")), (Ok(17), Ok(17 | TaskId::OWN)));
        for wrong in ["", "0", "p", "x1", "-1", "99999999999999999999"] {
            assert!(task_id(wrong).is_err_and(|error| error.contains("hint: ")), "{wrong}");
        }
    }

    #[test]
    fn a_first_word_with_an_operator_begins_the_filter() {
        let list = |words: &[&str]| match Cli::try_parse_from([&["taskscope", "tasks"], words].concat())
            .map(|cli| cli.command)
        {
            Ok(Some(Command::Tasks(list))) => list.split(),
            other => panic!("{other:?}"),
        };
        assert_eq!(list(&["state=idle", "age>1s"]).ok(), Some((None, "state=idle age>1s".into())));
        let (target, filter) = list(&["api", "label~\"POST /x\""]).expect("it parses");
        assert_eq!((target, filter.as_str()), (Some(Target::Named("api".into())), "label~\"POST /x\""));
        assert!(
            list(&["api", "stat=idle"])
                .expect_err("no such field")
                .to_string()
                .contains("hint: did you mean `state`?")
        );
    }
}
