//! Which targets an agent watches, as a machine: it is told what each source lists now, and answers with which links to begin
//! and which to end. It opens nothing and reads no clock.
//!
//! A target keeps its name across restarts, and a target that goes stays known as lost for a while, so that somebody can be
//! told; unless its service goes on under one that has just begun, as in a deployment, which then takes its place.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::address::{Address, Target};

pub(crate) mod lookup;

/// A target that nobody lists any more is forgotten after this long.
pub(crate) const LOST_FOR: Duration = Duration::from_secs(10 * 60);
/// Where a service is restarted without a break, the new one is there for so long before the old one goes.
const BESIDE_FOR: Duration = Duration::from_secs(60);
/// Targets at once; more are not watched, and counted.
pub(crate) const MOST: usize = 200;

/// Names one target of the fleet for as long as it is in it. Never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct MemberId(u64);

/// Who knows targets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Source {
    /// Named by the user: they are there whether they run or not.
    Fixed,
    /// A folder of sockets; `None`: the usual ones.
    Folder(Option<PathBuf>),
    /// A host name with a port, which may stand for many addresses.
    Dns(String),
}

/// A target, as a source lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Listed {
    /// As the user wrote it.
    Named(Target),
    /// A socket of a service that runs as `instance`.
    Socket { service: String, instance: String, path: PathBuf },
    /// `HOST:PORT` of one address.
    Host(String),
}

#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// All that the source knows now.
    Listed { source: Source, targets: Vec<Listed> },
    /// These are the sources now, and what the user names: whatever else is watched is not to be, and nobody misses it.
    Configured { sources: BTreeSet<Source>, fixed: Vec<Listed> },
    /// Time has passed.
    Tick,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Link to this target, instead of what the member was linked to.
    Begin { id: MemberId, target: Target },
    /// It has gone: end the link and keep what is known.
    Lose(MemberId),
    /// Drop all that is known of it.
    Forget { id: MemberId, why: Forgotten },
}

/// Why nobody looks at a target any more. That what fires there has ended was not seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forgotten {
    /// It was lost, and did not come back.
    GivenUp,
    /// No source has it any more that is asked.
    NotWatched,
    /// It goes on in the place of the one that it continues.
    Moved,
}

impl Forgotten {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::GivenUp => "its target was lost, has not come back, and was given up",
            Self::NotWatched => "its target is not watched any more",
            Self::Moved => "its target is watched in the place of the one that it continues",
        }
    }
}

/// ```text
/// Listed --gone from its source--> Lost --LOST_FOR is over--> (forgotten)
///    ^  \--- its source is not asked any more -----------------> (forgotten)
///    |   \-- one that began just before goes on in its place --> Listed
///    +----- the same, or its service anew ---+
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
enum Standing {
    Listed,
    Lost { since: Instant },
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Unique in the fleet; metrics and viewers name it so.
    pub(crate) name: String,
    pub(crate) target: Target,
    source: Source,
    listed: Listed,
    standing: Standing,
    /// When its source first listed what it is now.
    since: Instant,
    /// It is there instead of another one that went.
    continues: bool,
}

impl Member {
    /// Its source does not list it any more.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.standing, Standing::Lost { .. })
    }

    /// What agents called it that named replicas by their instances, as in what they kept.
    pub(crate) fn name_of_before(&self) -> String {
        self.listed.names().1
    }
}

#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: BTreeMap<MemberId, Member>,
    last: u64,
    /// Sources that have listed something, be it nothing.
    heard: BTreeSet<Source>,
    /// Targets for which there was no room at the last listing of each source.
    turned_away: BTreeMap<Source, usize>,
}

