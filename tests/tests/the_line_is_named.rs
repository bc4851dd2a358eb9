//! A poll or a job that blocks is told with the function and the line that block it, however the service was built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::json::{list, text};
use taskscope_tests::process::Process;
use taskscope_tests::stopwatch::Stopwatch;
use taskscope_tests::target::{Target, TargetBuilder};
use taskscope_tests::{Build, Size, alone, eventually, evidence, is_emulated, peer, root, size};
use tempfile::TempDir;

/// Of the target, in the two packages that have it.
const SOURCES: [&str; 2] = ["tests/src/bin/target-blocked.rs", "tests/blocked/src/main.rs"];
/// How long the target blocks.
const LONG: Duration = Duration::from_secs(3);
/// The threshold, and half a second.
const WITHIN: Duration = Duration::from_millis(600);

/// The ways to block, the function of each, and whether the task's own thread is the one that is looked for.
const WAYS: [(&str, &str); 6] = [
    ("sleep", "sleep"),
    ("spin", "spin"),
    ("read", "read"),
    ("mutex", "mutex"),
    ("hash", "costly_hash"),
    ("library", "library"),
];

/// What a debug build of the agent takes beside other tests to read a debug build's names.
fn within_small() -> Duration {
    Duration::from_secs(if is_emulated() { 30 } else { 4 })
}

/// As the compiler was given it: from the root of the package, or whole.
fn is_source(file: &str) -> bool {
    SOURCES.iter().any(|source| file.ends_with(source)) || file == "src/main.rs"
}

/// What a message about it needs.
fn told(stacks: &[Value]) -> Vec<String> {
    stacks.iter().map(|task| format!("{} {}: {}", task["name"], task["label"], task["line"])).collect()
}

/// A target that was started, and where its names are.
struct Blocked {
    target: Target,
    names: Option<PathBuf>,
    what: String,
}

impl Blocked {
    fn start(builder: TargetBuilder, names: Option<PathBuf>, what: &str) -> Self {
        let target = builder.start();
        target.said("ready");
        Self { target, names, what: what.to_owned() }
    }

    /// Has it block this way; the lines that are guilty.
    fn block(&mut self, way: &str, says: &str) -> std::ops::RangeInclusive<u64> {
        let from = self.target.process.stdout.count();
        self.target.process.say(way);
        let lines = self.target.process.stdout.wait_for(Duration::from_secs(10), from, |line| {
            Some(line.strip_prefix(&format!("blocked {says} "))?.to_owned())
        });
        let mut lines = lines.split(' ').map(|line| line.parse().expect("it prints numbers"));
        lines.next().expect("the first")..=lines.next().expect("the last")
    }

    /// What `stacks --json` prints, without the threads that Tokio does not know.
    fn stacks(&self) -> Vec<Value> {
        let mut args = vec!["stacks", &self.target.address, "--json"];
        let names = self.names.as_ref().map(|folder| folder.display().to_string());
        if let Some(names) = &names {
            args.extend(["--debug-dir", names]);
        }
        let answer = Agent::with(args).run().expect_code(0);
        let parsed = |line: &str| serde_json::from_str(line).expect("one object a line");
        let all = answer.stdout.lines().map(parsed);
        all.filter(|task: &Value| task["is_other_thread"].is_null()).collect()
    }

    /// That `way` is told at its line, and how soon.
    fn names(&mut self, way: &str, function: &str) {
        let lines = self.block(way, way);
        let watch = Stopwatch::start();
        let is_right = |task: &Value| {
            let line = &task["line"];
            task["label"] == way
                && line["file"].as_str().is_some_and(is_source)
                && line["line"].as_u64().is_some_and(|line| lines.contains(&line))
                // The line itself may be in a closure of it.
                && list(task, "frames").iter().any(|frame| text(frame, "function").ends_with(function))
        };
        let within = if size() == Size::Full { WITHIN } else { within_small() };
        let took = eventually(within, || {
            let stacks = self.stacks();
            match stacks.iter().any(is_right) {
                true => Ok(watch.elapsed()),
                false => {
                    Err(format!("{}: not {way} at its lines {lines:?}: {:#?}", self.what, told(&stacks)))
                }
            }
        });
        // A first answer that comes too late is right, and too late.
        assert!(took <= within, "{}: {way} after {took:?}", self.what);
        evidence(
            &format!("{}: the line of `{way}` is told", self.what),
            format!("after {} ms", took.as_millis()),
        );
    }

