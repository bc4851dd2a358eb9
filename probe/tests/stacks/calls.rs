//! Which system calls see the signal: the table of docs/stuck.md.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{LONG, later, slow, turn};

fn checked(returned: i32) -> std::io::Result<i32> {
    if returned == -1 { Err(std::io::Error::last_os_error()) } else { Ok(returned) }
}

/// The call is as long as it was without the probe, and gives no error; and its stack was taken.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "the length of a system call is what is tested")]
fn goes_on(name: &'static str, call: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    let ((done, took), poll, _) = slow(name, || {
        let began = std::time::Instant::now();
        (call(), began.elapsed())
    });
    assert!(done.is_ok(), "{name}: {done:?}");
    assert!(took >= LONG - Duration::from_millis(20), "{name} returned after {took:?}");
    assert!(poll.stacks.iter().any(|share| share.samples > 0), "{name} was not looked at: {poll:?}");
}

#[test]
fn sleeping_and_waiting_and_reading_go_on_as_if_nothing_had_been() {
    let _turn = turn();
    goes_on("thread::sleep", || {
        std::thread::sleep(LONG);
        Ok(())
    });
    goes_on("read", || {
        let (mut reads, mut writes) = std::io::pipe()?;
        let writer = later(move || std::io::Write::write_all(&mut writes, &[1]).expect("it is read"));
        let read = reads.read(&mut [0; 8])?;
        writer.join().expect("no panic");
        assert_eq!(read, 1);
        Ok(())
    });
    goes_on("recv", || {
        let (mut one, other) = UnixStream::pair()?;
        let writer = later(move || drop(other));
        let read = one.read(&mut [0; 8])?;
        writer.join().expect("no panic");
        assert_eq!(read, 0);
        Ok(())
    });
    goes_on("accept", || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let client = later(move || drop(std::net::TcpStream::connect(address)));
        listener.accept()?;
        client.join().expect("no panic");
        Ok(())
    });
    goes_on("wait", || {
        let mut child = std::process::Command::new("sleep").arg("0.3").spawn()?;
        assert!(child.wait()?.success());
        Ok(())
    });
    goes_on("condvar", || {
        let pair = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
        let theirs = Arc::clone(&pair);
        let waker = later(move || {
            *theirs.0.lock().expect("no panic") = true;
            theirs.1.notify_one();
        });
        let mut ready = pair.0.lock().expect("no panic");
        while !*ready {
            ready = pair.1.wait(ready).expect("no panic");
        }
        waker.join().expect("no panic");
        Ok(())
    });
}

/// A file of this test's own, where there is none yet.
fn new_path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("taskscope-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("it has no zero")
}

