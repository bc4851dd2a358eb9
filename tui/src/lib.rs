//! The terminal dashboard, as three arrows: a key becomes a [`Message`] ([`keymap()`]), [`App::update`] turns it into new
//! state and [`Command`]s, and [`view()`] draws the state.
//!
//! - [`app`]: the state and its update. Knows no terminal and reads no clock.
//! - `model`: what the target has said, texts resolved; `table`: what each table shows and how it sorts.
//! - [`mod@keymap`]: one table of keys, from which the help screen is made too.
//! - [`mod@view`]: the screens, one file each; it changes no state.
//! - [`mod@terminal`]: takes over the terminal and gives it back, also on a panic.
//!
//! Nothing here connects, waits, or talks to a target: that is its driver's business.
//!
//! ```
//! use std::time::Instant;
//! use taskscope_tui::{App, Command, LinkView, Message, Options, Screen};
//!
//! # #[allow(clippy::disallowed_methods)]
//! let now = Instant::now();
//! let mut app = App::new(Options {
//!     target: "orders-api".into(),
//!     colour: true,
//!     strip: false,
//!     syscall_name: |_arch, _number| None,
//! });
//! // The link is up: the target is asked for what the overview shows.
//! let commands = app.update(Message::Link(LinkView::Live), now);
//! assert!(matches!(&commands[..], [Command::Watch(request)] if request.groups.is_some()));
//! // Another screen needs other rows.
//! let commands = app.update(Message::Show(Screen::Tasks), now);
//! assert!(matches!(&commands[..], [Command::Watch(request)] if request.tasks.is_some()));
//! ```

pub mod app;
#[cfg(test)]
mod fixture;
pub mod keymap;
mod model;
mod table;
pub mod terminal;
pub mod view;

pub use app::{
    App, Code, CodeOf, Command, LinkView, Message, Options, Screen, Sentence, Severity, StripView,
    TargetChoice,
};
pub use keymap::keymap;
pub use terminal::{Terminal, TerminalError, restore};
pub use view::view;
