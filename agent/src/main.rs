//! `taskscope`: attaches to services that run the probe, shows them, and says what is wrong.
//!
//! Start reading at [`run`], which turns a command into a call; `session` drives the link to a target, `model` keeps what
//! it said, `rules` and `why` say what is wrong, `top` drives the dashboard, `report` prints.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use taskscope_proto::v1::{ExplainRequest, WatchRequest};

mod address;
mod alerts;
mod attend;
mod cli;
mod code;
mod config;
mod connection;
mod demo;
mod discover;
mod evidence;
mod exposer;
mod fleet;
mod foreground;
mod headless;
mod interned;
mod link;
mod listen;
mod metrics;
mod model;
mod own;
mod recording;
mod report;
mod rules;
mod save;
mod server;
mod session;
mod settings;
mod silence;
mod sinks;
mod stack;
mod store;
mod symbols;
mod syscalls;
mod top;
mod tour;
mod viewers;
mod why;

use address::{Address, Target};
use cli::{Cli, Command, List, Names, Output};
use connection::Connection;
use model::Model;
use recording::Recording;
use report::{check as checklist, ls, pools, print, rules as rule_report, stacks, status, tasks};
use session::{address_of, fetch, places, settle};
use symbols::{Symbols, debug_dirs};
use why::Why;

/// A line on standard error, which may be gone.
fn complain(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Something is wrong with the target.
const CONDITION_HOLDS: u8 = 1;
const ERROR: u8 = 2;
/// What was not delivered when a command ends has this long to arrive.
const CLOSE_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
/// As in sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match log_to_file().and_then(|()| run(cli)) {
        Ok(code) => code,
        // A reader that has gone (`| head`) is no error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("taskscope: {error:#}"));
            ExitCode::from(if is_usage(&error) { USAGE } else { ERROR })
        }
    }
}

/// Whether what was typed cannot be understood.
fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<address::AddressError>()
        || error.is::<listen::ListenError>()
        || error.is::<alerts::rules::UnknownRule>()
        || error.is::<taskscope_proto::filter::ParseError>()
}

/// Where `TASKSCOPE_LOG_FILE` names a file, what happens to the links goes there: the screen is the dashboard's.
fn log_to_file() -> anyhow::Result<()> {
    let Some(path) = std::env::var_os("TASKSCOPE_LOG_FILE").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let file = std::fs::File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("cannot write the log {}", path.display()))?;
    tracing_subscriber::fmt().with_writer(std::sync::Mutex::new(file)).with_ansi(false).init();
    Ok(())
}

/// What happens to the links of an agent is of use to whoever runs it, unless it goes to a file.
fn log_to_standard_error() {
    // One is there already where TASKSCOPE_LOG_FILE names a file.
    let _ = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).try_init();
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // The demo's service builds the runtime that it is about.
    if let Some(Command::Demo { serve: true, faults, run_for, child, .. }) = cli.command {
        demo::serve(faults, run_for, child)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let top = Command::Top { target: None, names: Names::default() };
    let outcome = runtime.block_on(command(cli.command.unwrap_or(top)));
    // A key press may be awaited on a thread that nothing can stop.
    runtime.shutdown_background();
    outcome
}

