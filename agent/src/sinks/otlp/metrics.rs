//! Figures of the targets, posted to a collector at an interval. They are sums since a beginning: what could not be sent is not
//! kept, the next ones say it too.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use prost::Message;
use reqwest::Url;
use reqwest::header::HeaderMap;
use taskscope_proto::words::printable;
use tokio::sync::{mpsc, oneshot};

use crate::headless::Question;
use crate::sinks::post::{Outcome, Receiver};

/// Of one request, but for a resource that is greater: receivers take 2 MiB at least.
const MOST_BYTES: usize = 1 << 20;
/// A loop that has not answered by then hangs; the next figures are asked for in their turn.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Where metrics are posted of an endpoint.
pub(in crate::sinks) fn url(endpoint: &Url) -> Url {
    super::below(endpoint, "/v1/metrics")
}

/// What a sink of metrics has.
#[derive(Debug)]
pub(in crate::sinks) struct Exporter {
    pub(in crate::sinks) receiver: Receiver,
    pub(in crate::sinks) every: Duration,
    /// The agent's loop.
    pub(in crate::sinks) questions: mpsc::Sender<Question>,
}

impl Exporter {
    /// The figures of now; `None`: the agent's loop does not answer.
    pub(in crate::sinks) async fn figures(&self) -> Option<Vec<ResourceMetrics>> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.questions.send(Question::Figures { answer }).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(ANSWERED_WITHIN, asked).await.ok().flatten()
    }

    /// One request after another, until one cannot be delivered.
    pub(in crate::sinks) async fn deliver(&self, figures: Vec<ResourceMetrics>) -> Outcome {
        let mut refused = None;
        for part in parts(figures) {
            let outcome = self.post(part).await;
            match outcome {
                Outcome::Delivered(_) => {}
                // Another target's may be taken.
                Outcome::Refused(why) | Outcome::Rejected { why, .. } => refused = Some(why),
                later @ Outcome::Later { .. } => return later,
            }
        }
        refused.map_or_else(|| Outcome::Delivered(Vec::new()), Outcome::Refused)
    }

    async fn post(&self, resource_metrics: Vec<ResourceMetrics>) -> Outcome {
        let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
        let outcome = self.receiver.post("application/x-protobuf", HeaderMap::new(), body).await;
        let Outcome::Delivered(answer) = &outcome else { return outcome };
        // An answer that cannot be understood says nothing about what was refused.
        let partly =
            ExportMetricsServiceResponse::decode(answer.as_slice()).ok().and_then(|it| it.partial_success);
        match partly {
            Some(partly) if partly.rejected_data_points > 0 => Outcome::Refused(format!(
                "it rejects {} figures: {}",
                partly.rejected_data_points,
                printable(&partly.error_message)
            )),
            _ => outcome,
        }
    }
}

/// In order, each small enough for a receiver.
fn parts(figures: Vec<ResourceMetrics>) -> Vec<Vec<ResourceMetrics>> {
    let mut parts: Vec<Vec<ResourceMetrics>> = Vec::new();
    let mut bytes = 0;
    for it in figures {
        let length = it.encoded_len();
        match parts.last_mut() {
            Some(part) if bytes + length <= MOST_BYTES => part.push(it),
            _ => {
                parts.push(vec![it]);
                bytes = 0;
            }
        }
        bytes += length;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_is_greater_than_receivers_take() {
        let of = |bytes: usize| ResourceMetrics { schema_url: "x".repeat(bytes), ..Default::default() };
        let sizes = |all: Vec<ResourceMetrics>| -> Vec<usize> { parts(all).iter().map(Vec::len).collect() };
        assert_eq!(sizes(vec![]), Vec::<usize>::new());
        assert_eq!(sizes(vec![of(10), of(20)]), [2]);
        assert_eq!(sizes(vec![of(600_000), of(400_000), of(100_000), of(3_000_000), of(1)]), [2, 1, 1, 1]);
    }
}
