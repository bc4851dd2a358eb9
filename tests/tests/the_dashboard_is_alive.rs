//! The dashboard in a real terminal: there from the first frame, there when the target is gone, and gone without a trace.

use std::time::Duration;

use rustix::process::Signal;
use taskscope_tests::screen::Screen;
use taskscope_tests::target::Target;
use taskscope_tests::{Build, eventually, impostor, peer, proc};

fn top(screen: &Screen, address: &str) {
    screen.run(&format!("{} top {address}; echo \"ended: $?\"", Build::Hooks.program("taskscope").display()));
    screen.shows(Duration::from_secs(10), |_| screen.is_alternate());
}

/// The command's exit code is printed on a line of its own; what was typed holds the same words.
fn has_ended(text: &str) -> bool {
    // What was typed has `$?` there.
    text.split("ended: ").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The shell again: its own screen, its cursor, and what is typed shows.
fn restored(screen: &Screen) -> String {
    let text = screen.shows(Duration::from_secs(5), |text| !screen.is_alternate() && has_ended(text));
    assert!(screen.has_cursor(), "the cursor is shown again:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
    screen.run("echo typed | tr a-z A-Z");
    screen.shows(Duration::from_secs(5), |text| text.contains("echo typed") && text.contains("TYPED"));
    text
}

#[test]
fn it_draws_before_the_target_answers_and_quits_on_q() {
    if !peer("tmux") {
        return;
    }
    // Accepts the connection and says nothing.
    let silent = impostor::saying(b"");
    let screen = Screen::open(100, 30, &[]);
    top(&screen, &format!("http://{silent}"));
    screen.shows(Duration::from_secs(3), |text| text.to_lowercase().contains("connect"));
    screen.keys(&["q"]);
    let text = restored(&screen);
    assert!(text.contains("ended: 0"), "{text}");
}

#[test]
fn it_shows_a_target_until_it_is_gone_and_says_so_after() {
    if !peer("tmux") {
        return;
    }
    let mut target = Target::program("target-pools").start();
    let screen = Screen::open(100, 30, &[]);
    top(&screen, &target.address);
    let text =
        screen.shows(Duration::from_secs(10), |text| text.contains("FULL") && text.contains("database"));
    assert!(text.contains("target-pools"), "the target is named:\n{text}");
    for size in [(160, 50), (80, 24), (20, 5), (100, 30)] {
        screen.resize(size.0, size.1);
        screen.shows(Duration::from_secs(5), |text| !text.trim().is_empty());
    }
    target.process.kill();
    screen.shows(Duration::from_secs(10), |text| {
        let text = text.to_lowercase();
        ["gone", "lost", "retry", "disconnected", "reconnect"].iter().any(|word| text.contains(word))
    });
    screen.keys(&["q"]);
    restored(&screen);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    if !peer("tmux") {
        return;
    }
    let target = Target::program("target-plain").start();
    // Also while it still waits for the first answer.
    let silent = format!("http://{}", impostor::saying(b""));
    let screen = Screen::open(100, 30, &[]);
    let signals = [Signal::TERM, Signal::INT, Signal::HUP];
    for (signal, address) in signals.iter().flat_map(|it| [(*it, &target.address), (*it, &silent)]) {
        screen.run("clear");
        top(&screen, address);
        let shell = screen.shell_pid();
        let program = eventually(Duration::from_secs(5), || {
            proc::below(shell, "taskscope").ok_or_else(|| format!("not below {shell}:\n{}", screen.text()))
        });
        proc::signal(program, signal);
        restored(&screen);
    }
}

#[test]
fn it_ends_with_its_terminal_also_where_nobody_sends_a_signal() {
    if !peer("tmux") {
        return;
    }
    // The list of targets stands still: nothing is drawn that could fail.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let sockets = folder.path().join("taskscope");
    std::fs::create_dir(&sockets).expect("it is new");
    let _targets = ["a.00000001.sock", "b.00000002.sock"]
        .map(|name| std::os::unix::net::UnixListener::bind(sockets.join(name)).expect("it is new"));
    let runtime_dir = folder.path().to_str().expect("it is text");
    let screen = Screen::open(100, 30, &[("XDG_RUNTIME_DIR", runtime_dir)]);
    // In a session of its own it is no part of what the terminal's end is told to.
    let program = Build::Hooks.program("taskscope");
    let code = folder.path().join("code");
    screen.run(&format!("setsid --wait sh -c '{}; echo $? > {}'", program.display(), code.display()));
    screen.shows(Duration::from_secs(10), |text| screen.is_alternate() && text.contains("00000002"));
    drop(screen);
    eventually(Duration::from_secs(5), || match std::fs::read_to_string(&code).as_deref().map(str::trim) {
        Ok("0") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
