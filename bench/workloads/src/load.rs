//! The load on the echo server: connections that each have one request under way. As little of a client as will do.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stopwatch::now;
use crate::{Mode, on_worker, runtime};

const REQUEST: &[u8] = b"POST /echo HTTP/1.1\r\nhost: bench\r\ncontent-length: 64\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const BODY_BYTES: usize = 64;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// How long the measured part is to last, and the warm-up that tells how many requests that are.
const AIM: Duration = Duration::from_millis(600);
const WARM_UP: u64 = 4000;

/// Warms up, prints `warm N`, waits for a line, asks, and prints `requests N` and `p999_ns N`. With `requests` given there
/// is no warm-up.
pub(crate) fn run<M: Mode>(address: &str, connections: u32, requests: Option<u64>) {
    let (runtime, _mode) = runtime::<M>(1);
    let address = address.to_owned();
    let streams = on_worker::<M, _>(&runtime, async move {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(&address).await.expect("the server listens");
            stream.set_nodelay(true).expect("a connection takes its options");
            streams.push(stream);
        }
        streams
    });
    let (streams, requests) = match requests {
        Some(requests) => (streams, requests),
        None => {
            let began = now();
            let (streams, _) = on_worker::<M, _>(&runtime, asked::<M>(streams, WARM_UP));
            (streams, (WARM_UP as f64 * AIM.as_secs_f64() / began.elapsed().as_secs_f64()) as u64)
        }
    };
    say("warm", requests);
    std::io::stdin().read_line(&mut String::new()).expect("the server says when");
    let (_streams, mut took) = on_worker::<M, _>(&runtime, asked::<M>(streams, requests));
    took.sort_unstable();
    say("requests", took.len() as u64);
    say("p999_ns", took[took.len() * 999 / 1000]);
}

fn say(name: &str, value: u64) {
    println!("{name} {value}");
    std::io::stdout().flush().expect("the server reads");
}

/// Asks so often over all connections together; the times in nanoseconds.
async fn asked<M: Mode>(streams: Vec<TcpStream>, requests: u64) -> (Vec<TcpStream>, Vec<u64>) {
    let left = Arc::new(AtomicI64::new(requests as i64));
    let asking: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            let left = Arc::clone(&left);
            M::spawn(async move {
                let mut connection = Connection { stream, answer: Vec::with_capacity(1024) };
                let mut took = Vec::new();
                while left.fetch_sub(1, Relaxed) > 0 {
                    let began = now();
                    connection.ask().await;
                    took.push(began.elapsed().as_nanos() as u64);
                }
                (connection.stream, took)
            })
        })
        .collect();
    let mut streams = Vec::new();
    let mut all = Vec::new();
    for asking in asking {
        let (stream, took) = asking.await.expect("a connection does not panic");
        streams.push(stream);
        all.extend(took);
    }
    (streams, all)
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Sends the body, and reads until it is back.
    async fn ask(&mut self) {
        self.stream.write_all(REQUEST).await.expect("the server reads");
        self.answer.clear();
        while !self.is_answered() {
            let read = self.stream.read_buf(&mut self.answer).await.expect("the server answers");
            assert!(read > 0, "the server hung up in its answer {:?}", String::from_utf8_lossy(&self.answer));
        }
        assert!(self.answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&self.answer));
    }

    fn is_answered(&self) -> bool {
        let head = self.answer.windows(HEAD_END.len()).position(|four| four == HEAD_END);
        head.is_some_and(|at| self.answer.len() >= at + HEAD_END.len() + BODY_BYTES)
    }
}
