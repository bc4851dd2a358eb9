//! The last fifteen minutes, in one-second samples of totals, workers, pools and the busiest groups, and every outlier
//! event: an incident begins before anyone attaches.
//!
//! Seconds and events are kept as packed records in two rings of bytes whose memory is taken once. What is past their
//! size is counted, and never kept at the cost of anything else.

use std::collections::HashMap;

use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use taskscope_proto::v1::{self, HistoryChunk, event};

mod records;

use records::Records;

const SECONDS: u64 = 15 * 60;
pub(crate) const STEP_NS: u64 = 1_000_000_000;
/// Most that it takes, whatever the budget is.
const MOST_BYTES: usize = 2 << 20;
/// Its share of the budget is one part in this.
const SHARE: usize = 8;
/// What is kept beside the two rings.
const TABLES_BYTES: usize = 64 << 10;
const MAX_WORKERS: usize = 256;
const MAX_POOLS: usize = 64;
/// A pool's name is cut here.
const MAX_NAME: usize = 255;
const BUSIEST_GROUPS: usize = 50;
/// A group with this many slow polls within a minute is slow all the time: the next ones of that minute are no outliers.
const SLOW_A_MINUTE: u32 = 10;
const MINUTE_NS: u64 = 60_000_000_000;
/// Packed seconds and events of one chunk. What goes out is about as large.
const CHUNK_SECONDS_BYTES: usize = 192 << 10;
const CHUNK_EVENTS_BYTES: usize = 48 << 10;
/// Seconds behind the rates in [`History::recent`].
const RECENT: usize = 10;

/// Bytes of a budget that history gets.
pub(crate) const fn share_of(budget: usize) -> usize {
    let share = budget / SHARE;
    if share < MOST_BYTES { share } else { MOST_BYTES }
}

/// What one second was like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Second<'a> {
    /// Its end.
    pub(crate) at_ns: u64,
    pub(crate) alive: u64,
    /// In this second.
    pub(crate) polls: u64,
    pub(crate) requests: u64,
    pub(crate) busy_ratio: Option<f64>,
    pub(crate) queued: Option<u64>,
    pub(crate) stuck_workers: u32,
    /// Runtime, index, busy share.
    pub(crate) workers: &'a [(u32, u32, Option<f64>)],
    pub(crate) pools: &'a [v1::Pool],
    pub(crate) groups: &'a [GroupTotals],
}

/// A group since the probe began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupTotals {
    pub(crate) id: u32,
    pub(crate) live: u64,
    pub(crate) polls_total: u64,
    pub(crate) busy_ns_total: u64,
}

/// The last seconds taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recent {
    /// 0: before the first second.
    pub(crate) window_ns: u64,
    pub(crate) polls: u64,
    pub(crate) requests: u64,
}

pub(crate) struct History {
    seconds: Records,
    events: Records,
    pools: Vec<PoolKey>,
    /// By group: polls and busy time at the last second.
    groups: Vec<(u64, u64)>,
    /// By group: the minute that is counted, and its slow polls.
    slow: Vec<(u64, u32)>,
    recent: std::collections::VecDeque<(u64, u64)>,
    first_second: Option<u64>,
    last_second: Option<u64>,
    scratch: Vec<u8>,
    lost: u64,
}

/// A pool is named once and then known by its position.
struct PoolKey {
    name: String,
    kind: i32,
    runtime_id: u32,
    /// The last second that has it.
    used: u64,
}

/// How far a watcher has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    next_second: u64,
    /// What comes later the watcher sees live.
    last_second: u64,
    from_ns: u64,
    events_after: u64,
    last_event: u64,
    /// Events of the seconds that were sent are still to come.
    behind: bool,
}

/// A record of [`History::seconds`], unpacked.
#[derive(Default, Debug, PartialEq)]
struct Unpacked {
    second: u64,
    totals: [u64; 6],
    workers: Vec<[u64; 3]>,
    pools: Vec<[u64; 4]>,
    groups: Vec<[u64; 4]>,
}

impl History {
    /// Takes `bytes` of memory, as the registry's budget has them for it.
    pub(crate) fn with_bytes(bytes: usize) -> Self {
        let rings = bytes.saturating_sub(TABLES_BYTES);
        Self {
            seconds: Records::with_capacity(rings - rings / 4),
            events: Records::with_capacity(rings / 4),
            pools: Vec::new(),
            groups: Vec::new(),
            slow: Vec::new(),
            recent: std::collections::VecDeque::with_capacity(RECENT),
            first_second: None,
            last_second: None,
            scratch: Vec::new(),
            lost: 0,
        }
    }

