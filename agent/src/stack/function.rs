//! The name of a function, taken apart: its path without generic arguments, and the crate that it is of.

use super::place;
use crate::symbols::Frame;

/// Stands for `{closure#0}<…>` and its like where debug information does not say whose it is.
const CLOSURE: &str = "{closure}";

/// A function's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// `api`, `login`, `Passwords`, `verify`; closures and generic arguments are left out. At least one.
    pub(crate) segments: Vec<String>,
    /// The crate whose code it is; `None`: the name tells none, as in C.
    pub(crate) krate: Option<String>,
}

impl Path {
    /// Of a demangled name, as in `<api::Store as core::ops::Drop>::drop::{{closure}}`.
    pub(crate) fn of(name: &str) -> Self {
        let mut segments: Vec<String> = Vec::new();
        let mut rest = name;
        while !rest.is_empty() {
            let (segment, after) = rest.split_at(end_of_segment(rest));
            rest = after.strip_prefix("::").unwrap_or(after);
            if segment.starts_with('{') {
                continue;
            }
            let Some(inside) = segment.strip_prefix('<').map(|it| it.strip_suffix('>').unwrap_or(it)) else {
                let bare = segment.split(['<', '(', '{']).next().unwrap_or(segment);
                segments.extend(Some(bare.to_owned()).filter(|bare| !bare.is_empty()));
                continue;
            };
            // `<Type as Trait>`, `<Type>`, `<impl Trait for Type>`; elsewhere the arguments of what is before it.
            let (own, its_trait) = match inside.strip_prefix("impl ") {
                Some(said) => split_at_word(said, " for ").map_or((said, None), |(it, own)| (own, Some(it))),
                None if !segments.is_empty() => continue,
                None => split_at_word(inside, " as ").map_or((inside, None), |(own, it)| (own, Some(it))),
            };
            let own = Self::of(without_pointer(own));
            let its_trait = its_trait.map(Self::of);
            // `F` of a generic function says nothing: its trait, or the module, does.
            match its_trait {
                _ if own.segments.len() > 1 => segments = own.segments,
                Some(its_trait) if its_trait.segments.len() > 1 => segments = its_trait.segments,
                _ if segments.is_empty() => segments = own.segments,
                _ => {}
            }
        }
        if segments.is_empty() {
            segments.push(name.to_owned());
        }
        let krate = segments.first().filter(|krate| segments.len() > 1 && is_crate(krate)).cloned();
        Self { segments, krate }
    }

    /// Of a frame: where debug information has only the last name, as in `sleep`, its file tells the rest.
    pub(crate) fn of_frame(frame: &Frame) -> Option<Self> {
        let name = frame.function.as_deref()?;
        let mut path = Self::of(name);
        if path.segments.len() == 1
            && let Some((krate, mut modules)) = frame.file.as_deref().and_then(place::modules)
        {
            let own = path.segments.remove(0);
            modules.push(if own.starts_with('{') { CLOSURE.to_owned() } else { own });
            path = Self { segments: modules, krate };
        }
        Some(path)
    }

    /// The whole name of a frame's function; where debug information has only the last of it, after its modules.
    pub(crate) fn whole_name(frame: &Frame) -> Option<String> {
        let name = frame.function.as_deref()?;
        if Self::of(name).segments.len() > 1 {
            return Some(name.to_owned());
        }
        let modules =
            frame.file.as_deref().and_then(place::modules).map_or_else(Vec::new, |(_, modules)| modules);
        Some(modules.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("::"))
    }

    /// It has no name of its own: a closure, or the body of an asynchronous function.
    pub(crate) fn is_nameless(&self) -> bool {
        self.segments.last().is_some_and(|last| last.starts_with('{'))
    }

    /// Without what the compiler made of it: `tokio::runtime::task::core::Core::poll`.
    pub(crate) fn joined(&self) -> String {
        self.segments.join("::")
    }

    pub(crate) fn is_of(&self, crates: &[&str]) -> bool {
        self.krate.as_deref().is_some_and(|krate| crates.contains(&krate))
    }

