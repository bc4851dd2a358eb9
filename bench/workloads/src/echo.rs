//! An HTTP echo over loopback: a server with one worker in the mode that is measured, and a child process as its load.
//!
//! The child is a program of this package's, too (of the bare mode): a load in this process would be in its figures.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::counted::counted_thread;
use crate::stopwatch::cpu_ns_of;
use crate::{Mode, on_worker, runtime};

/// Connections of the load, each with one request under way.
const CONNECTIONS: u32 = 16;

/// What a request costs.
pub(crate) struct Cost {
    /// CPU time of the server's worker.
    pub(crate) worker_ns: f64,
    /// As the client saw it.
    pub(crate) p999_ns: f64,
}

/// Serves what the load asks for, after a warm-up of the load's.
pub(crate) fn cost<M: Mode>(client: &str) -> Cost {
    let (runtime, mode) = runtime::<M>(1);
    let (address, worker) = serve::<M>(&runtime);
    let mut load = Load::start(client, address, &[CONNECTIONS.to_string()]);
    load.read("warm");
    let before = worker.cpu_ns();
    load.go();
    let requests = load.read("requests");
    let p999_ns = load.read("p999_ns");
    let worker_ns = (worker.cpu_ns() - before) as f64 / requests;
    load.end();
    drop(runtime);
    drop(mode);
    Cost { worker_ns, p999_ns }
}

/// Serves `requests`, one after the other on one connection, so that no two share a wake.
pub(crate) fn counted<M: Mode>(client: &str, requests: u64) -> u64 {
    let (runtime, mode) = runtime::<M>(1);
    let (address, _) = serve::<M>(&runtime);
    let mut load = Load::start(client, address, &["1".to_owned(), requests.to_string()]);
    load.read("warm");
    load.go();
    let did = load.read("requests");
    load.end();
    drop(runtime);
    drop(mode);
    did as u64
}

/// Starts the server; all of it is on the one worker.
fn serve<M: Mode>(runtime: &Runtime) -> (SocketAddr, Worker) {
    on_worker::<M, _>(runtime, async {
        counted_thread();
        let worker = Worker::this();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a listener has an address");
        M::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                stream.set_nodelay(true).expect("a connection takes its options");
                M::spawn(async move {
                    let serving = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(echo));
                    // The load hangs up when it is done.
                    let _ = serving.await;
                });
            }
        });
        (address, worker)
    })
}

async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, Infallible> {
    Ok(Response::new(request.into_body()))
}

/// A thread, for its CPU time.
struct Worker {
    /// Its folder in `/proc`.
    thread: PathBuf,
}

impl Worker {
    fn this() -> Self {
        let thread = std::fs::read_link("/proc/thread-self").expect("Linux tells a thread its number");
        Self { thread: PathBuf::from("/proc").join(thread) }
    }

    /// The kernel adds up a thread's time when it stops running: this waits until the worker must have parked.
    fn cpu_ns(&self) -> u64 {
        std::thread::sleep(Duration::from_millis(5));
        cpu_ns_of(&self.thread).expect("the kernel keeps threads' times")
    }
}

/// The child process that asks.
struct Load {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Load {
    fn start(client: &str, address: SocketAddr, more: &[String]) -> Self {
        let mut child = Command::new(client)
            .arg("load")
            .arg(address.to_string())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load can be started");
        let input = child.stdin.take().expect("the load's input is a pipe");
        let output = BufReader::new(child.stdout.take().expect("the load's output is a pipe"));
        Self { child, input, output }
    }

    /// The number on the next line, which has this name.
    fn read(&mut self, name: &str) -> f64 {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the load can be read");
        let value = line.strip_prefix(name).and_then(|value| value.trim().parse().ok());
        value.unwrap_or_else(|| panic!("the load said {line:?}; expected {name}"))
    }

    fn go(&mut self) {
        writeln!(self.input, "go").expect("the load reads");
    }

    fn end(mut self) {
        drop(self.input);
        self.child.wait().expect("the load ends");
    }
}