    fn names_all(&mut self) {
        self.names_each(&WAYS);
    }

    fn names_each(&mut self, ways: &[(&str, &str)]) {
        for (way, function) in ways {
            self.names(way, function);
        }
    }

    /// That what cannot be told is not guessed.
    fn loses(&mut self, way: &str) {
        self.block(way, way);
        eventually(within_small(), || {
            let stacks = self.stacks();
            match stacks.iter().find(|task| task["label"] == way) {
                Some(task) if task["ends_because"].is_string() && task["line"]["line"].is_null() => Ok(()),
                _ => Err(format!("{}: {:#?}", self.what, told(&stacks))),
            }
        });
    }
}

/// With Tokio's hooks.
const HOOKS: &[&str] = &["--cfg", "tokio_unstable"];

/// Builds the target in a folder of its own, called as what it is; gives the program.
fn built(
    what: &str,
    profile: &str,
    flags: &[&str],
    variables: &[(&str, &str)],
    platform: Option<&str>,
) -> PathBuf {
    let folder = what.replace(", ", " ").replace(' ', "-");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("blocked").join(folder);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", profile, "--locked", "--manifest-path"]);
    cargo.arg(root().join("tests/blocked/Cargo.toml")).arg("--target-dir").arg(&target);
    cargo.env("RUSTFLAGS", flags.join(" "));
    cargo.envs(variables.iter().copied());
    if let Some(platform) = platform {
        cargo.args(["--target", platform]);
    }
    let mut process = Process::start(cargo);
    assert!(process.wait(Duration::from_secs(900)).success(), "{what}\n{}", process.outputs());
    let folder = if profile == "dev" { "debug" } else { profile };
    target.join(platform.unwrap_or("")).join(folder).join("target-blocked")
}

/// A debug build: in full size the other targets are releases, and this one is built for the test.
fn debug(build: Build, what: &str) -> TargetBuilder {
    match (size(), build) {
        (Size::Full, Build::Stable) => TargetBuilder::of_program(&built(what, "dev", &[], &[], None)),
        (Size::Full, _) => TargetBuilder::of_program(&built(what, "dev", HOOKS, &[], None)),
        (Size::Small, build) => TargetBuilder::of(build, "target-blocked"),
    }
}

#[test]
fn a_debug_build_tells_the_line_of_everything_that_blocks() {
    let _alone = (size() == Size::Full).then(alone);
    let what = "debug";
    Blocked::start(debug(Build::Hooks, what), None, what).names_all();
}

#[test]
fn on_stable_tokio_the_labelled_stretch_tells_it() {
    let _alone = (size() == Size::Full).then(alone);
    let what = "debug, stable Tokio";
    Blocked::start(debug(Build::Stable, what), None, what).names_all();
}

