//! What the end-to-end promises in `tests/tests/` are written with: real targets, real agents, real screens.
//!
//! `cargo xtask test` builds the binaries and says in the environment where they are; nothing here builds anything.
//! Every child ends with the test that started it, and nothing here waits longer than it says.

pub mod agent;
pub mod alertmanager;
pub mod collector;
pub mod eventually;
pub mod headless;
pub mod http;
pub mod impostor;
pub mod json;
pub mod load;
pub mod proc;
pub mod process;
pub mod prometheus;
pub mod receiver;
pub mod report;
pub mod screen;
pub mod sockets;
pub mod stopwatch;
pub mod target;
pub mod watcher;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use eventually::eventually;
pub use report::{evidence, peer};

/// How large a promise is tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Seconds: what `cargo xtask test` runs.
    Small,
    /// What the promise states: `cargo xtask verify`.
    Full,
}

/// The size that `TASKSCOPE_TEST_SIZE` asks for; small without it.
pub fn size() -> Size {
    match std::env::var("TASKSCOPE_TEST_SIZE").as_deref() {
        Ok("full") => Size::Full,
        _ => Size::Small,
    }
}

/// One test of a file at a time: what is timed has the machine for itself.
pub fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the processor is an emulated one, some twenty times slower.
pub fn is_emulated() -> bool {
    std::env::var_os("TASKSCOPE_TEST_EMULATED").is_some()
}

/// Which of the builds a program comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Build {
    /// With Tokio's hooks (`--cfg tokio_unstable`).
    Hooks,
    /// On stable Tokio, as where a RUSTFLAGS replaced the project's flags.
    Stable,
    /// With Tokio's hooks, and `panic = "abort"`: the examples of the probe.
    Abort,
}

impl Build {
    /// The path of one of its programs.
    ///
    /// # Panics
    /// Without the environment of `cargo xtask test`, or where the program was not built.
    pub fn program(self, name: &str) -> std::path::PathBuf {
        let variable = match self {
            Self::Hooks => "TASKSCOPE_TEST_BIN",
            Self::Stable => "TASKSCOPE_TEST_BIN_STABLE",
            Self::Abort => "TASKSCOPE_TEST_BIN_ABORT",
        };
        let Some(folder) = std::env::var_os(variable) else {
            panic!("{variable} is not set\nhint: run `cargo xtask test`; it builds the programs and sets it");
        };
        let program = std::path::Path::new(&folder).join(name);
        assert!(program.is_file(), "{} is not there\nhint: run `cargo xtask test`", program.display());
        program
    }
}

/// The workspace's root folder.
pub fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the workspace")
        .to_path_buf()
}
