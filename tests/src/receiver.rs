//! Who is told over HTTP, in JSON: what it was told, and what it answers, where it does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::eventually;

/// Listens on a port of its own until the test is over, or until it dies.
pub struct Receiver {
    pub port: u16,
    pub url: String,
    said: Arc<Said>,
    door: Option<JoinHandle<()>>,
}

struct Said {
    /// What it took, in order.
    messages: Mutex<Vec<Value>>,
    /// Requests that it has read, whatever it answered.
    asked: AtomicUsize,
    manner: Mutex<Manner>,
    is_open: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// What it does with a request that it has read.
#[derive(Clone, Copy)]
enum Manner {
    Answers { status: u16, retry_after: Option<Duration> },
    SaysNothing,
    HangsUp,
}

impl Receiver {
    /// Answers 200.
    ///
    /// # Panics
    /// Where there is no port.
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        let said = Arc::new(Said {
            messages: Mutex::default(),
            asked: AtomicUsize::new(0),
            manner: Mutex::new(Manner::Answers { status: 200, retry_after: None }),
            is_open: AtomicBool::new(true),
            streams: Mutex::default(),
        });
        let door = Some(open(listener, said.clone()));
        Self { port, url: format!("http://127.0.0.1:{port}/"), said, door }
    }

    /// Answers with this status from now on. What it does not take, it does not note either.
    pub fn answers(&self, status: u16) {
        *held(&self.said.manner) = Manner::Answers { status, retry_after: None };
    }

    /// Answers from now on that it has too much to do, and wants to be left alone for so many seconds.
    pub fn asks_to_wait(&self, seconds: u64) {
        let retry_after = Some(Duration::from_secs(seconds));
        *held(&self.said.manner) = Manner::Answers { status: 429, retry_after };
    }

    /// Reads what it is sent from now on, and answers nothing.
    pub fn says_nothing(&self) {
        *held(&self.said.manner) = Manner::SaysNothing;
    }

    /// Ends each connection from now on when it has read what it was sent, as one that dies over it.
    pub fn hangs_up(&self) {
        *held(&self.said.manner) = Manner::HangsUp;
    }

    /// Nobody listens any more, and all connections have ended.
    ///
    /// # Panics
    /// If it is dead already.
    pub fn dies(&mut self) {
        self.said.is_open.store(false, Ordering::SeqCst);
        // Whoever waits for a connection is given one.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.door.take().expect("it lives").join().expect("it does not panic");
        for stream in held(&self.said.streams).drain(..) {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again where it listened before, and answers 200.
    #[track_caller]
    pub fn comes_back(&mut self) {
        self.answers(200);
        self.said.is_open.store(true, Ordering::SeqCst);
        let again = || TcpListener::bind(("127.0.0.1", self.port)).map_err(|error| error.to_string());
        self.door = Some(open(eventually(Duration::from_secs(10), again), self.said.clone()));
    }

    /// How many requests it has read, whether it took them or not.
    pub fn asked(&self) -> usize {
        self.said.asked.load(Ordering::SeqCst)
    }

    /// All messages that it took, in order.
    pub fn messages(&self) -> Vec<Value> {
        held(&self.said.messages).clone()
    }

    /// Everything that it took about this alert, in order: `firing`, `resolved`.
    pub fn told(&self, alertname: &str) -> Vec<String> {
        self.alerts(alertname).iter().map(status).collect()
    }

    /// What it took about the alert with this fingerprint, in order.
    pub fn said(&self, fingerprint: &str) -> Vec<String> {
        let of = |alert: &Value| (alert["fingerprint"] == fingerprint).then(|| status(alert));
        held(&self.said.messages).iter().flat_map(alerts).filter_map(of).collect()
    }

    /// Everything that it took about this alert, whole.
    pub fn alerts(&self, alertname: &str) -> Vec<Value> {
        let messages = held(&self.said.messages);
        let all = messages.iter().flat_map(alerts);
        all.filter(|alert| alert["labels"]["alertname"] == alertname).cloned().collect()
    }
}

/// Those of a webhook's message, or of a list for an Alertmanager.
fn alerts(message: &Value) -> impl Iterator<Item = &Value> {
    message["alerts"].as_array().or_else(|| message.as_array()).into_iter().flatten()
}

fn status(alert: &Value) -> String {
    alert["status"].as_str().unwrap_or_default().to_owned()
}

fn open(listener: TcpListener, said: Arc<Said>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if !said.is_open.load(Ordering::SeqCst) {
                return;
            }
            held(&said.streams).extend(stream.try_clone());
            let said = said.clone();
            std::thread::spawn(move || said.take(stream));
        }
    })
}

impl Said {
    /// `None` at the end of the connection.
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
            self.asked.fetch_add(1, Ordering::SeqCst);
            let manner = *held(&self.manner);
            let (status, retry_after) = match manner {
                Manner::Answers { status, retry_after } => (status, retry_after),
                // Until the other end has had enough of it.
                Manner::SaysNothing => return reader.read(&mut [0]).ok().and(None),
                Manner::HangsUp => return stream.shutdown(Shutdown::Both).ok().and(None),
            };
            if status == 200 {
                held(&self.messages).push(serde_json::from_slice(&body).ok()?);
            }
            let wait = retry_after.map(|it| format!("retry-after: {}\r\n", it.as_secs())).unwrap_or_default();
            let answer = format!("HTTP/1.1 {status} said\r\n{wait}content-length: 0\r\n\r\n");
            (&stream).write_all(answer.as_bytes()).ok()?;
        }
    }
}

fn held<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
