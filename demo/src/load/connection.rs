//! One keep-alive connection of HTTP/1.1: as much of it as the shop's own answers need, and so as cheap as can be.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::request::Request;

const HEAD_LIMIT: usize = 16 * 1024;

pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// The status and the body. After an error the connection is of no more use.
    pub(crate) async fn ask(&mut self, request: &Request) -> io::Result<(u16, Vec<u8>)> {
        self.stream.write_all(&request.to_bytes()).await?;
        self.received.clear();
        let head = loop {
            if let Some(head) = Head::parse(&self.received)? {
                break head;
            }
            if self.received.len() > HEAD_LIMIT {
                return Err(malformed("a head without an end"));
            }
            self.receive().await?;
        };
        while self.received.len() < head.length + head.body {
            self.receive().await?;
        }
        Ok((head.status, self.received[head.length..head.length + head.body].to_vec()))
    }

    async fn receive(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
struct Head {
    status: u16,
    /// With the empty line.
    length: usize,
    body: usize,
}

impl Head {
    /// None until the head is complete.
    fn parse(received: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let head = str::from_utf8(&received[..end]).map_err(|_| malformed("a head that is no text"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())
        });
        Ok(Some(Self {
            status: status.ok_or_else(|| malformed("no status"))?,
            length: end + 4,
            body: length.flatten().ok_or_else(|| malformed("a body of unknown length"))?,
        }))
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_complete() {
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\ndate: x\r\n\r\nhello";
        let head = Head { status: 202, length: whole.len() - 5, body: 5 };
        for received in 0..whole.len() {
            let parsed = Head::parse(&whole[..received]).unwrap();
            assert_eq!(parsed.is_some(), received >= head.length);
        }
        assert_eq!(Head::parse(whole).unwrap(), Some(head));
        for bad in ["\r\n\r\n", "HTTP/1.1 OK\r\ncontent-length: 1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(Head::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
