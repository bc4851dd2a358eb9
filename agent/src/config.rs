//! What the agent is told to do: one TOML file over defaults that are useful untouched. All that is wrong with a file is told,
//! with line and column, and a file with anything wrong configures nothing.
//!
//! A flag is before the environment, which is before the file, which is before the default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taskscope_proto::words::printable;
use toml::de::{DeTable, DeValue};

use crate::address::{Address, Target};
use crate::alerts::labels::Labels;
use crate::alerts::rule::{Clock, Rule};
use crate::alerts::rules::RULES;
use crate::alerts::watcher::Watched;
use crate::discover;

pub(crate) mod pattern;
mod printed;
pub(crate) mod reload;
pub(crate) mod rules;
mod section;
pub(crate) mod sinks;
mod value;

use rules::{Ruled, Untouched};
pub(crate) use section::Problem;
use section::{Document, Section};

/// Names the file where no flag does.
const FILE_VARIABLE: &str = "TASKSCOPE_CONFIG";
/// Of a configuration; the rest of a greater file is not one.
const MOST_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where the agent itself is asked: `Introspect` and `Alerts`.
    pub(crate) listen: Address,
    /// Where `/metrics` is served; `None`: nowhere.
    pub(crate) metrics: Option<SocketAddr>,
    /// The folder of what outlives the agent: the alerts that fire, their evidence.
    pub(crate) state: PathBuf,
    /// Added to every alert.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) targets: Targets,
    /// By the name of the rule; every rule is there.
    pub(crate) rules: BTreeMap<&'static str, Ruled>,
    /// One at least.
    pub(crate) sinks: Vec<sinks::Sink>,
    origins: BTreeMap<String, Origin>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Targets {
    pub(crate) fixed: Vec<Target>,
    pub(crate) folder: Folder,
    /// `HOST:PORT`, each of whose addresses is a target.
    pub(crate) dns: Vec<String>,
    /// How often names are looked up again.
    pub(crate) refresh: Duration,
}

/// Whose sockets are targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Folder {
    /// Nobody's.
    None,
    /// Those that `taskscope ls` finds.
    Usual,
    At(PathBuf),
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Origin {
    Line { file: String, line: usize },
    Environment(&'static str),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(
        "cannot read the configuration {path}: {cause}\nhint: name a file that can be read, or none for the defaults"
    )]
    Unreadable { path: String, cause: std::io::Error },
    #[error("the configuration {path} is greater than {MOST_BYTES} bytes\nhint: name a TOML file")]
    TooLong { path: String },
    #[error("{}", listed(.0))]
    Wrong(Vec<Problem>),
}

/// One after another, with their number after them where there are many.
fn listed(problems: &[Problem]) -> String {
    let mut text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    if problems.len() > 1 {
        text.push_str(&format!("\n{} errors", problems.len()));
    }
    text
}

