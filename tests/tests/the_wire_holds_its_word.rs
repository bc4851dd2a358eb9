//! What the comments of `taskscope.v1` promise a watcher, asked of a real probe by a client that is not our agent.

use std::time::Duration;

use prost::Message;
use taskscope_proto::MAX_MESSAGE_BYTES;
use taskscope_proto::columns;
use taskscope_proto::histogram::Sparse;
use taskscope_proto::row::{TaskRow, sort_value};
use taskscope_proto::strings::Strings;
use taskscope_proto::v1::introspect_client::IntrospectClient;
use taskscope_proto::v1::{
    self, Frame, GroupQuery, SortKey, StandingQuery, TaskCursor, TaskQuery, WatchRequest, event, loss,
};
use taskscope_proto::window::Window;
use taskscope_tests::target::Target;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

const IDLE: usize = 50;
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

struct Watch {
    /// Ends with the test.
    _target: Target,
    requests: mpsc::Sender<WatchRequest>,
    frames: Streaming<Frame>,
    strings: Strings,
}

async fn client(target: &Target) -> IntrospectClient<Channel> {
    let endpoint = Endpoint::from_shared(target.address.clone()).expect("the address is one");
    IntrospectClient::new(endpoint.connect().await.expect("the probe listens"))
}

/// With all of its tasks spawned and at work.
fn target() -> Target {
    let target = Target::program("target-plain").args(["--idle", &IDLE.to_string()]).on_tcp().start();
    target.said("{\"second\":1,");
    target
}

async fn watch(request: WatchRequest) -> Watch {
    let target = target();
    let (requests, queue) = mpsc::channel(4);
    requests.send(request).await.expect("the queue has room");
    let frames =
        client(&target).await.watch(ReceiverStream::new(queue)).await.expect("it is served").into_inner();
    Watch { _target: target, requests, frames, strings: Strings::default() }
}

impl Watch {
    async fn next(&mut self) -> Frame {
        let frame =
            tokio::time::timeout(ANSWERS_WITHIN, self.frames.message()).await.expect("a frame comes in time");
        let frame = frame.expect("the stream goes on").expect("the stream goes on");
        assert!(frame.encoded_len() <= MAX_MESSAGE_BYTES);
        self.strings.extend(&frame.strings);
        frame
    }

    /// The next frame made for this request.
    async fn answer_to(&mut self, id: u64) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.request_id == id {
                return frame;
            }
        }
    }

    fn rows(&self, frame: &Frame) -> Vec<TaskRow> {
        let window = frame.tasks.as_ref().expect("rows were asked for");
        columns::decode(window.rows.as_ref().expect("it has rows"), &self.strings)
            .expect("the columns fit")
            .collect()
    }
}

fn by_id(limit: u32, after: Option<TaskCursor>) -> Option<TaskQuery> {
    let filter = "name~idle-".to_owned();
    Some(TaskQuery {
        filter,
        sort: SortKey::SortId.into(),
        ascending: true,
        limit,
        after,
        ..Default::default()
    })
}

#[tokio::test]
async fn pages_joined_by_cursors_are_all_rows_once_and_the_stream_is_kept() {
    let mut watch = watch(WatchRequest { request_id: 1, tasks: by_id(20, None), ..Default::default() }).await;
    let mut ids: Vec<u64> = Vec::new();
    for request_id in 1.. {
        let frame = watch.answer_to(request_id).await;
        assert!(frame.resync, "a frame for a new request stands alone");
        let window = frame.tasks.as_ref().expect("rows were asked for");
        assert_eq!(window.matching, IDLE as u64);
        // The texts were sent with the first frame of this stream, and are known for good.
        assert!(watch.rows(&frame).iter().all(|row| row.name == "idle-plain"), "{frame:?}");
        ids.extend(&window.order);
        let rows = watch.rows(&frame);
        let Some(last) = rows.last() else { break };
        let after = Some(TaskCursor { value: sort_value(last, SortKey::SortId), task_id: last.id.0 });
        let next = WatchRequest { request_id: request_id + 1, tasks: by_id(20, after), ..Default::default() };
        watch.requests.send(next).await.expect("the stream is open");
    }
    assert_eq!(ids.len(), IDLE);
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}

#[tokio::test]
async fn a_kept_id_stays_in_sight_and_an_unknown_one_is_said_to_be() {
    let mut watch = watch(WatchRequest { request_id: 1, tasks: by_id(1, None), ..Default::default() }).await;
    let first = watch.next().await;
    let kept = watch.rows(&first)[0].id.0;
    let nothing = TaskQuery { filter: "name=nobody".into(), ..Default::default() };
    let request = WatchRequest {
        request_id: 2,
        tasks: Some(nothing),
        keep_task_ids: vec![kept, 1 << 40],
        ..Default::default()
    };
    watch.requests.send(request).await.expect("the stream is open");
    let frame = watch.answer_to(2).await;
    let window = frame.tasks.as_ref().expect("rows were asked for");
    assert_eq!((window.matching, window.order.len(), &window.unknown_ids), (0, 0, &vec![1 << 40]));
    assert_eq!(watch.rows(&frame).iter().map(|row| row.id.0).collect::<Vec<_>>(), [kept]);
}

