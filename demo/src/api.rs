//! The shop's HTTP API. The layer labels each poll of a handler with its method and route.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use taskscope_probe::axum::LabelLayer;

use crate::queue::Full;
use crate::shop::Shop;
use crate::work;

/// What it takes to put an answer together.
const RENDER: Duration = Duration::from_micros(200);
/// More photos at once than a customer has.
const IMPORT_LIMIT: u64 = 256;

pub(crate) fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/photos/{id}", get(photo))
        .route("/albums/{id}", get(album))
        .route("/login", post(log_in))
        .route("/orders", post(order))
        .route("/prices", post(import_prices))
        .route("/resize", post(resize))
        .route("/import", post(import))
        .route("/health", get(health))
        .layer(LabelLayer::new())
        .with_state(shop)
}

type Answer = Result<(StatusCode, Json<Value>), StatusCode>;

async fn photo(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Answer {
    let row = shop.database.query(id).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    work::spend(RENDER);
    Ok((StatusCode::OK, Json(json!({ "photo": id, "version": row.version, "title": format!("Photo {id}") }))))
}

async fn album(State(shop): State<Arc<Shop>>, Path(id): Path<u64>) -> Answer {
    let owner = shop.database.query(id).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let photos = shop.database.query(id + 1).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    work::spend(RENDER);
    Ok((StatusCode::OK, Json(json!({ "album": id, "owner": owner.version, "photos": photos.version }))))
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

async fn log_in(State(shop): State<Arc<Shop>>, Json(login): Json<Login>) -> Answer {
    if !shop.passwords.verify(&login.password) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let session = shop.sessions.log_in(&login.user);
    shop.audit.record(format!("{} logged in as {session}", login.user));
    Ok((StatusCode::CREATED, Json(json!({ "session": session }))))
}

#[derive(Deserialize)]
struct Order {
    photo: u64,
    copies: u32,
}

async fn order(State(shop): State<Arc<Shop>>, Json(order): Json<Order>) -> Answer {
    shop.database.query(order.photo).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let row = shop.database.query(order.copies.into()).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    shop.audit.record(format!("{} copies of {}", order.copies, order.photo));
    let cents = shop.prices.of(order.photo) * u64::from(order.copies);
    Ok((StatusCode::CREATED, Json(json!({ "order": row.version, "cents": cents }))))
}

#[derive(Deserialize)]
struct Resize {
    photo: u64,
}

async fn resize(State(shop): State<Arc<Shop>>, Json(resize): Json<Resize>) -> Answer {
    if !shop.storage.has(resize.photo) {
        return Err(StatusCode::NOT_FOUND);
    }
    match shop.queue.push(resize.photo) {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(json!({ "photo": resize.photo })))),
        Err(Full) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

#[derive(Deserialize)]
struct Import {
    photos: u64,
}

/// Past the queue, straight into the blocking pool: a customer waits for the first look at the album.
async fn import(State(shop): State<Arc<Shop>>, Json(import): Json<Import>) -> Answer {
    if import.photos > IMPORT_LIMIT {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    for photo in 0..import.photos {
        let storage = shop.storage.clone();
        // Nobody waits for it: the page asks for the thumbnails one by one.
        drop(shop.probe.spawn_blocking("thumbnail", move || storage.write_thumbnail(photo)));
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "photos": import.photos }))))
}

async fn import_prices(State(shop): State<Arc<Shop>>) -> StatusCode {
    let prices = shop.prices.clone();
    drop(shop.probe.spawn_blocking("price-import", move || prices.import()));
    StatusCode::ACCEPTED
}

async fn health() -> &'static str {
    "ok"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::fault::Fault;
    use crate::request::Request;
    use crate::testing::{Served, eventually};

    #[test]
    fn every_route_answers() {
        let served = Served::start();
        for (request, status, part) in [
            (Request::get("/photos/7".into()), 200, r#""photo":7"#),
            (Request::get("/albums/3".into()), 200, r#""album":3"#),
            (Request::post("/login", r#"{"user":"ada","password":"secret"}"#.into()), 201, r#""session":41"#),
            (Request::post("/login", r#"{"user":"ada","password":""}"#.into()), 401, ""),
            (Request::post("/orders", r#"{"photo":7,"copies":2}"#.into()), 201, r#""order":"#),
            (Request::post("/orders", r#"{"photo":7,"copies":2}"#.into()), 201, r#""cents":198"#),
            (Request::post("/prices", String::new()), 202, ""),
            (Request::post("/resize", r#"{"photo":7}"#.into()), 202, r#""photo":7"#),
            (Request::post("/resize", r#"{"photo":0}"#.into()), 404, ""),
            (Request::post("/import", r#"{"photos":3}"#.into()), 202, r#""photos":3"#),
            (Request::post("/import", r#"{"photos":9999}"#.into()), 413, ""),
            (Request::get("/health".into()), 200, "ok"),
            (Request::get("/nowhere".into()), 404, ""),
            (Request::post("/resize", "garbage".into()), 400, ""),
        ] {
            let (answered, body) = served.ask(&request);
            assert_eq!(answered, status, "{request:?}");
            assert!(body.contains(part), "{request:?}: {body}");
        }
    }

    #[test]
    fn while_both_workers_are_stuck_in_resize_nothing_else_is_answered() {
        let served = Served::start();
        let shop = &served.shop;
        let until = clock::now() + Duration::from_millis(700);
        shop.break_with(Fault::StuckPoll, until);
        let resize = Request::post("/resize", r#"{"photo":7}"#.into());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(served.ask(&resize).0, 202));
            }
            eventually("both workers are stuck", || shop.storage.hanging_lookups() == 2);
            assert_eq!(served.ask(&Request::get("/health".into())).0, 200);
            assert!(clock::now() >= until, "a worker was free");
        });
        shop.repair(Fault::StuckPoll);
        assert_eq!(served.ask(&resize).0, 202);
    }

    #[test]
    fn an_import_that_holds_the_lock_keeps_both_workers_from_their_orders() {
        let served = Served::start();
        let shop = &served.shop;
        shop.break_with(Fault::Contention, clock::now());
        assert_eq!(served.ask(&Request::post("/prices", String::new())).0, 202);
        let order = Request::post("/orders", r#"{"photo":7,"copies":2}"#.into());
        let longest = (0..4).map(|_| {
            let asked = clock::now();
            assert_eq!(served.ask(&order).0, 201);
            asked.elapsed()
        });
        assert!(longest.max() > Some(Duration::from_millis(500)), "no order waited");
        shop.repair(Fault::Contention);
        eventually("orders are quick again", || {
            let asked = clock::now();
            served.ask(&order);
            asked.elapsed() < Duration::from_millis(100)
        });
    }

    #[test]
    fn a_hanging_disk_fills_the_blocking_pool_and_leaves_the_workers_alone() {
        let served = Served::start();
        let shop = &served.shop;
        shop.break_with(Fault::PoolFull, clock::now());
        assert_eq!(served.ask(&Request::post("/import", r#"{"photos":20}"#.into())).0, 202);
        eventually("8 jobs hang", || shop.storage.hanging_writes() == 8);
        assert_eq!(served.ask(&Request::get("/photos/7".into())).0, 200);
        assert_eq!(shop.storage.hanging_writes(), 8);
        shop.repair(Fault::PoolFull);
        eventually("the disk writes again", || shop.storage.hanging_writes() == 0);
    }
}
