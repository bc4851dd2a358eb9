//! The three lines of the README in an empty `cargo new`, against the crates as they would be published.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use taskscope_tests::agent::{status, tasks};
use taskscope_tests::json::{list, text};
use taskscope_tests::process::Process;
use taskscope_tests::stopwatch::Stopwatch;
use taskscope_tests::target::listening;
use taskscope_tests::{Size, alone, eventually, evidence, root, size};
use tempfile::TempDir;

const DEPENDENCY: &str = "taskscope-probe = \"0.1\"";
const ATTRIBUTE: &str = "#[taskscope_probe::main]";
const FLAGS: &str = "rustflags = [\"--cfg\", \"tokio_unstable\"]";
/// The table that the third line stands under.
const FLAGS_TABLE: &str = "[target.'cfg(all())']";

const CRATES: [&str; 3] = ["taskscope-proto", "taskscope-probe-macros", "taskscope-probe"];
const ADDED_CRATES_AT_MOST: usize = 80;

/// What `cargo new` made, turned into a service: only the attribute and `mailer` know the probe.
const SERVICE: &str = "
async fn main() {
    tokio::spawn(async { std::future::pending::<()>().await });
    taskscope_probe::spawn(\"mailer\", async { std::future::pending::<()>().await });
    println!(\"Hello, world!\");
    std::future::pending::<()>().await
}
";

/// A folder outside of the workspace, so that none of its configuration reaches the new service.
struct Service {
    folder: TempDir,
    /// Builds are kept from run to run.
    target: PathBuf,
}

impl Service {
    fn new(third_line: bool) -> Self {
        let folder =
            tempfile::Builder::new().prefix("ts-new-").tempdir().expect("a temporary folder can be made");
        let name = if third_line { "with-third-line" } else { "without-third-line" };
        let service = Self { folder, target: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name) };
        let packaged = service.packaged();
        service.cargo(&["new", "--quiet", "--vcs", "none", "hello"], service.folder.path());

        let manifest = service.hello().join("Cargo.toml");
        let mut text = std::fs::read_to_string(&manifest).expect("cargo new writes a manifest");
        assert!(text.trim_end().ends_with("[dependencies]"), "{text}");
        // Its own Tokio, as every service with `#[tokio::main]` has it.
        text.push_str(&format!(
            "tokio = {{ version = \"1\", features = [\"full\"] }}\n{DEPENDENCY}\n\n[patch.crates-io]\n"
        ));
        for (name, path) in CRATES.iter().zip(&packaged) {
            text.push_str(&format!("{name} = {{ path = {:?} }}\n", path.display().to_string()));
        }
        std::fs::write(manifest, text).expect("the folder can be written");
        std::fs::write(service.hello().join("src/main.rs"), format!("{ATTRIBUTE}{SERVICE}"))
            .expect("it can be written");
        // The versions that were tested, and no others.
        std::fs::copy(root().join("Cargo.lock"), service.hello().join("Cargo.lock"))
            .expect("the lock file is committed");
        if third_line {
            std::fs::create_dir(service.hello().join(".cargo")).expect("a folder can be made");
            let config = format!("{FLAGS_TABLE}\n{FLAGS}\n");
            std::fs::write(service.hello().join(".cargo/config.toml"), config).expect("it can be written");
        }
        service
    }

    fn hello(&self) -> PathBuf {
        self.folder.path().join("hello")
    }

    /// Packages the crates and unpacks them; no file that is missing from a package can be used.
    fn packaged(&self) -> [PathBuf; 3] {
        let packages = self.folder.path().join("packages");
        // A lock file, which a dependency's users never see, would be checked against the registry, which may be away.
        let mut args = vec!["package", "--quiet", "--allow-dirty", "--no-verify", "--exclude-lockfile"];
        CRATES.iter().for_each(|name| args.extend(["--package", name]));
        let target = packages.display().to_string();
        args.extend(["--target-dir", &target]);
        self.cargo(&args, &root());
        CRATES.map(|name| {
            let file = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
            let mut tar = Command::new("tar");
            tar.arg("-xzf")
                .arg(packages.join("package").join(format!("{file}.crate")))
                .arg("-C")
                .arg(&packages);
            assert!(Process::start(tar).wait(Duration::from_secs(20)).success(), "{file} was not packaged");
            packages.join(file)
        })
    }

    /// Runs cargo as a user has it, without what the chores set for their own builds.
    #[track_caller]
    fn cargo(&self, args: &[&str], folder: &Path) -> String {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(args)
            .current_dir(folder)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_NET_RETRY", "10");
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            let ours = name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name.ends_with("FLAGS");
            if ours {
                cargo.env_remove(&variable);
            }
        }
        let mut process = Process::start(cargo);
        let ended = process.wait(Duration::from_secs(600));
        assert!(ended.success(), "cargo {args:?} failed\n{}", process.outputs());
        process.stdout.text()
    }

    /// Builds and starts it; its address.
    fn start(&self) -> (Process, String) {
        self.cargo(&["build", "--quiet"], &self.hello());
        let mut command = Command::new(self.target.join("debug/hello"));
        command.env("TASKSCOPE_LISTEN", format!("unix:{}", self.folder.path().join("t.sock").display()));
        let process = Process::start(command);
        let address = listening(&process);
        (process, address)
    }

    /// The crates that it is built from, without itself.
    fn crates(&self) -> Vec<String> {
        let tree = self.cargo(
            &["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"],
            &self.hello(),
        );
        let mut crates: Vec<String> = tree
            .lines()
            .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
            .filter(|name| name != "hello")
            .collect();
        crates.sort_unstable();
        crates.dedup();
        crates
    }

    /// The same service before it had a probe.
    fn take_the_probe_out(&self) {
        let edit = |file: &str, change: &dyn Fn(String) -> String| {
            let file = self.hello().join(file);
            let text = std::fs::read_to_string(&file).expect("it was written");
            std::fs::write(file, change(text)).expect("it can be written");
        };
        edit("Cargo.toml", &|text| {
            text.replace(DEPENDENCY, "").split("[patch").next().unwrap_or_default().to_owned()
        });
        edit("src/main.rs", &|text| {
            text.replace(ATTRIBUTE, "#[tokio::main]")
                .replace("taskscope_probe::spawn(\"mailer\", ", "tokio::spawn(")
        });
    }

    /// How long a release build of all of it takes: the faster of two, because whatever else runs makes one slower.
    fn release_build(&self) -> Duration {
        let build = || {
            self.cargo(&["clean", "--quiet", "--release"], &self.hello());
            let watch = Stopwatch::start();
            self.cargo(&["build", "--quiet", "--release"], &self.hello());
            watch.elapsed()
        };
        build().min(build())
    }
}

