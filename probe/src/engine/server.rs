//! `Introspect`, served. The only file of this crate that knows tonic.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use taskscope_proto::MAX_MESSAGE_BYTES;
use taskscope_proto::v1::introspect_server::{Introspect, IntrospectServer};
use taskscope_proto::v1::{DescribeRequest, Description, Frame, WatchRequest};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::alarm::Alarm;
use super::credit::{Credit, SLICE_NS};
use super::frames::{Ask, Watcher};
use super::listen::{Incoming, Listener, Loopback, Peer, SameUser};
use super::sampler::Sampler;
use super::schedule::{Schedule, Step};
use super::{Engine, cpu};

/// Watchers at once; one more is refused.
const MAX_WATCHERS: u32 = 16;
/// Frames that wait for a slow watcher; the next one then stands alone.
const FRAMES_AHEAD: usize = 2;
/// A stream that asks for nothing is closed.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(5);
const MAX_STREAMS: u32 = 32;
const MAX_HEADERS: u32 = 16 << 10;

/// What the probe's tasks share. They run on one thread: the lock is never waited for.
pub(crate) struct Shared {
    engine: &'static Engine,
    sampler: Mutex<Sampler>,
    watchers: AtomicU32,
    /// Changes when there are new events.
    news: watch::Sender<u64>,
    credit: Mutex<Credit>,
}

impl Shared {
    pub(crate) fn new(engine: &'static Engine) -> Arc<Self> {
        Arc::new(Self {
            engine,
            sampler: Mutex::new(Sampler::new(engine)),
            watchers: AtomicU32::new(0),
            news: watch::Sender::new(0),
            credit: Mutex::new(Credit::full(0, 0)),
        })
    }

    fn now_ns(&self) -> u64 {
        self.engine.registry.clock.at(self.engine.registry.clock.now())
    }

    /// CPU time of the probe's thread.
    fn cpu_ns(&self) -> u64 {
        cpu::charged_ns(&self.engine.registry.clock)
    }

    fn credit(&self) -> MutexGuard<'_, Credit> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a watcher is to do now.
    fn step(&self, watcher: &mut Watcher, schedule: &mut Schedule) -> Step {
        let now_ns = self.now_ns();
        if let Some(until_ns) = watcher.wait_for_stacks(&mut self.sampler(), now_ns) {
            return Step::Sleep(until_ns);
        }
        let wait_ns = |purpose| self.credit().wait_ns(now_ns, self.cpu_ns(), purpose);
        let walking = watcher.walking(&self.sampler(), wait_ns);
        schedule.step(now_ns, walking)
    }

    /// The next frame, and whether it has everything that was asked for.
    fn frame(&self, watcher: &mut Watcher) -> (Frame, bool) {
        let mut sampler = self.sampler();
        let frame = watcher.frame(&mut sampler, self.watchers.load(Relaxed));
        (frame, watcher.has_answer(&sampler))
    }

    fn begin_walk(&self, watcher: &mut Watcher) {
        watcher.begin_walk(&self.sampler(), self.now_ns());
    }

    /// One slice of a walk, charged to the credit. True: the walk is at its end.
    fn slice(&self, watcher: &mut Watcher) -> bool {
        let purpose = watcher.purpose();
        let ended = watcher.advance(&self.sampler(), self.now_ns() + SLICE_NS);
        self.credit().spend(self.cpu_ns(), purpose);
        ended
    }

