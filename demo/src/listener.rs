//! Accepts connections and serves the API on each, in a task with a name of its own.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use taskscope_probe::Probe;
use tokio::net::{TcpListener, TcpStream};

/// For a connection to end, where there are no file descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Inside a runtime. Serves on a free port of the loopback device until the runtime ends.
pub(crate) fn listen(probe: Probe, router: Router) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    probe.spawn("http-accept", accept(probe, TcpListener::from_std(listener)?, router));
    Ok(address)
}

async fn accept(probe: Probe, listener: TcpListener, router: Router) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                probe.spawn("http-connection", serve(stream, router.clone()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    // A client that goes away in the middle of a request is no error of ours.
    let _ =
        http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}
