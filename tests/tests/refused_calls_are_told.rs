//! Where a seccomp filter refuses what stacks are taken with, the service runs on, and what is missing is said with what to do.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::{Agent, Answer, status, why};
use taskscope_tests::eventually;
use taskscope_tests::json::{list, text};
use taskscope_tests::target::Target;

/// On a machine that does other things, too.
const WITHIN: Duration = Duration::from_secs(10);

fn stacks(target: &Target) -> Answer {
    Agent::with(["stacks", &target.address]).run()
}

/// What `target` says to a line.
fn says(target: &mut Target, line: &str, answer: &str) -> String {
    let from = target.process.stdout.count();
    target.process.say(line);
    let rest = |said: &str| Some(said.strip_prefix(answer)?.trim().to_owned());
    target.process.stdout.wait_for(WITHIN, from, rest)
}

/// That `what` being forbidden is told as a reason with `hint`, before the probe starts and after.
fn is_told(what: &str, reasons: [&str; 2], hint: &str) {
    for (when, reason) in ["before", "after"].into_iter().zip(reasons) {
        let mut target = Target::program("target-seccomp").args([what, when]).start();
        target.said("ready");
        if when == "after" {
            // All is well, until it is forbidden.
            eventually(WITHIN, || match stacks(&target) {
                taken if taken.code == Some(0) && taken.stdout.contains("target-seccomp.rs:") => Ok(()),
                other => Err(format!("{other:?}")),
            });
            says(&mut target, "forbid", "forbidden");
        }
        let line = says(&mut target, "block", "blocked ");
        // The poll is told, and that it is, with why its line is not; nothing is guessed in its place.
        let lines = eventually(WITHIN, || match why(&target.address) {
            (lines, 1) if lines[0].starts_with("STUCK") => Ok(lines),
            (lines, code) => Err(format!("{what} {when}: {code}: {lines:#?}")),
        });
        let missing = lines.iter().find(|line| line.starts_with("not seen: "));
        let missing = missing.unwrap_or_else(|| panic!("{what} {when}: {lines:#?}"));
        assert!(missing.contains(&format!("the line: {reason}")), "{what} {when}: {missing}");
        assert!(missing.contains(hint), "{what} {when}: {missing}");
        assert!(lines[0].contains("blocks") && !lines[0].contains(&format!(".rs:{line}")), "{}", lines[0]);
        assert!(!lines[0].contains("std::thread"), "{what} {when}: {}", lines[0]);
        // Who asks for stacks is told the same, and has none.
        let answer = stacks(&target).expect_code(2);
        assert_eq!(answer.stdout, "", "{what} {when}");
        assert!(answer.stderr.contains(&format!("seccomp takes no stacks: {reason}")), "{}", answer.stderr);
        assert!(answer.stderr.contains("\nhint: ") && answer.stderr.contains(hint), "{}", answer.stderr);
        // The operator of the service, too, and once.
        let said = target.process.stderr.lines();
        let of_it = said.iter().filter(|line| line.contains(reason)).count();
        assert_eq!(of_it, 1, "{what} {when}: {said:#?}");
        // What the thread of the poll does is read in the same files.
        if what == "files" {
            eventually(WITHIN, || {
                let state = status(&target.address);
                let of_threads = |it: &&Value| it["kind"] == "thread_activity";
                let told = list(&state, "capabilities").iter().find(of_threads);
                match told {
                    Some(told) if told["coverage"] == "none" && text(told, "hint").contains(hint) => Ok(()),
                    other => Err(format!("{when}: {other:?}")),
                }
            });
        }
        says(&mut target, "ping", "pong");
    }
}

#[test]
fn that_the_process_may_not_read_its_own_memory_is_told() {
    let reason = "the system does not let the process read its own memory";
    is_told("memory", [reason; 2], "allow `process_vm_readv`");
}

#[test]
fn that_the_process_may_not_signal_its_threads_is_told() {
    is_told("signals", ["the system refuses the signal: "; 2], "allow `rt_tgsigqueueinfo`");
}

#[test]
fn that_the_process_may_not_open_its_threads_files_is_told() {
    let before = "/proc does not show this process's own threads and mappings";
    let after = "the system does not let the process read its own threads in /proc: ";
    is_told("files", [before, after], "allow `openat`");
}
