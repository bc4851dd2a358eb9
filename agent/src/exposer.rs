//! The listener for metrics and probes of life: `/metrics`, `/livez`, `/readyz`, and nothing else. Viewers have another one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::headless::Question;
use crate::metrics::Form;

/// A loop that has not answered by then hangs.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| {
        format!("cannot serve metrics on {address}\nhint: choose another port; --metrics says which")
    })
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, questions: mpsc::Sender<Question>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .with_state(questions);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "metrics are served no more");
    }
}

type Questions = State<mpsc::Sender<Question>>;

/// What the agent's loop answers; `None`: it does not.
async fn ask<T>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        questions.send(question(answer)).await.ok()?;
        answered.await.ok()
    };
    tokio::time::timeout(ANSWERED_WITHIN, asked).await.ok().flatten()
}

fn hangs() -> Response {
    let text = format!("the agent's loop has not answered within {} s\n", ANSWERED_WITHIN.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(questions): Questions, headers: HeaderMap) -> Response {
    let form = Form::wanted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    match ask(&questions, |answer| Question::Metrics { form, answer }).await {
        Some(pieces) => {
            let pieces = pieces.map(Ok::<_, std::convert::Infallible>);
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            ([(CONTENT_TYPE, form.content_type())], body).into_response()
        }
        None => hangs(),
    }
}

async fn alive(State(questions): Questions) -> Response {
    match ask(&questions, |answer| Question::Alive { answer }).await {
        Some(()) => "alive\n".into_response(),
        None => hangs(),
    }
}

async fn ready(State(questions): Questions) -> Response {
    match ask(&questions, |answer| Question::Ready { answer }).await {
        Some(Ok(())) => "ready\n".into_response(),
        Some(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
        None => hangs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `/livez`, `/readyz` and `/metrics`.
    async fn answers(questions: &mpsc::Sender<Question>) -> [StatusCode; 3] {
        let it = || State(questions.clone());
        let (alive, ready, metrics) = tokio::join!(alive(it()), ready(it()), metrics(it(), HeaderMap::new()));
        [alive.status(), ready.status(), metrics.status()]
    }

    #[tokio::test]
    async fn a_loop_that_hangs_is_neither_alive_nor_ready() {
        let (questions, asked) = mpsc::channel(64);
        let begun = tokio::time::Instant::now();
        assert_eq!(answers(&questions).await, [StatusCode::SERVICE_UNAVAILABLE; 3]);
        assert!(begun.elapsed() >= ANSWERED_WITHIN, "it is given its time: {:?}", begun.elapsed());
        // One that has ended is known to be at once.
        drop(asked);
        let begun = tokio::time::Instant::now();
        assert_eq!(answers(&questions).await, [StatusCode::SERVICE_UNAVAILABLE; 3]);
        assert!(begun.elapsed() < ANSWERED_WITHIN);
    }

    #[tokio::test]
    async fn a_loop_that_is_not_done_with_its_start_is_alive_and_not_ready() {
        let (questions, mut asked) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                match question {
                    Question::Alive { answer } => drop(answer.send(())),
                    Question::Ready { answer } => {
                        drop(answer.send(Err("shop has not answered yet".to_owned())));
                    }
                    Question::Metrics { answer, .. } => drop(answer.send(Box::new(std::iter::empty()))),
                    _ => panic!("nobody asks that here"),
                }
            }
        });
        assert_eq!(
            answers(&questions).await,
            [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK]
        );
        let body =
            axum::body::to_bytes(ready(State(questions)).await.into_body(), 1000).await.expect("it is short");
        assert_eq!(body, "not ready: shop has not answered yet\n");
    }
}
