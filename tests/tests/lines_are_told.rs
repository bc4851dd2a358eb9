//! Addresses of stacks become functions, files and lines, also where the debug information is only with the agent: of a
//! running service, and of a recording, whose addresses are this test's own functions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use taskscope_proto::ids::TaskId;
use taskscope_proto::v1::{self, interned_stack::End};
use taskscope_tests::agent::Agent;
use taskscope_tests::json::{list, text};
use taskscope_tests::target::Target;
use taskscope_tests::{Build, eventually, peer};

const S: u64 = 1_000_000_000;

/// What the poll of the recording is in: the line is that of `look_up`, which calls `sleep_long`.
#[inline(never)]
fn look_up(x: u64) -> u64 {
    std::hint::black_box(x) + 1
}
const LINE: u32 = line!() - 3;

/// The bytes of the note NT_GNU_BUILD_ID, as `readelf` tells it; `None` where it is not here.
fn build_id(path: &Path) -> Option<Vec<u8>> {
    if !peer("readelf") {
        return None;
    }
    let notes = Command::new("readelf").arg("-n").arg(path).output().expect("readelf was found");
    let notes = String::from_utf8_lossy(&notes.stdout).into_owned();
    let id = notes.split_once("Build ID: ").and_then(|(_, rest)| rest.split_whitespace().next());
    let id = id.unwrap_or_else(|| panic!("this test's program has no build-id: {notes}"));
    Some((0..id.len()).step_by(2).filter_map(|at| u8::from_str_radix(&id[at..at + 2], 16).ok()).collect())
}

/// Where `look_up` is in this program's file.
fn address(exe: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it can be read");
    let mapped = maps.lines().find(|line| line.ends_with(&exe.display().to_string())).expect("it is mapped");
    let base = u64::from_str_radix(mapped.split('-').next().unwrap_or(""), 16).expect("an address");
    look_up as fn(u64) -> u64 as usize as u64 - base
}

