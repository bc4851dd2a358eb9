//! Where the time of a poll went: its stacks, taken together by line.

use taskscope_proto::v1::StackShare;
use taskscope_proto::words;

use super::{Shared, Stack};

/// The time of a poll on one line, or in one function where no line is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spent {
    /// `bcrypt::hash, src/login.rs:40`
    pub(crate) on: String,
    pub(crate) covered_ns: u64,
    pub(crate) samples: u32,
    /// The stack that has the most of it.
    pub(crate) stack: Shared,
    /// Of that stack alone.
    most_ns: u64,
}

/// By line, the most first. Stacks without any name are left out.
pub(crate) fn by_line<'a>(shares: &[StackShare], stack: impl Fn(u32) -> Option<&'a Shared>) -> Vec<Spent> {
    let mut all: Vec<Spent> = Vec::new();
    for share in shares {
        let Some(stack) = stack(share.stack_sid) else { continue };
        let Some(on) = stack.words().map(|on| words::printable(&on)) else { continue };
        match all.iter_mut().find(|known| known.on == on) {
            Some(known) => {
                known.covered_ns = known.covered_ns.saturating_add(share.covered_ns);
                known.samples = known.samples.saturating_add(share.samples);
                if share.covered_ns > known.most_ns {
                    (known.stack, known.most_ns) = (stack.clone(), share.covered_ns);
                }
            }
            None => all.push(Spent {
                on,
                covered_ns: share.covered_ns,
                samples: share.samples,
                stack: stack.clone(),
                most_ns: share.covered_ns,
            }),
        }
    }
    all.sort_by_key(|spent| std::cmp::Reverse((spent.covered_ns, spent.stack.has_line())));
    all
}

/// `2.9 of 3.1 s in bcrypt::hash, src/login.rs:40`; without the time where it was seen once, or nothing is known of it.
pub(crate) fn words(spent: &[Spent], since_ns: u64) -> Option<String> {
    let most = spent.first()?;
    let samples: u32 = spent.iter().map(|spent| spent.samples).fold(0, u32::saturating_add);
    if samples < 2 || most.covered_ns == 0 || since_ns == 0 {
        return Some(format!("in {}", most.on));
    }
    Some(format!("{} in {}", part(most.covered_ns.min(since_ns), since_ns), most.on))
}

/// `2.9 of 3.1 s`, `212 ms of 3.1 s`, `all of 3.1 s`
fn part(part_ns: u64, whole_ns: u64) -> String {
    let (part, whole) = (words::duration(part_ns), words::duration(whole_ns));
    if part == whole {
        return format!("all of {whole}");
    }
    match (part.rsplit_once(' '), whole.rsplit_once(' ')) {
        (Some((number, unit)), Some((_, of))) if unit == of => format!("{number} of {whole}"),
        _ => format!("{part} of {whole}"),
    }
}

impl Stack {
    /// Lines of text for a list, the innermost first.
    pub(crate) fn lines(&self) -> Vec<(String, bool)> {
        self.shown().map(|(frame, is_line)| (super::frame_words(frame), is_line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use taskscope_proto::v1::interned_stack::End;

    use super::*;
    use crate::interned::fixture::{hashing, share, sleeping};

    const MS: u64 = 1_000_000;

    fn said(shares: &[StackShare], since_ms: u64) -> Option<String> {
        let named = |frames| Arc::new(Stack::of(frames, End::Whole));
        // Two ways into one line: the second has another function below.
        let mut deeper = hashing();
        deeper.insert(
            0,
            crate::interned::fixture::frame("blowfish::round@/c/registry/src/x/blowfish-1.0.0/src/lib.rs:3"),
        );
        let stacks = [named(hashing()), named(deeper), named(sleeping(7))];
        words(&by_line(shares, |sid| stacks.get(sid as usize)), since_ms * MS)
    }

    #[test]
    fn the_parts_of_a_poll_are_told_by_line() {
        let in_bcrypt = "in bcrypt::hash, src/login.rs:40";
        let both = [share(0, 3, 1_900 * MS), share(1, 2, 1_000 * MS), share(2, 1, 100 * MS)];
        assert_eq!(said(&both, 3_100), Some(format!("2.9 of 3.1 s {in_bcrypt}")));
        assert_eq!(said(&[share(0, 2, 212 * MS)], 3_100), Some(format!("212 ms of 3.1 s {in_bcrypt}")));
        assert_eq!(said(&[share(0, 2, 9_000 * MS)], 3_100), Some(format!("all of 3.1 s {in_bcrypt}")));
        // Seen once, it is only where it was.
        assert_eq!(said(&[share(0, 1, 300 * MS)], 3_100), Some(in_bcrypt.to_owned()));
        assert_eq!(said(&[share(0, 4, 0)], 0), Some(in_bcrypt.to_owned()));
        // One that is not known, and none.
        assert_eq!((said(&[share(9, 4, MS)], 3_100), said(&[], 3_100)), (None, None));
        // Sums of what a broken probe sends do not overflow.
        assert_eq!(
            said(&[share(0, u32::MAX, u64::MAX), share(1, 9, u64::MAX)], 10),
            Some(format!("all of 10 ms {in_bcrypt}"))
        );
    }
}
