//! What must not be there (ARCHITECTURE.md says why), each checked by reading sources or asking cargo.
//!
//! Sources are read as text: comments and the unit tests at the end of a file do not count.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::cargo;

/// Machines: they take `now` as an argument and perform no I/O. Each new machine joins this list.
const MACHINES: [&str; 22] = [
    "agent/src/alerts/desk.rs",
    "agent/src/alerts/inhibit.rs",
    "agent/src/alerts/life.rs",
    "agent/src/alerts/memory.rs",
    "agent/src/alerts/timeline.rs",
    "agent/src/alerts/vitals.rs",
    "agent/src/alerts/watcher.rs",
    "agent/src/alerts/watcher/pace.rs",
    "agent/src/alerts/watcher/settled.rs",
    "agent/src/evidence/fit.rs",
    "agent/src/evidence/turns.rs",
    "agent/src/fleet.rs",
    "agent/src/sinks/alertmanager.rs",
    "agent/src/sinks/bucket.rs",
    "agent/src/sinks/repeat.rs",
    "agent/src/sinks/retry.rs",
    "agent/src/viewers.rs",
    "agent/src/link.rs",
    "probe/src/engine/credit.rs",
    "probe/src/engine/schedule.rs",
    "probe/src/engine/tick.rs",
    "probe/src/stacks/schedule.rs",
];

/// What a machine must not mention: clocks, timers, and whatever waits.
const NOT_IN_MACHINES: [&str; 6] =
    ["Instant::now", "SystemTime::now", "tokio::time::sleep", "thread::sleep", "async fn", ".await"];

/// What a promise must not do: wait for a time, or not run.
const SLEEPS: [&str; 5] = ["thread::sleep(", "thread::sleep;", "time::sleep(", "time::sleep;", "#[ignore"];

/// Which crates of the workspace each one may know.
const MAY_KNOW: [(&str, &[&str]); 6] = [
    ("taskscope-proto", &[]),
    ("taskscope-probe-macros", &[]),
    ("taskscope-probe", &["taskscope-proto", "taskscope-probe-macros"]),
    ("taskscope-tui", &["taskscope-proto"]),
    ("taskscope-demo", &["taskscope-probe"]),
    ("taskscope", &["taskscope-proto", "taskscope-tui", "taskscope-demo"]),
];

/// tonic's server and client types, and the modules that are generated from them.
const TONIC_ENDS: [&str; 5] =
    ["tonic::transport", "introspect_server", "introspect_client", "alerts_server", "alerts_client"];

/// Crates, and the files of theirs that may touch [`TONIC_ENDS`]: one an end.
const MAY_TOUCH_TONIC: [(&str, &[&str]); 4] = [
    ("probe", &["probe/src/engine/server.rs"]),
    ("agent", &["agent/src/connection.rs", "agent/src/server.rs"]),
    ("tui", &[]),
    ("demo", &[]),
];

/// Where the dashboard's state and update live, each a file and a folder; only its view knows ratatui.
const STATE_AND_UPDATE: [&str; 3] = ["tui/src/app", "tui/src/model", "tui/src/table"];

/// The files that may lift the ban on `unsafe`. Those of the probe are also run under Miri, by `cargo xtask verify`, except for
/// what Miri does not know: signals.
pub(crate) const UNSAFE: [&str; 8] = [
    "probe/src/capture/waker.rs",
    "probe/src/native.rs",
    "probe/src/registry/arena.rs",
    "probe/src/stacks/handler.rs",
    "probe/src/stacks/taker/tests.rs",
    "probe/tests/stack_signal.rs",
    "probe/tests/stacks.rs",
    "tests/src/process.rs",
];

/// One file of the workspace.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Everything that is present although it must be absent, as sentences.
pub(crate) fn violations(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = in_sources(&sources(root)?);
    found.extend(in_workspace(&cargo::metadata(root)?));
    found.extend(in_proto_tree(&cargo::dependency_tree(root, "taskscope-proto")?));
    Ok(found)
}

