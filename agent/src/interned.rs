//! The stacks of one stream: as they came, by id, and with their names as far as those are known.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use taskscope_proto::v1::{self, StackShare, capability, interned_stack::End};
use taskscope_proto::words;

use crate::stack::share::{self, Spent};
use crate::stack::{Shared, Stack};
use crate::symbols::{Frame, Module, Names, Symbols};

/// Stacks and modules that are kept; the oldest go first.
const KEPT: usize = 1 << 14;
/// A stack that claims to be deeper is no stack.
const DEEPEST: usize = 1024;
/// A path that claims to be longer is none that a system has.
const LONGEST_PATH: usize = 4096;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stacks {
    modules: BTreeMap<u32, Arc<Module>>,
    raw: BTreeMap<u32, Raw>,
    named: HashMap<u32, Shared>,
    missing: Option<Missing>,
}

/// Why stacks have no line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// In words, without a full stop.
    pub(crate) why: String,
    /// What to do.
    pub(crate) hint: &'static str,
}

#[derive(Clone, Debug)]
struct Raw {
    /// The innermost first.
    frames: Vec<(Option<Arc<Module>>, u64)>,
    end: End,
}

impl Stacks {
    /// Takes in the modules and stacks of a frame.
    pub(crate) fn extend(&mut self, frame: &v1::Frame) {
        for module in
            frame.modules.iter().filter(|module| module.id != 0 && module.path.len() <= LONGEST_PATH)
        {
            let of = Module { path: words::printable(&module.path), build_id: module.build_id.clone() };
            self.modules.insert(module.id, Arc::new(of));
        }
        for stack in frame.stacks.iter().filter(|stack| stack.stack_sid != 0) {
            // Columns of two lengths, or no stack at all: nothing can be said of it.
            if stack.module_ids.len() != stack.addresses.len() || stack.addresses.len() > DEEPEST {
                continue;
            }
            let columns = stack.module_ids.iter().zip(&stack.addresses);
            let frames =
                columns.map(|(module, &address)| (self.modules.get(module).cloned(), address)).collect();
            self.raw.insert(stack.stack_sid, Raw { frames, end: stack.end() });
            self.named.remove(&stack.stack_sid);
        }
        while self.modules.len() > KEPT {
            self.modules.pop_first();
        }
        while self.raw.len() > KEPT {
            self.raw.pop_first().map(|(sid, _)| self.named.remove(&sid));
        }
    }

    /// Names the stacks of `wanted` as far as they are known by now, and asks for the rest. True: all of them have theirs.
    pub(crate) fn look_up(&mut self, symbols: &Symbols, wanted: impl Iterator<Item = u32>) -> bool {
        let mut whole = true;
        for sid in wanted {
            let Some(raw) = self.raw.get(&sid).filter(|_| !self.named.contains_key(&sid)) else { continue };
            let frames = raw.frames.iter().map(|(module, address)| match module {
                Some(module) => symbols.frames(module, *address).map(|frames| frames.to_vec()),
                None => Some(vec![Frame::unnamed(None, *address)]),
            });
            // Not one after the other: all are asked for at once.
            let frames: Vec<Option<Vec<Frame>>> = frames.collect();
            let Some(frames) = frames.into_iter().collect::<Option<Vec<_>>>() else {
                whole = false;
                continue;
            };
            let stack = Stack::of(frames.concat(), raw.end);
            if !stack.has_line() && self.missing.is_none() {
                self.missing = missing(symbols, &stack);
            }
            self.named.insert(sid, Arc::new(stack));
        }
        whole
    }

    /// Names are not waited for any longer: the stacks without them are shown by their addresses.
    pub(crate) fn say_late(&mut self, seconds: u64) {
        for (&sid, raw) in &self.raw {
            let unnamed =
                || raw.frames.iter().map(|(module, address)| Frame::unnamed(module.clone(), *address));
            self.named.entry(sid).or_insert_with(|| Arc::new(Stack::of(unnamed().collect(), raw.end)));
        }
        self.missing = Some(Missing {
            why: format!("the names were not read within {seconds} s"),
            hint: "ask again: what was read once is read faster; or use a debug file that is split off and smaller",
        });
    }

    /// `None`: there is no such stack, or its names are not known yet.
    pub(crate) fn stack(&self, sid: u32) -> Option<&Shared> {
        self.named.get(&sid)
    }

    pub(crate) fn by_line(&self, shares: &[StackShare]) -> Vec<Spent> {
        share::by_line(shares, |sid| self.stack(sid))
    }

    /// Why a stack has no line; `None`: all have theirs.
    pub(crate) fn missing(&self) -> Option<&Missing> {
        self.missing.as_ref()
    }
}

