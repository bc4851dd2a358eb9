//! A service that a seccomp filter keeps from what stacks are taken with.
//!
//! `FORBIDDEN before|after`: `memory`, `signals` or `files`, forbidden before the probe starts, or after the line `forbid` on
//! standard input; it prints `forbidden` then. After `block` a poll blocks for as long as the process lives, `blocked LINE`
//! says where. After `ping` a task on the other worker prints `pong`.

use std::hint::black_box;
use std::io::BufRead;
use std::time::Duration;

use nix::libc::{EACCES, EPERM, SYS_openat, SYS_process_vm_readv, SYS_rt_tgsigqueueinfo, SYS_tgkill};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};
use taskscope_probe::Probe;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, when] = args.as_slice() else { panic!("two words are needed") };
    if when == "before" {
        forbid(what);
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    Probe::builder().name("seccomp").stacks(true).install(&mut runtime);
    let runtime = runtime.build()?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "forbid" => forbid(what),
            "block" => drop(runtime.spawn(async {
                let _label = taskscope_probe::label("blocks");
                block();
            })),
            "ping" => drop(runtime.spawn(async { println!("pong") })),
            other => panic!("no line {other}"),
        }
    }
    Ok(())
}

#[inline(never)]
fn block() {
    println!("blocked {}", line!() + 1);
    std::thread::sleep(Duration::from_secs(3600));
    black_box(&block);
}

/// For all threads there are, and all that there will be.
fn forbid(what: &str) {
    let (calls, errno): (&[_], _) = match what {
        "memory" => (&[SYS_process_vm_readv], EPERM),
        "signals" => (&[SYS_rt_tgsigqueueinfo, SYS_tgkill], EPERM),
        "files" => (&[SYS_openat], EACCES),
        other => panic!("nothing called {other}"),
    };
    let filter = SeccompFilter::new(
        calls.iter().map(|&call| (call, vec![])).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().expect("it runs on this processor"),
    );
    let program: BpfProgram = filter.and_then(SeccompFilter::try_into).expect("the filter is right");
    apply_filter_all_threads(&program).expect("a process may restrict itself");
    println!("forbidden");
}
