//! Peers that are no probe of this version. Each listens on a loopback port for as long as it lives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;

use taskscope_proto::v1::introspect_server::{Introspect, IntrospectServer};
use taskscope_proto::v1::{DescribeRequest, Description, Frame, WatchRequest};
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
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a loopback port is free");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(IntrospectServer::new(Service { revision }))
                .serve_with_incoming(connections),
        );
        Self { address, _runtime: runtime }
    }
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
