//! The server of mini-redis, unchanged, under the probe's attribute. Prints `port N`.

use tokio::net::TcpListener;

#[taskscope_probe::main(worker_threads = 2)]
async fn main() -> mini_redis::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("port {}", listener.local_addr()?.port());
    mini_redis::server::run(listener, std::future::pending::<()>()).await
}
