//! A source file as its reader knows it, and whether it is the user's own.

use taskscope_proto::words;

use super::function::Path;
use crate::symbols::Frame;

/// Crates that are nobody's own code, also where no file tells: what runs the user's code.
pub(super) const RUNTIMES: [&str; 6] =
    ["std", "core", "alloc", "tokio", "taskscope_probe", "taskscope_proto"];

/// Well-known libraries: where there is no file, their functions are not taken for the user's.
const LIBRARIES: &[&str] = &[
    "actix_rt",
    "actix_server",
    "actix_web",
    "anyhow",
    "async_trait",
    "axum",
    "axum_core",
    "backtrace",
    "bytes",
    "chrono",
    "compiler_builtins",
    "crossbeam",
    "crossbeam_channel",
    "crossbeam_utils",
    "dashmap",
    "flume",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_executor",
    "futures_util",
    "h2",
    "hashbrown",
    "http",
    "http_body",
    "http_body_util",
    "hyper",
    "hyper_util",
    "indexmap",
    "log",
    "mio",
    "native_tls",
    "once_cell",
    "openssl",
    "parking_lot",
    "parking_lot_core",
    "pin_project_lite",
    "prost",
    "rand",
    "rand_core",
    "rayon",
    "rayon_core",
    "redis",
    "regex",
    "reqwest",
    "ring",
    "rustls",
    "serde",
    "serde_json",
    "smallvec",
    "socket2",
    "sqlx",
    "sqlx_core",
    "tokio_rustls",
    "tokio_stream",
    "tokio_util",
    "tonic",
    "tower",
    "tower_http",
    "tower_layer",
    "tower_service",
    "tracing",
    "tracing_core",
    "tracing_futures",
    "tracing_subscriber",
    "warp",
];

/// Parts of paths below which lies what Cargo, rustup and distributions have fetched or built.
const FETCHED: [&str; 9] = [
    "/rustc/",
    "/rustlib/",
    "/registry/src/",
    "/.cargo/registry/",
    "/.cargo/git/",
    "/git/checkouts/",
    "/vendor/",
    "/usr/src/debug/",
    // The C library of static programs.
    "/src_musl/",
];

/// Where the probe runs the user's code, in whatever folder its sources are: it is no crate of a registry yet.
const PROBES: &str = "/probe/src/capture/";

/// Folders that Cargo knows inside of a package.
const IN_PACKAGE: [&str; 4] = ["src", "tests", "examples", "benches"];

/// Whether a frame is the user's own code.
pub(super) fn is_own(frame: &Frame, path: Option<&Path>) -> bool {
    if frame.module.as_ref().is_none_or(|module| module.is_of_system()) {
        return false;
    }
    if path.is_some_and(|path| path.is_of(&RUNTIMES)) {
        return false;
    }
    match (&frame.file, path) {
        // A file without its line is a function that the compiler made.
        (Some(file), _) => frame.line.is_some() && !is_fetched(file),
        (None, Some(path)) => path.krate.is_some() && !path.is_of(LIBRARIES),
        (None, None) => false,
    }
}

/// Whether the function is of the crate that the program is named after: where no file tells, that is surely the user's.
pub(super) fn is_of_program(frame: &Frame, path: &Path) -> bool {
    let (Some(module), Some(krate)) = (&frame.module, &path.krate) else { return false };
    module.name().replace('-', "_") == *krate
}

/// Whether the file is no part of the user's packages.
fn is_fetched(file: &str) -> bool {
    let slashed = format!("/{file}");
    FETCHED.iter().any(|part| slashed.contains(part))
        || slashed.contains(PROBES)
        // With paths trimmed, a dependency begins with its name and version; C libraries are built beside their sources.
        || ["./", "../"].iter().any(|start| file.starts_with(start))
        || file.split('/').next().is_some_and(has_version)
}