impl Fleet {
    pub(crate) fn members(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(&id, member)| (id, member))
    }

    pub(crate) fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(crate) fn named(&self, name: &str) -> Option<(MemberId, &Member)> {
        self.members().find(|(_, member)| member.name == name)
    }

    pub(crate) fn has_heard(&self, source: &Source) -> bool {
        self.heard.contains(source)
    }

    /// Targets that are not watched because [`MOST`] are.
    pub(crate) fn turned_away(&self) -> usize {
        self.turned_away.values().sum()
    }

    pub(crate) fn apply(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        match input {
            Input::Listed { source, targets } => self.take(source, targets, now),
            Input::Configured { sources, fixed } => {
                let mut effects = self.adopt(&fixed);
                effects.extend(self.keep(&sources, &fixed));
                effects.extend(self.take(Source::Fixed, fixed, now));
                effects
            }
            Input::Tick => self.forget_old(now),
        }
    }

    /// What another source has found already, and the user names now, is the user's: it is not watched twice.
    fn adopt(&mut self, fixed: &[Listed]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for listed in fixed {
            if self.members.values().any(|it| it.source == Source::Fixed && it.listed == *listed) {
                continue;
            }
            let target = listed.target();
            let found =
                self.members.iter_mut().find(|(_, it)| !it.is_lost() && is_known_as(&target, &it.listed));
            if let Some((&id, member)) = found {
                (member.source, member.listed, member.target) =
                    (Source::Fixed, listed.clone(), target.clone());
                effects.push(Effect::Begin { id, target });
            }
        }
        effects
    }

    /// Forgets what no source has any more that is asked.
    fn keep(&mut self, sources: &BTreeSet<Source>, fixed: &[Listed]) -> Vec<Effect> {
        self.heard.retain(|source| sources.contains(source));
        self.turned_away.retain(|source, _| sources.contains(source));
        let is_wanted = |member: &Member| match &member.source {
            Source::Fixed => fixed.contains(&member.listed),
            source => sources.contains(source),
        };
        let unwanted: Vec<MemberId> =
            self.members().filter(|(_, member)| !is_wanted(member)).map(|(id, _)| id).collect();
        for id in &unwanted {
            self.members.remove(id);
        }
        unwanted.into_iter().map(|id| Effect::Forget { id, why: Forgotten::NotWatched }).collect()
    }

    fn take(&mut self, source: Source, targets: Vec<Listed>, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut fresh = Vec::new();
        let mut seen = BTreeSet::new();
        for listed in targets {
            let is_it =
                |(_, member): &(MemberId, &Member)| member.source == source && member.listed == listed;
            let there = self.members().find(is_it).map(|(id, _)| id);
            match there {
                Some(id) => {
                    seen.insert(id);
                    if let Some(member) = self.members.get_mut(&id).filter(|member| member.is_lost()) {
                        member.standing = Standing::Listed;
                        effects.push(Effect::Begin { id, target: member.target.clone() });
                    }
                }
                None if self.knows(&listed) || fresh.contains(&listed) => {}
                None => fresh.push(listed),
            }
        }
        let gone = |member: &Member| member.source == source && !member.is_lost();
        let mut went: Vec<MemberId> = self
            .members()
            .filter(|(id, _)| !seen.contains(id))
            .filter(|(_, it)| gone(it))
            .map(|(id, _)| id)
            .collect();
        let mut turned_away = 0;
        for listed in fresh {
            // A restart: the service is there anew, and one of its runs has gone.
            if let Some(id) = self.predecessor(&source, &listed, &went) {
                went.retain(|&it| it != id);
                effects.extend(self.go_on(id, listed, now));
            } else if self.members.len() >= MOST && !self.make_room(&mut effects) {
                turned_away += 1;
            } else {
                effects.push(self.add(source.clone(), listed, now));
            }
        }
        for &id in &went {
            let next = self.successor(id, &went, now);
            if let Some((next, member)) = next.and_then(|next| self.members.remove_entry(&next)) {
                effects.push(Effect::Forget { id: next, why: Forgotten::Moved });
                effects.extend(self.go_on(id, member.listed, member.since));
            } else if let Some(member) = self.members.get_mut(&id) {
                member.standing = Standing::Lost { since: now };
                effects.push(Effect::Lose(id));
            }
        }
        self.heard.insert(source.clone());
        self.turned_away.insert(source, turned_away);
        effects
    }

    /// What has been listed since then is there in the member's place.
    fn go_on(&mut self, id: MemberId, listed: Listed, since: Instant) -> Option<Effect> {
        let member = self.members.get_mut(&id)?;
        let target = listed.target();
        (member.standing, member.since, member.continues) = (Standing::Listed, since, true);
        (member.listed, member.target) = (listed, target.clone());
        Some(Effect::Begin { id, target })
    }

    fn add(&mut self, source: Source, listed: Listed, now: Instant) -> Effect {
        self.last += 1;
        let id = MemberId(self.last);
        let target = listed.target();
        let name = self.free_name(&listed);
        let standing = Standing::Listed;
        let member =
            Member { name, target: target.clone(), source, listed, standing, since: now, continues: false };
        self.members.insert(id, member);
        Effect::Begin { id, target }
    }

    /// The service's name, with the instance where that is taken; with a number where the instance is another one at each start.
    fn free_name(&self, listed: &Listed) -> String {
        let (short, long) = listed.names();
        let is_free = |name: &String| self.named(name).is_none();
        let long = if listed.is_random() { short.clone() } else { long };
        let numbered = (2..).map(|number| format!("{long}-{number}"));
        [short, long.clone()].into_iter().chain(numbered).find(is_free).unwrap_or(long)
    }

    /// Whether another source has it already: the user's own name of it comes first.
    fn knows(&self, listed: &Listed) -> bool {
        let is_named = |member: &Member| matches!(member.target, Target::Named(_));
        self.members
            .values()
            .any(|member| is_known_as(&member.target, listed) && (is_named(member) || !member.is_lost()))
    }

    /// The run of a service that a new one continues: one that goes now, or else the last that was lost.
    fn predecessor(&self, source: &Source, listed: &Listed, went: &[MemberId]) -> Option<MemberId> {
        let gone = |(id, member): (MemberId, &Member)| match member.standing {
            Standing::Lost { since } => Some((false, Some(since), id)),
            Standing::Listed => went.contains(&id).then_some((true, None, id)),
        };
        let same = self
            .members()
            .filter(|(_, member)| member.source == *source && member.listed.is_run_of_the_same(listed));
        // Of several, the first by name.
        same.filter_map(gone).max_by_key(|&(goes, since, id)| (goes, since, Reverse(id))).map(|(.., id)| id)
    }

    /// The run of its service that began while this one was about to go, as in a restart without a break. One that has been there
    /// for longer is another replica, and one that continues another one already has its own to continue.
    fn successor(&self, id: MemberId, went: &[MemberId], now: Instant) -> Option<MemberId> {
        let gone = self.members.get(&id)?;
        let is_next = |(other, member): &(MemberId, &Member)| {
            !went.contains(other)
                && !member.is_lost()
                && !member.continues
                && member.since > gone.since
                && now.saturating_duration_since(member.since) <= BESIDE_FOR
                && member.source == gone.source
                && member.listed.is_run_of_the_same(&gone.listed)
        };
        self.members().find(is_next).map(|(other, _)| other)
    }

    /// Forgets the target that has been lost for the longest; false where none is.
    fn make_room(&mut self, effects: &mut Vec<Effect>) -> bool {
        let since = |member: &Member| match member.standing {
            Standing::Lost { since } => Some(since),
            Standing::Listed => None,
        };
        let oldest = self.members().filter_map(|(id, member)| Some((since(member)?, id))).min();
        let Some((_, id)) = oldest else { return false };
        self.members.remove(&id);
        effects.push(Effect::Forget { id, why: Forgotten::GivenUp });
        true
    }

    fn forget_old(&mut self, now: Instant) -> Vec<Effect> {
        let is_old = |member: &Member| match member.standing {
            Standing::Lost { since } => now >= since + LOST_FOR,
            Standing::Listed => false,
        };
        let old: Vec<MemberId> =
            self.members().filter(|(_, member)| is_old(member)).map(|(id, _)| id).collect();
        for id in &old {
            self.members.remove(id);
        }
        old.into_iter().map(|id| Effect::Forget { id, why: Forgotten::GivenUp }).collect()
    }
}

