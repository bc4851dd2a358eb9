//! A service with threads that Tokio does not know, beside a worker that is stuck.
//!
//! Prints `begins NAME LINE` for each of its threads that does something, LINE being where it does it. One makes a system call
//! again and again that no signal leaves unchanged, and prints how it ended: `undisturbed` or `interrupted`. One waits for all
//! signals that there are, as services do that keep a thread for them, and prints `got SIGNAL` of each. A number as its argument
//! is how many more threads there are that only wait.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use taskscope_probe::Probe;

fn main() -> std::io::Result<()> {
    let more = std::env::args().nth(1).map_or(0, |number| number.parse().expect("a number of threads"));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    Probe::builder().name("threads").stacks(true).install(&mut runtime);
    let runtime = runtime.build()?;
    for number in 0..more {
        std::thread::Builder::new().name(format!("idle-{number}")).spawn(wait_for_ever)?;
    }
    for (name, work) in [
        ("spins", spin as fn()),
        ("sleeps", sleep),
        ("deaf", be_deaf),
        ("waits", wait),
        ("signals", wait_for_signals),
    ] {
        std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
    }
    runtime.spawn(async {
        let _label = taskscope_probe::label("stuck");
        wait_for_ever();
    });
    wait_for_ever();
    Ok(())
}

fn wait_for_ever() {
    loop {
        std::thread::park();
    }
}

fn begins(name: &str, line: u32) {
    println!("begins {name} {line}");
}

#[inline(never)]
fn spin() {
    begins("spins", line!() + 1);
    while black_box(true) {}
}

#[inline(never)]
fn sleep() {
    begins("sleeps", line!() + 1);
    std::thread::sleep(Duration::from_secs(3600));
    black_box(&sleep);
}

/// No signal reaches it.
fn be_deaf() {
    nix::sys::signal::SigSet::all().thread_block().expect("it may");
    begins("deaf", line!() + 1);
    wait_for_ever();
}

/// The kernel takes what is waited for out of the signals that the thread blocks, and gives each to this wait.
fn wait_for_signals() {
    let all = nix::sys::signal::SigSet::all();
    all.thread_block().expect("it may");
    begins("signals", line!() + 2);
    loop {
        match all.wait() {
            Ok(signal) => println!("got {signal}"),
            // It has no name for real-time signals.
            Err(error) => println!("got a signal without a name ({error})"),
        }
    }
}

fn wait() {
    let (idle, _other) = std::os::unix::net::UnixStream::pair().expect("two sockets can be made");
    begins("waits", line!() + 2);
    loop {
        match poll(&mut [PollFd::new(idle.as_fd(), PollFlags::POLLIN)], 400u16) {
            Ok(_) => println!("undisturbed"),
            Err(Errno::EINTR) => println!("interrupted"),
            Err(error) => panic!("{error}"),
        }
    }
}
