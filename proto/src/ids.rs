//! Newtypes for everything that is identified by a number.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Tokio's task id, or one of the probe's own (see [`TaskId::OWN`]).
    TaskId(u64)
);
id!(
    /// A group of tasks; 0 is `other`.
    GroupId(u32)
);
id!(
    /// A runtime of the target, never 0.
    RuntimeId(u32)
);
id!(
    /// An interned text of one stream; 0 is "none".
    Sid(u32)
);

impl TaskId {
    /// Set in ids that the probe gave out itself: the body of `main`, and wrapped futures that are no task.
    pub const OWN: u64 = 1 << 62;

    /// Whether Tokio knows a task by this id.
    pub fn is_tokio(self) -> bool {
        self.0 != 0 && self.0 & Self::OWN == 0
    }
}
