//! Listening TCP sockets of this process and how many connections wait to be accepted on each, as `ss -l` asks the kernel
//! (`sock_diag`): it walks the listening sockets of the network namespace only, however many connections there are.
//!
//! The kernel tells a socket's inode and not whose it is; so the process's own file descriptors are looked through when an
//! inode is new, a few each tick.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// File descriptors looked at in one tick.
const LOOKED_AT_ONCE: usize = 128;
/// Between two searches through all of them.
const SEARCH_EVERY_NS: u64 = 3_000_000_000;
/// Inodes remembered; beyond that all are searched for anew.
const INODES: usize = 4096;

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) inode: u32,
    pub(crate) address: SocketAddr,
    /// Connections that wait to be accepted.
    pub(crate) waiting: u32,
    /// How many may wait.
    pub(crate) backlog: u32,
}

/// Which sockets are this process's.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    /// By inode, whether it is.
    known: HashMap<u32, bool>,
    /// Inodes that are looked for, and what is left to look through.
    search: Option<(Vec<u32>, std::fs::ReadDir)>,
    searched_at_ns: Option<u64>,
}

impl Owned {
    /// Those of `listeners` that are known to be this process's. Inodes seen for the first time are looked for.
    pub(crate) fn of(&mut self, now_ns: u64, listeners: &[Listener]) -> Vec<Listener> {
        if self.known.len() > INODES {
            self.known.clear();
        }
        let unknown = || listeners.iter().filter(|it| !self.known.contains_key(&it.inode));
        let due = self.searched_at_ns.is_none_or(|at| now_ns >= at + SEARCH_EVERY_NS);
        if self.search.is_none()
            && due
            && unknown().next().is_some()
            && let Ok(descriptors) = std::fs::read_dir("/proc/self/fd")
        {
            self.search = Some((unknown().map(|it| it.inode).collect(), descriptors));
        }
        self.search_on(now_ns);
        listeners.iter().filter(|it| self.known.get(&it.inode) == Some(&true)).copied().collect()
    }

    /// Looks at some more file descriptors.
    pub(crate) fn search_on(&mut self, now_ns: u64) {
        let Some((wanted, descriptors)) = &mut self.search else { return };
        for _ in 0..LOOKED_AT_ONCE {
            let Some(entry) = descriptors.next() else {
                for inode in wanted.drain(..) {
                    self.known.entry(inode).or_insert(false);
                }
                self.search = None;
                self.searched_at_ns = Some(now_ns);
                return;
            };
            let inode = entry.ok().and_then(|entry| socket_inode(&std::fs::read_link(entry.path()).ok()?));
            if let Some(inode) = inode.filter(|inode| wanted.contains(inode)) {
                self.known.insert(inode, true);
            }
        }
    }
}

/// `socket:[4711]`
fn socket_inode(link: &std::path::Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(target_os = "linux")]
pub(crate) use diag::Diag;

#[cfg(target_os = "linux")]
mod diag {
    use rustix::fd::OwnedFd;
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    };

    use super::{Listener, parse, request};

    /// The socket on which the kernel is asked.
    #[derive(Debug, Default)]
    pub(crate) struct Diag {
        socket: Option<OwnedFd>,
        buffer: Vec<u8>,
    }

    const BUFFER: usize = 16 << 10;
    /// Answers read to one question.
    const ANSWERS: usize = 64;

    impl Diag {
        /// All listening TCP sockets of the network namespace; `None` where the kernel does not tell. Never waits.
        pub(crate) fn listeners(&mut self) -> Option<Vec<Listener>> {
            let mut found = Vec::new();
            for family in [2, 10] {
                if self.ask(family, &mut found).is_none() {
                    // What an unread rest would be taken for, nobody knows: begin anew.
                    self.socket = None;
                    return None;
                }
            }
            Some(found)
        }

        fn ask(&mut self, family: u8, found: &mut Vec<Listener>) -> Option<()> {
            if self.socket.is_none() {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let protocol = Some(netlink::SOCK_DIAG);
                self.socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol).ok();
                self.buffer.resize(BUFFER, 0);
            }
            let socket = self.socket.as_ref()?;
            send(socket, &request(family), SendFlags::empty()).ok()?;
            for _ in 0..ANSWERS {
                let (read, _) = recv(socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT).ok()?;
                if parse(self.buffer.get(..read)?, found)? {
                    return Some(());
                }
            }
            None
        }
    }
}

