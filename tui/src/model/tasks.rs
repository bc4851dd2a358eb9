//! The window of task rows, and the request that it answers.

use std::ops::Deref;

use taskscope_proto::columns::Malformed;
use taskscope_proto::strings::Strings;
use taskscope_proto::v1;
use taskscope_proto::window::Window;

#[derive(Clone, Debug, Default)]
pub(crate) struct TaskWindow {
    window: Window,
    /// The request that this window answers.
    pub(crate) request_id: u64,
}

impl TaskWindow {
    /// Takes in a frame. What does not decode is left out whole.
    pub(crate) fn take(&mut self, frame: &v1::Frame, strings: &Strings) -> Result<(), Malformed> {
        if frame.resync {
            self.request_id = 0;
        }
        self.window.take(frame, strings)?;
        if frame.tasks.is_some() {
            self.request_id = frame.request_id;
        }
        Ok(())
    }

    /// Forgets every row that is neither in the order nor in `keep`, nor just sent.
    pub(crate) fn prune(&mut self, keep: &[u64]) {
        self.window.prune(keep);
    }
}

impl Deref for TaskWindow {
    type Target = Window;

    fn deref(&self) -> &Window {
        &self.window
    }
}