/// Whether a target stands for what was listed.
fn is_known_as(target: &Target, listed: &Listed) -> bool {
    match (target, listed) {
        (Target::Named(name), Listed::Socket { service, instance, .. }) => {
            name == service || *name == format!("{service}.{instance}")
        }
        (target, listed) => *target == listed.target(),
    }
}

impl Listed {
    pub(crate) fn target(&self) -> Target {
        match self {
            Self::Named(target) => target.clone(),
            Self::Socket { path, .. } => Target::At(Address::Unix(path.clone())),
            Self::Host(host) => Target::At(Address::Http(format!("http://{host}"))),
        }
    }

    /// As short as can be, and one that tells it from others.
    fn names(&self) -> (String, String) {
        match self {
            Self::Named(Target::Named(name)) => (name.clone(), name.clone()),
            Self::Named(target) => {
                let text = target.to_string();
                let short = text.strip_prefix("http://").unwrap_or(&text).to_owned();
                (short, text)
            }
            Self::Socket { service, instance, .. } => (service.clone(), format!("{service}.{instance}")),
            Self::Host(host) => (host.clone(), host.clone()),
        }
    }

    /// Its instance is another one each time that it is started, as a probe names its socket where nobody has named it.
    fn is_random(&self) -> bool {
        let is_digit = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        matches!(self, Self::Socket { instance, .. } if instance.len() == 8 && instance.bytes().all(is_digit))
    }

    fn is_run_of_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Socket { service, .. }, Self::Socket { service: theirs, .. }) => service == theirs,
            _ => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    pub(crate) fn member(id: u64) -> super::MemberId {
        super::MemberId(id)
    }
}

#[cfg(test)]
mod tests;
