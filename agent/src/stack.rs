//! A stack as people read it: what lies between a task's poll and the system call, and *the line*: the first frame, from
//! the innermost, of the user's own code.

use std::ops::Range;
use std::sync::Arc;

use taskscope_proto::v1::interned_stack::End;
use taskscope_proto::words;

pub(crate) mod function;
mod place;
pub(crate) mod share;

use crate::symbols::Frame;
use function::Path;

/// A stack with its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    /// The innermost first; all of them.
    pub(crate) frames: Vec<Frame>,
    pub(crate) end: End,
    /// Those that are worth showing.
    shown: Range<usize>,
    /// Of [`Stack::frames`].
    line: Option<usize>,
    pub(crate) thread: Thread,
}

/// What kind of thread has such a stack, where no bracket tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// It runs a job of the blocking pool.
    Job,
    /// A thread of the pool that waits for one, or a worker.
    Runtime,
    /// A thread of somebody else's.
    Other,
    /// There are too few names to tell.
    Unknown,
}

/// What runs the user's code: from the innermost of these outwards a stack says nothing about it.
fn is_harness(path: &Path) -> bool {
    if !path.is_of(&["tokio"]) {
        return false;
    }
    let modules: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    match modules.as_slice() {
        [_, "runtime", "task", "core" | "harness" | "raw", ..] => true,
        [_, "runtime", "blocking", "task" | "pool", ..] => true,
        [.., last] => last.starts_with("block_on"),
        [] => false,
    }
}

/// Where threads and programs begin.
fn is_begin(path: &Path) -> bool {
    path.is_of(&["std"])
        && path
            .segments
            .last()
            .is_some_and(|last| last == "__rust_begin_short_backtrace" || last == "lang_start")
}

/// Between the harness and the user's future, and nothing of anybody's.
fn is_wrapping(path: &Path) -> bool {
    path.is_of(&["core", "alloc", "std", "taskscope_probe", "tracing"])
        || path.is_of(&["tokio"])
            && path.segments.get(1).is_some_and(|module| module == "task" || module == "loom")
}

/// How the stack came to be taken.
fn is_sampling(path: &Path) -> bool {
    path.is_of(&["taskscope_probe"]) || path.segments.last().is_some_and(|last| last == "__restore_rt")
}

impl Stack {
    /// `frames` are the innermost first, inlined ones in their places.
    pub(crate) fn of(frames: Vec<Frame>, end: End) -> Self {
        let paths: Vec<Option<Path>> = frames.iter().map(Path::of_frame).collect();
        let is = |at: usize, test: fn(&Path) -> bool| paths[at].as_ref().is_some_and(test);
        let all = 0..frames.len();
        let mut harness: Vec<usize> = all.clone().filter(|&at| is(at, is_harness)).collect();
        if harness.is_empty() {
            harness = all.clone().filter(|&at| is(at, is_begin)).collect();
        }
        let from = all.clone().find(|&at| !is(at, is_sampling)).unwrap_or(0);
        // A task may run a runtime of its own, wake another one, or wait for a job: the part that has the user's code is
        // the one that is shown.
        let inside = harness.iter().copied().find_map(|to| Some((to, line_in(&frames, &paths, from..to)?)));
        let (to, line) = match (inside, harness.iter().find(|&&at| at > from)) {
            (Some((to, line)), _) => (to, Some(line)),
            (None, Some(&to)) => (to, None),
            (None, None) => (frames.len(), line_in(&frames, &paths, from..frames.len())),
        };
        let mut shown = from..to;
        while line.is_some_and(|line| shown.end > line + 1) && is(shown.end - 1, is_wrapping) {
            shown.end -= 1;
        }
        let thread = thread(&paths, end);
        Self { frames, end, shown, line, thread }
    }

    /// What lies between the task's poll and the system call, the innermost first, and whether it is the line.
    pub(crate) fn shown(&self) -> impl DoubleEndedIterator<Item = (&Frame, bool)> {
        self.frames[self.shown.clone()]
            .iter()
            .zip(self.shown.clone())
            .map(|(frame, at)| (frame, Some(at) == self.line))
    }

