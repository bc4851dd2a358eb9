//! Faults that are put from outside into a server that nobody here wrote are named: the task, and the line that spawned it; where
//! stacks are on, the call that blocks as well.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use taskscope_tests::agent::Agent;
use taskscope_tests::json::text;
use taskscope_tests::process::Process;
use taskscope_tests::report::not_allowed;
use taskscope_tests::stopwatch::Stopwatch;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{eventually, evidence, peer, root};

/// Where mini-redis spawns the task of a connection.
const CONNECTION: &str = "mini-redis/src/server.rs:";

/// One client, whose requests are answered one after the other, each as late as the fault makes it.
fn ask(target: &Target, requests: usize) {
    let port: u16 = target.said("port").parse().expect("it prints its port");
    let mut client = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("it listens");
    client.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket takes a timeout");
    for _ in 0..requests {
        client.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").expect("it reads");
        let mut answer = [0; 5];
        client.read_exact(&mut answer).expect("it answers");
        assert_eq!(&answer, b"$-1\r\n", "there is no such key");
        // The next request comes once the server waits for it: found at once, it would be answered in the same poll.
        let answered = Stopwatch::start();
        eventually(Duration::from_secs(5), || match answered.elapsed() {
            rested if rested >= Duration::from_millis(30) => Ok(()),
            rested => Err(format!("{rested:?}")),
        });
    }
}

/// Watches, does what provokes the fault, and gives the alert of this name and severity that fires.
fn named(target: &Target, alert: [&str; 2], provoke: impl FnOnce()) -> Value {
    let (_guard, folder) = runtime_folder();
    let args = ["alerts", target.address.as_str(), "--json", "--for", "60s"];
    let agent = Agent::with(args).in_runtime_folder(&folder).start();
    agent
        .stderr
        .wait_for(Duration::from_secs(20), 0, |line| line.contains("settings of rules watch").then_some(()));
    provoke();
    agent.stdout.wait_for(Duration::from_secs(30), 0, |line| {
        let notice: Value = serde_json::from_str(line).ok()?;
        let is_it = [text(&notice, "alertname"), text(&notice["labels"], "severity")] == alert;
        (is_it && text(&notice, "event") == "firing").then_some(notice)
    })
}

/// The alert names the task of a connection, by the line that spawned it; gives its sentence.
fn names_connection(firing: &Value) -> String {
    let summary = text(&firing["annotations"], "summary").to_owned();
    assert!(summary.contains(CONNECTION), "{summary}");
    assert!(text(&firing["labels"], "task_group").contains(CONNECTION), "{firing}");
    assert!(text(&firing["annotations"], "spawned_at").contains(CONNECTION), "{firing}");
    println!("{firing:#}");
    summary
}

/// The ids of the threads on which its runtime polls: there are two. A thread names itself, a moment after it has begun.
fn workers(pid: u32) -> Vec<String> {
    eventually(Duration::from_secs(10), || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let folders = tasks.filter_map(|task| Some(task.ok()?.path()));
        let is_worker = |folder: &PathBuf| {
            std::fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.starts_with("tokio-rt-worker"))
        };
        let ids =
            folders.filter(is_worker).filter_map(|folder| Some(folder.file_name()?.to_str()?.to_owned()));
        let ids: Vec<String> = ids.collect();
        if ids.len() == 2 { Ok(ids) } else { Err(format!("{ids:?}")) }
    })
}

/// strace delays this system call of the target's workers, and of no other thread. `None`: nobody may trace here, which was
/// said.
fn delayed(target: &Target, call: &str, by: Duration) -> Option<Process> {
    let mut strace = Command::new("strace");
    let inject = format!("inject={call}:delay_enter={}", by.as_micros());
    strace.args(["-q", "-e", &format!("trace={call}"), "-e", &inject]);
    let workers = workers(target.pid());
    for worker in &workers {
        strace.args(["-p", worker]);
    }
    let mut strace = Process::start(strace);
    let traces = eventually(Duration::from_secs(10), || {
        if strace.ended().is_some() {
            return Ok(false);
        }
        let attached = workers.iter().all(|worker| {
            let status = std::fs::read_to_string(format!("/proc/{}/task/{worker}/status", target.pid()));
            status.is_ok_and(|status| {
                status
                    .lines()
                    .any(|line| line.split_once("TracerPid:").is_some_and(|(_, pid)| pid.trim() != "0"))
            })
        });
        if attached { Ok(true) } else { Err(strace.outputs()) }
    });
    if !traces {
        let said = strace.stderr.text();
        // Whatever else it says is a failure of the test.
        assert!(said.contains("Operation not permitted"), "strace ended:\n{said}");
        not_allowed("no process may be traced here", &said);
        return None;
    }
    Some(strace)
}

#[test]
fn a_system_call_that_is_slow_inside_a_poll_is_named() {
    if !peer("strace") {
        return;
    }
    // Without stacks: a signal makes strace begin its delay anew, and the poll long enough to be told as stuck.
    let target = Target::program("target-mini-redis").start();
    let Some(_strace) = delayed(&target, "sendto", Duration::from_millis(200)) else { return };
    let firing = named(&target, ["TaskSlowPoll", "warning"], || ask(&target, 12));
    let summary = names_connection(&firing);
    assert!(summary.starts_with("SLOW: a poll in "), "{summary}");
    evidence("a system call of mini-redis that strace delays is named", summary);
}

#[test]
fn a_system_call_that_does_not_return_is_named_while_it_lasts() {
    if !peer("strace") {
        return;
    }
    let target = Target::program("target-mini-redis").env("TASKSCOPE_STACKS", "on").start();
    let Some(_strace) = delayed(&target, "sendto", Duration::from_secs(3)) else { return };
    let firing = named(&target, ["TaskStuckInPoll", "warning"], || ask(&target, 1));
    let summary = names_connection(&firing);
    assert!(summary.starts_with("STUCK "), "{summary}");
    evidence("a system call of mini-redis that does not return is named", summary);
}

/// Builds the library whose `send` sleeps.
fn slow_send(folder: &Path) -> PathBuf {
    let library = folder.join("slow_send.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-g", "-o"]).arg(&library).arg(root().join("tests/foreign/slow_send.c"));
    let built = cc.arg("-ldl").output().expect("a C compiler is here");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

#[test]
fn a_function_of_the_c_library_that_sleeps_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let library = slow_send(folder.path());
    let target = Target::program("target-mini-redis")
        .env("TASKSCOPE_STACKS", "on")
        .env("LD_PRELOAD", library.as_os_str())
        // By the second alert about it, after 10 s, names are known also where a debug build's take seconds to read.
        .env("SLOW_SEND_MS", "12000")
        .start();
    let firing = named(&target, ["TaskStuckInPoll", "critical"], || ask(&target, 1));
    let summary = names_connection(&firing);
    assert!(summary.starts_with("STUCK ") && summary.contains("asleep in clock_nanosleep"), "{summary}");
    // Its own code is further out than the library's: the line is that of the call which sleeps.
    let line = text(&firing["annotations"], "line");
    assert!(line.contains("tests/foreign/slow_send.c:"), "{firing}");
    evidence("a send of mini-redis that sleeps in a preloaded library is named", summary);
}
