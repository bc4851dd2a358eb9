//! A connection to a target. The only file of this crate that knows tonic.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use taskscope_proto::v1::alerts_client::AlertsClient;
use taskscope_proto::v1::introspect_client::IntrospectClient;
use taskscope_proto::v1::{
    self, AgentTarget, DescribeRequest, Description, Frame, ListTargetsRequest, StandingQuery, WatchRequest,
};
use taskscope_proto::{MAX_MESSAGE_BYTES, REVISION};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::address::{Address, Target};

/// Bytes of a socket's path that the system takes.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// Bytes that the other end may send before they are read: many groups are 160 KiB. More would only be older for whoever is slow.
const UNDER_WAY: u32 = 256 << 10;
/// A target that has not answered by then is stopped, or no probe.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The metadata entry that names one of an agent's targets.
pub(crate) const TARGET_ENTRY: &str = "taskscope-target";
/// What a silent peer that has gone is noticed by. A process that is stopped still answers: its kernel does.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Why a target cannot be watched, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no socket is at {0}\nhint: `taskscope ls` lists the targets that run here")]
    NoSocket(String),
    #[error(
        "nobody listens at {0}\nhint: the process has ended or not begun; `taskscope ls` lists those that run here"
    )]
    NobodyListens(String),
    #[error(
        "no permission to connect to {0}\nhint: a probe answers the user it runs as (and root); use sudo -u"
    )]
    NoPermission(String),
    #[error(
        "{0}: the path is too long for a socket\nhint: at most {MAX_SOCKET_PATH} bytes; go to its folder by a shorter link"
    )]
    PathTooLong(String),
    #[error(
        "{0} did not answer within {1} s\nhint: the process may be stopped (SIGSTOP, a debugger), or it is no probe"
    )]
    NoAnswer(String, u64),
    #[error(
        "what listens at {0} is no Taskscope probe ({1})\nhint: the address a probe prints at its start is the one to use"
    )]
    NoProbe(String, String),
    #[error(
        "the target at {0} speaks another version of the protocol ({1})\nhint: use the taskscope of the same release as \
         the service's probe"
    )]
    OtherVersion(String, String),
    #[error("{0} refused: {1}")]
    Refused(String, String),
    #[error("the connection to {0} broke: {1}\nhint: the process may have ended")]
    Broken(String, String),
}

/// The targets of an agent; `None`: what answers there is a probe.
pub(crate) async fn targets_of(agent: &Address) -> Result<Option<Vec<AgentTarget>>, ConnectError> {
    Ok(AgentConnection::open(agent).await?.map(|agent| agent.targets))
}

/// The agent at an address that names no target of it; `None`: it is a target that is named.
pub(crate) async fn agent_at(target: Option<&Target>) -> Result<Option<AgentConnection>, ConnectError> {
    match target {
        Some(Target::At(address @ (Address::Unix(_) | Address::Http(_)))) => {
            AgentConnection::open(address).await
        }
        _ => Ok(None),
    }
}

/// An agent that answered.
pub(crate) struct AgentConnection {
    address: String,
    client: AlertsClient<Channel>,
    /// As of the beginning.
    pub(crate) targets: Vec<AgentTarget>,
}

/// What an agent tells of its alerts, as it happens.
pub(crate) struct AlertStream {
    address: String,
    updates: Streaming<v1::AlertUpdate>,
}

impl AgentConnection {
    /// Connects and asks for its targets; `None`: what answers there is a probe.
    pub(crate) async fn open(agent: &Address) -> Result<Option<Self>, ConnectError> {
        let shown = agent.to_string();
        let attempt = async {
            let channel = channel(agent, Arc::default()).await.map_err(|error| failure(&shown, &error))?;
            let mut client = AlertsClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            match client.list_targets(ListTargetsRequest {}).await {
                Ok(answer) => {
                    let targets = answer.into_inner().targets;
                    Ok(Some(Self { address: shown.clone(), client, targets }))
                }
                Err(status) if status.code() == Code::Unimplemented => Ok(None),
                Err(status) => Err(refusal(&shown, &status)),
            }
        };
        within(&shown, attempt).await
    }

