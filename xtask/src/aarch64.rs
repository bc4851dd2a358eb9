//! `cargo xtask verify-aarch64`: the tests of stacks on an aarch64 processor. A whole machine is emulated, with a kernel of
//! Debian's: a signal's frame, its registers, `/proc` and `process_vm_readv` are the kernel's own, which an emulation of single
//! programs would make up.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::cargo::{Flags, cargo, target_folder};
use crate::peers;
use crate::summary::{Suite, Summary};
use crate::test::{ends_well, phase, watched};

mod initramfs;

use initramfs::Initramfs;

const PLATFORM: &str = "aarch64-unknown-linux-gnu";
/// The cross-compiler's prefix.
const TOOLS: &str = "aarch64-linux-gnu";
const EMULATOR: &str = "qemu-system-aarch64";
/// Its newest version depends on the kernel's own package.
const KERNEL: &str = "linux-image-cloud-arm64";
const SHELL: &str = "busybox-static";
/// What the programs and the tests load.
const LIBRARIES: [&str; 6] =
    ["ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1", "libm.so.6", "libresolv.so.2", "libutil.so.1"];
/// Seconds from the machine's start to its end; an emulated processor is some twenty times slower.
const LONGEST: &str = "2400";

/// A package's tests, and which of them are run: the others need what the machine does not have.
struct Wanted {
    package: &'static str,
    /// A file of `tests/`; `None`: the units.
    file: Option<&'static str>,
    args: &'static str,
}

const WANTED: [Wanted; 6] = [
    Wanted {
        package: "taskscope-probe",
        file: None,
        args: "stacks:: native:: registry::arena:: capture::waker::",
    },
    Wanted { package: "taskscope-probe", file: Some("stacks"), args: "" },
    Wanted { package: "taskscope-probe", file: Some("stack_signal"), args: "" },
    // A debug build: the agent reads its names in the machine.
    Wanted { package: "taskscope-tests", file: Some("the_line_is_named"), args: "a_debug_build jobs_of" },
    Wanted { package: "taskscope-tests", file: Some("user_threads_are_told"), args: "" },
    Wanted { package: "taskscope-tests", file: Some("refused_calls_are_told"), args: "" },
];

/// True: all of them pass there.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let mut summary = Summary::default();
    let folder = target_folder(root, Flags::Hooks)?.join("aarch64-machine");
    phase(&mut summary, "peers", || prepare(&folder))?;
    let mut machine = Initramfs::default();
    phase(&mut summary, "build for aarch64", || build(root, &mut machine).map(|()| true))?;
    let (kernel, shell) = (kernel(&folder)?, folder.join(SHELL).join("bin/busybox"));
    machine.file("bin/busybox", &std::fs::read(&shell).with_context(|| shell.display().to_string())?);
    for library in LIBRARIES {
        machine.file(&format!("lib/{library}"), &std::fs::read(library_file(library)?)?);
    }
    for empty in ["proc", "sys", "dev", "tmp"] {
        machine.folder(empty);
    }
    machine.file("init", init().as_bytes());
    let image = folder.join("initramfs");
    std::fs::write(&image, machine.finish()).with_context(|| format!("cannot write {}", image.display()))?;

    let mut suites = Vec::new();
    phase(&mut summary, "run in the machine", || {
        let mut emulator = Command::new("timeout");
        emulator.args(["--kill-after=10", LONGEST, EMULATOR, "-M", "virt", "-smp", "2", "-m", "3G"]);
        // All that such a processor can have, signed return addresses among it, in a way that is quick to emulate.
        emulator.args(["-cpu", "max,pauth-impdef=on", "-nic", "none", "-nographic", "-no-reboot"]);
        emulator.arg("-kernel").arg(&kernel).arg("-initrd").arg(&image);
        emulator.args(["-append", "console=ttyAMA0 quiet panic=-1"]).stdin(Stdio::null());
        let (read, worked) = watched(&mut emulator)?;
        suites = read.finish();
        Ok(worked)
    })?;
    summary.suites = suites.into_iter().map(|suite: Suite| suite.under("aarch64")).collect();
    print!("{}", summary.table());
    ensure!(
        summary.suites.len() == WANTED.len(),
        "{} of {} test programs began in the machine",
        summary.suites.len(),
        WANTED.len()
    );
    Ok(summary.good(true))
}

/// The emulator, the cross-compiler, the standard library, and the packages of the machine.
fn prepare(folder: &Path) -> anyhow::Result<bool> {
    let missing: Vec<&str> = peers::prepare_for_aarch64().iter().map(|peer| peer.program).collect();
    ensure!(missing.is_empty(), "missing: {}", missing.join(", "));
    let mut rustup = Command::new("rustup");
    ensure!(ends_well(rustup.args(["target", "add", PLATFORM]))?, "rustup cannot add {PLATFORM}");
    if folder.join(SHELL).is_dir() && kernel(folder).is_ok() {
        return Ok(true);
    }
    // A package manager's state of its own: this system does not become one of two architectures.
    let state = folder.join("packages");
    for part in ["state/lists/partial", "cache/archives/partial", "files"] {
        std::fs::create_dir_all(state.join(part)).context("cannot make a folder")?;
    }
    std::fs::write(state.join("status"), "").context("cannot write")?;
    let apt = |program: &str| {
        let mut apt = Command::new(program);
        let own = |what: &str, part: &str| format!("{what}={}", state.join(part).display());
        let options = [
            "APT::Architecture=arm64".to_owned(),
            "APT::Architectures::=arm64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            own("Dir::State", "state"),
            own("Dir::State::status", "status"),
            own("Dir::Cache", "cache"),
        ];
        apt.args(options.iter().flat_map(|option| ["-o", option])).current_dir(state.join("files"));
        apt
    };
    ensure!(ends_well(apt("apt-get").args(["update", "-q"]))?, "apt-get cannot read its lists of arm64");
    let depends = apt("apt-cache").args(["depends", KERNEL]).output().context("apt-cache does not start")?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let newest = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let newest =
        newest.with_context(|| format!("no package {KERNEL}\nhint: this needs Debian's packages"))?;
    ensure!(
        ends_well(apt("apt-get").args(["download", "-q", newest, SHELL]))?,
        "apt-get cannot load {newest}"
    );
    for file in std::fs::read_dir(state.join("files"))? {
        let file = file?.path();
        let is_shell = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SHELL));
        let into = folder.join(if is_shell { SHELL } else { KERNEL });
        let mut unpack = Command::new("dpkg-deb");
        ensure!(ends_well(unpack.arg("-x").arg(&file).arg(&into))?, "cannot unpack {}", file.display());
    }
    kernel(folder).map(|_| true)
}

