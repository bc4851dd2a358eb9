//! What a webhook is told, and what it answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// Listens on a port of its own until the test is over.
pub struct Receiver {
    pub url: String,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    messages: Mutex<Vec<Value>>,
    status: AtomicU16,
}

impl Receiver {
    /// Answers 200.
    ///
    /// # Panics
    /// Where there is no port.
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("it has one"));
        let said = Arc::new(Said::default());
        said.status.store(200, Ordering::Relaxed);
        let taker = said.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taker = taker.clone();
                std::thread::spawn(move || taker.take(stream));
            }
        });
        Self { url, said }
    }

    /// Answers with this status from now on. What it does not take, it does not note either.
    pub fn answers(&self, status: u16) {
        self.said.status.store(status, Ordering::Relaxed);
    }

    /// Everything that it took about this alert, in order: `firing`, `resolved`.
    pub fn told(&self, alertname: &str) -> Vec<String> {
        let status = |alert: &Value| alert["status"].as_str().unwrap_or_default().to_owned();
        self.alerts(alertname).iter().map(status).collect()
    }

    /// The same, whole.
    pub fn alerts(&self, alertname: &str) -> Vec<Value> {
        let messages = self.said.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let alerts = messages.iter().filter_map(|message| message["alerts"].as_array()).flatten();
        alerts.filter(|alert| alert["labels"]["alertname"] == alertname).cloned().collect()
    }
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
            let status = self.status.load(Ordering::Relaxed);
            if status == 200 {
                let message = serde_json::from_slice(&body).ok()?;
                self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
            (&stream)
                .write_all(format!("HTTP/1.1 {status} said\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .ok()?;
        }
    }
}