/// What keeps a stack from having a line: the first module of it that could hold the user's code, and has no lines.
fn missing(symbols: &Symbols, stack: &Stack) -> Option<Missing> {
    let mut modules = stack.frames.iter().filter_map(|frame| frame.module.as_ref());
    modules.find_map(|module| match symbols.names(module) {
        Some(Names::Missing(why)) if !module.is_of_system() => Some(Missing { why, hint: HINT }),
        _ => None,
    })
}

const HINT: &str =
    "give the folder of its unstripped copy or debug file with --debug-dir DIR or TASKSCOPE_DEBUG_DIR";

/// The stacks that a poll refers to.
fn of_poll(poll: Option<&v1::LivePoll>) -> impl Iterator<Item = u32> {
    poll.into_iter().flat_map(|poll| poll.stacks.iter().map(|share| share.stack_sid))
}

/// The stacks that live polls and threads of a frame refer to.
pub(crate) fn of_frame(frame: &v1::Frame) -> impl Iterator<Item = u32> {
    let workers = frame.runtimes.iter().flat_map(|runtime| &runtime.workers);
    let threads = frame.threads.iter();
    workers
        .flat_map(|worker| of_poll(worker.poll.as_ref()))
        .chain(threads.clone().flat_map(|thread| of_poll(thread.poll.as_ref())))
        .chain(threads.flat_map(|thread| thread.stacks.iter().map(|share| share.stack_sid)))
}

/// The stacks that an event refers to.
pub(crate) fn of_event(event: &v1::Event) -> impl Iterator<Item = u32> {
    of_poll(event.poll.as_ref())
}

