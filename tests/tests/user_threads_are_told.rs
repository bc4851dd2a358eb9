//! Who asks for stacks is told what the application's own threads do, too, and where in its code; nobody disturbs them before.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::{Agent, why};
use taskscope_tests::json::{list, text};
use taskscope_tests::target::Target;
use taskscope_tests::{eventually, is_emulated};

const SOURCE: &str = "tests/src/bin/target-threads.rs";
/// On a machine that does other things, too.
fn within() -> Duration {
    Duration::from_secs(if is_emulated() { 60 } else { 10 })
}

/// The line that a thread of the target says it is at.
fn line_of(target: &Target, name: &str) -> u64 {
    target.said(&format!("begins {name} ")).parse().expect("it prints a number")
}

fn stacks(target: &Target) -> Vec<Value> {
    Agent::with(["stacks", &target.address, "--json"]).run().expect_code(0).json_lines()
}

fn named<'a>(all: &'a [Value], name: &str) -> Result<&'a Value, String> {
    all.iter().find(|it| it["thread_name"] == name).ok_or_else(|| format!("no {name}: {all:#?}"))
}

/// How often the waiting thread's call ended by itself, and how often not, so far.
fn disturbed(target: &Target) -> (usize, usize) {
    let lines = target.process.stdout.lines();
    let count = |word: &str| lines.iter().filter(|line| *line == word).count();
    (count("undisturbed"), count("interrupted"))
}

/// Until its call has ended by itself twice more; gives how often it did not meanwhile.
fn interrupted_while_nobody_asks(target: &Target) -> usize {
    let before = disturbed(target);
    let after = eventually(within(), || match disturbed(target) {
        after if after.0 >= before.0 + 2 => Ok(after),
        after => Err(format!("{after:?} after {before:?}")),
    });
    after.1 - before.1
}

#[test]
fn threads_that_tokio_does_not_know_are_told_at_their_line_and_only_when_somebody_asks() {
    let target = Target::program("target-threads").start();
    let (spins, sleeps) = (line_of(&target, "spins"), line_of(&target, "sleeps"));
    line_of(&target, "deaf");
    // A poll is stuck, its stack is taken again and again, and somebody looks at that.
    eventually(within(), || match why(&target.address) {
        (lines, 1) if lines[0].contains("target-threads.rs") => Ok(()),
        (lines, code) => Err(format!("{code}: {lines:#?}")),
    });
    assert_eq!(interrupted_while_nobody_asks(&target), 0);
    assert_eq!(disturbed(&target).1, 0, "nobody has asked for stacks yet");

    let all = eventually(within(), || {
        let all = stacks(&target);
        for (name, line, function, state) in
            [("spins", spins, "spin", "on_cpu"), ("sleeps", sleeps, "sleep", "asleep")]
        {
            let told = named(&all, name)?;
            let is_right = told["line"]["line"] == line
                && text(&told["line"], "file").ends_with(SOURCE)
                && list(told, "frames")
                    .iter()
                    .any(|frame| text(frame, "function").ends_with(&format!("::{function}")))
                && told["thread_state"] == state;
            if !is_right {
                return Err(format!("not {name} in {function}, line {line}, {state}: {told:#}"));
            }
        }
        if named(&all, "deaf")?["no_stack_because"].is_null() {
            return Err("deaf has not been looked at".to_owned());
        }
        Ok(all)
    });
    assert_eq!(named(&all, "sleeps").map(|it| &it["syscall"]), Ok(&Value::from("clock_nanosleep")));
    // One that cannot be asked is told as such; it has no frames that somebody made up.
    let deaf = named(&all, "deaf").expect("it is told");
    assert_eq!(deaf["no_stack_because"], "it blocks the signal", "{deaf:#}");
    assert!(list(deaf, "frames").is_empty() && deaf["thread_state"] == "asleep", "{deaf:#}");
    // The task comes first, as ever; threads of the probe's own never come.
    assert_eq!(all[0]["label"], "stuck", "{:#}", all[0]);
    let own = |it: &&Value| it["thread_name"].as_str().is_some_and(|name| name.starts_with("taskscope"));
    assert_eq!(all.iter().find(own), None);
    // To ask is what disturbs, and it is over with the answer.
    eventually(
        within(),
        || if disturbed(&target).1 > 0 { Ok(()) } else { Err("not interrupted".to_owned()) },
    );
    assert_eq!(interrupted_while_nobody_asks(&target), 0);

    let words = Agent::with(["stacks", &target.address]).run().expect_code(0);
    assert!(words.stdout.contains("\nthread `sleeps` of the application, "), "{words:?}");
    assert!(words.stdout.contains("    (no stack was taken: it blocks the signal)\n"), "{words:?}");
    assert_eq!(words.stderr, "", "a thread that never runs a poll is no fault of the service");
    // Who names a task is told of this task, and disturbs nobody else.
    let before = disturbed(&target).1;
    let task = all[0]["task"].to_string();
    let of_task = Agent::with(["stacks", &target.address, "--json", "--task", &task]).run().expect_code(0);
    assert_eq!(of_task.json_lines().len(), 1, "{of_task:?}");
    interrupted_while_nobody_asks(&target);
    assert!(disturbed(&target).1 <= before + 1, "what the words have interrupted may be told late");
}

#[test]
fn a_thread_that_waits_for_signals_gets_none_of_the_probes_however_often_somebody_asks() {
    let target = Target::program("target-threads").start();
    line_of(&target, "signals");
    for _ in 0..20 {
        // Until it waits, and is looked at: a round leaves out what it does not come to.
        eventually(within(), || {
            let all = stacks(&target);
            let told = named(&all, "signals")?;
            assert_eq!(told["frames"], serde_json::json!([]), "{told:#}");
            let is_told = told["syscall"] == "rt_sigtimedwait"
                && told["no_stack_because"] == "it blocks the signal"
                // The others are seen all the while.
                && list(named(&all, "sleeps")?, "frames").len() > 1;
            if is_told { Ok(()) } else { Err(format!("{all:#?}")) }
        });
    }
    let got: Vec<String> =
        target.process.stdout.lines().into_iter().filter(|line| line.starts_with("got ")).collect();
    assert!(got.is_empty(), "{got:?}");
}

#[test]
fn of_very_many_threads_the_busiest_are_told_and_the_others_counted() {
    let target = Target::program("target-threads").arg(200).start();
    line_of(&target, "spins");
    let all = eventually(within(), || {
        let all = stacks(&target);
        named(&all, "spins").map(|_| all.clone())
    });
    let others = all.iter().filter(|it| it["is_other_thread"] == true).count();
    assert_eq!(others, 64);
    let (lines, _) = why(&target.address);
    assert!(lines.iter().any(|line| line.contains("could not be taken")), "{lines:#?}");
}