    /// Seconds, columns and events that had no room, since the last call.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    pub(crate) fn push(&mut self, second: &Second<'_>) {
        let number = second.at_ns / STEP_NS;
        if self.last_second.is_some_and(|last| number <= last) {
            return;
        }
        let mut packed = std::mem::take(&mut self.scratch);
        packed.clear();
        let mut put = |value: u64| encode_varint(value, &mut packed);
        put(number);
        put(second.alive);
        put(second.polls);
        put(second.requests);
        put(plus_one(second.busy_ratio.map(permille)));
        put(plus_one(second.queued));
        put(u64::from(second.stuck_workers));

        let workers = &second.workers[..second.workers.len().min(MAX_WORKERS)];
        self.lost += (second.workers.len() - workers.len()) as u64;
        put(workers.len() as u64);
        for &(runtime, index, busy) in workers {
            [u64::from(runtime), u64::from(index), plus_one(busy.map(permille))]
                .into_iter()
                .for_each(&mut put);
        }

        let oldest = self.first_second.unwrap_or(number);
        let mut pools = Vec::with_capacity(second.pools.len());
        for pool in second.pools {
            match name_pool(&mut self.pools, pool, number, oldest) {
                Some(position) => pools.push((position, pool)),
                None => self.lost += 1,
            }
        }
        put(pools.len() as u64);
        for (position, pool) in pools {
            let parts = [pool.capacity, pool.busy, pool.queued].map(plus_one);
            std::iter::once(position as u64).chain(parts).for_each(&mut put);
        }

        let groups = self.busiest(second.groups);
        put(groups.len() as u64);
        groups.into_iter().flatten().for_each(put);