/// What the target says about its stacks; `None`: its probe knows of none.
pub(crate) fn coverage(capabilities: &[v1::Capability]) -> Option<&v1::Capability> {
    capabilities.iter().find(|capability| capability.kind() == capability::Kind::Stacks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::symbols::Places;

    fn stack(sid: u32, modules: Vec<u32>, addresses: Vec<u64>) -> v1::InternedStack {
        v1::InternedStack { stack_sid: sid, module_ids: modules, addresses, end: End::Whole.into() }
    }

    #[test]
    fn a_stack_that_cannot_be_is_forgotten_and_memory_has_a_limit() {
        let mut stacks = Stacks::default();
        stacks.extend(&v1::Frame {
            modules: vec![v1::Module { id: 1, path: "x".repeat(1 << 20), build_id: vec![] }],
            stacks: vec![
                stack(1, vec![1, 1], vec![5]),
                stack(2, vec![1; 2_000], vec![5; 2_000]),
                stack(0, vec![1], vec![5]),
                // Of a module that was not sent.
                stack(3, vec![9], vec![5]),
            ],
            ..Default::default()
        });
        assert_eq!((stacks.modules.len(), stacks.raw.len()), (0, 1));
        for first in (4..100_000).step_by(10_000) {
            let many = (first..first + 10_000).map(|sid| stack(sid, vec![], vec![])).collect();
            stacks.extend(&v1::Frame { stacks: many, ..Default::default() });
        }
        assert_eq!(stacks.raw.len(), KEPT);
    }

    proptest! {
        /// A target may send what it likes: references to nothing, columns of two lengths, sums beyond all bounds.
        #[test]
        fn no_frame_makes_it_panic(
            stacks in proptest::collection::vec(
                (0..4u32, proptest::collection::vec(0..4u32, 0..5), proptest::collection::vec(any::<u64>(), 0..5)),
                0..6,
            ),
            shares in proptest::collection::vec((0..5u32, any::<u32>(), any::<u64>()), 0..9),
            since_ns: u64,
        ) {
            let shares: Vec<StackShare> = shares
                .into_iter()
                .map(|(stack_sid, samples, covered_ns)| StackShare { stack_sid, samples, covered_ns })
                .collect();
            let stacks = stacks.into_iter().map(|(sid, modules, addresses)| stack(sid, modules, addresses));
            let poll = v1::LivePoll { task_id: 1, since_ns, stacks: shares.clone(), ..Default::default() };
            let worker = v1::Worker { tid: Some(1), poll: Some(poll.clone()), ..Default::default() };
            let frame = v1::Frame {
                at_ns: 9_000_000_000,
                modules: vec![v1::Module { id: 1, path: "/\u{1b}[2J".into(), build_id: vec![] }],
                stacks: stacks.collect(),
                runtimes: vec![v1::Runtime { workers: vec![worker], ..Default::default() }],
                threads: vec![v1::Thread { tid: 2, stacks: shares, ..Default::default() }],
                events: vec![v1::Event { seq: 1, poll: Some(poll), ..Default::default() }],
                pools: vec![v1::Pool {
                    kind: v1::pool::Kind::Blocking.into(),
                    capacity: Some(1),
                    busy: Some(1),
                    queued: Some(1),
                    saturated_ns: Some(u64::MAX),
                    ..Default::default()
                }],
                ..Default::default()
            };
            let mut model = crate::model::Model::new(v1::Description::default());
            model.apply(frame);
            model.stacks.say_late(10);
            let why = crate::why::Why::of(&model);
            let is_clean = why.lines.iter().all(|line| !line.text().contains('\u{1b}'));
            prop_assert!(is_clean, "{:?}", why);
            let _ = crate::code::of(&model, &mut Default::default());
            let running = crate::report::stacks::running(&model);
            prop_assert_eq!(running.len(), 2);
        }
    }

    #[tokio::test]
    async fn what_no_file_tells_is_shown_by_its_address_with_what_to_do() {
        let mut stacks = Stacks::default();
        stacks.extend(&v1::Frame {
            modules: vec![v1::Module { id: 1, path: "/nowhere/api".into(), build_id: vec![0xab; 20] }],
            stacks: vec![stack(1, vec![1, 0], vec![0x1234, 0x99])],
            ..Default::default()
        });
        let symbols = Symbols::of(Places::default());
        let mut answers = symbols.answers();
        while !stacks.look_up(&symbols, [1, 2].into_iter()) {
            answers.changed().await.expect("somebody answers");
        }
        let stack = stacks.stack(1).expect("it was answered");
        let words: Vec<String> = stack.shown().map(|(frame, _)| crate::stack::frame_words(frame)).collect();
        assert_eq!(words, ["api+0x1234", "0x99"]);
        let missing = stacks.missing().expect("it is told");
        assert!(missing.why.starts_with("no file for /nowhere/api (build-id abab"), "{missing:?}");
        assert!(missing.why.ends_with("it is not on this machine"), "{missing:?}");
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Stacks as tests write them.

    use super::*;

    impl Stacks {
        /// Takes in a stack with its names.
        pub(crate) fn insert(&mut self, sid: u32, frames: Vec<Frame>) {
            self.named.insert(sid, Arc::new(Stack::of(frames, End::Whole)));
        }

        pub(crate) fn say_missing(&mut self, why: &str) {
            self.missing = Some(Missing { why: why.to_owned(), hint: HINT });
        }
    }

    /// `function@file:line` in the program `/srv/bin/api`, or a function of libc.
    pub(crate) fn frame(text: &str) -> Frame {
        let (function, place) = text.split_once('@').map_or((text, None), |(it, place)| (it, Some(place)));
        let place = place.and_then(|place| place.rsplit_once(':'));
        let path = if function.contains("::") { "/srv/bin/api" } else { "/usr/lib/libc.so.6" };
        Frame {
            function: Some(function.to_owned()),
            file: place.map(|(file, _)| file.to_owned()),
            line: place.and_then(|(_, line)| line.parse().ok()),
            module: Some(Arc::new(Module { path: path.to_owned(), build_id: vec![0xab; 20] })),
            address: 0x1234,
            inlined: false,
        }
    }

    const TOKIO: &str =
        "/c/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src/runtime/task/core.rs:380";

    /// A poll of `own`, inside of which is `inner`.
    pub(crate) fn stack(inner: &[&str], own: &str) -> Vec<Frame> {
        let harness = format!("tokio::runtime::task::core::Core<T,S>::poll@{TOKIO}");
        inner.iter().copied().chain([own, harness.as_str()]).map(frame).collect()
    }

    /// `POST /login` in bcrypt.
    pub(crate) fn hashing() -> Vec<Frame> {
        let bcrypt =
            "bcrypt::hash@/c/registry/src/index.crates.io-1949cf8c6b5b557f/bcrypt-0.17.1/src/lib.rs:90";
        stack(&[bcrypt], "api::login::check@/home/a/api/src/login.rs:40")
    }

    /// A sleep in `src/mail.rs`, line `line`.
    pub(crate) fn sleeping(line: u32) -> Vec<Frame> {
        let sleep = "std::thread::sleep@/rustc/59807616e/library/std/src/thread/mod.rs:300";
        stack(&["clock_nanosleep", sleep], &format!("api::mail::send@/home/a/api/src/mail.rs:{line}"))
    }

    pub(crate) fn share(stack_sid: u32, samples: u32, covered_ns: u64) -> StackShare {
        StackShare { stack_sid, samples, covered_ns }
    }
}