    pub(crate) async fn watch_alerts(
        mut self,
        request: v1::WatchAlertsRequest,
    ) -> Result<AlertStream, ConnectError> {
        let updates = answer(&self.address, self.client.watch_alerts(request)).await?;
        Ok(AlertStream { address: self.address, updates })
    }

    pub(crate) async fn explain(
        &mut self,
        request: v1::ExplainRequest,
    ) -> Result<Vec<v1::Evaluation>, ConnectError> {
        let answer = answer(&self.address, self.client.explain(request)).await?;
        Ok(answer.evaluations)
    }

    /// The id of the new silence.
    pub(crate) async fn silence(&mut self, request: v1::SilenceRequest) -> Result<String, ConnectError> {
        Ok(answer(&self.address, self.client.silence(request)).await?.id)
    }

    pub(crate) async fn silences(&mut self) -> Result<Vec<v1::SilenceStatus>, ConnectError> {
        let answer = answer(&self.address, self.client.list_silences(v1::ListSilencesRequest {})).await?;
        Ok(answer.silences)
    }

    pub(crate) async fn unsilence(&mut self, id: String) -> Result<(), ConnectError> {
        answer(&self.address, self.client.unsilence(v1::UnsilenceRequest { id })).await.map(drop)
    }
}

impl AlertStream {
    /// The next alert; `None` where the agent ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<v1::Alert>, ConnectError> {
        let update = self.updates.message().await.map_err(|status| broken(&self.address, &status))?;
        Ok(update.map(|update| update.alert.unwrap_or_default()))
    }
}

async fn answer<T>(
    shown: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ConnectError> {
    within(shown, async { call.await.map(Response::into_inner).map_err(|status| refusal(shown, &status)) })
        .await
}

/// What has not answered by then does not.
async fn within<T>(
    shown: &str,
    attempt: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(ANSWER_WITHIN, attempt)
        .await
        .unwrap_or_else(|_| Err(ConnectError::NoAnswer(shown.to_owned(), ANSWER_WITHIN.as_secs())))
}

/// A target that answered.
pub(crate) struct Connection {
    address: String,
    client: IntrospectClient<InterceptedService<Channel, Named>>,
    pub(crate) description: Description,
    /// The target's process as this machine numbers it; `None`: it is not known to be on this machine.
    pub(crate) process: Option<u32>,
}

/// Says to an agent which of its targets is meant.
#[derive(Clone)]
struct Named(Option<AsciiMetadataValue>);

impl Named {
    fn new(target: Option<&str>, shown: &str) -> Result<Self, ConnectError> {
        let refused = |_| {
            let why = "an agent's targets have names in ASCII\nhint: `taskscope ls AGENT` lists them";
            ConnectError::Refused(shown.to_owned(), why.to_owned())
        };
        target.map(AsciiMetadataValue::try_from).transpose().map(Self).map_err(refused)
    }
}

impl Interceptor for Named {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(name) = &self.0 {
            request.metadata_mut().insert(TARGET_ENTRY, name.clone());
        }
        Ok(request)
    }
}

/// Standing queries that a target has refused, each with what it said: the filter language of an older probe does not know
/// every word of a newer one. By the words of the filter; ids are given anew with each configuration.
pub(crate) type Refused = BTreeMap<String, String>;

/// Frames of one watch, and the way to change what is asked for.
pub(crate) struct Watch {
    address: String,
    /// What was left out of the request.
    pub(crate) refused: Refused,
    requests: mpsc::Sender<WatchRequest>,
    frames: Streaming<Frame>,
}