        self.lost += self.seconds.push(&packed);
        self.scratch = packed;
        self.last_second = Some(number);
        self.forget_before((number + 1).saturating_sub(SECONDS));
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((second.polls, second.requests));
    }

    /// Id, live, polls and busy ns of this second, of the groups that did most in it.
    fn busiest(&mut self, totals: &[GroupTotals]) -> Vec<[u64; 4]> {
        let mut groups: Vec<[u64; 4]> = Vec::with_capacity(totals.len());
        for group in totals {
            let before = super::sampler::at(&mut self.groups, group.id as usize);
            let (polls, busy_ns) = (group.polls_total, group.busy_ns_total);
            let (polls_before, busy_before) = std::mem::replace(before, (polls, busy_ns));
            let (polls, busy_ns) = (polls.saturating_sub(polls_before), busy_ns.saturating_sub(busy_before));
            if polls > 0 || group.live > 0 {
                groups.push([u64::from(group.id), group.live, polls, busy_ns]);
            }
        }
        groups.sort_unstable_by_key(|&[id, live, polls, busy_ns]| {
            (std::cmp::Reverse((busy_ns, polls, live)), id)
        });
        groups.truncate(BUSIEST_GROUPS);
        groups
    }

    fn forget_before(&mut self, second: u64) {
        let mut bytes = std::mem::take(&mut self.scratch);
        loop {
            let place = self.seconds.oldest();
            self.first_second = place.and_then(|place| first(self.seconds.read(place, &mut bytes)));
            match self.first_second {
                Some(first) if first < second => self.seconds.pop(),
                _ => break,
            }
        }
        let oldest_ns = second.saturating_mul(STEP_NS);
        while let Some(place) = self.events.oldest() {
            match v1::Event::decode(self.events.read(place, &mut bytes)) {
                Ok(event) if event.at_ns >= oldest_ns => break,
                _ => self.events.pop(),
            }
        }
        self.scratch = bytes;
    }

    /// Keeps an event if it is an outlier.
    pub(crate) fn push_event(&mut self, event: &v1::Event) {
        if event.kind() == event::Kind::PollSlow {
            let group = event.poll.as_ref().map_or(0, |poll| poll.group_id);
            let counted = super::sampler::at(&mut self.slow, group as usize);
            let minute = event.at_ns / MINUTE_NS;
            let before = if counted.0 == minute { counted.1 } else { 0 };
            *counted = (minute, before + 1);
            if before >= SLOW_A_MINUTE {
                return;
            }
        }
        self.lost += self.events.push(&event.encode_to_vec());
    }

    /// The last seconds taken together.
    pub(crate) fn recent(&self) -> Recent {
        Recent {
            window_ns: self.recent.len() as u64 * STEP_NS,
            polls: self.recent.iter().map(|(polls, _)| polls).sum(),
            requests: self.recent.iter().map(|(_, requests)| requests).sum(),
        }
    }

    /// From where a watcher reads the last `seconds`, leaving out the events that it is sent anyway: those from
    /// `events_from` on.
    pub(crate) fn cursor(&self, seconds: u32, events_from: u64) -> Option<Cursor> {
        let last_second = self.last_second?;
        let next_second = (last_second + 1).saturating_sub(u64::from(seconds));
        Some(Cursor {
            next_second,
            last_second,
            from_ns: next_second.saturating_sub(1).saturating_mul(STEP_NS),
            events_after: 0,
            last_event: events_from.saturating_sub(1),
            behind: false,
        })
    }

    /// The next chunk for `cursor`, which is moved on; `None` where there is none left.
    pub(crate) fn chunk(&self, cursor: &mut Cursor) -> Option<HistoryChunk> {
        let mut columns = Columns::default();
        let (mut bytes, mut used) = (Vec::new(), 0);
        let mut expected = None;
        let mut next_second = cursor.next_second;
        for place in self.seconds.places().filter(|_| !cursor.behind) {
            let packed = self.seconds.read(place, &mut bytes);
            let Some(second) = first(packed).filter(|second| *second >= cursor.next_second) else { continue };
            let gap = expected.is_some_and(|expected| second != expected);
            if second > cursor.last_second || gap || used + packed.len() > CHUNK_SECONDS_BYTES && used > 0 {
                break;
            }
            used += packed.len();
            (expected, next_second) = (Some(second + 1), second + 1);
            if let Some(unpacked) = unpack(packed) {
                columns.push(&unpacked);
            }
        }
        let ends_ns =
            if next_second > cursor.last_second { u64::MAX } else { next_second.saturating_sub(1) * STEP_NS };
        let (mut events, mut used, mut all) = (Vec::new(), 0, true);
        for place in self.events.places() {
            let packed = self.events.read(place, &mut bytes);
            let len = packed.len();
            let Ok(event) = v1::Event::decode(packed) else { continue };
            let wanted = event.seq > cursor.events_after && event.seq <= cursor.last_event;
            if !wanted || event.at_ns < cursor.from_ns {
                continue;
            }
            if event.at_ns > ends_ns {
                break;
            }
            if used + len > CHUNK_EVENTS_BYTES {
                all = false;
                break;
            }
            used += len;
            events.push(event);
        }
        cursor.events_after = events.last().map_or(cursor.events_after, |event| event.seq);
        (cursor.next_second, cursor.behind) = (next_second, !all);
        let mut chunk = columns.into_chunk(&self.pools);
        let empty = chunk.alive.is_empty() && events.is_empty();
        chunk.events = events;
        chunk.more = !all || self.has_more(cursor);
        (!empty).then_some(chunk)
    }

    /// Of a watcher that gets one chunk only: the latest one.
    pub(crate) fn last_chunk(&self, cursor: &mut Cursor) -> Option<HistoryChunk> {
        let mut last = None;
        while let Some(chunk) = self.chunk(cursor) {
            last = Some(chunk);
        }
        last.map(|chunk| HistoryChunk { more: false, ..chunk })
    }

    fn has_more(&self, cursor: &Cursor) -> bool {
        let mut bytes = Vec::new();
        let mut wanted = |place| {
            first(self.seconds.read(place, &mut bytes))
                .is_some_and(|second| (cursor.next_second..=cursor.last_second).contains(&second))
        };
        self.seconds.places().any(&mut wanted)
    }

    /// Bytes that it has taken.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let names: usize = self.pools.iter().map(|pool| pool.name.capacity() + size_of::<PoolKey>()).sum();
        self.seconds.capacity()
            + self.events.capacity()
            + names
            + self.groups.capacity() * size_of::<(u64, u64)>()
            + self.slow.capacity() * size_of::<(u64, u32)>()
            + self.recent.capacity() * size_of::<(u64, u64)>()
            + self.scratch.capacity()
    }
}

/// The position of a pool in `pools`. The place of one that no second kept has any more is given to a new one.
fn name_pool(pools: &mut Vec<PoolKey>, pool: &v1::Pool, second: u64, oldest: u64) -> Option<usize> {
    let mut end = pool.name.len().min(MAX_NAME);
    while !pool.name.is_char_boundary(end) {
        end -= 1;
    }
    let name = &pool.name[..end];
    let is_it =
        |key: &PoolKey| key.name == name && key.kind == pool.kind && key.runtime_id == pool.runtime_id;
    if let Some(position) = pools.iter().position(is_it) {
        pools[position].used = second;
        return Some(position);
    }
    let fresh = PoolKey { name: name.to_owned(), kind: pool.kind, runtime_id: pool.runtime_id, used: second };
    if pools.len() < MAX_POOLS {
        pools.push(fresh);
        return Some(pools.len() - 1);
    }
    let position = pools.iter().position(|key| key.used < oldest)?;
    pools[position] = fresh;
    Some(position)
}