/// Every `.rs` file under the crates' folders.
fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                // Build folders and hidden ones are nobody's source.
                if !name.starts_with('.') && !name.starts_with("target") {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let inside = path.strip_prefix(root).context("a file lies outside its own root")?;
                found.push(Source { path: inside.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn in_sources(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let Source { path, .. } = source;
        if path.ends_with("/mod.rs") {
            found
                .push(format!("{path}: a `mod.rs`; hint: name the file after its module, beside the folder"));
        }
        if STATE_AND_UPDATE
            .iter()
            .any(|start| *path == format!("{start}.rs") || path.starts_with(&format!("{start}/")))
        {
            found.extend(mentions(source, &["ratatui"]).map(|at| {
                format!(
                    "{at}; state and update do not know ratatui; hint: what is drawn belongs into the view"
                )
            }));
        }
        if MACHINES.contains(&path.as_str()) {
            found.extend(mentions(source, &NOT_IN_MACHINES).map(|at| {
                format!(
                    "{at}; a machine takes `now` and performs no I/O; hint: do it in the driver beside it"
                )
            }));
        }
        if path.starts_with("probe/src/") {
            found.extend(public_lines(source, &["tonic", "prost", "taskscope_proto", "v1::"]).map(|at| {
                format!("{at}; the probe's public API names no wire type: each of their releases would break users")
            }));
        }
        found.extend(unsafe_code(source));
        if path.starts_with("tests/tests/") {
            found.extend(
                // Calls and imports: what a sentence says of a sleeping service is another matter.
                mentions(source, &SLEEPS)
                    .map(|at| format!("{at}; hint: wait with `eventually` for what must become true")),
            );
        }
    }
    for machine in MACHINES {
        let folder = machine.rsplit_once('/').map_or("", |(folder, _)| folder);
        let there = sources.iter().any(|source| source.path.starts_with(&format!("{folder}/")));
        if there && !sources.iter().any(|source| source.path == machine) {
            found.push(format!(
                "{machine}: a machine that is not there; hint: correct MACHINES in xtask/src/absences.rs"
            ));
        }
    }
    for (folder, may) in MAY_TOUCH_TONIC {
        let theirs = sources.iter().filter(|source| source.path.starts_with(&format!("{folder}/src/")));
        for source in theirs.filter(|source| !may.contains(&source.path.as_str())) {
            if mentions(source, &TONIC_ENDS).next().is_some() {
                let path = &source.path;
                found
                    .push(format!("{path}: touches tonic's server or client types; in {folder} {may:?} may"));
            }
        }
    }
    found
}

/// Unsafe code that is not in one of the few files for it, or that does not say why it is sound.
fn unsafe_code(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    let may = UNSAFE.contains(&path.as_str());
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // What lies between two quotes is a text.
        let code: String = code.split('"').step_by(2).collect();
        let lifts = ["allow(", "expect(", "warn("].iter().any(|lift| code.contains(lift));
        if lifts && code.contains("unsafe_code") && !may {
            found.push(format!(
                "{path}:{}: lifts the ban on unsafe code; hint: do without, or add it to UNSAFE in xtask/src/absences.rs",
                at + 1
            ));
        }
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        if may && words.any(|word| matches!(word, "unsafe" | "global_asm")) && !has_proof(&lines[..at]) {
            found.push(format!(
                "{path}:{}: unsafe code without its proof; hint: a comment above it that begins with `// SAFETY`",
                at + 1
            ));
        }
    }
    found
}

/// Whether the comment that ends these lines begins with `SAFETY`. Attributes may stand between.
fn has_proof(above: &[&str]) -> bool {
    let mut comment =
        above.iter().rev().map(|line| line.trim_start()).skip_while(|line| line.starts_with("#["));
    comment.by_ref().take_while(|line| line.starts_with("//")).any(|line| line.starts_with("// SAFETY"))
}

/// Where code (no comment, no unit test) has one of these words, as `path:line: word`.
fn mentions<'a>(source: &'a Source, words: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    code(&source.text).flat_map(move |(number, line)| {
        words
            .iter()
            .filter(move |word| line.contains(**word))
            .map(move |word| format!("{}:{number}: mentions `{word}`", source.path))
    })
}

/// Like [`mentions`], in lines that begin a public item.
fn public_lines<'a>(source: &'a Source, words: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    let public: Vec<usize> = code(&source.text)
        .filter(|(_, line)| line.trim_start().starts_with("pub "))
        .map(|(number, _)| number)
        .collect();
    mentions(source, words).filter(move |at| {
        let line = at.strip_prefix(source.path.as_str()).and_then(|rest| rest.split(':').nth(1));
        line.and_then(|line| line.parse().ok()).is_some_and(|line: usize| public.contains(&line))
    })
}