#[test]
fn the_readme_says_these_three_lines() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README");
    for line in [DEPENDENCY, ATTRIBUTE, FLAGS] {
        assert!(readme.contains(line), "the README does not say `{line}`");
    }
}

#[test]
fn with_all_three_lines_every_task_is_a_row() {
    let _alone = (size() == Size::Full).then(alone);
    let service = Service::new(true);
    let (_process, address) = service.start();
    let rows = eventually(Duration::from_secs(10), || {
        let rows = tasks(&address, "");
        if rows.len() >= 3 { Ok(rows) } else { Err(format!("{rows:?}")) }
    });
    for (name, what) in
        [("main", "the body of main"), ("mailer", "the named task"), ("", "a task of tokio::spawn")]
    {
        let at = rows.iter().filter(|row| text(row, "name") == name).map(|row| text(row, "spawned_at"));
        assert!(at.clone().any(|at| at.contains("src/main.rs:")), "{what} is no row at its line: {rows:?}");
    }

    let with = service.crates();
    let times = (size() == Size::Full).then(|| service.release_build());
    service.take_the_probe_out();
    let without = service.crates();
    let added = with.iter().filter(|name| !without.contains(name)).count();
    assert!(added <= ADDED_CRATES_AT_MOST, "the probe adds {added} crates");
    evidence("crates that the probe adds to a service with tokio", added);
    if let Some(with) = times {
        let added = with.saturating_sub(service.release_build());
        evidence("what the probe adds to a clean release build", format!("{:.1} s", added.as_secs_f64()));
        assert!(added <= Duration::from_secs(45), "the probe adds {added:?} to a clean release build");
    }
}

