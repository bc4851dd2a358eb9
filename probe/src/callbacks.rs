//! The application's own callbacks of the runtime. Tokio keeps one per hook and has no getter, so that those it would lose
//! to ours come through [`crate::Builder`]: they are set together with ours, or alone where no probe runs.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Builder;
#[cfg(tokio_unstable)]
use tokio::runtime::TaskMeta;

/// One that is told of a task.
#[cfg(tokio_unstable)]
pub(crate) type TaskCallback = Arc<dyn Fn(&TaskMeta<'_>) + Send + Sync>;

/// `None`: the application has none.
#[derive(Clone, Default)]
pub(crate) struct Callbacks {
    #[cfg(tokio_unstable)]
    pub(crate) spawn: Option<TaskCallback>,
    #[cfg(tokio_unstable)]
    pub(crate) before_poll: Option<TaskCallback>,
    #[cfg(tokio_unstable)]
    pub(crate) after_poll: Option<TaskCallback>,
    #[cfg(tokio_unstable)]
    pub(crate) terminate: Option<TaskCallback>,
    pub(crate) park: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Callbacks {
    pub(crate) fn is_empty(&self) -> bool {
        #[cfg(tokio_unstable)]
        if [&self.spawn, &self.before_poll, &self.after_poll, &self.terminate]
            .into_iter()
            .any(Option::is_some)
        {
            return false;
        }
        self.park.is_none()
    }

    /// Sets them without ours, as the application would have done itself.
    pub(crate) fn set_alone(self, runtime: &mut Builder) {
        #[cfg(tokio_unstable)]
        {
            if let Some(callback) = self.spawn {
                runtime.on_task_spawn(move |meta| callback(meta));
            }
            if let Some(callback) = self.before_poll {
                runtime.on_before_task_poll(move |meta| callback(meta));
            }
            if let Some(callback) = self.after_poll {
                runtime.on_after_task_poll(move |meta| callback(meta));
            }
            if let Some(callback) = self.terminate {
                runtime.on_task_terminate(move |meta| callback(meta));
            }
        }
        if let Some(callback) = self.park {
            runtime.on_thread_park(move || callback());
        }
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Callbacks");
        #[cfg(tokio_unstable)]
        shown
            .field("spawn", &self.spawn.is_some())
            .field("before_poll", &self.before_poll.is_some())
            .field("after_poll", &self.after_poll.is_some())
            .field("terminate", &self.terminate.is_some());
        shown.field("park", &self.park.is_some()).finish()
    }
}
