//! Tasks of one name and spawn site, up to [`CAP`]; later ones count in `other`.

use std::panic::Location;

use taskscope_proto::ids::{GroupId, Sid};
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::words;

use super::Losses;
use super::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed, Release, zeroed};
use super::text::Texts;
use super::unsorted::Unsorted;

/// Group 0 is `other`. Positions fit a byte.
const CAP: usize = 256;
const TABLE: usize = 512;
const PLACES: usize = 1024;
const PROBES: usize = 32;
/// In place of a name that is not stored, because no group is left that could have it: what is spawned under it is in
/// `other`. No text has this id.
pub(crate) const NO_GROUPS_NAME: Sid = Sid(u16::MAX as u32);
pub(crate) const BYTES: usize = CAP * size_of::<Group>() + TABLE * 16 + PLACES * 16;

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
#[repr(align(64))]
pub(crate) struct Group {
    name: AtomicU32,
    site: AtomicU32,
    peak: AtomicU64,
    spawned: AtomicU64,
    /// What `ended` was when the peak was last looked at.
    ended_seen: AtomicU64,
    /// Written by those who spawn, above; by those who end, below, on a line of its own.
    _apart: [AtomicU64; 4],
    ended: AtomicU64,
    panicked: AtomicU64,
    /// Jobs of the blocking pool that have started, and how long they waited for a thread.
    started: AtomicU64,
    waited_ns: AtomicU64,
    longest_wait_ns: AtomicU64,
    pub(crate) unsorted: Unsorted,
    /// Waits of its tasks for a worker that no histogram counts.
    pub(crate) unsorted_waits: Unsorted,
}

#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
struct Key {
    /// Name and site; zero is free (and, as a key, is `other`).
    names: AtomicU64,
    position_plus1: AtomicU64,
}

/// A line of the program's source, and the group of what is spawned there under a name.
#[cfg_attr(not(taskscope_loom), derive(bytemuck::Zeroable))]
#[cfg_attr(taskscope_loom, derive(Default))]
struct Place {
    /// Address of the location, and the name in the upper sixteen bits. Zero is free.
    key: AtomicU64,
    /// 0: being found at this moment.
    group_plus1: AtomicU64,
}