impl Connection {
    /// Connects and asks who is there.
    pub(crate) async fn open(address: &Address) -> Result<Self, ConnectError> {
        let shown = address.to_string();
        let (address, target) = match address {
            Address::Through { agent, target } => (agent.as_ref(), Some(target.as_str())),
            direct => (direct, None),
        };
        if let Address::Unix(path) = address
            && path.as_os_str().len() > MAX_SOCKET_PATH
        {
            return Err(ConnectError::PathTooLong(shown));
        }
        let process = Arc::new(OnceLock::new());
        let attempt = async {
            let channel = channel(address, process.clone()).await.map_err(|error| failure(&shown, &error))?;
            let mut client = IntrospectClient::with_interceptor(channel, Named::new(target, &shown)?)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            let description = client
                .describe(DescribeRequest {})
                .await
                .map_err(|status| refusal(&shown, &status))?
                .into_inner();
            Ok((client, description))
        };
        let (client, description) = tokio::time::timeout(ANSWER_WITHIN, attempt)
            .await
            .unwrap_or_else(|_| Err(ConnectError::NoAnswer(shown.clone(), ANSWER_WITHIN.as_secs())))?;
        if description.revision == 0 || description.revision > REVISION {
            let theirs = format!("revision {}, this program speaks {REVISION}", description.revision);
            return Err(ConnectError::OtherVersion(shown, theirs));
        }
        // At the other end of an agent's socket is the agent.
        let process = process.get().copied().filter(|_| target.is_none());
        Ok(Self { address: shown, client, description, process })
    }

    /// What the target says on a watch of its own, for somebody else: as it came, ids, interned texts and refusals included.
    pub(crate) async fn relay(
        &mut self,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<Streaming<Frame>, Status> {
        self.client.watch(requests).await.map(tonic::Response::into_inner)
    }

    /// Begins a watch. Standing queries that the target does not understand are left out: one of them would otherwise keep
    /// all the others from being answered.
    pub(crate) async fn watch(&mut self, mut request: WatchRequest) -> Result<Watch, ConnectError> {
        let mut refused = Refused::new();
        let mut begun = self.begin(request.clone()).await;
        if is_misunderstood(&begun) {
            refused = self.refused(&request.standing).await;
            if !refused.is_empty() {
                leave_out(&mut request, &refused);
                begun = self.begin(request).await;
            }
        }
        let (requests, frames) = begun.map_err(|status| broken(&self.address, &status))?;
        Ok(Watch { address: self.address.clone(), refused, requests, frames })
    }

    async fn begin(&mut self, request: WatchRequest) -> Result<Begun, Status> {
        let (requests, queue) = mpsc::channel(8);
        requests.try_send(request).map_err(|error| Status::internal(error.to_string()))?;
        let frames = self.client.watch(ReceiverStream::new(queue)).await?.into_inner();
        Ok((requests, frames))
    }

    /// Asks for each alone. Costs a target that refuses one as many requests as there are queries, and no walk: what is
    /// understood is not waited for.
    async fn refused(&mut self, standing: &[StandingQuery]) -> Refused {
        let mut refused = Refused::new();
        for query in standing {
            let alone = WatchRequest { standing: vec![query.clone()], once: true, ..WatchRequest::default() };
            let answer = self.begin(alone).await;
            if is_misunderstood(&answer)
                && let Err(status) = answer
            {
                let said = status.message().lines().next().unwrap_or_default();
                refused.insert(query.filter.clone(), taskscope_proto::words::printable(said));
            }
        }
        refused
    }

    /// One frame.
    pub(crate) async fn ask(&mut self, request: WatchRequest) -> Result<Frame, ConnectError> {
        let mut watch = self.watch(WatchRequest { once: true, ..request }).await?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, watch.next());
        match answer.await {
            Ok(Ok(Some(frame))) => Ok(frame),
            Ok(Ok(None)) => {
                Err(ConnectError::Broken(self.address.clone(), "it ended without an answer".into()))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConnectError::NoAnswer(self.address.clone(), ANSWER_WITHIN.as_secs())),
        }
    }
}

/// The way to change a request, and the frames that answer it.
type Begun = (mpsc::Sender<WatchRequest>, Streaming<Frame>);

fn is_misunderstood(answer: &Result<Begun, Status>) -> bool {
    answer.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument)
}

/// Asks for no more of what has been refused.
pub(crate) fn leave_out(request: &mut WatchRequest, refused: &Refused) {
    request.standing.retain(|query| !refused.contains_key(&query.filter));
}

impl Watch {
    /// The next frame; `None` where the target ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ConnectError> {
        self.frames.message().await.map_err(|status| broken(&self.address, &status))
    }

    /// A handle with which the request can be changed.
    pub(crate) fn requests(&self) -> mpsc::Sender<WatchRequest> {
        self.requests.clone()
    }
}

