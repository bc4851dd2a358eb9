//! Load on a target: bounded in time, on loopback only.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process::Process;

/// Connections that are kept open, each with one request after the other, until this is dropped.
pub struct HttpLoad {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    connections: Vec<JoinHandle<()>>,
}

impl HttpLoad {
    /// Every connection asks for the same path, with a pause between answer and next request.
    pub fn start(server: SocketAddr, path: &str, connections: usize, pause: Duration) -> Self {
        Self::ramp(server, path, connections, pause, Duration::ZERO)
    }

    /// The same, the connections being opened one after the other, the last of them after this time.
    pub fn ramp(server: SocketAddr, path: &str, connections: usize, pause: Duration, over: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let connections = (0..connections)
            .map(|number| {
                let begins = over.mul_f64(number as f64 / connections as f64);
                let (stop, answered, path) = (Arc::clone(&stop), Arc::clone(&answered), path.to_owned());
                std::thread::spawn(move || {
                    std::thread::sleep(begins);
                    // A server that is killed by its test ends the load, not the test.
                    let Ok(mut connection) = HttpConnection::open(server) else { return };
                    while !stop.load(Ordering::Relaxed) && connection.get(&path).is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(pause);
                    }
                })
            })
            .collect();
        Self { stop, answered, connections }
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for HttpLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for connection in self.connections.drain(..) {
            let _ = connection.join();
        }
    }
}

/// One HTTP/1.1 connection.
pub struct HttpConnection {
    reader: BufReader<TcpStream>,
    server: SocketAddr,
}

impl HttpConnection {
    /// No answer may take longer than 30 s.
    pub fn open(server: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream), server })
    }

    /// The status of a GET; the body is read and forgotten.
    pub fn get(&mut self, path: &str) -> std::io::Result<u16> {
        self.ask(path)?;
        self.answer()
    }

    /// Sends a GET without waiting for its answer.
    pub fn ask(&mut self, path: &str) -> std::io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.server);
        self.reader.get_mut().write_all(request.as_bytes())
    }

    fn answer(&mut self) -> std::io::Result<u16> {
        let broken = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| broken("no status line"))?;
        let mut length = 0;
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(broken("the headers do not end"));
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| broken("content-length is no number"))?;
            }
        }
        std::io::copy(&mut self.reader.by_ref().take(length), &mut std::io::sink())?;
        Ok(status)
    }
}

/// `redis-benchmark` from Debian's redis-tools: a real client. It ends with what this gives.
#[track_caller]
pub fn redis_benchmark(port: u16, connections: usize, requests: u64) -> Process {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-t", "set,get", "-q", "-d", "64", "-r", "1000"]);
    command.args(["-p", &port.to_string(), "-c", &connections.to_string(), "-n", &requests.to_string()]);
    Process::start(command)
}
