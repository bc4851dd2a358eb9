//! A service whose polls and jobs block in every way that a stack has to tell, each in a function of its own.
//!
//! Prints `ready`; after a line on standard input with the name of a way it prints `blocked WAY FIRST LAST`, the lines of the
//! guilty statement in this file, and blocks for [`LONG`].

#![allow(clippy::disallowed_methods, reason = "a service that blocks for so long needs a clock")]

use std::hint::black_box;
use std::io::{BufRead, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use taskscope_probe::Probe;

const LONG: Duration = Duration::from_secs(3);

fn main() -> std::io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(8).enable_all();
    Probe::builder().name("blocked").stacks(true).install(&mut runtime);
    let runtime = runtime.build()?;
    let _inside = runtime.enter();
    println!("ready");
    for way in std::io::stdin().lock().lines() {
        match way?.as_str() {
            "sleep" => run(&runtime, "sleep", sleep),
            "spin" => run(&runtime, "spin", spin),
            "read" => run(&runtime, "read", read),
            "mutex" => run(&runtime, "mutex", mutex),
            "hash" => run(&runtime, "hash", hash),
            "library" => run(&runtime, "library", library),
            // A job, and one that the probe is not told of.
            "job" => drop(taskscope_probe::spawn_blocking("job", sleep)),
            "unseen-job" => drop(runtime.spawn_blocking(sleep)),
            other => panic!("no way {other}"),
        }
    }
    std::thread::park();
    Ok(())
}

/// Blocks in a poll.
fn run(runtime: &tokio::runtime::Runtime, way: &'static str, block: fn()) {
    runtime.spawn(async move {
        let _label = taskscope_probe::label(way);
        block();
    });
}

/// Says where the guilty statement is.
fn guilty(way: &str, first: u32, last: u32) {
    println!("blocked {way} {first} {last}");
    std::io::stdout().flush().expect("somebody reads");
}

#[inline(never)]
fn sleep() {
    guilty("sleep", line!() + 1, line!() + 1);
    std::thread::sleep(LONG);
    // Else the call is the function's last act, and an optimised build leaves the function before it.
    black_box(&LONG);
}

#[inline(never)]
fn spin() {
    let (began, mut total) = (Instant::now(), 0u64);
    guilty("spin", line!() + 1, line!() + 2);
    while began.elapsed() < LONG {
        (0..1_000u64).for_each(|n| total = black_box(total.rotate_left(5) ^ n));
    }
    black_box(total);
}

#[inline(never)]
fn read() {
    let (mut reader, mut writer) = std::os::unix::net::UnixStream::pair().expect("two sockets can be made");
    std::thread::spawn(move || {
        std::thread::sleep(LONG);
        writer.write_all(b"!").expect("it is read");
    });
    let mut byte = [0];
    guilty("read", line!() + 1, line!() + 1);
    reader.read_exact(&mut byte).expect("it is written");
}

#[inline(never)]
fn mutex() {
    let mutex = Arc::new(Mutex::new(0));
    let (locked, is_locked) = std::sync::mpsc::channel();
    let other = Arc::clone(&mutex);
    std::thread::spawn(move || {
        let held = other.lock();
        let _ = locked.send(());
        std::thread::sleep(LONG);
        drop(held);
    });
    let _ = is_locked.recv();
    guilty("mutex", line!() + 1, line!() + 1);
    *mutex.lock().expect("nobody panics") += 1;
}

#[inline(never)]
fn hash() {
    let began = Instant::now();
    while began.elapsed() < LONG {
        black_box(costly_hash(black_box(b"correct horse")));
    }
}

/// As a password's hash: many rounds, nothing but CPU.
#[inline(never)]
fn costly_hash(password: &[u8]) -> u64 {
    static TOLD: Once = Once::new();
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    TOLD.call_once(|| guilty("hash", line!() + 1, line!() + 4));
    for round in 0..200_000u64 {
        for &byte in password {
            digest = (digest ^ u64::from(byte) ^ round).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
    }
    digest
}

/// In a function of the C library, called as such.
#[inline(never)]
fn library() {
    let until = Instant::now() + LONG;
    let (idle, _other) = std::os::unix::net::UnixStream::pair().expect("two sockets can be made");
    guilty("library", line!() + 4, line!() + 4);
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let mut waited = [PollFd::new(idle.as_fd(), PollFlags::POLLIN)];
        // Each stack that is taken ends the call with EINTR: so it is made again, as a program has to.
        let _ = poll(&mut waited, u16::try_from(left.as_millis()).unwrap_or(u16::MAX));
    }
}
