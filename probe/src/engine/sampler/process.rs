//! What a process has only so much of: file descriptors, memory, room for connections that wait to be accepted. Looked at
//! about once a second, memory less often while nobody watches, and less often again what is slow to be counted.

use std::collections::HashMap;

use taskscope_proto::v1::{self, pool::Kind};

use super::pools::since;
use crate::cgroup::{Cgroup, Memory};
use crate::clock::Clock;
use crate::engine::cpu;
use crate::engine::listeners::{Diag, Listener, Owned};

const SECOND_NS: u64 = 1_000_000_000;
/// While connections wait they are counted this often, so that "all the time" means something.
const WAITING_EVERY_NS: u64 = SECOND_NS / 4;
/// Memory, while nobody watches: reading it makes the kernel add up what its cores have counted.
const UNWATCHED_MEMORY_EVERY_NS: u64 = 5 * SECOND_NS;
/// What took a while is done again after this many times that: a thousandth of a core.
const REST: u64 = 1000;
/// Listening sockets shown, those with most waiting first.
const LISTENERS_SHOWN: usize = 16;
/// Numbers that are older say so.
const FRESH_NS: u64 = 2 * SECOND_NS;

/// The pools of the process itself.
#[derive(Default)]
pub(crate) struct Process {
    files: Paced<Files>,
    memory: Paced<Memory>,
    listeners: Paced<Vec<Listener>>,
    diag: Diag,
    owned: Owned,
    /// By inode, since when something has waited at every look.
    waiting_since_ns: HashMap<u32, Waiting>,
}

#[derive(Default)]
struct Waiting {
    any_ns: Option<u64>,
    full_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files {
    open: u64,
    limit: Option<u64>,
}

/// Something that is looked at from time to time.
#[derive(Debug)]
struct Paced<T> {
    /// With the instant of the look; `None`: not looked at yet, or it cannot be told.
    seen: Option<(u64, T)>,
    /// When it was last looked at, and how much of a core's time that took.
    looked: Option<(u64, u64)>,
}

impl<T> Default for Paced<T> {
    fn default() -> Self {
        Self { seen: None, looked: None }
    }
}

impl<T> Paced<T> {
    fn look(&mut self, now_ns: u64, every_ns: u64, clock: &Clock, read: impl FnOnce() -> Option<T>) {
        let rests = |(at, took): (u64, u64)| now_ns < at + every_ns.max(took.saturating_mul(REST));
        if self.looked.is_some_and(rests) {
            return;
        }
        // Where the machine is busy the thread waits in between, which costs nobody anything.
        let began = cpu::charged_ns(clock);
        self.seen = read().map(|value| (now_ns, value));
        self.looked = Some((now_ns, cpu::charged_ns(clock).saturating_sub(began)));
    }
}

/// Which of the pools cannot be told, in words.
pub(crate) type Missing = Vec<&'static str>;

impl Process {
    /// Every tick; looks at what is due. `own` is the address on which the probe itself listens.
    pub(crate) fn tick(
        &mut self,
        now_ns: u64,
        is_watched: bool,
        cgroup: &Cgroup,
        clock: &Clock,
        own: Option<std::net::SocketAddr>,
    ) {
        self.files.look(now_ns, SECOND_NS, clock, open_files);
        let memory_every_ns = if is_watched { SECOND_NS } else { UNWATCHED_MEMORY_EVERY_NS };
        self.memory.look(now_ns, memory_every_ns, clock, || cgroup.memory());
        self.owned.search_on(now_ns);
        let waits = self.waiting_since_ns.values().any(|waiting| waiting.any_ns.is_some());
        let every_ns = if waits { WAITING_EVERY_NS } else { SECOND_NS };
        let (diag, owned) = (&mut self.diag, &mut self.owned);
        let looked_at_ns = self.listeners.seen.as_ref().map(|(at, _)| *at);
        self.listeners.look(now_ns, every_ns, clock, || {
            let mut mine = owned.of(now_ns, &diag.listeners()?);
            mine.retain(|listener| Some(listener.address) != own);
            mine.sort_by_key(|listener| (std::cmp::Reverse(listener.waiting), listener.inode));
            mine.truncate(LISTENERS_SHOWN);
            Some(mine)
        });
        match &self.listeners.seen {
            Some((at_ns, listeners)) if Some(*at_ns) != looked_at_ns => {
                self.waiting_since_ns.retain(|inode, _| listeners.iter().any(|it| it.inode == *inode));
                for listener in listeners {
                    let waiting = self.waiting_since_ns.entry(listener.inode).or_default();
                    let full = listener.waiting > 0 && listener.waiting >= listener.backlog;
                    since(&mut waiting.any_ns, listener.waiting > 0, now_ns);
                    since(&mut waiting.full_ns, full, now_ns);
                }
            }
            Some(_) => {}
            None => self.waiting_since_ns.clear(),
        }
    }

    pub(crate) fn missing(&self) -> Missing {
        let mut missing = Vec::new();
        if self.files.seen.is_none() {
            missing.push("open file descriptors cannot be counted");
        }
        if self.memory.seen.is_none() {
            missing.push("no cgroup of this process limits its memory");
        }
        if self.listeners.seen.is_none() {
            missing.push("the kernel does not tell accept backlogs (sock_diag)");
        }
        missing
    }

