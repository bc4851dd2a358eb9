//! Takes over the terminal and gives it back as it was: on drop, on a panic, and whenever [`restore`] is called. Notices
//! when it is gone: not everybody is sent SIGHUP, and crossterm goes on reading from it for ever.

use std::io::{self, IsTerminal, Stdout, stdout};
use std::mem::ManuallyDrop;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::backend::CrosstermBackend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::app::{App, Message};
use crate::view::view;

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    #[error(
        "standard output is no terminal\nhint: `taskscope why` and `taskscope status` print the same facts as text"
    )]
    NoTerminal,
    #[error("the terminal cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// The terminal, while the dashboard has it.
#[derive(Debug)]
pub struct Terminal {
    /// Never dropped, which leaks two buffers: where the terminal is gone ratatui complains that it cannot show the cursor,
    /// and panics where it cannot complain. [`restore`] shows it.
    screen: ManuallyDrop<ratatui::Terminal<CrosstermBackend<Stdout>>>,
}

impl Terminal {
    /// Switches to the alternate screen and raw mode. A panic from now on restores the terminal before it is printed.
    pub fn enter() -> Result<Self, TerminalError> {
        if !stdout().is_terminal() {
            return Err(TerminalError::NoTerminal);
        }
        PANIC_HOOK.call_once(|| {
            let print = std::panic::take_hook();
            let drawing = std::thread::current().id();
            std::panic::set_hook(Box::new(move |panic| {
                // The dashboard goes on without a helper's thread, whose panic is caught: nothing is drawn over it.
                if TAKEN.load(Ordering::SeqCst) && std::thread::current().id() != drawing {
                    return;
                }
                restore();
                print(panic);
            }));
        });
        TAKEN.store(true, Ordering::SeqCst);
        let entered = enable_raw_mode()
            .and_then(|()| execute!(stdout(), EnterAlternateScreen, Hide))
            .and_then(|()| ratatui::Terminal::new(CrosstermBackend::new(stdout())));
        match entered {
            Ok(screen) => Ok(Self { screen: ManuallyDrop::new(screen) }),
            Err(error) => {
                restore();
                Err(error.into())
            }
        }
    }

    /// Draws the state; what did not change since the last time is not written.
    pub fn draw(&mut self, app: &App) -> Result<(), TerminalError> {
        self.screen.draw(|frame| view(frame, app))?;
        Ok(())
    }

    /// The message that tells the state how large the terminal is, to be given to it once at the start.
    pub fn resized(&self) -> Result<Message, TerminalError> {
        let (columns, rows) = size()?;
        Ok(Message::Resized { columns, rows })
    }

    /// Whether it has been closed on its other side. Costs a system call.
    pub fn is_gone(&self) -> bool {
        let out = stdout();
        let mut looked = [PollFd::new(&out, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut looked, Some(&now)).is_ok()
            && looked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back. Does nothing where it is not taken, so it may be called from anywhere and twice.
pub fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Where the terminal is gone there is nobody to tell.
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
