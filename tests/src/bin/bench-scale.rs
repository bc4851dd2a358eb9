//! The measuring half of `cargo xtask bench scale`: starts `target-scale` at several sizes, watches it over the real wire
//! and prints what that cost, one JSON object a line. `--small` tries it out at a hundredth of the sizes.
#![allow(clippy::disallowed_methods, reason = "it is the clock of the bench")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskscope_proto::v1::introspect_client::IntrospectClient;
use taskscope_proto::v1::{Frame, GroupQuery, SortKey, TaskQuery, WatchRequest, loss};
use taskscope_tests::proc;
use taskscope_tests::target::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Until a target has come to rest after its start.
const REST: Duration = Duration::from_secs(3);
/// What the tasks screen of the dashboard asks for.
const INTERVAL: Duration = Duration::from_millis(250);
const ROWS: u32 = 100;

struct Sizes {
    /// Tasks, those of them that are polled, and the budget where the default is too small.
    live: [(usize, usize, Option<&'static str>); 2],
    short: usize,
    watched_for: Duration,
}

fn main() {
    let small = std::env::args().any(|arg| arg == "--small");
    let sizes = if small {
        Sizes { live: [(1_000, 100, None), (10_000, 100, None)], short: 100_000, watched_for: REST }
    } else {
        Sizes {
            live: [(100_000, 10_000, None), (1_000_000, 10_000, Some("256MiB"))],
            short: 10_000_000,
            watched_for: Duration::from_secs(30),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be made");
    println!("{}", runtime.block_on(idle(&sizes)));
    for (tasks, polled, budget) in sizes.live {
        println!("{}", runtime.block_on(live(&sizes, tasks, polled, budget)));
    }
    println!("{}", runtime.block_on(short(&sizes)));
}

fn start(tasks: usize, polled: usize, short: usize, variables: &[(&str, &str)]) -> Target {
    let builder = Target::program("target-scale")
        .args(["--tasks", &tasks.to_string(), "--polled", &polled.to_string(), "--short", &short.to_string()])
        .on_tcp();
    let target = variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start();
    target.process.stdout.wait_for(Duration::from_secs(60), 0, |line| (line == "ready").then_some(()));
    std::thread::sleep(REST);
    target
}

/// Resident bytes of the same program without a probe.
fn bare_rss(tasks: usize, polled: usize) -> u64 {
    let (process, _folder) = Target::program("target-scale")
        .args(["--tasks", &tasks.to_string(), "--polled", &polled.to_string()])
        .env("TASKSCOPE_DISABLED", "1")
        .start_unheard();
    process.stdout.wait_for(Duration::from_secs(60), 0, |line| (line == "ready").then_some(()));
    std::thread::sleep(REST);
    proc::rss(process.pid()).expect("it runs")
}

/// What the probe's own thread has used: CPU time in ns, and how often it went to sleep.
fn probe_thread(pid: u32) -> (u64, u64) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let (mut cpu_ns, mut sleeps) = (0, 0);
    for thread in threads.flatten().map(|entry| entry.path()) {
        let read = |file: &str| std::fs::read_to_string(thread.join(file)).unwrap_or_default();
        if read("comm").trim_end() != "taskscope" {
            continue;
        }
        let first = |text: &str| text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        cpu_ns += first(&read("schedstat")).expect("schedstat begins with a number");
        let status = read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps += line.and_then(first).expect("status has it");
    }
    assert!(cpu_ns > 0, "the probe has a thread");
    (cpu_ns, sleeps)
}

/// Share of a core and wake-ups a second of the probe's thread, over `during`, in which `meanwhile` runs.
async fn cost<T>(pid: u32, meanwhile: impl Future<Output = T>) -> (f64, f64, T) {
    let (began, (cpu_ns, sleeps)) = (Instant::now(), probe_thread(pid));
    let done = meanwhile.await;
    let (then_ns, then) = probe_thread(pid);
    let seconds = began.elapsed().as_secs_f64();
    ((then_ns - cpu_ns) as f64 / 1e9 / seconds, (then - sleeps) as f64 / seconds, done)
}

async fn idle(sizes: &Sizes) -> Value {
    let target = start(0, 0, 0, &[]);
    let (cpu, wakes, ()) = cost(target.pid(), tokio::time::sleep(sizes.watched_for)).await;
    json!({ "what": "idle", "cpu": cpu, "wakeups_per_second": wakes })
}

async fn live(sizes: &Sizes, tasks: usize, polled: usize, budget: Option<&str>) -> Value {
    let bare = bare_rss(tasks, polled);
    let variables: Vec<_> = budget.map(|budget| ("TASKSCOPE_MEMORY", budget)).into_iter().collect();
    let target = start(tasks, polled, 0, &variables);
    let unwatched = proc::rss(target.pid()).expect("it runs");
    let (idle_cpu, _, ()) = cost(target.pid(), tokio::time::sleep(sizes.watched_for / 3)).await;

    let began = Instant::now();
    let mut watch = Watch::open(&target, tasks_screen(SortKey::SortAge)).await;
    let first = watch.with_rows().await;
    let first_frame = began.elapsed();
    let found = first.tasks.as_ref().map_or(0, |window| window.matching);
    let evicted: u64 = first
        .losses
        .iter()
        .filter(|loss| loss.reason() == loss::Reason::EvictedTasks)
        .map(|loss| loss.count)
        .sum();

    // The past and the first rows are over by then.
    watch.during(REST).await;
    let bytes = watch.bytes();
    let (began, mut ages) = (Instant::now(), Vec::new());
    let (cpu, wakes, ()) = cost(target.pid(), async {
        while began.elapsed() < sizes.watched_for {
            ages.push(watch.next().await.rows_age_ns);
        }
    })
    .await;
    let bytes = (watch.bytes() - bytes) as f64 / began.elapsed().as_secs_f64();
    ages.sort_unstable();

    // By what changes most: its rows are other ones every second.
    watch.ask(tasks_screen(SortKey::SortSince)).await;
    watch.during(REST).await;
    let (busy_bytes, began) = (watch.bytes(), Instant::now());
    let (busy_cpu, _, ()) = cost(target.pid(), watch.during(sizes.watched_for / 3)).await;
    let busy_bytes = (watch.bytes() - busy_bytes) as f64 / began.elapsed().as_secs_f64();
    json!({
        "what": "live", "tasks": tasks, "polled": polled, "budget": budget,
        "rows_found": found, "evicted": evicted,
        "memory_added": unwatched as i64 - bare as i64,
        "memory_added_watched": proc::rss(target.pid()).expect("it runs") as i64 - bare as i64,
        "unwatched_cpu": idle_cpu,
        "first_frame_ms": first_frame.as_secs_f64() * 1e3,
        "cpu": cpu, "wakeups_per_second": wakes, "bytes_per_second": bytes,
        "rows_age_ms_median": ages[ages.len() / 2] as f64 / 1e6, "rows_age_ms_most": ages[ages.len() - 1] as f64 / 1e6,
        "changing_cpu": busy_cpu, "changing_bytes_per_second": busy_bytes,
    })
}

async fn short(sizes: &Sizes) -> Value {
    let mut target = start(0, 0, sizes.short, &[]);
    let before = proc::rss(target.pid()).expect("it runs");
    let began = Instant::now();
    target.process.say("");
    target.process.stdout.wait_for(Duration::from_secs(300), 0, |line| (line == "spawned").then_some(()));
    let took = began.elapsed();
    std::thread::sleep(REST);
    let survivors = sizes.short / 1_000;
    let spawned = proc::rss(target.pid()).expect("it runs");
    let mut watch = Watch::open(&target, tasks_screen(SortKey::SortAge)).await;
    let frame = watch.with_rows().await;
    let rows = frame.tasks.as_ref().map_or(0, |window| window.matching);
    let evicted: u64 = frame
        .losses
        .iter()
        .filter(|loss| loss.reason() == loss::Reason::EvictedTasks)
        .map(|loss| loss.count)
        .sum();
    target.process.say("");
    target.process.stdout.wait_for(Duration::from_secs(60), 0, |line| (line == "ended").then_some(()));
    watch.during(REST).await;
    let left = watch.with_rows().await.tasks.map_or(0, |window| window.matching);
    drop(watch);
    json!({
        "what": "short", "tasks": sizes.short, "survivors": survivors, "seconds": took.as_secs_f64(),
        "rows_of_survivors": rows, "rows_after": left, "evicted": evicted,
        "memory_before": before, "memory_with_survivors": spawned, "memory_after": proc::rss(target.pid()).expect("it runs"),
    })
}

fn tasks_screen(sort: SortKey) -> WatchRequest {
    WatchRequest {
        request_id: sort as u64,
        interval_ns: INTERVAL.as_nanos() as u64,
        tasks: Some(TaskQuery {
            sort: sort.into(),
            ascending: sort == SortKey::SortSince,
            limit: ROWS,
            ..Default::default()
        }),
        groups: Some(GroupQuery { limit: 200, histograms: false, ..Default::default() }),
        history_seconds: 900,
        ..Default::default()
    }
}

/// A stream of frames through a relay that counts the bytes of both directions.
struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    frames: Streaming<Frame>,
    counted: Arc<AtomicU64>,
    request_id: u64,
}

impl Watch {
    async fn open(target: &Target, request: WatchRequest) -> Self {
        let counted = Arc::new(AtomicU64::new(0));
        let relay = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = relay.local_addr().expect("it has one");
        let there = target.address.trim_start_matches("http://").to_owned();
        tokio::spawn(relayed(relay, there, Arc::clone(&counted)));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("it is an address");
        let mut client = IntrospectClient::new(endpoint.connect().await.expect("the probe listens"));
        let (requests, queue) = mpsc::channel(4);
        let request_id = request.request_id;
        requests.send(request).await.expect("the queue has room");
        let frames = client.watch(ReceiverStream::new(queue)).await.expect("it is served").into_inner();
        Self { requests, frames, counted, request_id }
    }

    async fn ask(&mut self, request: WatchRequest) {
        self.request_id = request.request_id;
        self.requests.send(request).await.expect("the stream is open");
    }

    async fn next(&mut self) -> Frame {
        self.frames.message().await.expect("the stream goes on").expect("the stream goes on")
    }

    /// The next frame of the present request that has rows.
    async fn with_rows(&mut self) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.request_id == self.request_id && frame.tasks.is_some() {
                return frame;
            }
        }
    }

    async fn during(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.next().await;
        }
    }

    fn bytes(&self) -> u64 {
        self.counted.load(Relaxed)
    }
}

async fn relayed(relay: TcpListener, there: String, counted: Arc<AtomicU64>) {
    let Ok((here, _)) = relay.accept().await else { return };
    let there = TcpStream::connect(there).await.expect("the probe listens");
    for stream in [&here, &there] {
        stream.set_nodelay(true).expect("it is a TCP stream");
    }
    let ((from_here, to_here), (from_there, to_there)) = (here.into_split(), there.into_split());
    tokio::spawn(copied(from_here, to_there, Arc::clone(&counted)));
    copied(from_there, to_here, counted).await;
}

async fn copied(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    counted: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        counted.fetch_add(read as u64, Relaxed);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
