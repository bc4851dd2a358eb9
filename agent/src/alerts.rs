//! Alerts: what a person would want to be woken for, said once, and said to be over.
//!
//! A [`rule`] reads what a target says into *readings*: what it is about (labels), a value, a threshold, words. A [`life`] a
//! reading's labels turns readings into transitions: pending, firing, resolved. Sinks carry those to people.
//!
//! Everything here is told the time and does no I/O.

mod at_work;
pub(crate) mod desk;
pub(crate) mod explain;
pub(crate) mod identity;
mod inhibit;
pub(crate) mod labels;
pub(crate) mod life;
mod memory;
pub(crate) mod notice;
pub(crate) mod rule;
pub(crate) mod rules;
mod runtimes;
mod timeline;
pub(crate) mod vitals;
pub(crate) mod watcher;
pub(crate) mod wire;