    /// All frames, and whether it is the line.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = (&Frame, bool)> {
        self.frames.iter().enumerate().map(|(at, frame)| (frame, Some(at) == self.line))
    }

    /// The line.
    pub(crate) fn line(&self) -> Option<&Frame> {
        self.line.map(|at| &self.frames[at])
    }

    /// Outer frames are left out of what is shown: it ends at the task's poll.
    pub(crate) fn is_cut(&self) -> bool {
        self.shown.end < self.frames.len()
    }

    pub(crate) fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// `bcrypt::hash, src/login.rs:40`: what the user's line calls, else the user's function, and the line. Without the
    /// user's code, the innermost function that has a name; `None` where there is none.
    pub(crate) fn words(&self) -> Option<String> {
        let Some(line) = self.line else {
            let named =
                self.shown().find_map(|(frame, _)| Path::of_frame(frame).filter(|path| path.krate.is_some()));
            let any = || self.shown().find_map(|(frame, _)| Path::of_frame(frame));
            return Some(named.or_else(any)?.words());
        };
        let own = &self.frames[line];
        // What the language itself consists of names nothing: an iterator, a pointer, a closure's call.
        let called = self.frames[self.shown.start..line].iter().rev().filter_map(Path::of_frame);
        let called = called.into_iter().find(|path| !path.is_of(&["core", "alloc"]));
        let path = Path::of_frame(own);
        let place = place::place(own);
        let what = called.as_ref().or(path.as_ref().filter(|path| place.is_none() || !path.is_nameless()));
        let Some(what) = what.map(Path::words) else { return place };
        Some(match place {
            Some(place) => format!("{what}, {place}"),
            // Without lines, the user's function is the nearest to one.
            None => match path {
                Some(path) if called.is_some() => format!("{what}, called by {}", path.words()),
                _ => what,
            },
        })
    }
}

/// The line in a part of a stack.
fn line_in(frames: &[Frame], paths: &[Option<Path>], part: Range<usize>) -> Option<usize> {
    let own = |at: &usize| place::is_own(&frames[*at], paths[*at].as_ref());
    let sure = |at: &usize| {
        frames[*at].file.is_some()
            || paths[*at].as_ref().is_some_and(|path| place::is_of_program(&frames[*at], path))
    };
    part.clone().find(|at| own(at) && sure(at)).or_else(|| part.clone().find(own))
}

/// Workers run as jobs of the pool, too.
fn thread(paths: &[Option<Path>], end: End) -> Thread {
    let module = |path: &Path, start: &[&str]| {
        path.is_of(&["tokio"])
            && path.segments[1..].iter().map(String::as_str).take(start.len()).eq(start.iter().copied())
    };
    let mut known = paths.iter().flatten();
    let is_worker =
        known.clone().any(|path| module(path, &["runtime", "scheduler", "multi_thread", "worker"]));
    let is_of_pool = known.clone().any(|path| module(path, &["runtime", "blocking", "pool"]));
    let runs_task = known.clone().any(|path| {
        module(path, &["runtime", "blocking", "task"])
            || ["core", "harness", "raw"].iter().any(|part| module(path, &["runtime", "task", part]))
    });
    let has_begin = known.any(is_begin);
    match (is_worker, runs_task, is_of_pool) {
        (true, ..) => Thread::Runtime,
        (false, true, _) => Thread::Job,
        (false, false, true) => Thread::Runtime,
        (false, false, false) if end == End::Whole && has_begin => Thread::Other,
        (false, false, false) => Thread::Unknown,
    }
}