/// `axum-0.8.9`
fn has_version(folder: &str) -> bool {
    folder.rsplit_once('-').is_some_and(|(name, version)| {
        !name.is_empty() && version.contains('.') && version.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// `src/login.rs:40`: from the package's root, with the package's folder before it (`auth/src/lib.rs:7`) unless the program is
/// called like that folder, or the folder is one of the root's, as where containers are built; `axum/src/serve.rs:12` of a
/// library; a file that is in no package is told whole.
pub(super) fn place(frame: &Frame) -> Option<String> {
    let file = in_package(frame)?;
    Some(match frame.line {
        Some(line) => format!("{file}:{line}"),
        None => file,
    })
}

fn in_package(frame: &Frame) -> Option<String> {
    let file = frame.file.as_deref()?;
    if let Some(at) = file.find(PROBES) {
        return Some(file[at + 1..].to_owned());
    }
    if is_fetched(file) {
        return Some(words::source_path(file));
    }
    let segments: Vec<&str> = file.split('/').collect();
    let Some(root) = segments.iter().rposition(|segment| IN_PACKAGE.contains(segment)) else {
        return Some(file.to_owned());
    };
    // `src/bin/src/main.rs` is rarer than a package in a folder of one of these names.
    let inside = segments[root..].join("/");
    let package = root.checked_sub(1).map(|at| segments[at]).filter(|package| !package.is_empty());
    let is_of_the_root = file.starts_with('/') && root <= 2;
    // By the folder and not by the function: of some functions debug information tells no crate, and one file has one name.
    let alike = |a: &str, b: &str| a.replace('-', "_") == b.replace('-', "_");
    let is_the_programs = frame
        .module
        .as_ref()
        .is_some_and(|module| package.is_some_and(|package| alike(module.name(), package)));
    Some(match package {
        Some(package) if !is_of_the_root && !is_the_programs => format!("{package}/{inside}"),
        _ => inside,
    })
}

/// The modules that a Rust file is, and the crate where the path tells it for sure: `tokio`, [`tokio`, `runtime`, `park`].
pub(super) fn modules(file: &str) -> Option<(Option<String>, Vec<String>)> {
    let path = words::source_path(file.strip_suffix(".rs")?);
    let (package, inside) = match path.rsplit_once("/src/") {
        Some((package, inside)) => (package, inside),
        None => ("", path.strip_prefix("src/")?),
    };
    let folder = package.rsplit('/').next().unwrap_or(package);
    let folder =
        if has_version(folder) { folder.rsplit_once('-').map_or(folder, |(name, _)| name) } else { folder };
    let folder = if file.contains(PROBES) { "taskscope_probe" } else { folder };
    let krate = Some(folder.replace('-', "_")).filter(|krate| is_fetched(file) && !krate.is_empty());
    let named = |module: &&str| !matches!(*module, "lib" | "main" | "mod" | "bin");
    let modules = inside.split('/').filter(named).map(str::to_owned);
    Some((krate.clone(), krate.into_iter().chain(modules).collect()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::symbols::Module;

    fn frame(program: &str, function: &str, file: &str) -> Frame {
        Frame {
            function: Some(function.to_owned()),
            file: Some(file).filter(|file| !file.is_empty()).map(str::to_owned),
            line: Some(40).filter(|_| !file.is_empty()),
            module: Some(Arc::new(Module { path: program.to_owned(), build_id: vec![] })),
            ..Frame::default()
        }
    }

    #[test]
    fn a_place_is_told_as_its_reader_knows_it() {
        let cases = [
            ("api::login", "/home/a/work/api/src/login.rs", true, "src/login.rs:40"),
            ("api::login", "/build/src/login.rs", true, "src/login.rs:40"),
            // Another package of the workspace: which one is told.
            ("auth::hash", "/home/a/work/crates/auth/src/lib.rs", true, "auth/src/lib.rs:40"),
            ("auth::hash", "crates/auth/src/lib.rs", true, "auth/src/lib.rs:40"),
            ("api::login", "src/login.rs", true, "src/login.rs:40"),
            // Where the name does not say its crate.
            ("login", "/home/a/work/api/src/login.rs", true, "src/login.rs:40"),
            ("login", "/build/src/login.rs", true, "src/login.rs:40"),
            ("hash", "/home/a/work/crates/auth/src/lib.rs", true, "auth/src/lib.rs:40"),
            ("hash", "/usr/src/shop/src/lib.rs", true, "shop/src/lib.rs:40"),
            ("api::made", "/home/a/work/api/build.rs", true, "/home/a/work/api/build.rs:40"),
            (
                "bcrypt::hash",
                "/r/registry/src/index.crates.io-1949cf8c6b5b557f/bcrypt-0.17.1/src/lib.rs",
                false,
                "bcrypt/src/lib.rs:40",
            ),
            ("bcrypt::hash", "bcrypt-0.17.1/src/lib.rs", false, "bcrypt-0.17.1/src/lib.rs:40"),
            (
                "std::thread::sleep",
                "/rustc/59807616e/library/std/src/thread/mod.rs",
                false,
                "std/src/thread/mod.rs:40",
            ),
            ("read", "./nptl/read.c", false, "./nptl/read.c:40"),
            ("h::f", "/srv/api/vendor/h/src/lib.rs", false, "/srv/api/vendor/h/src/lib.rs:40"),
            ("lend", "/home/a/ts/probe/src/capture/waker.rs", false, "probe/src/capture/waker.rs:40"),
            // The probe in its own repository runs the user's code and is none.
            (
                "taskscope_probe::task::poll",
                "/home/a/taskscope/probe/src/task.rs",
                false,
                "probe/src/task.rs:40",
            ),
        ];
        for (function, file, own, expected) in cases {
            let frame = frame("/srv/bin/api", function, file);
            let path = Path::of(function);
            let said = (is_own(&frame, Some(&path)), place(&frame));
            assert_eq!(said, (own, Some(expected.to_owned())), "{file}");
        }
    }

    #[test]
    fn without_a_file_the_crate_tells() {
        let own = |program, function| is_own(&frame(program, function, ""), Some(&Path::of(function)));
        assert!(own("/srv/bin/api", "api::login"));
        assert!(!own("/srv/bin/api", "hyper::proto::h1::dispatch::Dispatcher<D,Bs,I,T>::poll_catch"));
        assert!(!own("/srv/bin/api", "<tokio::time::Sleep as core::future::future::Future>::poll"));
        assert!(!own("/srv/bin/api", "clock_nanosleep"));
        assert!(!own("/usr/lib/x86_64-linux-gnu/libssl.so.3", "ossl::x"));
    }
}
