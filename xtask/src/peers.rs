//! Programs of others that tests run against and benches count with: found, or installed from Debian's packages, or from PyPI's
//! into an environment of Python beside the builds ([`python`]).

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};

mod python;

/// A program, and the Debian package that brings it.
pub(crate) struct Peer {
    pub(crate) program: &'static str,
    package: &'static str,
}

/// Counts instructions.
const VALGRIND: Peer = Peer { program: "valgrind", package: "valgrind" };

/// All that the tests use.
const PEERS: [Peer; 11] = [
    // A real terminal for the dashboard.
    Peer { program: "tmux", package: "tmux" },
    // A real client's load on mini-redis.
    Peer { program: "redis-benchmark", package: "redis-tools" },
    // Programs as they are built for production: stripped, their debug information elsewhere.
    Peer { program: "readelf", package: "binutils" },
    Peer { program: "strip", package: "binutils" },
    Peer { program: "objcopy", package: "binutils" },
    // Puts faults into servers from outside.
    Peer { program: "strace", package: "strace" },
    // Scrapes the agent, and checks what it is served.
    Peer { program: "prometheus", package: "prometheus" },
    Peer { program: "promtool", package: "prometheus" },
    // Where alerts are sent.
    Peer { program: "prometheus-alertmanager", package: "prometheus-alertmanager" },
    Peer { program: "amtool", package: "prometheus-alertmanager" },
    // Reads the unit of the agent as the service manager would; nothing of it is started.
    Peer { program: "systemd-analyze", package: "systemd" },
];

/// All with which incidents are looked into.
const INCIDENT_PEERS: [Peer; 3] = [
    Peer { program: "tmux", package: "tmux" },
    Peer { program: "gdb", package: "gdb" },
    // Runs the scripts that dial9 ships to read its traces.
    Peer { program: "node", package: "nodejs" },
];

/// An emulated machine of another kind, and what builds for it.
const AARCH64_PEERS: [Peer; 2] = [
    Peer { program: "qemu-system-aarch64", package: "qemu-system-arm" },
    // The C compiler comes with it, and so do the C library's headers, which the C compiler's package only recommends.
    Peer { program: "aarch64-linux-gnu-g++", package: "g++-aarch64-linux-gnu" },
];

/// Installs as root. Services that a package might start are kept from starting while it runs.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends "$@"
"#;

/// Installs what is missing, what comes from PyPI into `folder`; answers the programs that still are, with the reason said on
/// standard error.
pub(crate) fn prepare(folder: &Path) -> Vec<&'static str> {
    let mut missing: Vec<&str> = installed(PEERS.into_iter()).iter().map(|peer| peer.program).collect();
    missing.extend(python::prepare(folder));
    missing
}

/// PATH with the programs that [`prepare`] put into `folder`. What the system has comes first.
pub(crate) fn path_with(folder: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([python::programs(folder)]);
    // A folder with a colon in its name cannot be in it; its programs then are missing.
    std::env::join_paths(folders).unwrap_or(path)
}

/// Whether valgrind is there, installed if need be.
pub(crate) fn prepare_valgrind() -> bool {
    installed(std::iter::once(VALGRIND)).is_empty()
}

/// What `cargo xtask bench incident` lacks, after what could be installed was.
pub(crate) fn prepare_for_incidents() -> Vec<Peer> {
    installed(INCIDENT_PEERS.into_iter())
}

/// What `cargo xtask verify-aarch64` lacks.
pub(crate) fn prepare_for_aarch64() -> Vec<Peer> {
    installed(AARCH64_PEERS.into_iter())
}

fn installed(peers: impl Iterator<Item = Peer>) -> Vec<Peer> {
    let missing: Vec<Peer> = peers.filter(|peer| !present(peer.program)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = missing.iter().map(|peer| peer.package).collect();
    install(&names);
    missing.into_iter().filter(|peer| !present(peer.program)).collect()
}

/// Installs Debian's packages; says why, where it cannot.
fn install(names: &[&str]) {
    let packages = names.join(" ");
    if !present("apt-get") {
        eprintln!("cannot install {packages}: no apt-get here");
        eprintln!("hint: install {packages} with your system's package manager");
    } else {
        let mut command = as_root();
        command.args(["sh", "-c", INSTALL, "install-peers"]).args(names);
        // Their progress is words, not data.
        command.stdin(Stdio::inherit()).stdout(std::io::stderr());
        let done = command.status();
        if !done.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!(
                "cannot install {packages}: {}",
                match done {
                    Ok(status) => format!("the installation ended with {status}"),
                    Err(error) => error.to_string(),
                }
            );
            eprintln!("hint: run `apt-get update && apt-get install {packages}` as root, then this again");
        }
    }
}

/// Whether PATH has an executable file of this name.
fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| executable(&folder.join(program)))
}

fn executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// `env`, through sudo unless this is root already. Without a terminal sudo must not ask for a password.
fn as_root() -> Command {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if root {
        return Command::new("env");
    }
    let mut sudo = Command::new("sudo");
    if !std::io::stdin().is_terminal() {
        sudo.arg("-n");
    }
    sudo
}
