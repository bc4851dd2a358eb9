//! gdb's backtraces of all threads, taken again and again: a debugger shows where threads are, and its user guesses which
//! of them matter.

use super::place::{Place, places};

/// Its user knows the process id already.
pub(crate) fn command(pid: u32) -> String {
    format!("gdb -p {pid} -batch -ex 'thread apply all bt'")
}

/// Of each thread the innermost frame in the service's own code.
pub(crate) fn pointed_at(answer: &str) -> Vec<Place> {
    // What stands before the first of them is no thread.
    let threads = answer.split("\nThread ").skip(1);
    threads.filter_map(|thread| thread.lines().flat_map(places).next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_points_at_its_innermost_own_frame() {
        let answer = " gdb -p 7 -batch\n[New LWP 8]\nclock_nanosleep () at demo/src/nowhere.rs:1\n\
                      \nThread 3 (Thread 0x7f (LWP 9) \"revocations\"):\n#0  futex_wait () at ./nptl/futex.c:57\n\
                      #1  {closure#0} () at demo/src/revocation.rs:26\n\
                      \nThread 2 (Thread 0x7f (LWP 8) \"tokio-rt-worker\"):\n#3  sleep () at library/std/src/thread.rs:2\n\
                      #4  0x1 in has () at demo/src/storage.rs:37\n#5  0x1 in {async_fn#0} () at demo/src/api.rs:87\n\
                      \nThread 1 (Thread 0x7f (LWP 7) \"taskscope\"):\n#0  syscall ()\n[Inferior 1 detached]\n";
        let read: Vec<String> = pointed_at(answer).iter().map(Place::to_string).collect();
        assert_eq!(read, ["demo/src/revocation.rs:26", "demo/src/storage.rs:37"]);
    }

    #[test]
    fn a_process_that_cannot_be_attached_to_points_at_nothing() {
        assert!(pointed_at(" gdb -p 7\nptrace: Operation not permitted.\nNo threads.\n").is_empty());
    }
}