pub(crate) struct Groups {
    entries: &'static [Group],
    used: AtomicU32,
    table: &'static [Key],
    places: &'static [Place],
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self { entries: zeroed(CAP), used: AtomicU32::new(1), table: zeroed(TABLE), places: zeroed(PLACES) }
    }

    /// The group of a new task, spawned at `at` under `name` (0: unnamed), remembered by the address of the location, so
    /// that a site is written out once. What has no room is counted: once a task.
    pub(crate) fn of(
        &self,
        name: Sid,
        at: &'static Location<'static>,
        texts: &Texts,
        losses: &Losses,
    ) -> GroupId {
        self.search(name, at, texts, Some(losses))
    }

    /// As [`Groups::of`], for a task that is counted already, and so is what had no room.
    pub(crate) fn again(&self, name: Sid, at: &'static Location<'static>, texts: &Texts) -> GroupId {
        self.search(name, at, texts, None)
    }

    fn search(
        &self,
        name: Sid,
        at: &'static Location<'static>,
        texts: &Texts,
        losses: Option<&Losses>,
    ) -> GroupId {
        let address = std::ptr::from_ref(at).addr() as u64;
        let key = address | u64::from(name.0) << 48;
        if address >> 48 != 0 || name.0 >> 16 != 0 {
            return self.find_or_other(name, at, texts, losses);
        }
        let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
        for step in 0..PROBES {
            let place = &self.places[hash.wrapping_add(step) % PLACES];
            let known = place.key.load(Acquire);
            if known == key
                && let Some(group) = (place.group_plus1.load(Acquire) as u32).checked_sub(1)
            {
                return GroupId(group);
            }
            if known == 0 && place.key.compare_exchange(0, key, AcqRel, Acquire).is_ok() {
                let group = self.find_or_other(name, at, texts, losses);
                if group != GroupId(0) {
                    place.group_plus1.store(u64::from(group.0) + 1, Release);
                }
                return group;
            }
            // Another thread is finding it at this moment, or it has none of its own.
            if known == key {
                break;
            }
        }
        self.find_or_other(name, at, texts, losses)
    }

    #[cold]
    fn find_or_other(
        &self,
        name: Sid,
        at: &'static Location<'static>,
        texts: &Texts,
        losses: Option<&Losses>,
    ) -> GroupId {
        let count = |reason| {
            if let Some(losses) = losses {
                losses.add(reason, 1);
            }
        };
        let site = write_site(at, texts).unwrap_or_else(|| {
            count(Reason::LostStrings);
            Sid(0)
        });
        self.find(name, site).unwrap_or_else(|| {
            count(Reason::FoldedGroups);
            GroupId(0)
        })
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
                        cell.position_plus1.store(u64::from(position) + 1, Release);
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
        // `ended` is on a cache line that other threads write; no more live than that are there as long as it only grows.
        let most = spawned.saturating_sub(self.ended_seen.load(Relaxed));
        if most > self.peak.load(Relaxed) {
            self.raise_peak(spawned);
        }
    }

    /// A task that was counted as spawned here belongs elsewhere.
    pub(crate) fn take_back_spawned(&self) {
        let _ = self.spawned.fetch_update(Relaxed, Relaxed, |spawned| spawned.checked_sub(1));
    }

    #[cold]
    fn raise_peak(&self, spawned: u64) {
        let ended = self.ended.load(Relaxed);
        self.ended_seen.store(ended, Relaxed);
        self.peak.fetch_max(spawned.saturating_sub(ended), Relaxed);
    }

    pub(crate) fn add_ended(&self, panicked: bool) {
        self.ended.fetch_add(1, Release);
        if panicked {
            self.panicked.fetch_add(1, Relaxed);
        }
    }

    /// A job of the blocking pool has got a thread.
    pub(crate) fn add_started(&self, waited_ns: u64) {
        self.started.fetch_add(1, Relaxed);
        self.waited_ns.fetch_add(waited_ns, Relaxed);
        if waited_ns > self.longest_wait_ns.load(Relaxed) {
            self.longest_wait_ns.fetch_max(waited_ns, Relaxed);
        }
    }

    /// Started jobs, the time they waited, and the longest wait; `None`: it has no blocking jobs.
    pub(crate) fn waits(&self) -> Option<(u64, u64, u64)> {
        let started = self.started.load(Relaxed);
        (started > 0).then(|| (started, self.waited_ns.load(Relaxed), self.longest_wait_ns.load(Relaxed)))
    }

    /// Spawned, ended, panicked.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        // Ended first, and with all that came before it: a task that ends between the two loads must not make `live`
        // negative.
        let ended = self.ended.load(Acquire);
        (self.spawned.load(Acquire), ended, self.panicked.load(Relaxed))
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }
}

#[cfg(all(test, not(taskscope_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_written_as_its_reader_knows_it() {
        let (groups, texts, losses) = (Groups::new(), Texts::new(1 << 18), Losses::default());
        let here = Location::caller();
        let group = groups.of(Sid(0), here, &texts, &losses);
        assert_eq!(groups.of(Sid(0), here, &texts, &losses), group);
        assert_ne!(groups.of(Sid(7), here, &texts, &losses), group);
        let site = groups.entry(group).site();
        assert_eq!(texts.read(site), format!("{}:{}:{}", here.file(), here.line(), here.column()));
    }

    #[test]
    fn tasks_of_a_group_past_the_cap_are_counted_as_such() {
        let (groups, texts, losses) = (Groups::new(), Texts::new(1 << 18), Losses::default());
        (1..CAP as u32).for_each(|n| assert!(groups.find(Sid(n), Sid(0)).is_some()));
        let here = Location::caller();
        assert_eq!([(); 3].map(|()| groups.of(Sid(0), here, &texts, &losses)), [GroupId(0); 3]);
        assert_eq!(losses.count(Reason::FoldedGroups), 3);
        assert_eq!(groups.again(Sid(0), here, &texts), GroupId(0));
        assert_eq!(losses.count(Reason::FoldedGroups), 3, "it was counted when it was spawned");
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
