//! Defects around the probe that the owner of the service can do something about, each named in one line, once.

use taskscope_proto::v1::loss::Reason;

use super::Engine;
use super::capabilities::replaced;
use crate::say::say;

/// Which were named already.
#[derive(Default)]
pub(crate) struct Defects {
    replaced_hooks: bool,
    unpaired_hooks: bool,
}

impl Defects {
    /// For the probe's thread, once a second.
    pub(crate) fn name(&mut self, engine: &Engine) {
        if !self.replaced_hooks
            && let Some(loss) = engine.runtimes().iter().find_map(|runtime| replaced(runtime))
        {
            self.replaced_hooks = true;
            say(format_args!("{}; hint: {}", loss.reason, loss.hint));
        }
        if !self.unpaired_hooks && engine.registry.losses.count(Reason::UnpairedHooks) > 0 {
            self.unpaired_hooks = true;
            say(format_args!(
                "a task hook fired without its counterpart, and was not counted; hint: something outside of Tokio calls \
                 hooks, or a poll began on another thread than it ended on"
            ));
        }
    }
}
