//! Labels for axum (feature `axum`): every poll of a handler is labelled with its method and matched path, because all
//! handlers of an HTTP server share one spawn site.

use std::task::{Context, Poll};

use axum::extract::MatchedPath;
use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::capture::label::{Labelled, find_parts};
use crate::engine;
use crate::registry::labels::LabelIndex;

/// Labels each poll of the handlers below it, such as `POST /resize`, and counts their requests. Put it on the router
/// with `Router::layer` after the routes: a request that matched none has no path and stays unlabelled.
///
/// Cost a request: one look-up of the label; a poll: as [`crate::label`].
///
/// ```
/// let app: axum::Router = axum::Router::new()
///     // routes
///     .layer(taskscope_probe::axum::LabelLayer::new());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelLayer {}

impl LabelLayer {
    pub fn new() -> Self {
        Self {}
    }
}

impl<S> Layer<S> for LabelLayer {
    type Service = LabelService<S>;

    fn layer(&self, inner: S) -> LabelService<S> {
        LabelService { inner }
    }
}

/// The service of [`LabelLayer`].
#[derive(Clone, Copy, Debug)]
pub struct LabelService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for LabelService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Labelled<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let label = label_of(&request);
        Labelled::with_label(label, self.inner.call(request))
    }
}

fn label_of<B>(request: &Request<B>) -> Option<LabelIndex> {
    let registry = engine::registry()?;
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let label = find_parts(registry, &[request.method().as_str(), " ", path])?;
    registry.labels.entry(label).add_request();
    Some(label)
}
