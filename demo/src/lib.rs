//! The service that `taskscope demo` runs: a small photo shop (an HTTP API, sessions, a job queue, a database-like pool)
//! under its own steady load, into which faults are injected one after the other.
//!
//! It is an ordinary service with the probe in it and knows nothing of agents and dashboards. What it injects, it
//! announces on standard output as it does so ([`Announcement`]), so that a reader can hold the tool's words against
//! the truth.
//!
//! ```no_run
//! use taskscope_demo::{Faults, Options, Output};
//! taskscope_demo::serve(Options { faults: Faults::Tour, output: Output::Words, ..Options::default() })?;
//! # Ok::<(), taskscope_demo::Error>(())
//! ```

mod announcement;
mod announcer;
mod api;
mod archive;
mod audit;
mod backup;
mod camera;
mod clock;
mod courier;
mod database;
mod ending;
mod errand;
mod fault;
mod gallery;
mod injection;
mod listener;
mod load;
mod newsletter;
mod panorama;
mod password;
mod payment;
mod prices;
mod printer;
mod queue;
mod report;
mod request;
mod revocation;
mod service;
mod session;
mod shop;
mod stock;
mod storage;
mod tour;
mod work;

#[cfg(test)]
mod testing;

pub use announcement::{Announcement, Edge, Progress, UnknownLine};
pub use fault::{Fault, Faults, UnknownFault};
pub use service::{Error, Options, Output, serve, serve_on};
pub use tour::{Step, schedule};