/// `sock_diag` for the TCP sockets of a family (2 or 10) in state LISTEN: a header and an `inet_diag_req_v2`.
fn request(family: u8) -> [u8; 72] {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    const TCP: u8 = 6;
    const LISTEN: u32 = 1 << 10;
    let mut bytes = [0; 72];
    bytes[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = TCP;
    bytes[20..24].copy_from_slice(&LISTEN.to_ne_bytes());
    bytes
}

/// Reads one answer; true at its last part, `None` where the kernel refuses or it cannot be read.
fn parse(mut bytes: &[u8], found: &mut Vec<Listener>) -> Option<bool> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const HEADER: usize = 16;
    while bytes.len() >= HEADER {
        let length = u32_at(bytes, 0)? as usize;
        match u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]) {
            DONE => return Some(true),
            ERROR => return None,
            _ => {}
        }
        found.extend(listener(bytes.get(HEADER..length)?));
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(false)
}

/// An `inet_diag_msg`.
fn listener(message: &[u8]) -> Option<Listener> {
    let ip = match message.first()? {
        2 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(message.get(8..12)?).ok()?)),
        10 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?)),
        _ => return None,
    };
    let port = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    Some(Listener {
        address: SocketAddr::new(ip, port),
        waiting: u32_at(message, 56)?,
        backlog: u32_at(message, 60)?,
        inode: u32_at(message, 68)?,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?))
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug, Default)]
pub(crate) struct Diag;

#[cfg(not(target_os = "linux"))]
impl Diag {
    pub(crate) fn listeners(&mut self) -> Option<Vec<Listener>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_listener_of_this_process_is_found_with_who_waits_on_it() {
        let (mut diag, mut owned) = (Diag::default(), Owned::default());
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listening) = std::net::TcpListener::bind(host) else { continue };
            let address = listening.local_addr().expect("it is bound");
            let _waiting: Vec<_> =
                (0..3).map(|_| std::net::TcpStream::connect(address).expect("it listens")).collect();
            let mut now_ns = 0;
            let found = (0..10_000).find_map(|_| {
                now_ns += SEARCH_EVERY_NS;
                let all = diag.listeners()?;
                owned.of(now_ns, &all).into_iter().find(|it| it.address == address)
            });
            let found = found.expect("it is ours");
            assert!(found.waiting == 3 && found.backlog >= 3, "{found:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_search_that_found_nothing_is_not_made_again() {
        let nobodys = Listener {
            inode: u32::MAX,
            address: SocketAddr::from(([0, 0, 0, 0], 1)),
            waiting: 0,
            backlog: 1,
        };
        let mut owned = Owned::default();
        let mut looks = 0;
        while owned.of(looks, &[nobodys]) != [nobodys] && owned.known.is_empty() {
            looks += 1;
            assert!(looks < 100_000, "the search ends");
        }
        assert_eq!(owned.known.get(&u32::MAX), Some(&false));
        assert_eq!(owned.of(u64::MAX / 2, &[nobodys]), []);
        assert!(owned.search.is_none());
    }

    #[test]
    fn half_an_answer_and_a_refusal_are_none() {
        let mut found = Vec::new();
        assert_eq!(parse(&[], &mut found), Some(false));
        let mut refused = [0; 20];
        refused[0] = 20;
        refused[4] = 2;
        assert_eq!(parse(&refused, &mut found), None);
        let mut cut = [0; 20];
        cut[0] = 88;
        cut[4] = 20;
        assert_eq!(parse(&cut, &mut found), None);
        assert!(found.is_empty());
        assert_eq!(socket_inode(std::path::Path::new("socket:[4711]")), Some(4711));
        assert_eq!(socket_inode(std::path::Path::new("/dev/null")), None);
    }
}