#[tokio::test]
async fn a_standing_query_finds_what_has_matched_long_enough_and_says_it_once() {
    let standing =
        |query_id, filter: &str, for_ns| StandingQuery { query_id, filter: filter.into(), for_ns, limit: 3 };
    let request = WatchRequest {
        interval_ns: 100_000_000,
        standing: vec![
            standing(7, "name~idle-", 300_000_000),
            standing(8, "name=nobody", 0),
            // More than any clock reaches.
            standing(9, "name~idle-", u64::MAX),
        ],
        ..Default::default()
    };
    let mut watch = watch(request).await;
    assert!(watch.next().await.findings.is_empty(), "nothing has matched for 300 ms yet");
    let mut found = Vec::new();
    for _ in 0..12 {
        found.extend(watch.next().await.findings);
    }
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((finding.query_id, finding.matching, finding.task_ids.len()), (7, IDLE as u64, 3));
}

#[tokio::test]
async fn what_was_before_the_watcher_came_is_in_its_first_frame_and_groups_have_histograms_when_asked() {
    let request = WatchRequest {
        interval_ns: 500_000_000,
        groups: Some(GroupQuery { limit: 50, histograms: true, ..Default::default() }),
        history_seconds: 900,
        ..Default::default()
    };
    let mut watch = watch(request).await;
    let first = watch.next().await;
    let history = first.history.expect("the target has run for a second");
    assert!(!history.alive.is_empty() && !history.more && history.first_at_ns <= first.at_ns, "{history:?}");
    let len = history.alive.len();
    let columns = [
        history.polls.len(),
        history.requests.len(),
        history.busy_permille_plus1.len(),
        history.queued_plus1.len(),
        history.stuck_workers.len(),
    ];
    assert!(columns.iter().all(|&column| column == len), "{history:?}");
    assert!(history.workers.iter().all(|worker| worker.busy_permille_plus1.len() == len), "{history:?}");
    assert!(!history.workers.is_empty() && history.polls.iter().sum::<u64>() > 1000, "{history:?}");
    let text = |strings: &Strings, sid| strings.text(taskscope_proto::ids::Sid(sid)).to_owned();
    let work = history.groups.iter().find(|group| text(&watch.strings, group.name_sid) == "work");
    let work = work.expect("its polls are remembered by group");
    assert_eq!(
        (work.second.len(), work.live.len(), work.busy_ns.len()),
        (work.polls.len(), work.polls.len(), work.polls.len())
    );
    assert!(work.polls.iter().sum::<u64>() > 1000 && work.busy_ns.iter().sum::<u64>() > 0, "{work:?}");

    let mut work = None;
    for _ in 0..8 {
        let frame = watch.next().await;
        assert!(frame.history.is_none(), "it has been sent");
        assert!(
            frame.losses.iter().all(|loss| loss.reason() == loss::Reason::UninstrumentedTasks),
            "{frame:?}"
        );
        let groups = frame.groups.map(|window| window.groups);
        work = groups
            .and_then(|groups| {
                groups.into_iter().find(|group| text(&watch.strings, group.name_sid) == "work")
            })
            .or(work);
    }
    let polls = work.expect("the working task has a group").polls.expect("it polls");
    let histogram = polls.histogram.as_ref().expect("it was asked for");
    let counted = Sparse::try_from(histogram).expect("it is one");
    assert_eq!(counted.total(), polls.polls_window);
    assert!(polls.polls_window > 1000, "{polls:?}");
}

#[tokio::test]
async fn groups_come_with_the_first_frame_and_then_not_more_often_than_asked_for() {
    let asked = |request_id, every_ns| WatchRequest {
        request_id,
        interval_ns: 100_000_000,
        groups: Some(GroupQuery { every_ns, ..Default::default() }),
        ..Default::default()
    };
    let mut watch = watch(asked(1, 1_500_000_000)).await;
    let mut at_ns = Vec::new();
    while at_ns.len() < 3 {
        let frame = watch.next().await;
        if frame.groups.is_some() {
            assert_eq!(at_ns.is_empty(), frame.resync, "{frame:?}");
            at_ns.push(frame.at_ns);
        }
    }
    assert!(at_ns.windows(2).all(|two| two[1] - two[0] >= 1_500_000_000), "{at_ns:?}");
    // Another request is answered with groups at once.
    watch.requests.send(asked(2, u64::MAX)).await.expect("the stream is open");
    let frame = watch.answer_to(2).await;
    assert!(frame.groups.is_some(), "{frame:?}");
}

