//! What is still to arrive, so that an agent that ends, however that is, leaves it to the next one.

use std::sync::Arc;

use taskscope_proto::words::printable;

use super::queue::Queue;
use super::{Running, Sinks, held};
use crate::alerts::life::Transition;
use crate::alerts::notice::Notice;
use crate::store::{Owed, Owing};

/// The queues of all sinks, also of those that end meanwhile. Cheap.
#[derive(Debug)]
pub(crate) struct Left {
    sinks: Vec<Queues>,
}

#[derive(Clone, Debug)]
pub(super) struct Queues {
    sink: String,
    instance: String,
    /// It is told over and over what fires, also after a restart.
    resends: bool,
    /// Those whose place it has taken first; what one hands over the next one has before it is gone here.
    queues: Vec<Arc<Queue>>,
}

impl Left {
    /// At this moment.
    pub(crate) fn owing(&self) -> Vec<Owing> {
        let owing = self.sinks.iter().map(Queues::owing);
        owing.filter(|owing| !owing.notices.is_empty()).collect()
    }
}

impl Queues {
    fn owing(&self) -> Owing {
        let owed = self.queues.iter().flat_map(|queue| queue.owed());
        let is_kept = |it: &Arc<Notice>| !self.resends || it.transition == Transition::Resolved;
        let notices = owed.filter(is_kept).map(Owed).collect();
        Owing { sink: self.sink.clone(), instance: self.instance.clone(), notices }
    }

    pub(super) fn take_changed(&self) -> bool {
        // Each is asked, so that none has old news the next time.
        self.queues.iter().fold(false, |any, queue| queue.take_changed() | any)
    }
}

impl Running {
    pub(super) fn queues(&self) -> Queues {
        let health = held(&self.health);
        let (sink, instance) = (health.sink.clone(), health.instance.clone());
        let queues = self.earlier.iter().chain([&self.queue]).cloned().collect();
        Queues { sink, instance, resends: self.resends, queues }
    }
}

impl Sinks {
    /// What was left by an agent before this one goes to the sinks before all else, to each its own; and what is left at the end is the
    /// next one's, and no loss. Lines to tell of what has no sink any more, and is dropped.
    pub(crate) fn take_up(&mut self, owing: Vec<Owing>) -> Vec<String> {
        self.is_kept = true;
        let mut lines = Vec::new();
        for Owing { sink, instance, notices } in owing {
            let is_its = |running: &&Running| {
                let health = held(&running.health);
                health.sink == sink && health.instance == instance
            };
            match self.running.iter().find(is_its) {
                Some(running) => notices.into_iter().for_each(|owed| running.push(&owed.0)),
                None => lines.push(dropped(&sink, &instance, notices.len())),
            }
        }
        lines
    }

    /// Whether something may be left that was not when this was last asked, or the other way round.
    pub(crate) fn take_changed(&mut self) -> bool {
        self.all_queues().fold(false, |any, queues| queues.take_changed() | any)
    }

    pub(crate) fn left(&self) -> Left {
        Left { sinks: self.all_queues().collect() }
    }

    fn all_queues(&self) -> impl Iterator<Item = Queues> {
        let leaving = self.leaving.iter().map(|leaving| leaving.queues.clone());
        self.running.iter().map(Running::queues).chain(leaving)
    }
}

fn dropped(sink: &str, instance: &str, count: usize) -> String {
    let which = match instance {
        "" => printable(sink),
        instance => format!("{} ({})", printable(sink), printable(instance)),
    };
    let what = if count == 1 { "notice" } else { "notices" };
    format!(
        "taskscope: the sink {which} is not configured any more: {count} {what} of before this start that waited for it are dropped\nhint: \
         to have them delivered, start the agent with that sink, and take it away while it runs"
    )
}