/// A socket into which nothing more goes, and its other end.
fn full() -> std::io::Result<(UnixStream, UnixStream)> {
    let (mut one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    while one.write(&[0; 4096]).is_ok() {}
    one.set_nonblocking(false)?;
    Ok((one, other))
}

#[test]
fn writing_connecting_and_waiting_for_files_go_on_as_if_nothing_had_been() {
    let _turn = turn();
    goes_on("write to a full pipe", || {
        let (mut reads, mut writes) = std::io::pipe()?;
        // SAFETY: it takes a descriptor that is open.
        let room = checked(unsafe { libc::fcntl(writes.as_raw_fd(), libc::F_GETPIPE_SZ) })?;
        writes.write_all(&vec![0; room as usize])?;
        let reader = later(move || drop(reads.read_exact(&mut vec![0; room as usize + 1])));
        assert_eq!(writes.write(&[1])?, 1);
        reader.join().expect("no panic");
        Ok(())
    });
    goes_on("send", || {
        let (mut one, mut other) = full()?;
        let reader = later(move || drop(other.read_to_end(&mut Vec::new())));
        assert_eq!(one.write(&[1])?, 1);
        drop(one);
        reader.join().expect("no panic");
        Ok(())
    });
    goes_on("connect", || {
        let path = new_path("connect");
        let listener = std::os::unix::net::UnixListener::bind(&path)?;
        // SAFETY: it takes a descriptor that is open.
        checked(unsafe { libc::listen(listener.as_raw_fd(), 0) })?;
        let _first = UnixStream::connect(&path)?;
        let theirs = listener.try_clone()?;
        let accepts = later(move || drop(theirs.accept()));
        let second = UnixStream::connect(&path);
        accepts.join().expect("no panic");
        std::fs::remove_file(&path)?;
        second.map(drop)
    });
    goes_on("flock", || {
        let path = new_path("flock");
        let (one, other) = (File::create(&path)?, File::create(&path)?);
        // SAFETY: it takes a descriptor that is open.
        let lock = |file: &File| checked(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) });
        lock(&one)?;
        let unlocks = later(move || drop(one));
        let locked = lock(&other);
        unlocks.join().expect("no panic");
        std::fs::remove_file(&path)?;
        locked.map(drop)
    });
    goes_on("open of a fifo", || {
        let path = new_path("fifo");
        let name = c_path(&path);
        // SAFETY: the name is ours and ends with a zero.
        checked(unsafe { libc::mkfifo(name.as_ptr(), 0o600) })?;
        let theirs = path.clone();
        let writer = later(move || drop(File::options().write(true).open(theirs)));
        // SAFETY: as above; what it gives is closed once.
        let opened = checked(unsafe { libc::open(name.as_ptr(), libc::O_RDONLY) });
        writer.join().expect("no panic");
        std::fs::remove_file(&path)?;
        // SAFETY: it was just opened.
        opened.map(|opened| drop(unsafe { File::from_raw_fd(opened) }))
    });
    goes_on("read of inotify", || {
        let path = new_path("inotify");
        std::fs::create_dir(&path)?;
        // SAFETY: it takes a number; what it gives is closed once.
        let mut watch = unsafe { File::from_raw_fd(checked(libc::inotify_init1(0))?) };
        // SAFETY: the descriptor is open, and the name ends with a zero.
        checked(unsafe {
            libc::inotify_add_watch(watch.as_raw_fd(), c_path(&path).as_ptr(), libc::IN_CREATE)
        })?;
        let file = path.join("new");
        let creates = later(move || drop(File::create(file)));
        let read = watch.read(&mut [0; 512]);
        creates.join().expect("no panic");
        std::fs::remove_dir_all(&path)?;
        assert!(read? > 0);
        Ok(())
    });
}

fn ring() -> std::io::Result<File> {
    // The kernel's `io_uring_params`.
    let mut params = [0u32; 30];
    // SAFETY: what it describes the ring in has its size; it gives a descriptor, which is closed once, or an error.
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr());
        Ok(File::from_raw_fd(checked(ring as i32)?))
    }
}

