//! Tasks of one name and spawn site, up to [`CAP`]; later ones count in `other`.

use std::panic::Location;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use bytemuck::allocation::zeroed_slice_box;
use taskscope_proto::ids::{GroupId, Sid};
use taskscope_proto::words;

use super::stats::Stats;
use super::text::Texts;

/// Group 0 is `other`.
const CAP: usize = 256;
const TABLE: usize = 512;
const SITES: usize = 1024;
const PROBES: usize = 32;
pub(crate) const BYTES: usize = CAP * size_of::<Group>() + TABLE * 16 + SITES * 16;

#[derive(bytemuck::Zeroable)]
pub(crate) struct Group {
    name: AtomicU32,
    site: AtomicU32,
    peak: AtomicU64,
    spawned: AtomicU64,
    ended: AtomicU64,
    panicked: AtomicU64,
    pub(crate) polls: Stats,
}

#[derive(bytemuck::Zeroable)]
struct Key {
    /// Name and site; zero is free (and, as a key, is `other`).
    names: AtomicU64,
    position_plus1: AtomicU64,
}

#[derive(bytemuck::Zeroable)]
struct Site {
    address: AtomicU64,
    sid_plus1: AtomicU64,
}

pub(crate) struct Groups {
    entries: Box<[Group]>,
    used: AtomicU32,
    table: Box<[Key]>,
    sites: Box<[Site]>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self {
            entries: zeroed_slice_box(CAP),
            used: AtomicU32::new(1),
            table: zeroed_slice_box(TABLE),
            sites: zeroed_slice_box(SITES),
        }
    }

    /// The text of a spawn site. Remembered by the address of the location, so that each site is written out once.
    pub(crate) fn site(&self, at: &'static Location<'static>, texts: &Texts) -> Option<Sid> {
        let address = std::ptr::from_ref(at).addr() as u64;
        for step in 0..PROBES {
            let cell =
                &self.sites[((address >> 3) as usize).wrapping_mul(0x9e37_79b1).wrapping_add(step) % SITES];
            let known = cell.address.load(Acquire);
            if known == address {
                match cell.sid_plus1.load(Acquire) {
                    // Another thread is writing it down at this moment.
                    0 => return write_site(at, texts),
                    sid => return Some(Sid(sid as u32 - 1)),
                }
            }
            if known == 0 && cell.address.compare_exchange(0, address, AcqRel, Acquire).is_ok() {
                let sid = write_site(at, texts)?;
                cell.sid_plus1.store(u64::from(sid.0) + 1, std::sync::atomic::Ordering::Release);
                return Some(sid);
            }
        }
        write_site(at, texts)
    }

    /// The group of `name` (0: unnamed) at `site`; `None` (count it) where the groups are full.
    pub(crate) fn find(&self, name: Sid, site: Sid) -> Option<GroupId> {
        let key = u64::from(name.0) << 32 | u64::from(site.0);
        if key == 0 {
            return Some(GroupId(0));
        }
        let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        for step in 0..PROBES {
            let cell = &self.table[hash.wrapping_add(step) % TABLE];
            let mut names = cell.names.load(Acquire);
            if names == 0 {
                let room = |used: u32| ((used as usize) < CAP).then_some(used + 1);
                match cell.names.compare_exchange(0, key, AcqRel, Acquire) {
                    Ok(_) => {
                        let position = self.used.fetch_update(Relaxed, Relaxed, room).ok()?;
                        let group = &self.entries[position as usize];
                        group.name.store(name.0, Relaxed);
                        group.site.store(site.0, Relaxed);
                        cell.position_plus1
                            .store(u64::from(position) + 1, std::sync::atomic::Ordering::Release);
                        return Some(GroupId(position));
                    }
                    Err(other) => names = other,
                }
            }
            if names == key {
                // Zero only while another thread gives the position out, or for ever where the groups were full.
                return (cell.position_plus1.load(Acquire) as u32).checked_sub(1).map(GroupId);
            }
        }
        None
    }

    /// Whether no other group gets an entry: a new name need not be stored.
    pub(crate) fn is_full(&self) -> bool {
        self.used.load(Relaxed) as usize >= CAP
    }

    #[inline]
    pub(crate) fn entry(&self, id: GroupId) -> &Group {
        &self.entries[(id.0 as usize).min(CAP - 1)]
    }

    /// All groups in use, `other` first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        let used = self.used.load(Acquire) as usize;
        self.entries[..used.min(CAP)].iter().enumerate().map(|(at, group)| (GroupId(at as u32), group))
    }
}

fn write_site(at: &'static Location<'static>, texts: &Texts) -> Option<Sid> {
    let (package, rest) = words::source_parts(at.file());
    let (mut line, mut column) = ([0; 10], [0; 10]);
    texts.intern_parts(&[
        package,
        rest,
        ":",
        digits(at.line(), &mut line),
        ":",
        digits(at.column(), &mut column),
    ])
}

/// `n` in decimal, without allocation.
fn digits(mut n: u32, buffer: &mut [u8; 10]) -> &str {
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return std::str::from_utf8(&buffer[start..]).unwrap_or("");
        }
    }
}

impl Group {
    pub(crate) fn name(&self) -> Sid {
        Sid(self.name.load(Relaxed))
    }

    pub(crate) fn site(&self) -> Sid {
        Sid(self.site.load(Relaxed))
    }

    pub(crate) fn add_spawned(&self) {
        let spawned = self.spawned.fetch_add(1, Relaxed) + 1;
        let live = spawned.saturating_sub(self.ended.load(Relaxed));
        if live > self.peak.load(Relaxed) {
            self.peak.fetch_max(live, Relaxed);
        }
    }

    pub(crate) fn add_ended(&self, panicked: bool) {
        self.ended.fetch_add(1, Relaxed);
        if panicked {
            self.panicked.fetch_add(1, Relaxed);
        }
    }

    /// Spawned, ended, panicked.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        // Ended first: a task that ends between the two loads must not make `live` negative.
        let ended = self.ended.load(Acquire);
        (self.spawned.load(Acquire), ended, self.panicked.load(Relaxed))
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_written_as_its_reader_knows_it() {
        let (groups, texts) = (Groups::new(), Texts::new());
        let here = Location::caller();
        let sid = groups.site(here, &texts).expect("there is room");
        assert_eq!(groups.site(here, &texts), Some(sid));
        assert_eq!(texts.read(sid), format!("{}:{}:{}", here.file(), here.line(), here.column()));
    }

    #[test]
    fn groups_past_the_cap_have_no_entry() {
        let groups = Groups::new();
        let full = (1..1000).filter(|&n| groups.find(Sid(n), Sid(0)).is_none()).count();
        assert_eq!(full, 999 - (CAP - 1));
        assert_eq!(groups.find(Sid(1), Sid(0)), Some(GroupId(1)));
        assert_eq!(groups.find(Sid(0), Sid(0)), Some(GroupId(0)));
    }

    #[test]
    fn the_peak_remembers() {
        let groups = Groups::new();
        let group = groups.entry(GroupId(1));
        (0..3).for_each(|_| group.add_spawned());
        (0..3).for_each(|_| group.add_ended(false));
        group.add_spawned();
        assert_eq!((group.peak(), group.counts()), (3, (4, 3, 0)));
    }
}