/// What is read of the environment, so that reading a configuration is a function of its arguments.
pub(crate) type Variables<'a> = &'a dyn Fn(&'static str) -> Option<OsString>;

/// The variable, unless it is empty.
pub(crate) fn environment(name: &'static str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The file of the flag, or else of the environment.
pub(crate) fn file(flag: Option<&Path>, variables: Variables<'_>) -> Option<PathBuf> {
    flag.map(Path::to_owned).or_else(|| variables(FILE_VARIABLE).map(PathBuf::from))
}

impl Config {
    /// Reads the file, if there is one to be read.
    pub(crate) fn load(
        file: Option<&Path>,
        variables: Variables<'_>,
        untouched: &[Untouched],
    ) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Self::read("", "", variables, untouched).map_err(ConfigError::Wrong);
        };
        let text = text_of(path)?;
        Self::read(&shown(path), &text, variables, untouched).map_err(ConfigError::Wrong)
    }

    /// `name` is what problems call the file whose text is `source`.
    pub(crate) fn read(
        name: &str,
        source: &str,
        variables: Variables<'_>,
        untouched: &[Untouched],
    ) -> Result<Self, Vec<Problem>> {
        let mut document = Document::new(name, source);
        let (table, errors) = DeTable::parse_recoverable(source);
        for error in errors {
            document.tell(&error.span().unwrap_or(0..0), error.message());
        }
        if !document.problems.is_empty() {
            // What follows from a text that was only guessed at is no help.
            return Err(document.problems);
        }
        let known = ["agent", "targets", "rules", "sinks"];
        let root = Section::new(&mut document, String::new(), table.get_ref(), 0..0, &known);
        let mut origins = BTreeMap::new();
        let agent = root.section(&mut document, "agent", &["listen", "metrics", "state", "labels"]);
        let mut config = Self {
            listen: usual_listen(),
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 9465))),
            state: usual_state(variables, &mut origins),
            labels: BTreeMap::new(),
            targets: targets(&mut document, &root),
            rules: rules::read(&mut document, &root, untouched),
            sinks: sinks::read(&mut document, &root),
            origins,
        };
        if let Some(agent) = agent {
            let document = &mut document;
            if let Some(listen) = agent.take(document, "listen", listen) {
                config.listen = listen;
            }
            if let Some(metrics) = agent.take(document, "metrics", metrics) {
                config.metrics = metrics;
            }
            if let Some(state) = agent.take(document, "state", folder) {
                config.state = state;
            }
            config.labels = labels(document, &agent);
        }
        for (path, line) in document.lines {
            config.origins.insert(path, Origin::Line { file: name.to_owned(), line });
        }
        let mut problems = document.problems;
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Each rule about targets with each of its settings that is not switched off.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        self.watched_if(|rule| rule.clock != Clock::Own)
    }

    /// And those about the agent itself.
    pub(crate) fn watched_of_agent(&self) -> Vec<Watched> {
        self.watched_if(|rule| rule.clock == Clock::Own)
    }

    fn watched_if(&self, is_wanted: impl Fn(&Rule) -> bool) -> Vec<Watched> {
        let of = |rule: &'static Rule| {
            let rulings = self.rules.get(rule.name).map_or(&[][..], |ruled| &ruled.rulings);
            rulings.iter().map(move |it| Watched {
                rule,
                setting: it.setting.clone(),
                about: it.about.clone(),
            })
        };
        RULES.into_iter().filter(|rule| is_wanted(rule)).flat_map(of).collect()
    }

    /// Whether targets are asked for the lengths of polls: somebody is served them, or sent them.
    pub(crate) fn wants_histograms(&self) -> bool {
        let sends = |sink: &sinks::Sink| matches!(sink.kind, sinks::Kind::Otlp { metrics: Some(_), .. });
        self.metrics.is_some() || self.sinks.iter().any(sends)
    }

    /// What every alert has beside its own.
    pub(crate) fn labels(&self) -> Labels {
        self.labels.iter().fold(Labels::default(), |labels, (name, value)| labels.with(name, value))
    }

    /// As a file that says the same, each value with where it came from.
    pub(crate) fn printed(&self) -> String {
        printed::printed(self)
    }
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// The text of a configuration file, of a bounded size.
pub(crate) fn text_of(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let unreadable = |cause| ConfigError::Unreadable { path: shown(path), cause };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(ConfigError::TooLong { path: shown(path) });
    }
    Ok(text)
}

/// Beside the sockets of the targets.
fn usual_listen() -> Address {
    let folder = discover::folders().into_iter().next().unwrap_or_else(std::env::temp_dir);
    Address::Unix(folder.join("agent.sock"))
}

fn usual_state(variables: Variables<'_>, origins: &mut BTreeMap<String, Origin>) -> PathBuf {
    let mut from = |name: &'static str, below: &str| {
        let folder = PathBuf::from(variables(name)?);
        origins.insert("agent.state".to_owned(), Origin::Environment(name));
        Some(if below.is_empty() { folder } else { folder.join(below) })
    };
    // systemd names several folders with colons between them; the first is the service's own.
    let service = from("STATE_DIRECTORY", "").map(|folder| {
        folder.to_string_lossy().split(':').next().map_or_else(|| folder.clone(), PathBuf::from)
    });
    service
        .or_else(|| from("XDG_STATE_HOME", "taskscope"))
        .or_else(|| from("HOME", ".local/state/taskscope"))
        .unwrap_or_else(|| PathBuf::from("/var/lib/taskscope"))
}

