//! Many WebSockets that stay open: as much of RFC 6455 as that takes, on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Beside those of the connections.
const OTHER_FILES: u64 = 500;

/// Open until this is dropped.
pub struct WebSockets {
    streams: Vec<TcpStream>,
}

impl WebSockets {
    /// One after the other, each answered with the switch of protocols.
    ///
    /// # Panics
    /// If the server does not switch, or this process may not have so many files open.
    #[track_caller]
    pub fn open(server: SocketAddr, count: usize) -> Self {
        allow_files(count as u64 + OTHER_FILES);
        let streams: Vec<TcpStream> = (0..count).map(|_| open(server)).collect();
        for stream in &streams {
            // What the server says is read, so that it never has to wait for us.
            stream.set_nonblocking(true).expect("a socket can be made so");
        }
        Self { streams }
    }

    /// Sends this text on each, and reads what has come.
    ///
    /// # Panics
    /// If one of them has been closed.
    #[track_caller]
    pub fn say(&mut self, text: &str) {
        let frame = text_frame(text);
        let mut came = [0; 16 * 1024];
        for stream in &mut self.streams {
            stream.write_all(&frame).expect("the server reads what it is sent");
            loop {
                match stream.read(&mut came) {
                    Ok(0) => panic!("the server has closed a connection"),
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(error) => panic!("a connection broke: {error}"),
                }
            }
        }
    }
}

/// # Panics
/// If the hard limit is lower.
#[track_caller]
pub fn allow_files(count: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|now| now < count) {
        limit.current = Some(count);
        setrlimit(Resource::Nofile, limit).unwrap_or_else(|error| {
            panic!("{count} files cannot be opened here: {error}\nhint: raise `ulimit -Hn`")
        });
    }
}

fn open(server: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5)).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket takes a timeout");
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the server answers");
        answer.extend(byte);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 101 "), "it did not switch: {answer}");
    stream
}

/// One frame of a client, whose mask leaves the text as it is.
fn text_frame(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).ok().filter(|&len| len < 126).expect("it is short");
    [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat()
}
