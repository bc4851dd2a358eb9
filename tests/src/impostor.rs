//! Peers that are no probe of this version. Each listens on a loopback port for as long as it lives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::time::Duration;

use taskscope_proto::v1::introspect_server::{Introspect, IntrospectServer};
use taskscope_proto::v1::{
    DescribeRequest, Description, Frame, LivePoll, Runtime, TaskKind, TaskWindow, WatchRequest, Worker,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Answers every connection with the same bytes after it has read something; then closes it. No bytes: it says nothing
/// and keeps the connection open.
pub fn saying(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut silent: Vec<TcpStream> = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if bytes.is_empty() {
                silent.push(stream);
                continue;
            }
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(bytes);
            });
        }
    });
    address
}

/// An ordinary HTTP/1.1 server.
pub fn http() -> SocketAddr {
    saying(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 10\r\nConnection: close\r\n\r\nnot found\n")
}

/// A probe whose protocol has another revision.
pub struct Newer {
    /// What the agent is given.
    pub address: String,
    _runtime: tokio::runtime::Runtime,
}

impl Newer {
    /// Answers `Describe` with this revision, and refuses to be watched.
    pub fn of_revision(revision: u32) -> Self {
        let (address, runtime) = serve(Service { revision });
        Self { address, _runtime: runtime }
    }
}

fn serve(service: impl Introspect) -> (String, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let listener =
        runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a loopback port is free");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(IntrospectServer::new(service));
    runtime.spawn(server.serve_with_incoming(connections));
    (address, runtime)
}

struct Service {
    revision: u32,
}

#[tonic::async_trait]
impl Introspect for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        let description = Description {
            revision: self.revision,
            probe_version: "99.0.0".to_owned(),
            name: "from-the-future".to_owned(),
            pid: 1,
            instance: "f00f".to_owned(),
            ..Description::default()
        };
        Ok(Response::new(description))
    }

    async fn watch(
        &self,
        _: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::invalid_argument("this revision is watched otherwise"))
    }
}

/// A probe of this revision that is older than the agent: its filters have no field `wakers`. A poll of its has been running
/// since it began, so that there is something to tell.
pub struct Older {
    /// What the agent is given.
    pub address: String,
    _runtime: tokio::runtime::Runtime,
}

impl Older {
    pub fn start() -> Self {
        let (address, runtime) = serve(OldService);
        Self { address, _runtime: runtime }
    }
}

struct OldService;

#[tonic::async_trait]
impl Introspect for OldService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        let description = Description {
            revision: 1,
            probe_version: "0.0.1".to_owned(),
            name: "old".to_owned(),
            pid: 1,
            instance: "01d".to_owned(),
            ..Description::default()
        };
        Ok(Response::new(description))
    }

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap_or_default();
        understood(&first)?;
        let (frames, out) = tokio::sync::mpsc::channel(2);
        tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(100));
            for seq in 1_u64.. {
                let sent = tokio::select! {
                    _ = every.tick() => frames.send(Ok(frame(seq))).await,
                    Ok(Some(next)) = requests.message() => match understood(&next) {
                        Ok(()) => Ok(()),
                        Err(status) => {
                            let _ = frames.send(Err(status)).await;
                            return;
                        }
                    },
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(out))))
    }
}

fn understood(request: &WatchRequest) -> Result<(), Status> {
    match request.standing.iter().any(|query| query.filter.contains("wakers")) {
        true => Err(Status::invalid_argument(
            "filter does not parse at column 12: no field is called `wakers`\nhint: did you mean `wakes`?",
        )),
        false => Ok(()),
    }
}

fn frame(seq: u64) -> Frame {
    let at_ns = seq * 100_000_000;
    let poll = LivePoll { task_id: 7, kind: TaskKind::Task.into(), since_ns: at_ns, ..LivePoll::default() };
    let worker = Worker { poll: Some(poll), ..Worker::default() };
    Frame {
        seq,
        resync: seq == 1,
        at_ns,
        unix_ns: 1_700_000_000_000_000_000 + at_ns,
        runtimes: vec![Runtime { id: 1, workers: vec![worker], ..Runtime::default() }],
        tasks: Some(TaskWindow::default()),
        ..Frame::default()
    }
}
