//! Sinks with their HTTP clients, which read certificates from the disk and are made before anything is started, on no agent's loop.
//! A client is made once: what is configured as it was keeps its own.

use reqwest::Url;

use super::post::Receiver;
use super::{Kind, Sink, otlp};

/// All sinks of a configuration, each of which can be started. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    parts: Vec<Part>,
}

/// What has a task of its own.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Of an Alertmanager, with this instance alone; of OTLP with alerts or with metrics.
    pub(super) sink: Sink,
    /// `None`: it is standard output.
    pub(super) receiver: Option<Receiver>,
}

impl Prepared {
    /// Takes from `before` what is the same. Reads files: it does not belong on a loop. The error says which sink cannot be, and why.
    pub(crate) fn of<'a>(
        configured: impl IntoIterator<Item = &'a Sink>,
        before: &Self,
    ) -> anyhow::Result<Self> {
        Self::made(configured, before, |part, url| {
            Receiver::new(url, part.timeout)
                .map_err(|why| anyhow::anyhow!("the sink \"{}\": {why}", part.name))
        })
    }

    fn made<'a>(
        configured: impl IntoIterator<Item = &'a Sink>,
        before: &Self,
        mut receiver: impl FnMut(&Sink, Url) -> anyhow::Result<Receiver>,
    ) -> anyhow::Result<Self> {
        let part = |sink: Sink| {
            if let Some(same) = before.parts.iter().find(|part| part.sink == sink) {
                return Ok(same.clone());
            }
            let receiver = url(&sink).map(|url| receiver(&sink, url)).transpose()?;
            Ok(Part { sink, receiver })
        };
        let parts = configured.into_iter().flat_map(parts).map(part).collect::<anyhow::Result<_>>()?;
        Ok(Self { parts })
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// The sink once for each task that it has.
fn parts(sink: &Sink) -> Vec<Sink> {
    let of = |kind| Sink { kind, ..sink.clone() };
    match &sink.kind {
        Kind::Stdout | Kind::Webhook { .. } => vec![sink.clone()],
        Kind::Otlp { endpoint, alerts, metrics } => {
            let otlp = |alerts, metrics| of(Kind::Otlp { endpoint: endpoint.clone(), alerts, metrics });
            let logs = alerts.then(|| otlp(true, None));
            logs.into_iter().chain(metrics.map(|every| otlp(false, Some(every)))).collect()
        }
        Kind::Alertmanager { urls, resend } => {
            let instance = |url: &Url| of(Kind::Alertmanager { urls: vec![url.clone()], resend: *resend });
            urls.iter().map(instance).collect()
        }
    }
}

/// Where a part posts to.
fn url(part: &Sink) -> Option<Url> {
    match &part.kind {
        Kind::Stdout => None,
        Kind::Webhook { url, .. } => Some(url.clone()),
        Kind::Otlp { endpoint, metrics: Some(_), .. } => Some(otlp::metrics::url(endpoint)),
        Kind::Otlp { endpoint, metrics: None, .. } => Some(otlp::logs_url(endpoint)),
        Kind::Alertmanager { urls, .. } => urls.first().cloned().map(|mut url| {
            url.set_path(&format!("{}/api/v2/alerts", url.path().trim_end_matches('/')));
            url
        }),
    }
}

/// `HOST:PORT` of an instance of an Alertmanager; empty for others.
pub(super) fn instance(part: &Sink) -> String {
    let Kind::Alertmanager { urls, .. } = &part.kind else { return String::new() };
    let instance = |url: &Url| {
        let port = url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", url.host_str().unwrap_or_default())
    };
    urls.first().map(instance).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sinks::tests::sink;

    fn at(url: &str) -> Url {
        Url::parse(url).expect("a URL")
    }

    fn webhook(name: &str) -> Sink {
        sink(name, Kind::Webhook { url: at("http://hook/x"), secret_file: None, repeat: None })
    }

    fn alertmanager(hosts: &[&str]) -> Sink {
        let urls = hosts.iter().map(|host| at(&format!("http://{host}:9093/am/"))).collect();
        sink("am", Kind::Alertmanager { urls, resend: Duration::from_secs(60) })
    }

    /// Gives, too, to where a client was made.
    fn prepared(configured: &[Sink], before: &Prepared) -> (Prepared, Vec<String>) {
        let mut made = Vec::new();
        let prepared = Prepared::made(configured, before, |part, url| {
            made.push(url.to_string());
            Ok(Receiver::new(url, part.timeout).expect("it speaks no TLS"))
        });
        (prepared.expect("they can be made"), made)
    }

    #[test]
    fn a_client_is_made_once_for_each_receiver_and_again_only_where_its_sink_changes() {
        let otlp =
            Kind::Otlp { endpoint: at("http://otlp/"), alerts: true, metrics: Some(Duration::from_secs(30)) };
        let all = [sink("out", Kind::Stdout), webhook("hook"), alertmanager(&["a", "b"]), sink("otlp", otlp)];
        let (before, made) = prepared(&all, &Prepared::default());
        let wanted = [
            "http://hook/x",
            "http://a:9093/am/api/v2/alerts",
            "http://b:9093/am/api/v2/alerts",
            "http://otlp/v1/logs",
            "http://otlp/v1/metrics",
        ];
        assert_eq!((made.as_slice(), before.parts.len()), (&wanted.map(str::to_owned)[..], 6));
        let (same, made) = prepared(&all, &before);
        assert_eq!((made, same.parts.len()), (vec![], 6));
        // One instance more, other settings of one, and one gone.
        let slower = Sink { timeout: Duration::from_secs(9), ..webhook("hook") };
        let (after, made) = prepared(&[slower, alertmanager(&["b", "c"])], &before);
        assert_eq!(made, ["http://hook/x", "http://c:9093/am/api/v2/alerts"]);
        assert_eq!(
            after.parts.iter().map(|part| instance(&part.sink)).collect::<Vec<_>>(),
            ["", "b:9093", "c:9093"]
        );
    }

    #[test]
    fn where_one_cannot_be_made_none_is() {
        let broken = |part: &Sink, _| Err(anyhow::anyhow!("the sink \"{}\"", part.name));
        let made =
            Prepared::made(&[sink("out", Kind::Stdout), webhook("hook")], &Prepared::default(), broken);
        assert_eq!(
            made.map(|made| made.parts.len()).map_err(|why| why.to_string()),
            Err("the sink \"hook\"".into())
        );
    }
}
