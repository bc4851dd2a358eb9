//! Asking over HTTP, and being asked: what a test needs of it and no more.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// The body that is answered, whatever the code.
pub fn get(port: u16, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    Ok(answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned()))
}

/// What `HOST:PORT` answers to a `GET`: the code and the body.
pub fn ask(host: &str, path: &str, accept: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(host).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a limit can be set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
        .expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a head has a code");
    (code, body.to_owned())
}

/// One that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port()
}

/// A receiver of webhooks: keeps every message, and answers 200.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<Vec<Value>>>);

impl Inbox {
    /// Listens on a port of its own until the test is over.
    pub fn open() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        let inbox = Self::default();
        let taker = inbox.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taker = taker.clone();
                std::thread::spawn(move || taker.take(stream));
            }
        });
        (inbox, port)
    }

    fn take(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
            self.0.lock().expect("nobody panicked").push(serde_json::from_slice(&body).expect("it is JSON"));
        }
    }

    /// All messages, in order.
    pub fn messages(&self) -> Vec<Value> {
        self.0.lock().expect("nobody panicked").clone()
    }

    /// What was said of the alert with this fingerprint, in order: `firing`, `resolved`.
    pub fn said(&self, fingerprint: &str) -> Vec<String> {
        let of = |alert: &Value| {
            (alert["fingerprint"] == fingerprint)
                .then(|| alert["status"].as_str().map(str::to_owned))
                .flatten()
        };
        let messages = self.messages();
        messages.iter().filter_map(|it| it["alerts"].as_array()).flatten().filter_map(of).collect()
    }
}
