//! What an agent serves to viewers: `Introspect` of each of its targets, and `Alerts`. With `connection`, the only file of this
//! crate that knows tonic.
//!
//! Nothing is kept here: each viewer's watch is a watch of its own at the target, so that ids and interned texts are those of
//! the stream; everything else is asked of the agent's loop.

use std::pin::Pin;
use std::time::Duration;

use taskscope_proto::MAX_MESSAGE_BYTES;
use taskscope_proto::v1;
use taskscope_proto::v1::alerts_server::{Alerts, AlertsServer};
use taskscope_proto::v1::introspect_server::{Introspect, IntrospectServer};
use taskscope_proto::v1::{DescribeRequest, Description, Frame, WatchRequest};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::connection::{ConnectError, Connection, TARGET_ENTRY};
use crate::headless::{Question, Refused, ShownAlerts};
use crate::listen::{Listener, loopback, same_user};
use crate::session::resolve;

const MAX_STREAMS: u32 = 64;
const MAX_HEADERS: u32 = 16 << 10;
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Serves until it is dropped.
pub(crate) async fn serve(listener: Listener, questions: mpsc::Sender<Question>) -> Result<(), String> {
    let service = Service { questions };
    let introspect = IntrospectServer::new(service.clone())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let alerts = AlertsServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .add_service(introspect)
        .add_service(alerts);
    let served = match listener {
        Listener::Unix { listener, owner, .. } => {
            server.serve_with_incoming(same_user(listener, owner)).await
        }
        Listener::Loopback { listener, .. } => server.serve_with_incoming(loopback(listener)).await,
    };
    served.map_err(|error| error.to_string())
}

#[derive(Clone)]
struct Service {
    questions: mpsc::Sender<Question>,
}

impl Service {
    /// What the agent's loop answers.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Status> {
        let ended = || Status::unavailable("the agent is ending");
        let (answer, answered) = oneshot::channel();
        self.questions.send(question(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }

    /// A connection of its own to the target that the request names.
    async fn connect<T>(&self, request: &Request<T>) -> Result<Connection, Status> {
        let entry = request.metadata().get(TARGET_ENTRY).map(|value| value.to_str().map(str::to_owned));
        let name = entry
            .transpose()
            .map_err(|_| Status::invalid_argument("the name of the target is no ASCII text"))?;
        let target =
            self.ask(|answer| Question::Target { name, answer }).await?.map_err(Status::not_found)?;
        let address = resolve(&target).map_err(|error| Status::unavailable(error.to_string()))?;
        Connection::open(&address).await.map_err(|error| status(&error))
    }
}

fn status(error: &ConnectError) -> Status {
    match error {
        ConnectError::NoPermission(_) => Status::permission_denied(error.to_string()),
        ConnectError::Refused(_, message) => Status::resource_exhausted(message.clone()),
        _ => Status::unavailable(error.to_string()),
    }
}

#[tonic::async_trait]
impl Introspect for Service {
    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        Ok(Response::new(self.connect(&request).await?.description))
    }

    type WatchStream = Streaming<Frame>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Streaming<Frame>>, Status> {
        let mut connection = self.connect(&request).await?;
        // The target has its own limits, and its words for what is wrong in a request.
        let requests = request.into_inner().map_while(Result::ok);
        Ok(Response::new(connection.relay(requests).await?))
    }
}

#[tonic::async_trait]
impl Alerts for Service {
    async fn list_targets(
        &self,
        _: Request<v1::ListTargetsRequest>,
    ) -> Result<Response<v1::ListTargetsResponse>, Status> {
        let targets = self.ask(|answer| Question::Targets { answer }).await?;
        Ok(Response::new(v1::ListTargetsResponse { targets }))
    }

    type WatchAlertsStream = Pin<Box<dyn Stream<Item = Result<v1::AlertUpdate, Status>> + Send>>;

    async fn watch_alerts(
        &self,
        request: Request<v1::WatchAlertsRequest>,
    ) -> Result<Response<Self::WatchAlertsStream>, Status> {
        let request = request.into_inner();
        let shown = self.ask(|answer| Question::WatchAlerts { request, answer }).await?;
        let ShownAlerts { standing, changes } = shown.map_err(refusal)?;
        let first = tokio_stream::iter(standing).map(|alert| Ok(v1::AlertUpdate { alert: Some(alert) }));
        Ok(Response::new(match changes {
            None => Box::pin(first),
            Some(changes) => {
                let changes = ReceiverStream::new(changes);
                Box::pin(first.chain(changes.map(|told| told.map_err(Status::resource_exhausted))))
            }
        }))
    }

    async fn silence(
        &self,
        request: Request<v1::SilenceRequest>,
    ) -> Result<Response<v1::SilenceResponse>, Status> {
        let request = request.into_inner();
        let made = self.ask(|answer| Question::Silence { request, answer }).await?;
        let id = made.map_err(Status::invalid_argument)?;
        Ok(Response::new(v1::SilenceResponse { id }))
    }

    async fn list_silences(
        &self,
        _: Request<v1::ListSilencesRequest>,
    ) -> Result<Response<v1::ListSilencesResponse>, Status> {
        let silences = self.ask(|answer| Question::Silences { answer }).await?;
        Ok(Response::new(v1::ListSilencesResponse { silences }))
    }

    async fn unsilence(
        &self,
        request: Request<v1::UnsilenceRequest>,
    ) -> Result<Response<v1::UnsilenceResponse>, Status> {
        let id = request.into_inner().id;
        if self.ask(|answer| Question::Unsilence { id, answer }).await? {
            return Ok(Response::new(v1::UnsilenceResponse {}));
        }
        Err(Status::not_found("there is no such silence\nhint: it may be over; list those that there are"))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let request = request.into_inner();
        let explained = self.ask(|answer| Question::Explain { request, answer }).await?;
        let evaluations = explained.map_err(refusal)?;
        Ok(Response::new(v1::ExplainResponse { evaluations }))
    }
}

fn refusal(refused: Refused) -> Status {
    match refused {
        Refused::Unknown(why) => Status::not_found(why),
        Refused::TooMany(why) => Status::resource_exhausted(why),
    }
}