#[test]
fn jobs_of_the_blocking_pool_tell_theirs_with_and_without_the_wrapper() {
    let _alone = (size() == Size::Full).then(alone);
    let mut blocked = Blocked::start(Target::program("target-blocked"), None, "jobs");
    for way in ["job", "unseen-job"] {
        let lines = blocked.block(way, "sleep");
        let mut watch = Stopwatch::start();
        eventually(within_small(), || {
            // A processor that needs all of the job's time for one look has another one to look at.
            if watch.elapsed() >= LONG {
                blocked.block(way, "sleep");
                watch = Stopwatch::start();
            }
            let stacks = blocked.stacks();
            let is_right = |task: &&Value| {
                let line = &task["line"];
                line["file"].as_str().is_some_and(is_source)
                    && line["line"].as_u64().is_some_and(|line| lines.contains(&line))
            };
            match stacks.iter().find(is_right) {
                Some(task) if (way == "job") == (task["name"] == "job") => Ok(()),
                _ => Err(format!("{way}: {:#?}", told(&stacks))),
            }
        });
        // The next one is told apart from it.
        eventually(Duration::from_secs(10), || match blocked.stacks() {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{:#?}", told(&some))),
        });
    }
}

/// A program without any name in it, and a folder with its names.
struct Stripped {
    folder: TempDir,
}

impl Stripped {
    fn of(program: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("ts-strip-").tempdir().expect("a folder can be made");
        let stripped = Self { folder };
        std::fs::create_dir(stripped.names()).expect("it is new");
        let run = |tool: &str, args: &[&std::ffi::OsStr]| {
            let mut command = Command::new(tool);
            command.args(args);
            let mut process = Process::start(command);
            assert!(process.wait(Duration::from_secs(60)).success(), "{tool}\n{}", process.outputs());
        };
        let names = stripped.names().join("target-blocked.debug");
        run("objcopy", &["--only-keep-debug".as_ref(), program.as_ref(), names.as_ref()]);
        run("strip", &["-o".as_ref(), stripped.program().as_ref(), program.as_ref()]);
        stripped
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("target-blocked")
    }

    fn names(&self) -> PathBuf {
        self.folder.path().join("names")
    }
}

#[test]
fn a_stripped_program_tells_it_with_the_names_that_only_the_agent_has() {
    if !peer("strip") {
        return;
    }
    let _alone = (size() == Size::Full).then(alone);
    let stripped = Stripped::of(&Build::Hooks.program("target-blocked"));
    let what = if size() == Size::Full { "workspace's release, stripped" } else { "debug, stripped" };
    let start = |names| Blocked::start(TargetBuilder::of_program(&stripped.program()), names, what);
    start(Some(stripped.names())).names_all();

    // Without them: addresses, module, build-id, and what to do.
    let mut nameless = start(None);
    nameless.block("sleep", "sleep");
    let (answer, task) = eventually(Duration::from_secs(5), || {
        let answer = Agent::with(["stacks", &nameless.target.address, "--json"]).run().expect_code(0);
        let task = answer.json_lines().into_iter().find(|task| task["label"] == "sleep");
        task.map(|task| (answer, task)).ok_or_else(|| "nothing is slow yet".to_owned())
    });
    let own = |frame: &&Value| frame["module"].as_str().is_some_and(|it| it.ends_with("/target-blocked"));
    let frame = task["frames"].as_array().and_then(|frames| frames.iter().find(own));
    let frame = frame.unwrap_or_else(|| panic!("no frame of the program: {task:#}"));
    assert!(frame["function"].is_null() && frame["line"].is_null(), "{frame:#}");
    assert!(frame["build_id"].as_str().is_some_and(|id| id.len() >= 16), "{frame:#}");
    assert_eq!(answer.stderr.matches("hint:").count(), 1, "{}", answer.stderr);
    assert!(answer.stderr.contains("--debug-dir"), "{}", answer.stderr);
}

/// Ways in which no function of the C library is the innermost: that of a static program has no unwind information, and what
/// called it is said to be lost.
const WITHOUT_LIBRARY: [(&str, &str); 2] = [("spin", "spin"), ("hash", "costly_hash")];

/// How a service may be built: its words, flags for the compiler, variables for cargo, and its platform.
type Way =
    (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)], Option<&'static str>);

const BUILDS: [Way; 4] = [
    ("release", &[], &[], None),
    ("release with frame pointers", &["-C", "force-frame-pointers=yes"], &[], None),
    (
        "release with fat LTO",
        &[],
        &[("CARGO_PROFILE_RELEASE_LTO", "fat"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")],
        None,
    ),
    ("static release with musl", &[], &[], Some("x86_64-unknown-linux-musl")),
];

#[test]
fn releases_tell_it_however_they_were_built() {
    if size() != Size::Full || !peer("strip") {
        // Each is a build of the probe with all that it rests on.
        return;
    }
    let _alone = (size() == Size::Full).then(alone);
    for (what, flags, variables, platform) in BUILDS {
        if let Some(platform) = platform {
            if !cfg!(target_arch = "x86_64") || !peer("rustup") {
                continue;
            }
            let mut rustup = Command::new("rustup");
            rustup.args(["target", "add", platform]);
            let mut process = Process::start(rustup);
            assert!(process.wait(Duration::from_secs(300)).success(), "{}", process.outputs());
        }
        let program = built(what, "release", &[HOOKS, flags].concat(), variables, platform);
        let mut blocked = Blocked::start(TargetBuilder::of_program(&program), None, what);
        if platform.is_some() {
            blocked.names_each(&WITHOUT_LIBRARY);
            blocked.loses("read");
            continue;
        }
        blocked.names_all();
        let stripped = Stripped::of(&program);
        let what = format!("{what}, stripped");
        Blocked::start(TargetBuilder::of_program(&stripped.program()), Some(stripped.names()), &what)
            .names_all();
    }
}