    /// As it is called: `std::thread::sleep`, `bcrypt::hash`, `std::sync::Mutex::lock`.
    pub(crate) fn words(&self) -> String {
        const LONGEST: usize = 56;
        let segments = self.segments.as_slice();
        // The standard library keeps its code in modules of which nobody knows: the first and what follows is public.
        if let ([krate, module, inner @ ..], true) = (segments, self.is_of(&["std", "core", "alloc"])) {
            let at = inner.len().saturating_sub(2);
            let kept = inner[at..].iter().enumerate().filter_map(|(place, segment)| {
                let is_type = segment.starts_with(|c: char| c.is_ascii_uppercase());
                let is_last = at + place + 1 == inner.len();
                if is_last || is_type { Some(segment.as_str()) } else { lock_of(module, segment) }
            });
            return [krate.as_str(), module.as_str()].into_iter().chain(kept).collect::<Vec<_>>().join("::");
        }
        let whole = self.joined();
        match segments {
            [krate, _, .., owner, last] if whole.chars().count() > LONGEST => {
                format!("{krate}::…::{owner}::{last}")
            }
            _ => whole,
        }
    }
}

/// The type that a module of `std::sync` holds, where debug information leaves it out: `std::sync::poison::mutex::lock`.
fn lock_of(module: &str, inner: &str) -> Option<&'static str> {
    match (module, inner) {
        ("sync", "mutex") => Some("Mutex"),
        ("sync", "rwlock") => Some("RwLock"),
        ("sync", "condvar") => Some("Condvar"),
        ("sync", "barrier") => Some("Barrier"),
        ("sync", "once_lock") => Some("OnceLock"),
        _ => None,
    }
}

/// Where the first segment of a path ends: at `::` that is in no brackets.
fn end_of_segment(path: &str) -> usize {
    let mut depth = 0usize;
    let mut before = ' ';
    for (at, c) in path.char_indices() {
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            // The arrow of a function's type is no bracket.
            '>' if before == '-' => {}
            '>' | ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 && path[at..].starts_with("::") && at > 0 => return at,
            _ => {}
        }
        before = c;
    }
    path.len()
}

/// Splits at `word` outside of brackets.
fn split_at_word<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let mut depth = 0usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' if before == '-' => {}
            '>' | ')' | ']' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && text[at..].starts_with(word) => {
                return Some((&text[..at], &text[at + word.len()..]));
            }
            _ => {}
        }
        before = c;
    }
    None
}

/// `&mut dyn api::Reader` → `api::Reader`
fn without_pointer(name: &str) -> &str {
    let mut name = name.trim_start_matches(['&', '*', '(', '[', ' ']);
    for word in ["mut ", "const ", "dyn "] {
        name = name.strip_prefix(word).unwrap_or(name);
    }
    name
}

