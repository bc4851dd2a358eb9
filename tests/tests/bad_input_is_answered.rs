//! Whatever is wrong outside: one clear line with a hint, the right exit code, never a panic, never a hang. In a target:
//! never more than a log line.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use taskscope_tests::agent::{Agent, Answer, status};
use taskscope_tests::json::text;
use taskscope_tests::process::Process;
use taskscope_tests::screen::Screen;
use taskscope_tests::target::{Target, TargetBuilder, listening, runtime_folder};
use taskscope_tests::{Build, eventually, impostor, peer};

/// Nothing on standard output; on standard error one line that says what, and one that says what to do.
#[track_caller]
fn refused(answer: &Answer, code: i32) {
    assert_eq!(answer.code, Some(code), "another exit code:\n{answer}");
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    assert!(answer.stdout.is_empty(), "words belong to standard error:\n{answer}");
    // What the command line's parser adds to its own refusals is no second message.
    let said =
        answer.stderr.lines().filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let (hints, words): (Vec<&str>, Vec<&str>) =
        said.partition(|line| line.trim_start().starts_with("hint: "));
    assert!(words.len() == 1 && hints.len() == 1, "one clear line and one with a hint:\n{answer}");
    assert!(answer.stderr.lines().all(|line| line.chars().count() < 400), "{answer}");
}

/// Every command that attaches refuses this target in the same way.
#[track_caller]
fn every_command_refuses(target: &str, code: i32) {
    for command in ["status", "why", "tasks", "pending", "pools", "stacks"] {
        refused(&Agent::with([command, target]).run(), code);
    }
}

const ERROR: i32 = 2;
const USAGE: i32 = 64;

#[test]
fn an_address_that_is_none() {
    let (_guard, folder) = runtime_folder();
    for address in
        ["ftp://somewhere", "unix:", "http://", "http://127.0.0.1:99999", "no such name", "\u{1b}[2J"]
    {
        refused(&Agent::with(["status", address]).in_runtime_folder(&folder).run(), USAGE);
    }
    refused(&Agent::with(["status", "http://no-such-host.invalid:6670"]).run(), ERROR);
    refused(&Agent::with(["status", "nobody-has-this-name"]).in_runtime_folder(&folder).run(), ERROR);
}

#[test]
fn a_command_line_that_does_not_parse() {
    for args in [
        &["stattus", "x", "y"][..],
        &["status", "--nope"],
        &["tasks", "x", "--limit", "many"],
        &["save", "x"],
    ] {
        let answer = Agent::with(args.iter().copied()).run();
        assert_eq!(answer.code, Some(USAGE), "{answer}");
        assert!(answer.stdout.is_empty() && !answer.stderr.contains("panicked"), "{answer}");
    }
}

#[test]
fn nothing_listens_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    every_command_refuses(&format!("http://127.0.0.1:{port}"), ERROR);
    let (_guard, folder) = runtime_folder();
    every_command_refuses(&format!("unix:{}", folder.join("none.sock").display()), ERROR);
}

#[test]
fn a_socket_file_of_a_dead_process() {
    let (_guard, folder) = runtime_folder();
    let dead = folder.join("dead.sock");
    drop(UnixListener::bind(&dead).expect("a socket can be bound"));
    assert!(dead.exists(), "the file stays when its owner dies");
    every_command_refuses(&format!("unix:{}", dead.display()), ERROR);

    // Found by name: a target that was killed leaves its file where names are looked for.
    let mut target =
        Target::program("target-plain").env("TASKSCOPE_NAME", "shop").in_runtime_folder(&folder).start();
    assert_eq!(text(&named(&folder, "shop"), "name"), "shop");
    target.process.kill();
    refused(&Agent::with(["status", "shop"]).in_runtime_folder(&folder).run(), ERROR);
    let listed = Agent::with(["ls", "--json"]).in_runtime_folder(&folder).run().expect_code(0);
    assert_eq!(
        listed.json_lines(),
        [] as [serde_json::Value; 0],
        "a dead target is not listed as one to attach to"
    );
    // The next process of that name is not held up by the file.
    let _again =
        Target::program("target-plain").env("TASKSCOPE_NAME", "shop").in_runtime_folder(&folder).start();
    assert_eq!(text(&named(&folder, "shop"), "name"), "shop");
}

fn named(folder: &Path, name: &str) -> serde_json::Value {
    Agent::with(["status", name, "--json"]).in_runtime_folder(folder).run().expect_code(0).json()
}