async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Top { target, names } => top::run(target, None, &debug_dirs(&names.debug_dir)).await?,
        Command::Ls { agent: Some(agent), json } => print(&ls::of_agent(&agent, json).await?)?,
        Command::Ls { agent: None, json } => print(&ls::report(json).await?)?,
        Command::Why { target, names } => return why(target, &debug_dirs(&names.debug_dir)).await,
        Command::Status { target, output, names } => {
            let render =
                |model: &Model| if output.json { status::json(model) } else { Ok(status::text(model)) };
            show(target, why::glance(), output, render, Some(&debug_dirs(&names.debug_dir))).await?;
        }
        Command::Pools { target, output } => {
            let render =
                |model: &Model| if output.json { pools::json(model) } else { Ok(pools::text(model)) };
            show(target, WatchRequest::default(), output, render, None).await?;
        }
        Command::Check { target, json } => return check(target, json).await,
        Command::Tasks(list) => rows(&list, false).await?,
        Command::Pending(list) => rows(&list, true).await?,
        Command::Stacks(options) => stacks(&options, &debug_dirs(&options.names.debug_dir)).await?,
        Command::Agent(options) => {
            log_to_standard_error();
            let (settings, config) = settings::Settings::load(options)?;
            headless::run(settings, &config).await?;
        }
        Command::Alerts { target, run_for, json, config, names } => {
            return alerts(target, run_for, json, config, &debug_dirs(&names.debug_dir)).await;
        }
        Command::Rules(cli::Rules::List { json }) => {
            print(&if json { rule_report::json()? } else { rule_report::text() })?;
        }
        Command::Rules(cli::Rules::Explain { name, target, run_for, json, config }) => {
            explain(&name, target, run_for, json, config).await?;
        }
        Command::Rules(cli::Rules::Check { file }) => return Ok(rules_check(&file)),
        Command::Silence(options) => silence::run(options).await?,
        Command::Config(cli::Config::Print { config }) => {
            print(&configured(config)?.printed())?;
        }
        Command::Save { target, file, run_for } => save::run(&target, &file, run_for).await?,
        Command::Demo { rules: true, .. } => print(demo::RULES)?,
        Command::Demo { faults, run_for, plain, .. } => {
            demo::run(faults, run_for, plain, &debug_dirs(&[])).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn why(target: Option<Target>, dirs: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let model = fetch(target, why::request(), why::ask_again, Some(dirs)).await?;
    let why = Why::of(&model);
    print(&why.lines.iter().map(|line| format!("{}\n", line.text())).collect::<String>())?;
    Ok(if why.is_wrong() { ExitCode::from(CONDITION_HOLDS) } else { ExitCode::SUCCESS })
}

/// Every transition of an alert, as it happens: as an agent tells it, or as it is evaluated here.
async fn alerts(
    target: Option<Target>,
    run_for: Option<std::time::Duration>,
    json: bool,
    config: Option<PathBuf>,
    dirs: &[PathBuf],
) -> anyhow::Result<ExitCode> {
    let show = if json { foreground::as_json } else { foreground::as_text };
    let fired = |has_fired| if has_fired { ExitCode::from(CONDITION_HOLDS) } else { ExitCode::SUCCESS };
    if let Some(agent) = connection::agent_at(target.as_ref()).await? {
        no_configuration(config.as_deref())?;
        let heard = attend::alerts(agent, run_for, show).await?;
        complain(&format!("taskscope: {}", heard.summary()));
        return Ok(fired(heard.has_fired()));
    }
    let config = configured(config)?;
    // What has been is no news to anybody, and standard output is this command's own.
    let is_past = matches!(target, Some(Target::Recording(_)));
    let is_other =
        |sink: &&config::sinks::Sink| !is_past && !matches!(sink.kind, config::sinks::Kind::Stdout);
    let prepared = sinks::Prepared::of(config.sinks.iter().filter(is_other), &sinks::Prepared::default())?;
    let sinks = sinks::Sinks::start(&prepared, None);
    let evaluated = foreground::evaluate(target, &config, &sinks, run_for, dirs, show).await?;
    for health in sinks.close(CLOSE_WITHIN).await {
        complain(&format!("taskscope: {health}"));
    }
    complain(&format!("taskscope: {}", evaluated.summary()));
    let has_fired = evaluated.has_fired();
    match evaluated.cut {
        // That nothing has fired is not known.
        Some(cut) if !has_fired => return Err(cut.into()),
        Some(cut) => complain(&format!("taskscope: {cut}")),
        None => {}
    }
    Ok(fired(has_fired))
}

/// An agent evaluates by its own.
fn no_configuration(config: Option<&std::path::Path>) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.is_none(),
        "an agent has its own configuration\nhint: leave out --config, or name one of its targets, AGENT#NAME"
    );
    Ok(())
}

/// The configuration of the flag or of the environment, or the defaults.
fn configured(flag: Option<PathBuf>) -> anyhow::Result<config::Config> {
    let file = config::file(flag.as_deref(), &config::environment);
    Ok(config::Config::load(file.as_deref(), &config::environment, &config::rules::untouched())?)
}

/// What a rule reads, and what of it would fire: as an agent has evaluated it, or here.
async fn explain(
    name: &str,
    target: Option<Target>,
    run_for: std::time::Duration,
    json: bool,
    config: Option<PathBuf>,
) -> anyhow::Result<()> {
    let rule = alerts::rules::named(name)?;
    // With a configuration of one's own, a target of an agent is evaluated here.
    let through = match &target {
        Some(Target::At(Address::Through { agent, target })) if config.is_none() => {
            let at_agent = connection::agent_at(Some(&Target::At((**agent).clone()))).await?;
            at_agent.map(|agent| (agent, target.clone()))
        }
        target => connection::agent_at(target.as_ref()).await?.map(|agent| (agent, String::new())),
    };
    let told = if let Some((mut agent, target)) = through {
        no_configuration(config.as_deref())?;
        let request = ExplainRequest { rule: rule.name.to_owned(), target };
        rule_report::evaluated_there(rule, agent.explain(request).await?)
    } else {
        anyhow::ensure!(
            rule.clock != alerts::rule::Clock::Own,
            "{} is about the agent itself, and not about a target\nhint: name an agent: `taskscope agent` evaluates it",
            rule.name
        );
        // All rules are evaluated: another one may hold it back.
        let config = configured(config)?;
        let (silent, nobody) = (foreground::not_at_all, sinks::Sinks::default());
        let evaluated =
            foreground::evaluate(target, &config, &nobody, Some(run_for), &debug_dirs(&[]), silent).await?;
        rule_report::evaluated_here(rule, &evaluated.watcher.explain(rule.name))
    };
    print(&if json { rule_report::explained_json(rule, &told)? } else { rule_report::explained(rule, &told) })
}