/// `process` is filled with that of the other end, where the system tells.
async fn channel(address: &Address, process: Arc<OnceLock<u32>>) -> Result<Channel, tonic::transport::Error> {
    match address {
        Address::Unix(path) => {
            let path = path.clone();
            let connect = tower::service_fn(move |_: Uri| {
                let (path, process) = (path.clone(), process.clone());
                async move {
                    let stream = tokio::net::UnixStream::connect(path).await?;
                    // As it was when it began to listen: of this process, and in the numbers of this machine.
                    if let Some(pid) = stream.peer_cred().ok().and_then(|peer| peer.pid()) {
                        process.get_or_init(|| pid.unsigned_abs());
                    }
                    Ok::<_, io::Error>(TokioIo::new(stream))
                }
            });
            // The URI is never looked up: the connector knows the path.
            roomy(Endpoint::from_static("http://localhost")).connect_with_connector(connect).await
        }
        Address::Http(url) => {
            let endpoint = roomy(Endpoint::from_shared(url.clone())?).connect_timeout(ANSWER_WITHIN);
            endpoint.tcp_keepalive(Some(KEEP_ALIVE)).connect().await
        }
        // Whoever opens the connection has taken the name off.
        Address::Through { agent, .. } => Box::pin(channel(agent, process)).await,
    }
}

/// A whole frame of a large target fits into what may be under way, so that it never waits for leave to send the rest.
fn roomy(endpoint: Endpoint) -> Endpoint {
    endpoint.initial_stream_window_size(UNDER_WAY).initial_connection_window_size(UNDER_WAY)
}

/// The system's error below a chain, if there is one.
fn io_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// The last error of a chain: the one that says what happened.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    taskscope_proto::words::printable(&cause.to_string())
}

fn failure(address: &str, error: &(dyn Error + 'static)) -> ConnectError {
    let address = address.to_owned();
    match io_cause(error) {
        Some(io) if io.kind() == io::ErrorKind::NotFound => ConnectError::NoSocket(address),
        Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => ConnectError::NobodyListens(address),
        Some(io) if io.kind() == io::ErrorKind::PermissionDenied => ConnectError::NoPermission(address),
        Some(io) if io.kind() == io::ErrorKind::TimedOut => {
            ConnectError::NoAnswer(address, ANSWER_WITHIN.as_secs())
        }
        _ => ConnectError::Broken(address, root_cause(error)),
    }
}

/// What a status means that comes from a probe: it has described itself before.
fn broken(address: &str, status: &Status) -> ConnectError {
    match refusal(address, status) {
        ConnectError::NoProbe(address, cause) => ConnectError::Broken(address, cause),
        other => other,
    }
}

fn refusal(address: &str, status: &Status) -> ConnectError {
    let message =
        taskscope_proto::words::printable(&status.message().replace('\n', "\u{1}")).replace('\u{fffd}', "\n");
    let address = address.to_owned();
    match status.code() {
        Code::Unimplemented => ConnectError::OtherVersion(address, "it does not serve taskscope.v1".into()),
        Code::InvalidArgument
        | Code::NotFound
        | Code::ResourceExhausted
        | Code::PermissionDenied
        | Code::Unauthenticated => ConnectError::Refused(address, message),
        // An HTTP/1 server, another protocol or noise: HTTP/2 fails, and tonic has no code of its own for it.
        _ if is_foreign(status) => ConnectError::NoProbe(address, foreign_cause(status)),
        _ => ConnectError::Broken(address, status.source().map_or(message, root_cause)),
    }
}

fn foreign_cause(status: &Status) -> String {
    status.source().map_or_else(|| status.message().lines().next().unwrap_or("").to_owned(), root_cause)
}

/// Whether the other end broke HTTP/2 or answered something that is no gRPC.
fn is_foreign(status: &Status) -> bool {
    let said = format!("{status:?}").to_ascii_lowercase();
    let marks = [
        "protocol error",
        "frame with invalid size",
        "http2 error",
        "invalid compression flag",
        "grpc-status",
        "content-type",
    ];
    marks.iter().any(|mark| said.contains(mark))
}
