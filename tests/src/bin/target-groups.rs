//! What looks to an agent like many services, each with more groups than a probe keeps apart: the wire has no such cap, and a later
//! probe may send more. It serves `Introspect` as a probe does, with figures that change from frame to frame.
//!
//! `--targets N --groups G`: N sockets in the runtime folder of its environment, of services `crowd-00`, `crowd-01`, … with G groups
//! each; prints `ready` once all listen, and at each line on its standard input `frames N` with how many it has sent, and `groups N`.

use std::io::BufRead;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use taskscope_proto::histogram::{Packed, Sparse, index};
use taskscope_proto::v1::introspect_server::{Introspect, IntrospectServer};
use taskscope_proto::v1::{
    self, DescribeRequest, Description, Frame, Group, GroupWindow, InternedString, PollStats, Runtime,
    TaskKind, TaskRows, TaskState, TaskWindow, Totals, WatchRequest, Worker,
};
use taskscope_tests::stopwatch::Stopwatch;
use tokio::net::UnixListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

const S: u64 = 1_000_000_000;
/// Rows of tasks that there are; a frame has as many as are asked for.
const ROWS: u64 = 64;
/// Buckets of a poll histogram that have a count.
const BUCKETS: u64 = 24;

#[derive(Default)]
struct Sent {
    frames: AtomicU64,
    groups: AtomicU64,
}

fn main() -> std::io::Result<()> {
    let (mut targets, mut groups) = (0u32, 0u32);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{flag} needs a value"));
        let value = value.parse().unwrap_or_else(|_| panic!("{flag} is a number"));
        match flag.as_str() {
            "--targets" => targets = value,
            "--groups" => groups = value,
            _ => panic!("unknown flag {flag}"),
        }
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR").expect("tests set it");
    let folder = PathBuf::from(folder).join("taskscope");
    std::fs::create_dir_all(&folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let sent = Arc::new(Sent::default());
    for number in 0..targets {
        let name = format!("crowd-{number:02}");
        let _entered = runtime.enter();
        let listener = UnixListener::bind(folder.join(format!("{name}.{number:08x}.sock")))?;
        let crowd = Crowd { name, number, groups, began: Stopwatch::start(), sent: Arc::clone(&sent) };
        let server = tonic::transport::Server::builder().add_service(IntrospectServer::new(crowd));
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    }
    println!("ready");
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("frames {} groups {}", sent.frames.load(Relaxed), sent.groups.load(Relaxed));
    }
    // Nobody may write to it: it ends when it is ended.
    loop {
        std::thread::park();
    }
}

/// One service.
#[derive(Clone)]
struct Crowd {
    name: String,
    number: u32,
    groups: u32,
    began: Stopwatch,
    sent: Arc<Sent>,
}