fn permille(ratio: f64) -> u64 {
    (ratio * 1000.0).clamp(0.0, 1000.0) as u64
}

fn plus_one(value: Option<u64>) -> u64 {
    value.map_or(0, |value| value.saturating_add(1))
}

/// The number of a packed second.
fn first(mut packed: &[u8]) -> Option<u64> {
    decode_varint(&mut packed).ok()
}

fn unpack(mut packed: &[u8]) -> Option<Unpacked> {
    let mut next = || decode_varint(&mut packed).ok();
    let mut out = Unpacked { second: next()?, ..Unpacked::default() };
    for total in &mut out.totals {
        *total = next()?;
    }
    for _ in 0..next()? {
        out.workers.push([next()?, next()?, next()?]);
    }
    for _ in 0..next()? {
        out.pools.push([next()?, next()?, next()?, next()?]);
    }
    for _ in 0..next()? {
        out.groups.push([next()?, next()?, next()?, next()?]);
    }
    Some(out)
}

/// The columns of a chunk as they grow.
#[derive(Default)]
struct Columns {
    chunk: HistoryChunk,
    workers: HashMap<(u32, u32), v1::WorkerHistory>,
    pools: HashMap<usize, v1::PoolHistory>,
    groups: HashMap<u32, v1::GroupHistory>,
}

impl Columns {
    fn push(&mut self, second: &Unpacked) {
        let at = self.chunk.alive.len();
        if at == 0 {
            self.chunk.first_at_ns = second.second * STEP_NS;
            self.chunk.step_ns = STEP_NS;
        }
        let [alive, polls, requests, busy, queued, stuck] = second.totals;
        self.chunk.alive.push(alive);
        self.chunk.polls.push(polls);
        self.chunk.requests.push(requests);
        self.chunk.busy_permille_plus1.push(busy as u32);
        self.chunk.queued_plus1.push(queued);
        self.chunk.stuck_workers.push(stuck as u32);
        for &[runtime_id, index, busy] in &second.workers {
            let (runtime_id, index) = (runtime_id as u32, index as u32);
            let worker = self.workers.entry((runtime_id, index)).or_insert_with(|| v1::WorkerHistory {
                runtime_id,
                index,
                ..Default::default()
            });
            put(&mut worker.busy_permille_plus1, at, busy as u32);
        }
        for &[position, capacity, busy, queued] in &second.pools {
            let pool = self.pools.entry(position as usize).or_default();
            put(&mut pool.capacity_plus1, at, capacity);
            put(&mut pool.busy_plus1, at, busy);
            put(&mut pool.queued_plus1, at, queued);
        }
        for &[id, live, polls, busy_ns] in &second.groups {
            let group_id = id as u32;
            let group = self
                .groups
                .entry(group_id)
                .or_insert_with(|| v1::GroupHistory { group_id, ..Default::default() });
            group.second.push(at as u32);
            group.live.push(live);
            group.polls.push(polls);
            group.busy_ns.push(busy_ns);
        }
    }

    fn into_chunk(self, names: &[PoolKey]) -> HistoryChunk {
        let mut chunk = self.chunk;
        let len = chunk.alive.len();
        chunk.workers = self.workers.into_values().collect();
        chunk.workers.sort_unstable_by_key(|worker| (worker.runtime_id, worker.index));
        chunk.workers.iter_mut().for_each(|worker| worker.busy_permille_plus1.resize(len, 0));
        let mut pools: Vec<_> = self.pools.into_iter().collect();
        pools.sort_unstable_by_key(|&(position, _)| position);
        for (position, mut pool) in pools {
            let Some(key) = names.get(position) else { continue };
            (pool.name, pool.kind, pool.runtime_id) = (key.name.clone(), key.kind, key.runtime_id);
            for column in [&mut pool.capacity_plus1, &mut pool.busy_plus1, &mut pool.queued_plus1] {
                column.resize(len, 0);
            }
            chunk.pools.push(pool);
        }
        chunk.groups = self.groups.into_values().collect();
        chunk.groups.sort_unstable_by_key(|group| group.group_id);
        chunk
    }
}

/// Puts `value` at `at`; what was not told before is absent.
fn put<T: Clone + Default>(column: &mut Vec<T>, at: usize, value: T) {
    column.resize(at, T::default());
    column.push(value);
}

#[cfg(test)]
mod tests;
