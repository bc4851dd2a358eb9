//! Where in the code polls are, in words that whoever drives the dashboard has made of their stacks.

use std::collections::{BTreeMap, HashMap};

use crate::app::{Code, CodeOf};

/// By thread and task as of the last news; by event as long as the event is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Codes {
    threads: HashMap<u32, Code>,
    tasks: HashMap<u64, Code>,
    events: BTreeMap<u64, Code>,
}

impl Codes {
    /// Takes in what is known now: what runs replaces what ran, what has happened stays.
    pub(crate) fn take(&mut self, news: Vec<Code>) {
        self.threads.clear();
        self.tasks.clear();
        for code in news {
            match code.of {
                CodeOf::Thread(tid) => drop(self.threads.insert(tid, code)),
                CodeOf::Task(task) => drop(self.tasks.insert(task, code)),
                CodeOf::Event(seq) => drop(self.events.insert(seq, code)),
            }
        }
    }

    /// Forgets events before `seq`.
    pub(crate) fn forget_before(&mut self, seq: u64) {
        self.events = self.events.split_off(&seq);
    }

    pub(crate) fn of(&self, of: CodeOf) -> Option<&Code> {
        match of {
            CodeOf::Thread(tid) => self.threads.get(&tid),
            CodeOf::Task(task) => self.tasks.get(&task),
            CodeOf::Event(seq) => self.events.get(&seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_is_replaced_and_what_happened_is_kept_as_long_as_its_event() {
        let code = |of| Code { of, on: "f".into(), words: "in f".into(), stack: vec![] };
        let mut codes = Codes::default();
        codes.take(vec![code(CodeOf::Thread(1)), code(CodeOf::Task(2)), code(CodeOf::Event(3))]);
        codes.take(vec![code(CodeOf::Event(4))]);
        let known = |codes: &Codes, of| codes.of(of).is_some();
        assert!(!known(&codes, CodeOf::Thread(1)) && !known(&codes, CodeOf::Task(2)));
        assert!(known(&codes, CodeOf::Event(3)) && known(&codes, CodeOf::Event(4)));
        codes.forget_before(4);
        assert!(!known(&codes, CodeOf::Event(3)) && known(&codes, CodeOf::Event(4)));
    }
}
