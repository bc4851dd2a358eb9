//! Peers from PyPI: in an environment of their own, so that nothing of the user's Python changes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{executable, install, present};

/// A program, the requirement that brings it, and where in the environment it then is; `*` is one folder of any name.
struct Peer {
    program: &'static str,
    requirement: &'static str,
    file: &'static str,
}

const PEERS: [Peer; 2] = [
    // A collector of OpenTelemetry. Its releases are all called alpha, so one is named.
    Peer {
        program: "rotel-agent",
        requirement: "rotel==0.0.1a15",
        file: "lib/*/site-packages/rotel/rotel-agent",
    },
    // Knows what Kubernetes accepts.
    Peer {
        program: "kubernetes-validate",
        requirement: "kubernetes-validate==1.37.0",
        file: "bin/kubernetes-validate",
    },
];

/// Where the programs are found: links, so that the environment's own `python` is nobody else's.
pub(super) fn programs(folder: &Path) -> PathBuf {
    folder.join("bin")
}

/// Installs what is missing; answers what still is, with the reason said on standard error.
pub(super) fn prepare(folder: &Path) -> Vec<&'static str> {
    let is_there = |peer: &Peer| present(peer.program) || executable(&programs(folder).join(peer.program));
    let missing: Vec<Peer> = PEERS.into_iter().filter(|peer| !is_there(peer)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let environment = folder.join("python");
    if !made(&environment) {
        // Debian keeps what it takes in a package of its own.
        install(&["python3-venv"]);
        if !made(&environment) {
            eprintln!("cannot make an environment of Python in {}", environment.display());
            eprintln!("hint: install Python 3 with its modules `venv` and `ensurepip`, then run this again");
            return missing.iter().map(|peer| peer.program).collect();
        }
    }
    for peer in &missing {
        if let Err(why) = installed(peer, folder, &environment) {
            eprintln!("cannot install {} from PyPI: {why}", peer.requirement);
            eprintln!(
                "hint: let this machine reach PyPI or a mirror of it (PIP_INDEX_URL), then run this again"
            );
        }
    }
    missing.into_iter().filter(|peer| !is_there(peer)).map(|peer| peer.program).collect()
}

/// Whether there is an environment, made if need be.
fn made(environment: &Path) -> bool {
    let python = environment.join("bin/python");
    let works = |python: &Path| {
        let asked = Command::new(python).args(["-m", "pip", "--version"]).stdout(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    if works(&python) {
        return true;
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(environment).stdout(std::io::stderr());
    make.status().is_ok_and(|status| status.success()) && works(&python)
}

fn installed(peer: &Peer, folder: &Path, environment: &Path) -> Result<(), String> {
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    pip.args(["--only-binary", ":all:", peer.requirement]).stdout(std::io::stderr());
    let status = pip.status().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("pip ended with {status}"));
    }
    let file = found(environment, peer.file).ok_or_else(|| format!("it brings no {}", peer.file))?;
    let link = programs(folder).join(peer.program);
    std::fs::create_dir_all(programs(folder)).map_err(|error| error.to_string())?;
    // One that leads nowhere any more.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&file, &link).map_err(|error| error.to_string())
}

/// The file at this path, `*` being any folder.
fn found(root: &Path, path: &str) -> Option<PathBuf> {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    if first == "*" {
        let folders = std::fs::read_dir(root).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        return folders.into_iter().find_map(|folder| found(&folder, rest));
    }
    let next = root.join(first);
    if rest.is_empty() { executable(&next).then_some(next) } else { found(&next, rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_below_a_folder_of_any_name() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("lib/python3.99/site-packages");
        std::fs::create_dir_all(&folder).expect("it can be made");
        std::fs::create_dir_all(root.path().join("lib/aaa")).expect("it can be made");
        let file = folder.join("it");
        std::fs::write(&file, "").expect("it can be written");
        assert_eq!(found(root.path(), "lib/*/site-packages/it"), None, "nobody can execute it");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).expect("it can be changed");
        assert_eq!(found(root.path(), "lib/*/site-packages/it"), Some(file));
        assert_eq!(found(root.path(), "bin/it"), None);
    }
}
