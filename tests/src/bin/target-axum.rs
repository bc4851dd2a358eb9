//! An HTTP service with two routes, of which `GET /slow?ms=N` blocks its worker. Prints `port N`.
//!
//! `--label-layer on|off`: whether its routes are labelled.

use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::routing::get;

#[taskscope_probe::main(worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let labelled = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--label-layer", "on"] => true,
        ["--label-layer", "off"] => false,
        _ => panic!("usage: target-axum --label-layer on|off"),
    };
    let mut app = Router::new().route("/fast", get(fast)).route("/slow", get(slow));
    if labelled {
        app = app.layer(taskscope_probe::axum::LabelLayer::new());
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("port {}", listener.local_addr()?.port());
    axum::serve(listener, app).await
}

async fn fast() -> &'static str {
    "fast\n"
}

async fn slow(Query(query): Query<std::collections::HashMap<String, String>>) -> &'static str {
    let milliseconds = query.get("ms").and_then(|ms| ms.parse().ok()).unwrap_or(200);
    // The fault on purpose: it blocks the worker.
    std::thread::sleep(Duration::from_millis(milliseconds));
    "slow\n"
}
