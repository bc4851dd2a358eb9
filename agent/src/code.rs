//! Where in the code polls are, as the dashboard is told: texts, so that it knows nothing of files and symbols.

use std::collections::BTreeSet;

use taskscope_proto::v1;
use taskscope_tui::{Code, CodeOf};

use crate::model::Model;
use crate::stack::share::{self, Spent};

/// Of everything that runs, and of events that are not among `told` yet, which they join; what has no name yet is left out.
pub(crate) fn of(model: &Model, told: &mut BTreeSet<u64>) -> Vec<Code> {
    let mut all = Vec::new();
    let workers = model.frame.runtimes.iter().flat_map(|runtime| &runtime.workers);
    let polls = workers.map(|worker| (worker.tid, worker.poll.as_ref()));
    let threads = model.frame.threads.iter().map(|thread| (Some(thread.tid), thread.poll.as_ref()));
    for (tid, poll) in polls.chain(threads) {
        let Some(poll) = poll.filter(|poll| !poll.stacks.is_empty()) else { continue };
        let spent = model.spent(poll);
        let task = Some(poll.task_id).filter(|&task| task != 0).map(CodeOf::Task);
        let places = tid.map(CodeOf::Thread).into_iter().chain(task);
        all.extend(places.filter_map(|of| code(of, poll, &spent)));
    }
    for event in &model.events {
        let poll = event.poll.as_ref().filter(|poll| !poll.stacks.is_empty() && !told.contains(&event.seq));
        let Some(poll) = poll else { continue };
        // Half of the names would stay for ever.
        if poll.stacks.iter().any(|share| model.stacks.stack(share.stack_sid).is_none()) {
            continue;
        }
        told.insert(event.seq);
        all.extend(code(CodeOf::Event(event.seq), poll, &model.spent(poll)));
    }
    while told.len() > model.events.len() {
        told.pop_first();
    }
    all
}

fn code(of: CodeOf, poll: &v1::LivePoll, spent: &[Spent]) -> Option<Code> {
    let words = share::words(spent, poll.since_ns)?;
    let most = spent.first()?;
    Some(Code { of, on: most.on.clone(), words, stack: most.stack.lines() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interned::fixture::{hashing, share, sleeping};
    use crate::rules::fixture::{S, model, poll};

    #[test]
    fn threads_tasks_and_events_are_told_by_their_lines() {
        let on = |sid| v1::LivePoll { stacks: vec![share(sid, 3, S)], ..poll(2 * S) };
        let worker = v1::Worker { tid: Some(7), poll: Some(on(1)), ..Default::default() };
        let unnamed = v1::Worker { tid: Some(8), poll: Some(on(9)), ..Default::default() };
        let event = v1::Event { seq: 5, poll: Some(on(2)), ..Default::default() };
        let mut model = model(v1::Frame {
            runtimes: vec![v1::Runtime { workers: vec![worker, unnamed], ..Default::default() }],
            events: vec![event, v1::Event { seq: 6, ..Default::default() }],
            ..Default::default()
        });
        model.stacks.insert(1, hashing());
        model.stacks.insert(2, sleeping(7));
        let mut told = BTreeSet::new();
        let code = of(&model, &mut told);
        let said: Vec<_> = code.iter().map(|code| (code.of, code.words.as_str())).collect();
        assert_eq!(
            said,
            [
                (CodeOf::Thread(7), "1.0 of 2.0 s in bcrypt::hash, src/login.rs:40"),
                (CodeOf::Task(17), "1.0 of 2.0 s in bcrypt::hash, src/login.rs:40"),
                (CodeOf::Event(5), "1.0 of 2.0 s in std::thread::sleep, src/mail.rs:7"),
            ]
        );
        // An event is told once.
        assert_eq!(of(&model, &mut told).len(), 2);
        assert_eq!(
            code[0].stack,
            [
                ("bcrypt::hash at bcrypt/src/lib.rs:90".to_owned(), false),
                ("api::login::check at src/login.rs:40".to_owned(), true),
            ]
        );
    }
}
