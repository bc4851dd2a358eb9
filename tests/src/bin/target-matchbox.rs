//! The signalling server of matchbox (axum, two tasks for each WebSocket), unchanged, under the probe's attribute. Prints
//! `port N`.

use std::net::Ipv4Addr;

use matchbox_signaling::SignalingServer;

#[taskscope_probe::main(worker_threads = 2)]
async fn main() -> Result<(), matchbox_signaling::Error> {
    let mut server = SignalingServer::client_server_builder((Ipv4Addr::LOCALHOST, 0)).build();
    println!("port {}", server.bind()?.port());
    server.serve().await
}