fn kernel(folder: &Path) -> anyhow::Result<PathBuf> {
    let boot = folder.join(KERNEL).join("boot");
    for file in std::fs::read_dir(&boot).with_context(|| format!("no {}", boot.display()))? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with("vmlinuz") {
            return Ok(file.path());
        }
    }
    bail!("no kernel in {}", boot.display())
}

/// A library of the cross-compiler's.
fn library_file(name: &str) -> anyhow::Result<PathBuf> {
    let found = Command::new(format!("{TOOLS}-gcc")).arg(format!("-print-file-name={name}")).output();
    let found = String::from_utf8(found.context("the cross-compiler does not start")?.stdout)?;
    let found = Path::new(found.trim());
    // What it does not find it prints as it was told.
    ensure!(found.is_absolute(), "the cross-compiler has no {name}");
    Ok(found.to_path_buf())
}

/// The agent, the targets, and the tests.
fn build(root: &Path, machine: &mut Initramfs) -> anyhow::Result<()> {
    let cross = |verb: &[&str]| {
        let mut cargo = cargo(root, Flags::Hooks);
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", format!("{TOOLS}-gcc"));
        cargo.args(verb).args(["--target", PLATFORM, "--locked", "--message-format", "json"]);
        cargo
    };
    // Not optimised it would need seconds there to begin.
    let built = executables(&mut cross(&["build", "--release", "-p", "taskscope", "--bin", "taskscope"]))?;
    for (name, file, _) in built {
        machine.file(&format!("t/bin/{name}"), &program(&file, true)?);
    }
    for package in ["taskscope-probe", "taskscope-tests"] {
        let mut tests = cross(&["test", "--no-run", "-p", package]);
        for wanted in WANTED.iter().filter(|wanted| wanted.package == package) {
            match wanted.file {
                Some(file) => tests.args(["--test", file]),
                None => tests.arg("--lib"),
            };
        }
        for (name, file, is_test) in executables(&mut tests)? {
            if is_test {
                machine.file(&format!("t/{name}"), &program(&file, true)?);
            } else if name.starts_with("target-") {
                // A target, which tests of its package need. The agent reads the names in it.
                machine.file(&format!("t/bin/{name}"), &program(&file, false)?);
            }
        }
    }
    Ok(())
}

impl Wanted {
    fn program(&self) -> String {
        self.file.map_or_else(|| self.package.replace('-', "_"), str::to_owned)
    }
}

/// Builds, and gives the name and the file of each program, and whether it is one of tests.
fn executables(build: &mut Command) -> anyhow::Result<Vec<(String, PathBuf, bool)>> {
    let built = build.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {build:?}"))?;
    ensure!(built.status.success(), "{build:?} failed");
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let message: Value = serde_json::from_str(line).context("cargo prints JSON")?;
        let (Some(name), Some(file)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        else {
            continue;
        };
        found.push((name.to_owned(), PathBuf::from(file), message["profile"]["test"] == true));
    }
    Ok(found)
}

fn program(file: &Path, stripped: bool) -> anyhow::Result<Vec<u8>> {
    let mut from = file.to_path_buf();
    if stripped {
        from = file.with_extension("stripped");
        let mut strip = Command::new(format!("{TOOLS}-strip"));
        ensure!(ends_well(strip.arg("-o").arg(&from).arg(file))?, "cannot strip {}", file.display());
    }
    std::fs::read(&from).with_context(|| format!("cannot read {}", from.display()))
}

/// What the machine does: it says of each program of tests what `cargo test` says, and runs it.
fn init() -> String {
    let mut script = String::from(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin HOME=/tmp TMPDIR=/tmp CI=true TASKSCOPE_TEST_BIN=/t/bin TASKSCOPE_TEST_BIN_STABLE=/t/bin TASKSCOPE_TEST_EMULATED=1\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp\n\
         ip link set lo up\n\
         uname -a\n\
         grep -m1 Features /proc/cpuinfo\n",
    );
    for wanted in &WANTED {
        let program = wanted.program();
        let what = wanted.file.map_or("unittests src/lib.rs".to_owned(), |file| format!("tests/{file}.rs"));
        let _ = writeln!(script, "echo '     Running {what} (/t/{program}-0)'");
        // A service that is to answer within a second needs both of its processors.
        let threads = if wanted.package == "taskscope-tests" { 1 } else { 2 };
        let _ = writeln!(script, "/t/{program} {} --test-threads {threads} 2>&1", wanted.args);
    }
    script.push_str("poweroff -f\n");
    script
}
