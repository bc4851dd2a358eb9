//! The wire of Taskscope and the pure code that both of its ends share.
//!
//! - [`v1`]: generated messages of `taskscope.v1` (features `client` and `server` add the gRPC ends);
//! - [`ids`]: the newtypes;
//! - [`histogram`]: log-linear durations, never clamped;
//! - [`row`], [`filter`], [`top`]: what a task row can be asked, the query language, and the keyset top-N;
//! - [`columns`]: rows to columns and back; [`window`]: rows as a stream of frames builds them up; [`aging`]: rows that are not
//!   sent again;
//! - [`strings`]: the texts of one stream;
//! - [`words`]: durations and counts as people read them.
//!
//! Nothing here performs I/O, reads a clock, or (without features) knows an asynchronous runtime.

pub mod activity;
pub mod aging;
pub mod columns;
pub mod filter;
pub mod histogram;
pub mod ids;
pub mod row;
pub mod strings;
pub mod top;
pub mod window;
pub mod words;

/// Generated from `proto/taskscope/v1/*.proto`; see the comments there for units, absence and zero.
#[allow(clippy::all, unreachable_pub, reason = "generated code")]
#[rustfmt::skip]
#[path = "generated/taskscope.v1.rs"]
pub mod v1;

/// The revision of `taskscope.v1` that this crate speaks.
pub const REVISION: u32 = 1;

/// No message on the wire is larger.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