fn listen(it: &DeValue<'_>) -> Result<Address, String> {
    const HINT: &str = "hint: write unix:PATH, or http://127.0.0.1:PORT";
    let text = value::text(it)?;
    match text.parse::<Target>() {
        Ok(Target::At(Address::Unix(path))) => Ok(Address::Unix(path)),
        Ok(Target::At(Address::Http(url))) => {
            let host = url.trim_start_matches("http://");
            let is_here = host.parse::<SocketAddr>().is_ok_and(|at| at.ip().is_loopback())
                || host.starts_with("localhost:");
            if is_here {
                return Ok(Address::Http(url));
            }
            Err(format!(
                "`{}` can be reached from other machines, and there is no access control yet\n{HINT}",
                printable(&text)
            ))
        }
        _ => Err(format!("`{}` is no address to listen on\n{HINT}", printable(&text))),
    }
}

fn metrics(it: &DeValue<'_>) -> Result<Option<SocketAddr>, String> {
    match value::text(it)?.as_str() {
        "off" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            format!("\"{}\" is no address\nhint: write IP:PORT, as in \"127.0.0.1:9465\" or \"0.0.0.0:9465\", or \"off\"", printable(text))
        }),
    }
}

fn folder(it: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = PathBuf::from(value::text(it)?);
    if path.is_absolute() {
        return Ok(path);
    }
    Err("it is no absolute path\nhint: begin it with /".to_owned())
}

fn labels(document: &mut Document<'_>, agent: &Section<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(section) = agent.open_section(document, "labels") else { return labels };
    for (key, span) in section.keys() {
        let is_name = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && key.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if !is_name || key.starts_with("__") {
            let text = format!(
                "`{}` cannot be a label's name\nhint: letters, digits and `_`, no digit first",
                printable(key)
            );
            document.tell(&span, text);
        } else if matches!(key, "alertname" | "severity" | "service" | "target") {
            document
                .tell(&span, format!("every alert has its own `{key}`\nhint: call the label something else"));
        } else if let Some(value) = section.take(document, key, value::text) {
            labels.insert(key.to_owned(), value);
        }
    }
    labels
}

fn targets(document: &mut Document<'_>, root: &Section<'_>) -> Targets {
    let section = root.section(document, "targets", &["fixed", "folder", "dns", "refresh"]);
    let mut targets = Targets {
        fixed: Vec::new(),
        folder: Folder::Usual,
        dns: Vec::new(),
        refresh: Duration::from_secs(10),
    };
    let Some(section) = section else { return targets };
    targets.fixed = section.take(document, "fixed", fixed).unwrap_or_default();
    targets.dns = section.take(document, "dns", names).unwrap_or_default();
    if !(targets.fixed.is_empty() && targets.dns.is_empty()) {
        targets.folder = Folder::None;
    }
    if let Some(folder) = section.take(document, "folder", sockets) {
        targets.folder = folder;
    }
    if let Some(refresh) = section.take(document, "refresh", value::period) {
        targets.refresh = refresh;
    }
    if section.has("folder")
        && targets.folder == Folder::None
        && targets.fixed.is_empty()
        && targets.dns.is_empty()
    {
        document.tell(
            &section.span_of("folder"),
            "there is nothing to watch\nhint: name targets in `fixed` or `dns`",
        );
    }
    targets
}

fn fixed(it: &DeValue<'_>) -> Result<Vec<Target>, String> {
    let parsed = |text: String| match text.parse() {
        Ok(Target::Recording(path)) => {
            Err(format!("{} is a file\nhint: write unix:{} if it is a socket", shown(&path), shown(&path)))
        }
        Ok(target) => Ok(target),
        Err(error) => Err(error.to_string()),
    };
    value::texts(it)?.into_iter().map(parsed).collect()
}

fn names(it: &DeValue<'_>) -> Result<Vec<String>, String> {
    let checked = |text: String| {
        let is_name = text.rsplit_once(':').is_some_and(|(host, port)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if is_name {
            Ok(text)
        } else {
            Err(format!(
                "\"{}\" is no HOST:PORT\nhint: write it as in \"checkout-headless.shop:6670\"",
                printable(&text)
            ))
        }
    };
    value::texts(it)?.into_iter().map(checked).collect()
}

fn sockets(it: &DeValue<'_>) -> Result<Folder, String> {
    match it {
        DeValue::Boolean(true) => Ok(Folder::Usual),
        DeValue::Boolean(false) => Ok(Folder::None),
        _ => folder(it)
            .map(Folder::At)
            .map_err(|_| "it is neither true, false nor an absolute path".to_owned()),
    }
}

#[cfg(test)]
mod tests;