fn is_crate(segment: &str) -> bool {
    segment.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && segment.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_taken_apart() {
        let cases = [
            ("api::login::hash", "api::login::hash", Some("api")),
            ("api::login::{{closure}}", "api::login", Some("api")),
            ("api::login::{closure#0}::{closure#1}", "api::login", Some("api")),
            ("<api::Store as core::ops::drop::Drop>::drop", "api::Store::drop", Some("api")),
            ("<api::Store>::get::<alloc::string::String>", "api::Store::get", Some("api")),
            ("api::store::Store<T,S>::get", "api::store::Store::get", Some("api")),
            (
                "<alloc::boxed::Box<F,A> as core::ops::function::FnOnce<Args>>::call_once",
                "alloc::boxed::Box::call_once",
                Some("alloc"),
            ),
            ("<F as core::future::future::Future>::poll", "core::future::future::Future::poll", Some("core")),
            ("<&mut api::Reader as std::io::Read>::read", "api::Reader::read", Some("api")),
            ("api::wire::<impl core::fmt::Display for api::Code>::fmt", "api::Code::fmt", Some("api")),
            (
                "core::ops::function::impls::<impl FnOnce<A> for &mut F>::call_once",
                "core::ops::function::impls::call_once",
                Some("core"),
            ),
            ("core::ptr::drop_in_place<api::Store>", "core::ptr::drop_in_place", Some("core")),
            (
                "tokio::runtime::task::raw::poll::<api::f::{closure#0}, alloc::sync::Arc<tokio::H>>",
                "tokio::runtime::task::raw::poll",
                Some("tokio"),
            ),
            ("<fn(u8) -> u64 as api::Call<(u8,)>>::call", "api::Call::call", Some("api")),
            ("<D as digest::digest::Digest>::digest", "digest::digest::Digest::digest", Some("digest")),
            ("clock_nanosleep", "clock_nanosleep", None),
            (
                "std::collections::hash::map::HashMap<K,V,S>::insert",
                "std::collections::hash::map::HashMap::insert",
                Some("std"),
            ),
        ];
        for (name, joined, krate) in cases {
            let path = Path::of(name);
            assert_eq!((path.joined().as_str(), path.krate.as_deref()), (joined, krate), "{name}");
        }
    }

    #[test]
    fn where_a_name_is_short_its_file_tells_the_rest() {
        let registry = "/c/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src/runtime";
        let cases = [
            (
                "sleep",
                "/rustc/5980/library/std/src/thread/functions.rs",
                "std::thread::functions::sleep",
                Some("std"),
            ),
            (
                "block_on<api::main>",
                &format!("{registry}/park.rs"),
                "tokio::runtime::park::block_on",
                Some("tokio"),
            ),
            (
                "{closure#0}<api::f, ()>",
                &format!("{registry}/task/core.rs"),
                "tokio::runtime::task::core::{closure}",
                Some("tokio"),
            ),
            (
                "lend<&mut api::Context>",
                "/home/a/ts/probe/src/capture/waker.rs",
                "taskscope_probe::capture::waker::lend",
                Some("taskscope_probe"),
            ),
            // Which crate a file of the user's is of, its path does not tell for sure.
            ("nap", "/home/a/api/src/login.rs", "login::nap", None),
            ("nap", "/home/a/api/src/main.rs", "nap", None),
            ("read", "./nptl/read.c", "read", None),
            ("api::login::nap", "/home/a/api/src/main.rs", "api::login::nap", Some("api")),
        ];
        for (name, file, joined, krate) in cases {
            let frame = Frame { function: Some(name.into()), file: Some(file.into()), ..Frame::default() };
            let path = Path::of_frame(&frame).expect("it has a name");
            assert_eq!((path.joined().as_str(), path.krate.as_deref()), (joined, krate), "{name} in {file}");
        }
        let whole = |name: &str, file: &str| {
            let frame = Frame { function: Some(name.into()), file: Some(file.into()), ..Frame::default() };
            Path::whole_name(&frame)
        };
        assert_eq!(whole("{async_fn#0}", "/a/src/login.rs").as_deref(), Some("login::{async_fn#0}"));
        assert_eq!(whole("api::<T>::nap", "/a/src/login.rs").as_deref(), Some("api::<T>::nap"));
        assert_eq!(whole("read", "./nptl/read.c").as_deref(), Some("read"));
    }

    #[test]
    fn a_function_is_called_as_people_call_it() {
        let cases = [
            ("std::thread::functions::sleep", "std::thread::sleep"),
            ("std::thread::sleep", "std::thread::sleep"),
            ("std::sync::poison::mutex::Mutex<T>::lock", "std::sync::Mutex::lock"),
            ("std::sync::poison::mutex::lock", "std::sync::Mutex::lock"),
            ("<std::fs::File as std::io::Read>::read", "std::fs::File::read"),
            ("std::sys::pal::unix::futex::futex_wait", "std::sys::futex_wait"),
            ("bcrypt::hash", "bcrypt::hash"),
            (
                "sqlx_core::mysql::connection::executor::<impl sqlx_core::executor::Executor for \
                 &mut sqlx_core::mysql::connection::MySqlConnection>::fetch_many::{{closure}}::{{closure}}",
                "sqlx_core::…::MySqlConnection::fetch_many",
            ),
            ("read", "read"),
        ];
        for (name, words) in cases {
            assert_eq!(Path::of(name).words(), words, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(name in "[a-z<>(){}:& é,-]{0,60}") {
            let path = Path::of(&name);
            prop_assert!(!path.segments.is_empty());
            let _ = path.words();
        }
    }
}