/// `bcrypt::hash at src/login.rs:40`, or `api+0x1f3a0` where nothing is known: one frame in words, for a list.
pub(crate) fn frame_words(frame: &Frame) -> String {
    let path = Path::of_frame(frame);
    let place = place::place(frame);
    let name = match (&path, &frame.module) {
        (Some(path), _) => path.words(),
        (None, Some(module)) => format!("{}+{:#x}", module.name(), frame.address),
        (None, None) => format!("{:#x}", frame.address),
    };
    words::printable(&match place {
        Some(place) => format!("{name} at {place}"),
        None => name,
    })
}

/// Why a stack ends before its thread's first function; `None`: it does not.
pub(crate) fn end_words(end: End) -> Option<&'static str> {
    match end {
        End::Whole | End::Unspecified => None,
        End::TooDeep => Some("deeper frames were not taken"),
        End::Lost => Some("the frames below could not be told"),
    }
}

pub(crate) type Shared = Arc<Stack>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::symbols::Module;

    /// The stacks of `stack/taken.txt` with their titles.
    fn taken() -> Vec<(String, Stack)> {
        let module = |path: &str| Some(Arc::new(Module { path: path.to_owned(), build_id: vec![] }));
        let (program, libc) = (module("/srv/bin/sample-api"), module("/usr/lib/x86_64-linux-gnu/libc.so.6"));
        let frame = |line: &str| {
            let (line, module) = line.strip_prefix('!').map_or((line, &program), |line| (line, &libc));
            let mut parts = line.split('|');
            let mut part = || parts.next().filter(|part| !part.is_empty());
            Frame {
                function: part().map(str::to_owned),
                file: part().map(str::to_owned),
                line: part().and_then(|line| line.parse().ok()),
                module: module.clone(),
                ..Frame::default()
            }
        };
        let text = include_str!("stack/taken.txt");
        let stacks = text.split("\n\n").skip(1).filter_map(|stack| stack.trim_start().split_once('\n'));
        stacks
            .map(|(title, frames)| {
                let end = if title.contains("task") { End::TooDeep } else { End::Whole };
                (title.to_owned(), Stack::of(frames.lines().map(frame).collect(), end))
            })
            .collect()
    }

    #[test]
    fn stacks_of_every_build_are_cut_and_end_at_their_line() {
        let mut out = String::new();
        for (title, stack) in taken() {
            let on = stack.words().unwrap_or_else(|| "–".to_owned());
            out.push_str(&format!("{title}\n  {:?}, in {on}\n", stack.thread));
            for (frame, is_line) in stack.shown() {
                out.push_str(&format!("  {} {}\n", if is_line { ">" } else { " " }, frame_words(frame)));
            }
        }
        insta::assert_snapshot!(out);
    }

    fn stack(frames: &[&str]) -> Stack {
        Stack::of(frames.iter().map(|text| crate::interned::fixture::frame(text)).collect(), End::Whole)
    }

    fn shown(stack: &Stack) -> Vec<String> {
        stack.shown().map(|(frame, _)| frame.function.clone().unwrap_or_default()).collect()
    }

    const POLL: &str = "tokio::runtime::task::core::Core<T,S>::poll@/c/registry/src/x/tokio-1.54.1/src/runtime/task/core.rs:380";
    const BLOCK_ON: &str =
        "tokio::runtime::runtime::Runtime::block_on@/c/registry/src/x/tokio-1.54.1/src/runtime/runtime.rs:3";

    #[test]
    fn a_task_inside_a_task_is_shown_where_the_users_code_is() {
        // A runtime of its own, inside of a task: what its future does is the inner one's.
        let inner = stack(&[
            "read",
            "api::inner@/a/api/src/inner.rs:1",
            BLOCK_ON,
            "api::outer@/a/api/src/outer.rs:2",
            POLL,
        ]);
        assert_eq!(
            (shown(&inner), inner.words()),
            (vec!["read".into(), "api::inner".into()], Some("read, src/inner.rs:1".into()))
        );
        // It waits for something: the code that called it is the line.
        let outer = stack(&[
            "epoll_wait",
            BLOCK_ON,
            "api::outer@/a/api/src/outer.rs:2",
            POLL,
            "api::main@/a/api/src/main.rs:9",
        ]);
        assert_eq!(outer.words(), Some("tokio::runtime::runtime::Runtime::block_on, src/outer.rs:2".into()));
        assert_eq!(shown(&outer).len(), 3);
        // Without any of the user's code, `main` around the runtime is no line.
        let none = stack(&[
            "read",
            "std::fs::read@/rustc/1/library/std/src/fs.rs:1",
            POLL,
            "api::main@/a/api/src/main.rs:9",
        ]);
        assert_eq!((shown(&none).len(), none.words()), (2, Some("std::fs::read".into())));
    }

    #[test]
    fn a_wrapper_around_the_future_and_the_way_the_stack_was_taken_are_left_out() {
        let wrapped = stack(&[
            "__restore_rt",
            "api::work@/a/api/src/work.rs:1",
            "<core::pin::Pin<P> as core::future::future::Future>::poll@/rustc/1/library/core/src/future/future.rs:133",
            "<taskscope_probe::Wrapped<F> as core::future::future::Future>::poll@/a/taskscope/probe/src/wrapped.rs:9",
            POLL,
        ]);
        assert_eq!(shown(&wrapped), ["api::work"]);
    }

    #[test]
    fn a_stack_without_any_name_is_shown_whole_and_says_nothing() {
        let module = Arc::new(Module { path: "/srv/bin/api".into(), build_id: vec![1] });
        let unnamed =
            Stack::of(vec![Frame::unnamed(Some(module), 0x1f3a0), Frame::unnamed(None, 0x10)], End::Lost);
        assert_eq!((unnamed.words(), unnamed.thread, unnamed.line()), (None, Thread::Unknown, None));
        let words: Vec<String> = unnamed.shown().map(|(frame, _)| frame_words(frame)).collect();
        assert_eq!(words, ["api+0x1f3a0", "0x10"]);
        assert_eq!(Stack::of(vec![], End::Lost).shown().count(), 0);
    }

    proptest! {
        /// Whatever names a file holds, in whatever order.
        #[test]
        fn no_order_of_frames_makes_it_panic(
            picks in proptest::collection::vec(0..NAMES.len(), 0..12),
            files in proptest::collection::vec(0..FILES.len(), 12),
        ) {
            let frame = |(pick, file): (&usize, &usize)| Frame {
                function: Some(NAMES[*pick].to_owned()).filter(|name| !name.is_empty()),
                file: Some(FILES[*file].to_owned()).filter(|file| !file.is_empty()),
                line: (*file % 2 == 0).then_some(7),
                module: Some(Arc::new(Module { path: "/srv/bin/api".into(), build_id: vec![] })),
                ..Frame::default()
            };
            let frames: Vec<Frame> = picks.iter().zip(&files).map(frame).collect();
            let stack = Stack::of(frames.clone(), End::Lost);
            prop_assert!(stack.shown().count() <= frames.len() && stack.all().count() == frames.len());
            prop_assert_eq!(stack.shown().filter(|(_, is_line)| *is_line).count(), usize::from(stack.has_line()));
            prop_assert!(frames.is_empty() || stack.shown().count() > 0, "something is shown: {:?}", stack);
            let _ = (stack.words(), stack.lines());
        }
    }

    const NAMES: [&str; 9] = [
        "",
        "api::work",
        "{closure#0}<api::work>",
        "__restore_rt",
        "taskscope_probe::stacks::handler::on_signal",
        "tokio::runtime::task::core::Core<T,S>::poll",
        "tokio::runtime::runtime::Runtime::block_on",
        "std::sys::backtrace::__rust_begin_short_backtrace",
        "core::ops::function::FnOnce::call_once",
    ];
    const FILES: [&str; 5] = [
        "",
        "/a/api/src/work.rs",
        "src/main.rs",
        "/rustc/1/library/std/src/thread/mod.rs",
        "tokio-1.54.1/src/lib.rs",
    ];
}