/// Whether the service is deployed as it should be.
async fn check(target: Option<Target>, json: bool) -> anyhow::Result<ExitCode> {
    let model = fetch(target, WatchRequest::default(), |_| None, None).await?;
    let all = checklist::of(&model);
    print(&if json { checklist::json(&all)? } else { checklist::text(&all) })?;
    let failed = all.iter().any(|checked| checked.result == checklist::Outcome::Fail);
    Ok(if failed { ExitCode::from(CONDITION_HOLDS) } else { ExitCode::SUCCESS })
}

/// Where in its code each running task is.
async fn stacks(options: &cli::Stacks, dirs: &[PathBuf]) -> anyhow::Result<()> {
    let (mut model, running, process) = match &options.target {
        Some(Target::Recording(path)) => {
            let recording = Recording::open(path)?;
            let mut model = Model::new(recording.description);
            let mut ran = stacks::Ran::default();
            for frame in recording.frames {
                model.apply(frame);
                ran.take(&model);
            }
            (model, ran.polls()?, None)
        }
        target => {
            let mut connection = Connection::open(&address_of(target.as_ref())?).await?;
            stacks::allowed(&connection.description, &connection.description.capabilities)?;
            let mut model = Model::new(connection.description.clone());
            model.apply(connection.ask(stacks::request(&options.tasks)).await?);
            // The first one that was taken may have shown that none can be.
            if let Some(partly) = stacks::allowed(&model.description, &model.capabilities)? {
                complain(&format!("taskscope: {partly}"));
            }
            let running = stacks::running(&model);
            (model, running, connection.process)
        }
    };
    let symbols = Symbols::of(places(&model.description, process, dirs));
    settle(&mut model, &symbols, &stacks::wanted(&running)).await;
    let shown = stacks::Shown { model: &model, running: &running, options };
    if options.json {
        print(&shown.json()?)?;
    } else if options.folded {
        print(&shown.folded())?;
    } else if let Some(file) = options.html.as_ref().filter(|file| file.as_os_str() != "-") {
        let fail = || format!("cannot write {}\nhint: choose a folder that can be written", file.display());
        std::fs::write(file, shown.html()).with_context(fail)?;
    } else if options.html.is_some() {
        print(&shown.html())?;
    } else {
        print(&shown.text())?;
    }
    for task in stacks::idle(&options.tasks, &running) {
        complain(&format!("taskscope: task {task} runs nothing now"));
    }
    if let Some(missing) = model.stacks.missing() {
        complain(&format!("taskscope: {}\nhint: {}", missing.why, missing.hint));
    }
    Ok(())
}

/// Nothing to say is what scripts want of a file that is right.
fn rules_check(file: &std::path::Path) -> ExitCode {
    match config::Config::load(Some(file), &config::environment, &config::rules::untouched()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            match error {
                config::ConfigError::Wrong(_) => ExitCode::from(CONDITION_HOLDS),
                _ => ExitCode::from(ERROR),
            }
        }
    }
}

async fn rows(list: &List, pending: bool) -> anyhow::Result<()> {
    let (target, filter) = list.split()?;
    let request = tasks::request(&filter, list.sort, list.ascending, list.limit, pending);
    let render = |model: &Model| if list.output.json { tasks::json(model) } else { tasks::text(model) };
    show(target, request, list.output, render, None).await
}

/// Prints the target as of now, or each frame of a watch.
async fn show(
    target: Option<Target>,
    request: WatchRequest,
    output: Output,
    render: impl Fn(&Model) -> anyhow::Result<String>,
    debug_dirs: Option<&[PathBuf]>,
) -> anyhow::Result<()> {
    if !output.watch || matches!(target, Some(Target::Recording(_))) {
        return print(&render(&fetch(target, request, |_| None, debug_dirs).await?)?);
    }
    let mut connection = Connection::open(&address_of(target.as_ref())?).await?;
    let mut model = Model::new(connection.description.clone());
    let places = |dirs| places(&model.description, connection.process, dirs);
    let symbols = debug_dirs.map(|dirs| Symbols::of(places(dirs)));
    let mut watch = connection.watch(request).await?;
    while let Some(frame) = watch.next().await? {
        model.apply(frame);
        if let Some(symbols) = &symbols {
            settle(&mut model, symbols, &[]).await;
        }
        let text = render(&model)?;
        print(&if output.json { text } else { format!("{text}\n") })?;
    }
    Ok(())
}

/// Whether colours may be used: not with NO_COLOR (any value), nor on a dumb terminal.
fn colour() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var("TERM").as_deref() != Ok("dumb")
}