#[tokio::test]
async fn an_event_from_before_the_watcher_came_is_in_its_first_frame() {
    let mut target = Target::program("target-stuck").on_tcp().start();
    target.process.say("");
    target.said("stuck");
    let ask = async || {
        let mut client = client(&target).await;
        let (requests, queue) = mpsc::channel(1);
        let request = WatchRequest { history_seconds: 900, ..Default::default() };
        requests.send(request).await.expect("the queue has room");
        let mut frames = client.watch(ReceiverStream::new(queue)).await.expect("it is served").into_inner();
        frames.message().await.expect("the stream goes on").expect("the stream goes on")
    };
    // Whoever comes first may see it begin; the one after sees what was.
    let told = async {
        while ask().await.events.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(ANSWERS_WITHIN, told).await.expect("a stuck poll becomes an event");
    let later = ask().await;
    assert!(later.events.iter().any(|event| event.kind() == event::Kind::PollStuck), "{later:?}");
}

#[tokio::test]
async fn only_rows_in_which_more_than_time_has_changed_are_sent_again() {
    let tasks = Some(TaskQuery { limit: 100, sort: SortKey::SortId.into(), ..Default::default() });
    let request = WatchRequest { request_id: 1, interval_ns: 100_000_000, tasks, ..Default::default() };
    let mut watch = watch(request.clone()).await;
    let mut window = Window::default();
    let first = watch.next().await;
    let all = watch.rows(&first).len();
    assert!(all > IDLE && first.tasks.as_ref().is_some_and(|tasks| tasks.order.len() == all));
    window.take(&first, &watch.strings).expect("the columns fit");
    for _ in 0..10 {
        let frame = watch.next().await;
        let sent = watch.rows(&frame);
        assert!(
            !frame.resync && frame.tasks.as_ref().is_some_and(|tasks| tasks.order.len() == all),
            "{frame:?}"
        );
        assert!(sent.iter().all(|row| row.name != "idle-plain"), "{sent:?}");
        assert!(sent.iter().any(|row| row.name == "work"), "it is polled all the time");
        window.take(&frame, &watch.strings).expect("the columns fit");
    }
    // What the rows have grown to by themselves is what a frame that stands alone says.
    let again = WatchRequest { request_id: 2, ..request };
    watch.requests.send(again).await.expect("the stream is open");
    let alone = watch.answer_to(2).await;
    let passed = v1::Frame { at_ns: alone.at_ns, ..Default::default() };
    window.take(&passed, &watch.strings).expect("there is nothing to read");
    let idle =
        |rows: Vec<TaskRow>| rows.into_iter().filter(|row| row.name == "idle-plain").collect::<Vec<_>>();
    let aged = idle(window.ordered().cloned().collect());
    assert_eq!(aged.len(), IDLE);
    assert_eq!(aged, idle(watch.rows(&alone)));
}

#[tokio::test]
async fn a_request_that_cannot_be_served_ends_the_stream_with_what_to_do() {
    let target = target();
    let mut client = client(&target).await;
    let refusals = [
        (
            WatchRequest {
                tasks: Some(TaskQuery { filter: "stat=idle".into(), ..Default::default() }),
                ..Default::default()
            },
            "hint: did you mean `state`?",
        ),
        (
            WatchRequest { keep_task_ids: (0..257).collect(), ..Default::default() },
            "hint: at most 256 are served",
        ),
        (
            WatchRequest { standing: vec![StandingQuery::default(); 65], ..Default::default() },
            "hint: at most 64 are served",
        ),
    ];
    for (request, hint) in refusals {
        let refused = client.watch(tokio_stream::once(request)).await.expect_err("it cannot be served");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(hint), "{refused}");
    }
    // The probe serves on.
    let once = WatchRequest { once: true, ..Default::default() };
    let mut frames = client.watch(tokio_stream::once(once)).await.expect("it is served").into_inner();
    assert!(
        frames.message().await.expect("it is served").is_some_and(|frame| frame.seq == 1 && frame.resync)
    );
    assert!(frames.message().await.expect("it ends well").is_none());
}

#[tokio::test]
async fn a_seventeenth_watcher_is_refused_and_a_place_that_is_left_is_given_again() {
    let target = target();
    let mut client = client(&target).await;
    let mut seats = Vec::new();
    for _ in 0..16 {
        let (requests, queue) = mpsc::channel(1);
        requests.send(WatchRequest::default()).await.expect("the queue has room");
        let frames = client.watch(ReceiverStream::new(queue)).await.expect("there is a place").into_inner();
        seats.push((requests, frames));
    }
    let refused =
        client.watch(tokio_stream::once(WatchRequest::default())).await.expect_err("no place is left");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    seats.pop();
    let given = async {
        while client.watch(tokio_stream::once(WatchRequest::default())).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(ANSWERS_WITHIN, given).await.expect("the place is given again");
}