/// Numbered lines of code, without comments and without the unit tests that end a file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    // Between the two lines, a module of tests may say which lint it lifts.
    let tests = lines.iter().enumerate().position(|(at, line)| {
        let module = lines[at + 1..].iter().find(|line| !line.trim_start().starts_with("#["));
        *line == "#[cfg(test)]" && module.is_some_and(|line| line.starts_with("mod tests {"))
    });
    let end = tests.unwrap_or(lines.len());
    lines.into_iter().take(end).enumerate().map(|(index, line)| {
        let code = match line.split_once("//") {
            // `http://` in a text is no comment.
            Some((before, _)) if before.ends_with(':') => line,
            Some((before, _)) => before,
            None => line,
        };
        (index + 1, code)
    })
}

/// `cargo metadata --no-deps`: who knows whom. Crates under development dependencies are not asked.
fn in_workspace(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (name, may_know) in MAY_KNOW {
        let Some(package) = packages.iter().find(|package| package["name"] == name) else {
            found.push(format!("{name}: no such package in the workspace; hint: correct MAY_KNOW in xtask"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let known = dependency["name"].as_str().unwrap_or_default();
            let inside = packages.iter().any(|package| package["name"] == known);
            if inside && dependency["kind"] != "dev" && !may_know.contains(&known) {
                found.push(format!("{name} knows {known}; it may know {may_know:?} only"));
            }
        }
    }
    found
}

/// `taskscope-proto` without features: pure code.
fn in_proto_tree(tree: &[String]) -> Vec<String> {
    if !tree.iter().any(|package| package == "taskscope-proto") {
        return vec!["cargo tree does not list taskscope-proto itself".to_owned()];
    }
    let absent = ["tokio", "tonic", "hyper", "tower", "ratatui", "crossterm"];
    tree.iter()
        .filter(|package| {
            absent.iter().any(|name| *package == name || package.starts_with(&format!("{name}-")))
        })
        .map(|package| format!("taskscope-proto without features depends on {package}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_present_that_must_be_absent() {
        let found = violations(&crate::root()).expect("the workspace can be read");
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    fn found_in(path: &str, text: &str) -> Vec<String> {
        // Machines are looked for only in folders that are there: this one has its own.
        in_sources(&[Source { path: path.to_owned(), text: text.to_owned() }])
    }

    #[track_caller]
    fn one(found: Vec<String>, says: &str) {
        assert!(
            found.len() == 1 && found[0].contains(says),
            "expected one sentence with `{says}`, found {found:?}"
        );
    }

    #[test]
    fn a_module_file_is_found() {
        one(found_in("tui/src/view/mod.rs", ""), "a `mod.rs`");
    }

    #[test]
    fn a_clock_or_a_wait_in_a_machine_is_found_but_not_in_its_comments_and_tests() {
        let machine = "probe/src/stacks/schedule.rs";
        one(
            found_in(machine, "fn apply() {\n    let t = Instant::now();\n}"),
            "probe/src/stacks/schedule.rs:2: mentions `Instant::now`",
        );
        one(found_in(machine, "    tokio::time::sleep(d)"), "tokio::time::sleep");
        assert_eq!(
            found_in(machine, "/// Never Instant::now.\n#[cfg(test)]\nmod tests {\n    Instant::now();\n}"),
            [""; 0]
        );
    }

    #[test]
    fn tests_that_lift_a_lint_for_themselves_are_tests_and_what_is_only_built_for_them_is_not() {
        let machine = "probe/src/stacks/schedule.rs";
        let lifted = "#[cfg(test)]\n#[allow(x)]\nmod tests {\n    Instant::now();\n}";
        assert_eq!(found_in(machine, lifted), [""; 0]);
        one(found_in(machine, "#[cfg(test)]\nuse x;\nfn f() { Instant::now(); }"), ":3: mentions");
    }

    #[test]
    fn a_machine_that_was_moved_is_missed() {
        one(
            found_in("probe/src/stacks/table.rs", "fn f() {}"),
            "probe/src/stacks/schedule.rs: a machine that is not there",
        );
        assert_eq!(found_in("proto/src/lib.rs", ""), [""; 0]);
    }

    #[test]
    fn ratatui_in_the_state_is_found_and_in_the_view_is_not() {
        one(found_in("tui/src/app/tasks.rs", "use ratatui::layout::Rect;"), "ratatui");
        one(found_in("tui/src/model.rs", "use ratatui::layout::Rect;"), "ratatui");
        assert_eq!(found_in("tui/src/view.rs", "use ratatui::layout::Rect;"), [""; 0]);
    }

    #[test]
    fn a_second_file_that_touches_tonic_is_found() {
        let server = "use v1::introspect_server::Introspect;";
        // The machines beside it are missed, and nothing else.
        let found = found_in("probe/src/engine/server.rs", server);
        assert!(found.iter().all(|it| !it.contains("tonic")), "{found:?}");
        assert_eq!(found_in("probe/src/pool.rs", "// tonic::transport"), [""; 0]);
        one(found_in("probe/src/watch.rs", server), "probe/src/watch.rs: touches tonic");
        one(found_in("tui/src/app.rs", "use tonic::transport::Channel;"), "tui/src/app.rs: touches tonic");
        one(found_in("demo/src/lib.rs", "use v1::alerts_client::AlertsClient;"), "in demo [] may");
    }

    #[test]
    fn a_wire_type_in_the_probes_public_api_is_found() {
        one(found_in("probe/src/pool.rs", "pub fn f() -> tonic::Status {}"), "probe/src/pool.rs:1");
        assert_eq!(
            found_in("probe/src/pool.rs", "pub(crate) fn f() -> tonic::Status {}\nfn g(v: v1::Pool) {}"),
            [""; 0]
        );
    }

    #[test]
    fn a_sleep_in_a_promise_is_found() {
        one(found_in("tests/tests/attach.rs", "std::thread::sleep(second);"), "eventually");
        assert_eq!(found_in("tests/src/eventually.rs", "std::thread::sleep(second);"), [""; 0]);
    }

    #[test]
    fn unsafe_code_is_found_where_it_may_not_be_and_where_nothing_proves_it() {
        one(found_in("probe/src/pool.rs", "#![allow(unsafe_code)]"), "probe/src/pool.rs:1: lifts the ban");
        one(
            found_in("probe/src/pool.rs", "#[expect(unsafe_code, reason = \"x\")]"),
            "pool.rs:1: lifts the ban",
        );
        let index = |text| found_in("probe/src/registry/arena.rs", text);
        assert_eq!(
            index("#![allow(unsafe_code)]\n// SAFETY: it is so,\n// indeed.\nunsafe { f() }"),
            [""; 0]
        );
        assert_eq!(index("// SAFETY: it is so.\n#[cfg(x)]\nreturn unsafe { f() };"), [""; 0]);
        one(
            index("let a = 1;\n// It is so.\nlet b = unsafe { f() };"),
            "arena.rs:3: unsafe code without its proof",
        );
        one(index("// SAFETY: of another.\nlet a = 1;\nunsafe impl Send for A {}"), "arena.rs:3");
        assert_eq!(index("// unsafe\nlet unsafely = \"unsafe\";"), [""; 0]);
        // None of the last ones makes a check where it may not be.
        assert_eq!(found_in("probe/src/pool.rs", "// allow(unsafe_code)"), [""; 0]);
    }

    #[test]
    fn a_crate_that_knows_too_much_is_found() {
        let package = |name: &str, dependencies: &[(&str, &str)]| {
            let dependencies: Vec<Value> = dependencies
                .iter()
                .map(|(name, kind)| serde_json::json!({"name": name, "kind": (*kind != "normal").then_some(*kind)}))
                .collect();
            serde_json::json!({"name": name, "dependencies": dependencies})
        };
        let metadata = |tui: &[(&str, &str)]| {
            let mut packages: Vec<Value> = MAY_KNOW
                .iter()
                .filter(|(name, _)| *name != "taskscope-tui")
                .map(|(name, _)| package(name, &[]))
                .collect();
            packages.push(package("taskscope-tui", tui));
            serde_json::json!({ "packages": packages })
        };
        let good = [("taskscope-proto", "normal"), ("ratatui", "normal"), ("taskscope-probe", "dev")];
        assert_eq!(in_workspace(&metadata(&good)), [""; 0]);
        one(in_workspace(&metadata(&[("taskscope-probe", "normal")])), "taskscope-tui knows taskscope-probe");
        one(in_workspace(&metadata(&[("taskscope", "build")])), "taskscope-tui knows taskscope;");
        assert_eq!(in_workspace(&serde_json::json!({})).len(), MAY_KNOW.len());
    }

    #[test]
    fn a_runtime_under_proto_is_found() {
        let tree = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(in_proto_tree(&tree(&["taskscope-proto", "prost", "bytes", "thiserror"])), [""; 0]);
        one(in_proto_tree(&tree(&["taskscope-proto", "tokio-stream"])), "tokio-stream");
        one(in_proto_tree(&tree(&[])), "does not list");
    }
}