#[test]
fn a_peer_that_is_no_probe() {
    every_command_refuses(&format!("http://{}", impostor::http()), ERROR);
    every_command_refuses(
        &format!("http://{}", impostor::saying(b"\x00\xff\x13 this is no HTTP/2 \x80\x80\r\n\r\n")),
        ERROR,
    );
    // A well-formed HTTP/2 frame of settings, and then nothing that makes sense.
    let settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    every_command_refuses(&format!("http://{}", impostor::saying(settings)), ERROR);
}

#[test]
fn a_peer_that_says_nothing() {
    let silent = format!("http://{}", impostor::saying(b""));
    refused(&Agent::with(["status", &silent]).within(Duration::from_secs(20)).run(), ERROR);
}

#[test]
fn a_target_of_another_version() {
    let newer = impostor::Newer::of_revision(7);
    let answer = Agent::with(["status", &newer.address]).run();
    refused(&answer, ERROR);
    assert!(
        answer.stderr.contains("99.0.0") || answer.stderr.contains("revision 7"),
        "the version is named:\n{answer}"
    );
}

#[test]
fn a_filter_that_does_not_parse() {
    let target = Target::program("target-plain").start();
    for filter in
        ["age>>3", "age>fast", "colour=red", "state=happy", "name~\"open", "polls>99999999999999999999999"]
    {
        for command in ["tasks", "pending"] {
            let answer = Agent::with([command, &target.address, filter]).run();
            refused(&answer, USAGE);
        }
    }
    let answer = Agent::with(["tasks", &target.address, "--sort", "beauty"]).run().expect_code(USAGE);
    assert!(answer.stderr.contains("beauty") && answer.stderr.contains("longest"), "{answer}");
}

#[test]
fn a_terminal_of_twenty_by_five() {
    if !peer("tmux") {
        return;
    }
    let target = Target::program("target-plain").start();
    for (width, height) in [(20, 5), (5, 2), (200, 3)] {
        let screen = Screen::open(width.max(10), height, &[]);
        screen.resize(width, height);
        let program = Build::Hooks.program("taskscope");
        // Short enough to be typed there: through a link.
        let link = target.folder().expect("it has one").join(format!("{width}"));
        std::os::unix::fs::symlink(&program, &link).expect("a link can be made");
        screen.run(&format!("{} top {} 2>{0}.log; echo \"=$?\"", link.display(), target.address));
        screen.shows(Duration::from_secs(10), |_| screen.is_alternate());
        for key in ["t", "g", "p", "o", "?"] {
            screen.keys(&[key]);
        }
        screen.resize(80, 24);
        // Large enough again, the last key's page is there: nothing that was pressed is lost.
        screen.shows(Duration::from_secs(5), |text| text.contains("Backspace"));
        // One after the other: together they would be Alt-q.
        screen.keys(&["Escape"]);
        screen.shows(Duration::from_secs(5), |text| !text.contains("Backspace"));
        screen.keys(&["q"]);
        screen.shows(Duration::from_secs(5), |text| !screen.is_alternate() && text.contains("=0"));
        let log = std::fs::read_to_string(format!("{}.log", link.display())).expect("the shell made it");
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn no_terminal() {
    let target = Target::program("target-plain").start();
    refused(&Agent::with(["top", &target.address]).run(), ERROR);
    refused(&Agent::with(["top", &target.address]).env("TERM", "dumb").run(), ERROR);
}

#[test]
fn a_closed_pipe() {
    let target = Target::program("target-plain").args(["--idle", "2000"]).start();
    let program = Build::Hooks.program("taskscope");
    for command in ["tasks T --watch --json", "tasks T --limit 5000", "status T --watch", "why T", "--help"] {
        let line = format!("{} {} | head -n 1", program.display(), command.replace('T', &target.address));
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("{line}; echo \"codes ${{PIPESTATUS[*]}}\" >&2")]);
        let mut pipe = Process::start(shell);
        pipe.wait(Duration::from_secs(15));
        let told = pipe.stderr.text();
        assert!(
            !told.contains("panicked") && !told.to_lowercase().contains("broken pipe"),
            "{command}: {told}"
        );
        assert!(
            told.contains("codes 0 0") || told.contains("codes 1 0") || told.contains("codes 141 0"),
            "{command}: {told}"
        );
    }
}