#[tonic::async_trait]
impl Introspect for Crowd {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        Ok(Response::new(Description {
            revision: taskscope_proto::REVISION,
            probe_version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.clone(),
            pid: std::process::id(),
            instance: format!("{:08x}", self.number),
            ..Description::default()
        }))
    }

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap_or_default();
        let (frames, out) = tokio::sync::mpsc::channel(2);
        let crowd = self.clone();
        tokio::spawn(async move {
            let mut watch = Watch { crowd, asked: first, seq: 0, resync: true, groups_at_ns: None };
            loop {
                if frames.send(Ok(watch.frame())).await.is_err() {
                    return;
                }
                let every = Duration::from_nanos(watch.asked.interval_ns.max(50_000_000));
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    Ok(Some(next)) = requests.message() => (watch.asked, watch.resync) = (next, true),
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

/// What one watcher is sent.
struct Watch {
    crowd: Crowd,
    asked: WatchRequest,
    seq: u64,
    resync: bool,
    groups_at_ns: Option<u64>,
}

impl Watch {
    fn frame(&mut self) -> Frame {
        self.seq += 1;
        let at_ns = u64::try_from(self.crowd.began.elapsed().as_nanos()).unwrap_or(u64::MAX) + S;
        let resync = std::mem::take(&mut self.resync);
        let query = self.asked.groups.unwrap_or_default();
        let is_due = self.groups_at_ns.is_none_or(|last| at_ns - last >= query.every_ns.max(S / 2));
        let groups = (resync || is_due).then(|| {
            self.groups_at_ns = Some(at_ns);
            self.groups(at_ns, query.limit)
        });
        self.crowd.sent.frames.fetch_add(1, Relaxed);
        let count = groups.as_ref().map_or(0, |window| window.groups.len() as u64);
        self.crowd.sent.groups.fetch_add(count, Relaxed);
        Frame {
            seq: self.seq,
            request_id: self.asked.request_id,
            at_ns,
            unix_ns: 1_800_000_000 * S + at_ns,
            resync,
            strings: if self.seq == 1 { texts(self.crowd.groups) } else { Vec::new() },
            totals: Some(Totals {
                followed: 100_000,
                alive: Some(100_000),
                running: 1,
                spawned_total: 100_000,
                polls_total: at_ns / 1_000_000,
                window_ns: 10 * S,
                polls_window: 10_000 + at_ns % 100,
                ..Totals::default()
            }),
            runtimes: vec![runtime(at_ns)],
            tasks: self.asked.tasks.as_ref().map(|query| rows(at_ns, query.limit)),
            groups,
            ..Frame::default()
        }
    }

    /// Those that did the most are first, and each has done something since.
    fn groups(&self, at_ns: u64, limit: u32) -> GroupWindow {
        let all = self.crowd.groups;
        let group = |number: u32| {
            let polls = at_ns / S * 10 + u64::from(all - number);
            let buckets = (0..BUCKETS).map(|it| (index(1_000 + it * 300), polls / (it + 1) + 1));
            let histogram = Packed::from(&Sparse::from_counts(buckets)).with_sum_ns(Some(polls * 20_000));
            // Of every other group the wakes are seen.
            let waits = self.asked.histograms_total && number.is_multiple_of(2);
            Group {
                id: number + 1,
                scheduled_total: waits.then(|| histogram.clone()),
                name_sid: number + 1,
                spawned_at_sid: all + 1,
                live: 100 + at_ns / S % 7,
                peak_live: 107,
                spawned_total: 100 + polls,
                ended_total: polls - at_ns / S % 7,
                polls: Some(PollStats {
                    polls_total: polls,
                    busy_ns_total: polls * 20_000,
                    longest_ns: 9_000_000,
                    window_ns: 10 * S,
                    polls_window: 100 + at_ns / S % 11,
                    p99_window_ns: Some(1_000_000 + at_ns % 1_000),
                    max_window_ns: Some(2_000_000),
                    histogram_total: self.asked.histograms_total.then_some(histogram),
                    ..PollStats::default()
                }),
                trend: Some(v1::Trend {
                    window_ns: at_ns / S % 7 * S,
                    live_before: 100,
                    ..Default::default()
                }),
                ..Group::default()
            }
        };
        let shown = all.min(if limit == 0 { 50 } else { limit });
        GroupWindow { total: all.into(), groups: (0..shown).map(group).collect(), labels: vec![] }
    }
}

/// Names of the groups, and where all of them are spawned.
fn texts(groups: u32) -> Vec<InternedString> {
    let named = (0..groups).map(|number| format!("worker-of-tenant-{number:04}"));
    let all = named.chain(["src/tenants.rs:71:9".to_owned()]);
    (1..).zip(all).map(|(sid, text)| InternedString { sid, text }).collect()
}

fn runtime(at_ns: u64) -> Runtime {
    let worker = |index: u32| Worker {
        index,
        tid: Some(1_000 + index),
        busy_ratio: Some(0.2 + (at_ns / S % 10) as f64 / 100.0),
        local_queue: Some(at_ns / S % 3),
        busy_ns_total: Some(at_ns / 5),
        ..Worker::default()
    };
    Runtime {
        id: 1,
        workers: (0..4).map(worker).collect(),
        global_queue: Some(0),
        alive_tasks: Some(100_000),
        ready_tasks: Some(at_ns / S % 5),
        ..Runtime::default()
    }
}

/// All of them have been polled since the frame before.
fn rows(at_ns: u64, limit: u32) -> TaskWindow {
    let ids: Vec<u64> = (1..=ROWS.min(limit.into())).collect();
    let each = |of: &dyn Fn(u64) -> u64| ids.iter().map(|&id| of(id)).collect::<Vec<u64>>();
    let texts = |of: &dyn Fn(u64) -> u32| ids.iter().map(|&id| of(id)).collect::<Vec<u32>>();
    let rows = TaskRows {
        id: ids.clone(),
        kind: vec![TaskKind::Task.into(); ids.len()],
        state: vec![TaskState::Idle.into(); ids.len()],
        name_sid: texts(&|id| id as u32),
        group_id: texts(&|id| id as u32),
        runtime_id: texts(&|_| 1),
        polls: each(&|id| at_ns / S * 10 + id),
        busy_ns: each(&|id| at_ns / 100 / id),
        age_ns: each(&|_| at_ns),
        since_ns: each(&|id| at_ns % S + id),
        longest_poll_ns: each(&|id| id * 1_000),
        ..TaskRows::default()
    };
    TaskWindow { order: ids, rows: Some(rows), matching: 100_000, unknown_ids: vec![] }
}