    pub(crate) fn all(&self, now_ns: u64) -> Vec<v1::Pool> {
        let age_ns = |at_ns: u64| Some(now_ns.saturating_sub(at_ns)).filter(|&age| age >= FRESH_NS);
        let mut pools = Vec::new();
        if let Some((at_ns, files)) = self.files.seen {
            pools.push(v1::Pool {
                name: "file descriptors".to_owned(),
                kind: Kind::FileDescriptors.into(),
                capacity: files.limit,
                busy: Some(files.open),
                idle: files.limit.map(|limit| limit.saturating_sub(files.open)),
                age_ns: age_ns(at_ns),
                ..v1::Pool::default()
            });
        }
        if let Some((at_ns, memory)) = self.memory.seen {
            pools.push(v1::Pool {
                name: "memory".to_owned(),
                kind: Kind::Memory.into(),
                capacity: Some(memory.limit_bytes),
                busy: memory.used_bytes,
                idle: memory.used_bytes.map(|used| memory.limit_bytes.saturating_sub(used)),
                age_ns: age_ns(at_ns),
                ..v1::Pool::default()
            });
        }
        if let Some((at_ns, listeners)) = &self.listeners.seen {
            pools.extend(listeners.iter().map(|listener| {
                let waiting = self.waiting_since_ns.get(&listener.inode);
                let for_ns = |began: Option<u64>| began.map(|began| now_ns.saturating_sub(began));
                v1::Pool {
                    name: format!("accept {}", listener.address),
                    kind: Kind::AcceptBacklog.into(),
                    capacity: Some(u64::from(listener.backlog)),
                    busy: Some(u64::from(listener.waiting)),
                    queued: Some(u64::from(listener.waiting)),
                    saturated_ns: waiting.and_then(|waiting| for_ns(waiting.full_ns)),
                    waiting_ns: waiting.and_then(|waiting| for_ns(waiting.any_ns)),
                    age_ns: age_ns(*at_ns),
                    ..v1::Pool::default()
                }
            }));
        }
        pools
    }
}

#[cfg(target_os = "linux")]
fn open_files() -> Option<Files> {
    let folder = "/proc/self/fd";
    // Since Linux 6.2 the folder's size is how many there are; before, they have to be listed.
    let open = match std::fs::metadata(folder).ok()?.len() {
        0 => std::fs::read_dir(folder).ok()?.count() as u64,
        open => open,
    };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    Some(Files { open, limit })
}

#[cfg(not(target_os = "linux"))]
fn open_files() -> Option<Files> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_looked_at_seldom_and_says_how_old_it_is() {
        let clock = Clock::start();
        let mut paced = Paced::default();
        paced.look(0, SECOND_NS, &clock, || {
            let began = cpu::charged_ns(&clock);
            while cpu::charged_ns(&clock) < began + 5_000_000 {}
            Some(1)
        });
        paced.look(4 * SECOND_NS, SECOND_NS, &clock, || Some(2));
        assert_eq!(paced.seen, Some((0, 1)), "five milliseconds are worth a rest of five seconds");
        paced.look(3600 * SECOND_NS, SECOND_NS, &clock, || Some(3));
        paced.look(3601 * SECOND_NS, SECOND_NS, &clock, || None);
        assert_eq!(paced.seen, None, "what cannot be told any more is not shown");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_had_to_wait_is_looked_at_as_often_as_ever() {
        let clock = Clock::start();
        let mut paced = Paced::default();
        paced.look(0, SECOND_NS, &clock, || {
            // The processor is elsewhere.
            std::thread::sleep(std::time::Duration::from_millis(50));
            Some(1)
        });
        paced.look(4 * SECOND_NS, SECOND_NS, &clock, || Some(2));
        assert_eq!(paced.seen, Some((4 * SECOND_NS, 2)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn open_files_are_counted_against_their_limit() {
        let before = open_files().expect("/proc can be read");
        let held: Vec<_> = (0..200).filter_map(|_| std::fs::File::open("/dev/null").ok()).collect();
        let after = open_files().expect("/proc can be read");
        // Other tests open and close some meanwhile.
        assert!(after.open >= before.open + 150 && after.open <= before.open + 400, "{before:?} {after:?}");
        assert!(after.limit.is_some_and(|limit| limit > after.open));
        drop(held);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn connections_that_stay_unaccepted_are_told_with_how_long() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listening.local_addr().expect("it is bound");
        let (clock, cgroup) = (Clock::start(), Cgroup::default());
        let mut process = Process::default();
        let backlog = |process: &mut Process, now_ns| {
            process.tick(now_ns, true, &cgroup, &clock, None);
            let name = format!("accept {address}");
            process.all(now_ns).into_iter().find(|pool| pool.name == name)
        };
        let mut now_ns = 0;
        let found = (0..1000).find_map(|_| {
            now_ns += 4 * SECOND_NS;
            backlog(&mut process, now_ns)
        });
        assert_eq!(found.map(|pool| (pool.busy, pool.waiting_ns)), Some((Some(0), None)));
        let held = std::net::TcpStream::connect(address).expect("it listens");
        let mut look = |after_ns: u64| {
            now_ns += after_ns;
            backlog(&mut process, now_ns).map(|pool| (pool.queued, pool.waiting_ns))
        };
        assert_eq!(look(10 * SECOND_NS), Some((Some(1), Some(0))));
        assert_eq!(look(10 * SECOND_NS), Some((Some(1), Some(10 * SECOND_NS))));
        drop(listening.accept().expect("one waits"));
        assert_eq!(look(10 * SECOND_NS), Some((Some(0), None)));
        drop(held);
        assert_eq!(process.missing(), ["no cgroup of this process limits its memory"]);
    }
}