#[test]
fn without_the_third_line_what_is_missing_is_said() {
    let _alone = (size() == Size::Full).then(alone);
    let service = Service::new(false);
    let (_process, address) = service.start();
    let rows = eventually(Duration::from_secs(10), || {
        let rows = tasks(&address, "");
        if rows.len() >= 2 { Ok(rows) } else { Err(format!("{rows:?}")) }
    });
    for name in ["main", "mailer"] {
        assert!(rows.iter().any(|row| text(row, "name") == name), "{name} is no row: {rows:?}");
    }
    // Tokio counts the third task, which the probe was not told of.
    let state = eventually(Duration::from_secs(10), || {
        let state = status(&address);
        if state["losses"]["uninstrumented_tasks"].as_u64() == Some(1) {
            Ok(state)
        } else {
            Err(state.to_string())
        }
    });
    let told = list(&state, "capabilities").iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("tokio_unstable"), "the cause is named: {state}");
}

#[test]
fn the_oldest_tokio_that_is_promised_will_do() {
    let _alone = (size() == Size::Full).then(alone);
    let service = Service::new(true);
    let manifest = service.hello().join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).expect("it was written");
    let newest = "tokio = { version = \"1\",";
    assert!(text.contains(newest), "{text}");
    let oldest = text.replace(newest, "tokio = { version = \"=1.51.0\",");
    std::fs::write(manifest, oldest).expect("the folder can be written");
    service.cargo(&["check", "--quiet"], &service.hello());
    let tree = service.cargo(&["tree", "--invert", "tokio", "--depth", "0"], &service.hello());
    assert_eq!(tree.trim(), "tokio v1.51.0");
}

/// On the first runtime Tokio measures how long tasks wait for a worker, on the second it does not. On each a task waits for
/// its first poll behind one that blocks, and lives on.
const MEASURED: &str = "
fn main() {
    let mut runtimes = [true, false].map(|measured| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        if measured {
            builder.track_task_schedule_latency();
        }
        taskscope_probe::Probe::builder().install(builder.enable_all());
        let runtime = builder.build().unwrap();
        runtime.block_on(async move {
            tokio::spawn(async { std::thread::park_timeout(std::time::Duration::from_millis(60)) });
            if measured {
                tokio::spawn(std::future::pending::<()>());
            } else {
                tokio::spawn(std::future::pending::<()>());
            }
            tokio::task::yield_now().await;
        });
        runtime
    });
    runtimes[0].block_on(std::future::pending::<()>());
}
";

#[test]
fn schedule_latency_is_told_where_the_service_has_tokio_measure_it() {
    let _alone = (size() == Size::Full).then(alone);
    let service = Service::new(true);
    let edit = |file: &str, from: &str, to: &str| {
        let file = service.hello().join(file);
        let text = std::fs::read_to_string(&file).expect("it was written");
        assert!(text.contains(from), "{text}");
        std::fs::write(file, text.replace(from, to)).expect("the folder can be written");
    };
    edit("Cargo.toml", "features = [\"full\"]", "features = [\"full\", \"schedule-latency\"]");
    edit("src/main.rs", &format!("{ATTRIBUTE}{SERVICE}"), MEASURED);
    let (_process, address) = service.start();
    let place_of = |nth: usize| {
        let before = MEASURED.match_indices("tokio::spawn(std::future").nth(nth).expect("it is there").0;
        format!("src/main.rs:{}:", MEASURED[..before].lines().count())
    };
    let [told, untold] = eventually(Duration::from_secs(10), || {
        let rows = tasks(&address, "state=idle");
        let at = |nth| rows.iter().find(|row| text(row, "spawned_at").contains(&place_of(nth))).cloned();
        at(0).zip(at(1)).map(<[_; 2]>::from).ok_or_else(|| format!("{rows:?}"))
    });
    assert!(told["scheduled_ns"].as_u64().is_some_and(|ns| ns >= 55_000_000), "{told}");
    assert!(told["idle_ns"].is_u64(), "what is left of its time: {told}");
    assert!(untold["scheduled_ns"].is_null() && untold["idle_ns"].is_null(), "{untold}");
}