/// What returns EINTR where a handler has run, SA_RESTART or not: see signal(7).
#[test]
fn what_never_restarts_returns_eintr() {
    let _turn = turn();
    type Call = fn() -> std::io::Result<()>;
    let calls: [(&str, Call); 15] = [
        ("epoll_wait", || {
            // SAFETY: the descriptor is new, the event is ours, and there is room for one.
            unsafe {
                let epoll = libc::epoll_create1(0);
                let mut event = std::mem::zeroed();
                let waited = checked(libc::epoll_wait(epoll, &raw mut event, 1, 2_000));
                libc::close(epoll);
                waited.map(drop)
            }
        }),
        ("poll", || {
            // SAFETY: there are no descriptors.
            checked(unsafe { libc::poll(std::ptr::null_mut(), 0, 2_000) }).map(drop)
        }),
        ("select", || {
            let mut time = libc::timeval { tv_sec: 2, tv_usec: 0 };
            let none = std::ptr::null_mut();
            // SAFETY: there are no descriptors, and the time is ours.
            checked(unsafe { libc::select(0, none, none, none, &raw mut time) }).map(drop)
        }),
        ("nanosleep", || {
            let time = libc::timespec { tv_sec: 2, tv_nsec: 0 };
            // SAFETY: the time is ours, and the rest is not wanted.
            checked(unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) }).map(drop)
        }),
        ("usleep", || {
            // SAFETY: it takes a number.
            checked(unsafe { libc::usleep(2_000_000) }).map(drop)
        }),
        ("recv with a timeout", || {
            let (mut one, _other) = std::os::unix::net::UnixStream::pair()?;
            one.set_read_timeout(Some(Duration::from_secs(2)))?;
            one.read(&mut [0; 8]).map(drop)
        }),
        ("send with a timeout", || {
            let (mut one, _other) = full()?;
            one.set_write_timeout(Some(Duration::from_secs(2)))?;
            one.write(&[1]).map(drop)
        }),
        ("accept with a timeout", || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            let time = libc::timeval { tv_sec: 2, tv_usec: 0 };
            let bytes = size_of_val(&time) as u32;
            let (socket, option) = (listener.as_raw_fd(), libc::SO_RCVTIMEO);
            // SAFETY: the descriptor is open, the time is ours and of this length; who has called is not wanted.
            unsafe {
                checked(libc::setsockopt(socket, libc::SOL_SOCKET, option, (&raw const time).cast(), bytes))?;
                checked(libc::accept(socket, std::ptr::null_mut(), std::ptr::null_mut())).map(drop)
            }
        }),
        ("sleep of C", || {
            // SAFETY: it takes a number.
            match unsafe { libc::sleep(4) } {
                0 => Ok(()),
                // What is left of it is how it says so.
                _ => Err(std::io::Error::from_raw_os_error(libc::EINTR)),
            }
        }),
        ("clock_nanosleep", || {
            let time = libc::timespec { tv_sec: 2, tv_nsec: 0 };
            // SAFETY: the time is ours, and the rest is not wanted.
            match unsafe {
                libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const time, std::ptr::null_mut())
            } {
                0 => Ok(()),
                errno => Err(std::io::Error::from_raw_os_error(errno)),
            }
        }),
        ("pause", || {
            // SAFETY: it takes nothing.
            checked(unsafe { libc::pause() }).map(drop)
        }),
        ("sigsuspend", || {
            // SAFETY: the set is initialised by the first call, and ours.
            unsafe {
                let mut none = std::mem::zeroed();
                checked(libc::sigemptyset(&raw mut none))?;
                checked(libc::sigsuspend(&raw const none)).map(drop)
            }
        }),
        ("msgrcv", || {
            let mut message = [0u64; 2];
            // SAFETY: the queue is new, and what is received has room in the message.
            unsafe {
                let queue = checked(libc::msgget(libc::IPC_PRIVATE, 0o600))?;
                let received = libc::msgrcv(queue, message.as_mut_ptr().cast(), 8, 0, 0);
                let received = checked(received as i32).map(drop);
                libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut());
                received
            }
        }),
        ("semop", || {
            let mut take = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 };
            // SAFETY: the set is new and of one, and the operation is ours.
            unsafe {
                let set = checked(libc::semget(libc::IPC_PRIVATE, 1, 0o600))?;
                let taken = checked(libc::semop(set, &raw mut take, 1)).map(drop);
                libc::semctl(set, 0, libc::IPC_RMID);
                taken
            }
        }),
        ("io_uring_enter", || {
            const WAIT: u32 = 1;
            let ring = ring()?;
            let fd = ring.as_raw_fd();
            // SAFETY: it submits nothing, and waits for one completion; there is no set of signals.
            let waited = unsafe {
                libc::syscall(libc::SYS_io_uring_enter, fd, 0, 1, WAIT, std::ptr::null::<u64>(), 0)
            };
            checked(waited as i32).map(drop)
        }),
    ];
    for (name, call) in calls {
        if name == "io_uring_enter" && ring().is_err() {
            // Many systems forbid it; no poll is ever in it there.
            continue;
        }
        let (returned, poll, _) = slow(name, call);
        let error = returned.expect_err(name).kind();
        assert_eq!(error, std::io::ErrorKind::Interrupted, "{name} after {} ms", poll.since_ns / 1_000_000);
    }
}

/// To interrupt it would be one thing; what it waits for would be ours, too.
#[test]
fn a_poll_that_waits_for_signals_itself_is_left_alone() {
    let _turn = turn();
    let (returned, poll, _) = slow("sigtimedwait", || {
        let time = libc::timespec { tv_sec: 0, tv_nsec: LONG.subsec_nanos().into() };
        // SAFETY: the set is initialised by the first call; all are ours, and what comes is not described.
        unsafe {
            let mut all = std::mem::zeroed();
            checked(libc::sigfillset(&raw mut all))?;
            checked(libc::sigtimedwait(&raw const all, std::ptr::null_mut(), &raw const time))
        }
    });
    let error = returned.expect_err("no signal comes");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
    assert!(poll.stacks.is_empty(), "{poll:?}");
}