/// A recording of one poll that has been in `look_up` of the program at `path` for three seconds.
fn recording(file: &Path, path: &Path, build_id: Vec<u8>, address: u64) {
    let poll = v1::LivePoll {
        task_id: 17,
        kind: v1::TaskKind::Task.into(),
        name_sid: 1,
        since_ns: 3 * S,
        stacks: vec![v1::StackShare { stack_sid: 1, samples: 6, covered_ns: 2_900_000_000 }],
        ..Default::default()
    };
    let worker = v1::Worker {
        tid: Some(4711),
        state: v1::worker::State::InPoll.into(),
        poll: Some(poll),
        ..Default::default()
    };
    let frame = v1::Frame {
        seq: 1,
        at_ns: 9 * S,
        strings: vec![v1::InternedString { sid: 1, text: "look-up".into() }],
        runtimes: vec![v1::Runtime { id: 1, workers: vec![worker], ..Default::default() }],
        modules: vec![v1::Module { id: 1, path: path.display().to_string(), build_id }],
        stacks: vec![v1::InternedStack {
            stack_sid: 1,
            module_ids: vec![1],
            addresses: vec![address],
            end: End::Whole.into(),
        }],
        ..Default::default()
    };
    let description = v1::Description {
        revision: 1,
        name: "shop".into(),
        capabilities: vec![v1::Capability {
            kind: v1::capability::Kind::Stacks.into(),
            coverage: v1::capability::Coverage::Full.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut bytes = b"tskscop1".to_vec();
    bytes.extend(description.encode_length_delimited_to_vec());
    bytes.extend(frame.encode_length_delimited_to_vec());
    std::fs::write(file, bytes).expect("it can be written");
}

struct Case {
    folder: tempfile::TempDir,
    exe: PathBuf,
    build_id: Vec<u8>,
    recording: String,
}

/// `None`: a tool is not here, which was said.
fn case() -> Option<Case> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let exe = std::env::current_exe().expect("it runs from a file");
    let build_id = build_id(&exe)?;
    let file = folder.path().join("r.tskscop");
    recording(&file, &exe, build_id.clone(), address(&exe));
    Some(Case { folder, exe, build_id, recording: file.display().to_string() })
}

/// That the line of a task is the recording's. A release may have inlined something of the language into it.
fn is_the_line(task: &Value) -> u64 {
    let frame = list(task, "frames").iter().find(|frame| frame["is_line"] == true);
    let frame = frame.unwrap_or_else(|| panic!("no line: {task}"));
    assert!(text(frame, "function").ends_with("look_up"), "{task}");
    assert!(text(frame, "file").ends_with("tests/tests/lines_are_told.rs"), "{task}");
    let line = frame["line"].as_u64().unwrap_or(0);
    assert!((u64::from(LINE) - 1..=u64::from(LINE) + 1).contains(&line), "{task} is not at {LINE}");
    assert_eq!(
        (text(task, "name"), text(task, "kind"), task["task"].as_u64()),
        ("look-up", "running", Some(17))
    );
    line
}

#[test]
fn every_command_tells_the_line() {
    let Some(case) = case() else { return };
    let stacks =
        |more: &[&str]| Agent::with([&["stacks", &case.recording], more].concat()).run().expect_code(0);
    let tasks = stacks(&["--json"]).json_lines();
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    let line = is_the_line(&tasks[0]);
    let place = format!("look_up, tests/tests/lines_are_told.rs:{line}");
    let said = stacks(&[]).stdout;
    assert!(
        said.starts_with("look-up, task 17, for 3.0 s, 2.9 of 3.0 s in ") && said.contains(&place),
        "{said}"
    );
    assert!(said.contains("\n  > "), "{said}");
    let why = Agent::with(["why", &case.recording]).run();
    assert!(why.code == Some(1) && why.stdout.contains(&place), "{why:?}");
    let status = Agent::with(["status", &case.recording]).run().expect_code(0);
    assert!(status.stdout.contains(&place), "{status:?}");

    let folded = stacks(&["--folded"]).stdout;
    assert!(
        folded.starts_with("look-up;") && folded.contains("look_up") && folded.ends_with(" 6\n"),
        "{folded}"
    );
    let page = case.folder.path().join("flame.html").display().to_string();
    assert_eq!(stacks(&["--html", &page]).stdout, "");
    let page = std::fs::read_to_string(page).expect("it was written");
    assert!(page.contains("look_up") && page == stacks(&["--html", "-"]).stdout);
}

#[test]
fn a_stripped_program_has_its_line_from_a_folder_of_debug_information() {
    let Some(case) = case() else { return };
    if !peer("strip") || !peer("objcopy") {
        return;
    }
    let folder = case.folder.path();
    let (stripped, debug) = (folder.join("image/shop"), folder.join("debug"));
    for made in [folder.join("image"), folder.join("nothing"), debug.clone()] {
        std::fs::create_dir(made).expect("it can be made");
    }
    let run = |program: &str, args: &[&std::ffi::OsStr]| {
        let ended = Command::new(program).args(args).status().expect("it was found");
        assert!(ended.success(), "{program} {args:?}");
    };
    run("strip", &["-o".as_ref(), stripped.as_os_str(), case.exe.as_os_str()]);
    let only = debug.join("shop.debug");
    run("objcopy", &["--only-keep-debug".as_ref(), case.exe.as_os_str(), only.as_os_str()]);
    recording(Path::new(&case.recording), &stripped, case.build_id.clone(), address(&case.exe));

    let stacks = || Agent::with(["stacks", &case.recording, "--json"]);
    let debug = debug.display().to_string();
    let given =
        Agent::with(["stacks", &case.recording, "--json", "--debug-dir", &debug]).run().expect_code(0);
    is_the_line(&given.json_lines()[0]);
    assert_eq!(given.stderr, "");
    let named = stacks().env("TASKSCOPE_DEBUG_DIR", format!("/nowhere:{debug}")).run().expect_code(0);
    is_the_line(&named.json_lines()[0]);

    let nothing = folder.join("nothing").display().to_string();
    let without = stacks().env("TASKSCOPE_DEBUG_DIR", &nothing).run().expect_code(0);
    let frame = without.json_lines()[0]["frames"][0].clone();
    assert!(frame.get("function").is_none() && frame.get("line").is_none(), "{frame}");
    assert_eq!(text(&frame, "module"), stripped.display().to_string());
    assert_eq!(text(&frame, "build_id").len(), 40, "{frame}");
    assert!(
        without.stderr.contains("is stripped\nhint: give the folder of its unstripped copy"),
        "{without:?}"
    );
    assert_eq!(without.stderr.lines().count(), 2, "{without:?}");
    let why = Agent::with(["why", &case.recording]).run();
    assert!(why.code == Some(1) && why.stdout.contains("not seen: the line: "), "{why:?}");
    // An address in it is shown by module.
    let text = Agent::with(["stacks", &case.recording]).run().expect_code(0).stdout;
    assert!(text.contains("    shop+0x"), "{text}");

    // What is at the path by now is of another build.
    recording(Path::new(&case.recording), &stripped, vec![7; 20], address(&case.exe));
    let other = stacks().run().expect_code(0);
    assert!(other.json_lines()[0]["frames"][0].get("function").is_none(), "{other:?}");
    assert!(other.stderr.contains("is of another build: its build-id is "), "{other:?}");
}

/// The line of `target-stuck` on which this stands.
fn line_of(text: &str) -> u64 {
    let source = taskscope_tests::root().join("tests/src/bin/target-stuck.rs");
    let source = std::fs::read_to_string(source).expect("it can be read");
    let at = source.lines().position(|line| line.contains(text));
    at.map_or_else(|| panic!("{text} is not in it"), |at| at as u64 + 1)
}

const SLEEPS: &str = "sleep(Duration::from_secs(3600))";

/// A service whose one worker sleeps in `resize`, run from a copy of its program at `path`.
fn stuck(path: &Path, how: &str) -> Target {
    let target = Target::program("target-stuck").args(["--workers", "1", "--how", how]);
    let mut target =
        target.env("TASKSCOPE_STACKS", "on").env("COPY", path).in_shell("exec \"$COPY\" \"$@\"").start();
    target.said("ready");
    target.process.say("go");
    target.said("stuck");
    target
}

/// What `why` says once it says something of a line, or of its absence.
#[track_caller]
fn why_with(target: &Target, more: &[&str], wanted: &str) -> String {
    eventually(Duration::from_secs(10), || {
        let said = Agent::with([&["why", target.address.as_str()], more].concat()).run().stdout;
        if said.contains(wanted) { Ok(said) } else { Err(said) }
    })
}

#[test]
fn a_running_service_tells_its_line() {
    let program = Build::Hooks.program("target-stuck");
    let target = stuck(&program, "sleep");
    let place = format!("tests/src/bin/target-stuck.rs:{}", line_of(SLEEPS));
    let said = why_with(&target, &[], &place);
    assert!(
        said.starts_with("STUCK ") && said.contains(&format!("in std::thread::sleep, {place}")),
        "{said}"
    );
    let tasks = Agent::with(["stacks", &target.address, "--json"]).run().expect_code(0).json_lines();
    let task = tasks.iter().find(|task| text(task, "name") == "resizer").expect("it runs");
    assert_eq!((text(task, "label"), text(task, "thread_state")), ("POST /resize", "asleep"), "{task}");
    let line = list(task, "frames").iter().find(|frame| frame["is_line"] == true).expect("it has a line");
    assert!(text(line, "file").ends_with("tests/src/bin/target-stuck.rs"), "{line}");
    assert_eq!(line["line"].as_u64(), Some(line_of(SLEEPS)), "{line}");
    let id = task["task"].to_string();
    let only =
        Agent::with(["stacks", &target.address, "--json", "--task", &own_id(&id)]).run().expect_code(0);
    assert_eq!(only.json_lines().len(), 1, "{only}");
}

/// As `taskscope tasks` shows it: tasks of the wrapper's have ids of the probe's own.
fn own_id(id: &str) -> String {
    let id: u64 = id.parse().expect("an id is a number");
    if id & TaskId::OWN == 0 { id.to_string() } else { format!("p{}", id & !TaskId::OWN) }
}

#[test]
fn a_spinning_poll_tells_the_function_that_spins() {
    let target = stuck(&Build::Hooks.program("target-stuck"), "spin");
    let said = why_with(&target, &[], "tests/src/bin/target-stuck.rs:");
    let resize = line_of("async fn resize")..=line_of("async fn resize") + 14;
    let line = said.split("tests/src/bin/target-stuck.rs:").nth(1).unwrap_or("");
    let line: String = line.chars().take_while(char::is_ascii_digit).collect();
    assert!(line.parse().is_ok_and(|line| resize.contains(&line)), "{said}");
}

/// As in production: the image is stripped, and replaced by the next release while the service runs.
#[test]
fn a_stripped_service_tells_its_line_from_a_debug_file_even_when_it_was_replaced() {
    if !peer("strip") || !peer("objcopy") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (image, debug) = (folder.path().join("shop"), folder.path().join("debug"));
    std::fs::create_dir(&debug).expect("it can be made");
    let program = Build::Hooks.program("target-stuck");
    let run = |tool: &str, args: &[&std::ffi::OsStr]| {
        assert!(Command::new(tool).args(args).status().expect("it was found").success(), "{tool} {args:?}");
    };
    run("strip", &["-o".as_ref(), image.as_os_str(), program.as_os_str()]);
    let debug_file = debug.join("shop.debug");
    run("objcopy", &["--only-keep-debug".as_ref(), program.as_os_str(), debug_file.as_os_str()]);
    let target = stuck(&image, "sleep");
    // Cargo's own build is not where this one runs from, so nothing here has its names.
    let without = why_with(&target, &[], "not seen: the line: ");
    assert!(without.contains("is stripped (give the folder of"), "{without}");
    let place = format!("tests/src/bin/target-stuck.rs:{}", line_of(SLEEPS));
    let debug = debug.display().to_string();
    why_with(&target, &["--debug-dir", &debug], &place);

    std::fs::remove_file(&image).expect("it can be removed");
    std::fs::write(&image, "the next release").expect("it can be written");
    why_with(&target, &["--debug-dir", &debug], &place);
    // With the whole program at hand through its process, a service that was not stripped needs no folder.
    let unstripped = folder.path().join("unstripped");
    std::fs::copy(&program, &unstripped).expect("it can be copied");
    let target = stuck(&unstripped, "sleep");
    std::fs::remove_file(&unstripped).expect("it can be removed");
    why_with(&target, &[], &place);
}

#[test]
fn where_no_stacks_are_the_reason_is_told() {
    let target = Target::program("target-plain").start();
    let refused = Agent::with(["stacks", &target.address]).run();
    assert!(refused.code == Some(2) && refused.stderr.contains("hint: "), "{refused:?}");
    assert!(refused.stderr.contains("stacks"), "{refused:?}");

    let none = taskscope_tests::root().join("tests/data/revision-1-stuck-poll.tskscop").display().to_string();
    let none = Agent::with(["stacks", &none]).run();
    assert!(none.code == Some(2) && none.stderr.contains("the recording has no stacks\nhint: "), "{none:?}");

    let Some(case) = case() else { return };
    let unwritable = Agent::with(["stacks", &case.recording, "--html", "/nowhere/x.html"]).run();
    assert!(unwritable.code == Some(2) && unwritable.stderr.contains("hint: "), "{unwritable:?}");
    for wrong in [&["--json", "--folded"][..], &["--task", "x"], &["--task", "0"]] {
        let usage = Agent::with([&["stacks", &case.recording], wrong].concat()).run();
        assert_eq!(usage.code, Some(64), "{usage:?}");
    }
    let idle = Agent::with(["stacks", &case.recording, "--task", "99"]).run().expect_code(0);
    assert!(idle.stderr.contains("task 99 runs nothing now"), "{idle:?}");
}