#[test]
fn a_file_system_that_cannot_be_written() {
    let target = Target::program("target-plain").start();
    // /proc and a folder that is not there refuse root, too.
    for file in ["/proc/taskscope-frames", "/no/such/folder/frames"] {
        refused(&Agent::with(["save", &target.address, file, "--for", "1s"]).run(), ERROR);
    }
    let (process, _folder) = TargetBuilder::of(Build::Hooks, "target-plain")
        .env("TASKSCOPE_LISTEN", "unix:/proc/taskscope/t.sock")
        .start_unheard();
    runs_on_with_one_line(&process);
}

#[test]
fn a_path_too_long_for_a_socket() {
    let long = format!("unix:/tmp/{}/t.sock", "long".repeat(50));
    every_command_refuses(&long, ERROR);
    let answer = Agent::with(["status", &long]).run();
    assert!(
        answer.stderr.contains("short") && !answer.stderr.contains("may have ended"),
        "the cause is said:\n{answer}"
    );
    let (process, _folder) =
        TargetBuilder::of(Build::Hooks, "target-plain").env("TASKSCOPE_LISTEN", &long).start_unheard();
    runs_on_with_one_line(&process);
    // A runtime folder of such a length is passed over for the next one.
    let (_guard, folder) = runtime_folder();
    let deep = folder.join("deep".repeat(40));
    std::fs::create_dir(&deep).expect("a folder can be made");
    let target = Target::program("target-plain").in_runtime_folder(&deep).start();
    assert!(target.address.len() < 108 + "unix:".len(), "{}", target.address);
    assert_eq!(text(&status(&target.address), "name"), "target-plain");
}

/// The service works although its probe cannot listen; the probe has said so in one line.
#[track_caller]
fn runs_on_with_one_line(process: &Process) {
    let line = process
        .stderr
        .wait_for(Duration::from_secs(10), 0, |line| line.contains("taskscope: ").then(|| line.to_owned()));
    assert!(line.contains("hint: "), "{line}");
    let figures = process.stdout.count();
    eventually(Duration::from_secs(10), || match process.stdout.count() {
        now if now >= figures + 2 => Ok(()),
        now => Err(format!("{now} lines of work")),
    });
    assert_eq!(process.stderr.count(), 1, "{}", process.outputs());
}

#[test]
fn two_programs_of_one_name() {
    let (_guard, folder) = runtime_folder();
    let start = |mark| {
        let target = Target::program("target-plain").args(["--mark", mark]).env("TASKSCOPE_NAME", "shop");
        target.in_runtime_folder(&folder).start()
    };
    let (first, second) = (start("first"), start("second"));
    assert_ne!(first.address, second.address);
    let answer = Agent::with(["status", "shop"]).in_runtime_folder(&folder).run();
    refused(&answer, ERROR);
    let listed = Agent::with(["ls", "--json"]).in_runtime_folder(&folder).run().expect_code(0).json_lines();
    let mut pids: Vec<_> =
        listed.iter().map(|target| target["pid"].as_u64().expect("it has a pid")).collect();
    pids.sort_unstable();
    let mut expected: [u64; 2] = [first.pid().into(), second.pid().into()];
    expected.sort_unstable();
    assert_eq!(pids, expected, "{listed:?}");
    assert!(listed.iter().all(|target| text(target, "name") == "shop"), "{listed:?}");
    for target in [&first, &second] {
        assert_eq!(status(&target.address)["pid"].as_u64(), Some(target.pid().into()));
    }
}

#[test]
fn two_containers_that_are_both_process_one() {
    let (_guard, folder) = runtime_folder();
    let start = || {
        let program = Build::Hooks.program("target-plain");
        let mut container = Command::new("unshare");
        container.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]).arg(program);
        container
            .env("XDG_RUNTIME_DIR", &folder)
            .env("TASKSCOPE_NAME", "shop")
            .env_remove("TASKSCOPE_LISTEN");
        container.env_remove("RUNTIME_DIRECTORY");
        Process::start(container)
    };
    let containers = [start(), start()];
    let addresses = containers.each_ref().map(|container| listening(container));
    assert_ne!(addresses[0], addresses[1]);
    let instances = addresses.each_ref().map(|address| {
        let state = status(address);
        assert_eq!((text(&state, "name"), state["pid"].as_u64()), ("shop", Some(1)), "{state}");
        text(&state, "instance").to_owned()
    });
    assert!(!instances[0].is_empty() && instances[0] != instances[1], "{instances:?}");
    let listed = Agent::with(["ls", "--json"]).in_runtime_folder(&folder).run().expect_code(0).json_lines();
    assert_eq!(listed.len(), 2, "{listed:?}");
}