    fn sampler(&self) -> MutexGuard<'_, Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the next tick, or until a stack has come that an event waits for.
    pub(crate) async fn rest(&self, alarm: &Alarm, pause: Duration) {
        let Some(stacks) = &self.engine.stacks else { return alarm.sleep(pause).await };
        let (mut slept, mut news) = (pin!(alarm.sleep(pause)), pin!(stacks.news.notified()));
        std::future::poll_fn(|cx| {
            let is_over = slept.as_mut().poll(cx).is_ready() || news.as_mut().poll(cx).is_ready();
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// One tick; returns how long until the next.
    pub(crate) fn sample(&self) -> Duration {
        let mut sampler = self.sampler();
        sampler.watched_by = self.watchers.load(Relaxed);
        let now_ns = sampler.now_ns();
        let next_ns = sampler.sample(now_ns);
        let events = sampler.events_total();
        self.news.send_if_modified(|seen| std::mem::replace(seen, events) != events);
        Duration::from_nanos(next_ns.saturating_sub(now_ns))
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(shared: Arc<Shared>, listener: Listener) -> Result<(), String> {
    let service = IntrospectServer::new(Service { shared })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(Duration::from_secs(10)));
    let served = match listener {
        Listener::Unix { listener, owner, .. } => {
            server.serve_with_incoming(service, Incoming::new(SameUser { listener, owner })).await
        }
        Listener::Tcp { listener, .. } => {
            server.serve_with_incoming(service, Incoming::new(Loopback { listener })).await
        }
    };
    served.map_err(|error| error.to_string())
}

struct Service {
    shared: Arc<Shared>,
}

impl<S> Connected for Peer<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

type FrameStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

#[tonic::async_trait]
impl Introspect for Service {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        Ok(Response::new(self.shared.engine.describe()))
    }

    type WatchStream = FrameStream;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<FrameStream>, Status> {
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(FIRST_REQUEST_WITHIN, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no request came\nhint: a watch begins with one"))??
            .ok_or_else(|| Status::invalid_argument("a watch begins with a request\nhint: send one"))?;
        let watcher = Watcher::new(understand(first)?);
        let seat = Seat::take(&self.shared)?;
        let (frames, out) = mpsc::channel(FRAMES_AHEAD);
        tokio::spawn(drive(Arc::clone(&self.shared), seat, watcher, requests, frames));
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

fn understand(request: WatchRequest) -> Result<Ask, Status> {
    Ask::try_from(request).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// One of the places for watchers.
struct Seat {
    shared: Arc<Shared>,
}

impl Seat {
    fn take(shared: &Arc<Shared>) -> Result<Self, Status> {
        let room = |taken: u32| (taken < MAX_WATCHERS).then_some(taken + 1);
        match shared.watchers.fetch_update(Relaxed, Relaxed, room) {
            Ok(_) => Ok(Self { shared: Arc::clone(shared) }),
            Err(_) => Err(Status::resource_exhausted(format!(
                "{MAX_WATCHERS} watchers are attached already\nhint: close one, or watch through an agent"
            ))),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.watchers.fetch_sub(1, Relaxed);
    }
}

/// What a watcher's task waits for.
enum Next {
    Due,
    News,
    Request(Result<WatchRequest, Status>),
    RequestsEnded,
    Gone,
}

/// Sends frames until the watcher goes. One that does not read costs two frames of memory and no work.
async fn drive(
    shared: Arc<Shared>,
    seat: Seat,
    mut watcher: Watcher,
    mut requests: Streaming<WatchRequest>,
    frames: mpsc::Sender<Result<Frame, Status>>,
) {
    let mut news = shared.news.subscribe();
    let mut listening = true;
    let mut schedule = Schedule::new(shared.now_ns(), watcher.ask().interval_ns, watcher.ask().once);
    loop {
        let now_ns = shared.now_ns();
        let reads = frames.capacity() > 0;
        let step = if schedule.is_due(now_ns) && !reads {
            Step::Send
        } else {
            shared.step(&mut watcher, &mut schedule)
        };
        let pause = match step {
            Step::Send => {
                match frames.try_reserve() {
                    Ok(permit) => {
                        let (frame, has_answer) = shared.frame(&mut watcher);
                        permit.send(Ok(frame));
                        schedule.sent(now_ns, has_answer);
                        if watcher.ask().once {
                            break;
                        }
                        if watcher.has_past() {
                            schedule.more(now_ns);
                        }
                    }
                    Err(mpsc::error::TrySendError::Full(())) => {
                        watcher.resync();
                        schedule.sent(now_ns, true);
                    }
                    Err(mpsc::error::TrySendError::Closed(())) => break,
                }
                Duration::ZERO
            }
            Step::Begin => {
                shared.begin_walk(&mut watcher);
                Duration::ZERO
            }
            Step::Slice => {
                if shared.slice(&mut watcher) {
                    schedule.walked(shared.now_ns());
                }
                // Ticks, events and the other watchers come before the next slice.
                tokio::task::yield_now().await;
                Duration::ZERO
            }
            Step::Sleep(until_ns) => Duration::from_nanos(until_ns.saturating_sub(now_ns)),
        };
        let next = {
            let mut timer = pin!(tokio::time::sleep(pause));
            let mut changed = pin!(news.changed());
            let mut gone = pin!(frames.closed());
            std::future::poll_fn(|cx| {
                if gone.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Next::Gone);
                }
                if listening && let Poll::Ready(request) = Pin::new(&mut requests).poll_next(cx) {
                    return Poll::Ready(request.map_or(Next::RequestsEnded, Next::Request));
                }
                if changed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Next::News);
                }
                if pause.is_zero() {
                    return Poll::Ready(Next::Due);
                }
                timer.as_mut().poll(cx).map(|()| Next::Due)
            })
            .await
        };
        match next {
            Next::Gone => break,
            Next::RequestsEnded => listening = false,
            Next::Request(request) => match request.and_then(understand) {
                Ok(ask) => {
                    schedule.asked(shared.now_ns(), ask.interval_ns, ask.once);
                    watcher.replace(ask);
                }
                Err(status) => {
                    let _ = frames.send(Err(status)).await;
                    break;
                }
            },
            Next::News if watcher.has_news(&shared.sampler()) => schedule.news(shared.now_ns()),
            Next::News | Next::Due => {}
        }
    }
    drop(seat);
}
