//! Whether the agent does what it is there for. Its listeners, its configuration and its state are there before the loop answers
//! anybody; what is left is to find its targets and to try each.

use taskscope_proto::v1::agent_target::Link;

use super::{Agent, Asked, link};
use crate::fleet::Source;

impl Agent {
    /// The error says what has not been done yet. A target that cannot be reached has been tried; one that comes later makes an
    /// agent that was ready no less so.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        let unheard = self.sources.iter().find(|asked| !self.fleet.has_heard(&asked.source));
        match unheard {
            Some(Asked { trouble: Some(trouble), .. }) => return Err(trouble.clone()),
            Some(Asked { source, .. }) => return Err(format!("{} has not been asked yet", named(source))),
            None => {}
        }
        let untried = self
            .fleet
            .members()
            .find(|(id, member)| !self.has_tried && link(member, self.watched.get(id)).0 == Link::Connecting);
        if let Some((_, member)) = untried {
            return Err(format!("{} has not answered yet, and its time is not over", member.name));
        }
        self.has_tried = true;
        Ok(())
    }
}

fn named(source: &Source) -> String {
    match source {
        Source::Fixed => "what the configuration names".to_owned(),
        Source::Folder(None) => "the folder of sockets".to_owned(),
        Source::Folder(Some(path)) => path.display().to_string(),
        Source::Dns(host) => host.clone(),
    }
}
