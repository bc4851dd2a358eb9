//! Stacks and files of code on one stream: each is sent once, with the first frame that uses it. And the frame that waits for
//! stacks to be taken.

use std::collections::HashSet;

use prost::Message;
use taskscope_proto::MAX_MESSAGE_BYTES;
use taskscope_proto::v1::{self, loss::Reason};

use super::Watcher;
use crate::engine::Engine;
use crate::engine::sampler::Sampler;
use crate::stacks::table::StackId;

/// Numbers remembered as sent; beyond that those are forgotten that can never come again.
const SENT: usize = 4096;
/// A frame that asked for stacks leaves this long after its round has begun, at the latest.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Between two looks whether they are there.
const LOOK_AGAIN_NS: u64 = 5_000_000;
/// Left free in a message that is full of stacks.
const MARGIN: usize = 16 << 10;

/// What the other end has.
#[derive(Debug, Default)]
pub(super) struct SentStacks {
    stacks: HashSet<u32>,
    modules: HashSet<u32>,
}

impl SentStacks {
    /// Adds the stacks that this frame is the first to use, and their files. Where there is no room for one in a message, the
    /// frame goes without it, and that is counted.
    pub(super) fn add_to(&mut self, frame: &mut v1::Frame, engine: &Engine) {
        let Some(stacks) = &engine.stacks else { return };
        let fresh: Vec<u32> = shares(frame)
            .flat_map(|shares| shares.iter().map(|share| share.stack_sid))
            .filter(|sid| !self.stacks.contains(sid))
            .collect();
        if fresh.is_empty() {
            return;
        }
        let table = stacks.table();
        let mut room = MAX_MESSAGE_BYTES.saturating_sub(frame.encoded_len() + MARGIN);
        for sid in fresh {
            if self.stacks.contains(&sid) {
                continue;
            }
            let Some(stack) = table.describe(StackId(sid)) else { continue };
            let modules: HashSet<u32> =
                stack.module_ids.iter().copied().filter(|id| !self.modules.contains(id)).collect();
            let modules: Vec<v1::Module> = modules.into_iter().filter_map(|id| table.module(id)).collect();
            let bytes: usize = modules.iter().map(Message::encoded_len).sum::<usize>() + stack.encoded_len();
            // Each is a field with a length of its own.
            let bytes = bytes + 8 * (modules.len() + 1);
            if bytes > room {
                continue;
            }
            room -= bytes;
            self.stacks.insert(sid);
            self.modules.extend(modules.iter().map(|module| module.id));
            frame.modules.extend(modules);
            frame.stacks.push(stack);
        }
        let mut left_out = 0;
        for shares in shares_mut(frame) {
            let before = shares.len();
            shares.retain(|share| self.stacks.contains(&share.stack_sid));
            left_out += before - shares.len();
        }
        engine.registry.losses.add(Reason::LostStacks, left_out as u64);
        if self.stacks.len() > SENT {
            self.stacks.retain(|&sid| table.has(StackId(sid)));
        }
    }
}

fn shares(frame: &v1::Frame) -> impl Iterator<Item = &Vec<v1::StackShare>> {
    let workers = frame.runtimes.iter().flat_map(|runtime| &runtime.workers);
    let polls = workers
        .filter_map(|worker| worker.poll.as_ref())
        .chain(frame.threads.iter().filter_map(|thread| thread.poll.as_ref()))
        .chain(frame.events.iter().filter_map(|event| event.poll.as_ref()));
    polls.map(|poll| &poll.stacks).chain(frame.threads.iter().map(|thread| &thread.stacks))
}

fn shares_mut(frame: &mut v1::Frame) -> Vec<&mut Vec<v1::StackShare>> {
    let mut all = Vec::new();
    let workers = frame.runtimes.iter_mut().flat_map(|runtime| &mut runtime.workers);
    all.extend(workers.filter_map(|worker| worker.poll.as_mut()).map(|poll| &mut poll.stacks));
    for thread in &mut frame.threads {
        all.extend(thread.poll.as_mut().map(|poll| &mut poll.stacks));
        all.push(&mut thread.stacks);
    }
    let events = frame.events.iter_mut();
    all.extend(events.filter_map(|event| event.poll.as_mut()).map(|poll| &mut poll.stacks));
    all
}

/// The stacks that a frame waits for.
#[derive(Debug, Default)]
pub(super) enum Round {
    #[default]
    NotBegun,
    /// Since this instant; `None`: it is too soon after another one.
    Begun {
        since_ns: u64,
        round: Option<u64>,
    },
    Over,
}

impl Watcher {
    /// Whether its frame tells of the threads that Tokio does not know.
    pub(super) fn wants_other_threads(&self) -> bool {
        self.ask.stacks.as_ref().is_some_and(|query| query.other_threads)
    }

    /// Until when its frame has to wait before it is looked at again whether the stacks are there that it asked for.
    pub(crate) fn wait_for_stacks(&mut self, sampler: &mut Sampler, now_ns: u64) -> Option<u64> {
        let query = self.ask.stacks.as_ref()?;
        let (mut since_ns, mut round) = match self.round {
            Round::Over => return None,
            Round::NotBegun => (now_ns, None),
            Round::Begun { since_ns, round } => (since_ns, round),
        };
        if round.is_none() {
            round = sampler.begin_round(now_ns, query);
            if round.is_some() {
                since_ns = sampler.now_ns();
            }
        }
        let is_late = now_ns >= since_ns.saturating_add(PATIENCE_NS);
        if is_late || round.is_some_and(|round| sampler.is_round_over(round)) {
            if let Some(round) = round {
                sampler.end_round(round);
            }
            self.round = Round::Over;
            return None;
        }
        self.round = Round::Begun { since_ns, round };
        Some(now_ns.saturating_add(LOOK_AGAIN_NS))
    }
}
