//! One HTTP request to a receiver, and what its answer means. Redirects are not followed: what an alert says goes to whom the
//! configuration names and to nobody else.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use taskscope_proto::words::printable;

/// Of an answer; what is longer is not read.
const MOST_ANSWERED: usize = 16 << 10;

/// What is to be done after an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// With the body of the answer, or the beginning of it.
    Delivered(Vec<u8>),
    /// It would be refused again: whichever part of it is to blame is not sent again.
    Refused(String),
    /// So many of what was sent are thrown away, all where it is `None`, and none of it may be sent again.
    Rejected { why: String, count: Option<u64> },
    /// Again later, not before what the receiver asked for. `status`: where it has answered.
    Later { why: String, asked: Option<Duration>, status: Option<StatusCode> },
}

/// A receiver.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    client: Client,
    url: Url,
}

impl Receiver {
    /// Fails where there is no way to speak TLS.
    pub(super) fn new(url: Url, timeout: Duration) -> Result<Self, String> {
        // One provider for the process; it may be there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .user_agent(concat!("taskscope/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" {
            // An image without certificates can still send to its neighbour.
            builder = builder.tls_certs_only([]);
        }
        if is_here(&url) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            format!(
                "no HTTP client can be made: {}\nhint: for https install the system's certificates, or name a file of them in \
                 SSL_CERT_FILE",
                chain(&error)
            )
        })?;
        Ok(Self { client, url })
    }

    /// Ends within the timeout, whatever the receiver does.
    pub(super) async fn post(
        &self,
        content_type: &'static str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Outcome {
        let request = self.client.post(self.url.clone()).headers(headers).body(body);
        let mut answer = match request.header(CONTENT_TYPE, content_type).send().await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Later { why: chain(&error), asked: None, status: None },
        };
        let status = answer.status();
        let location = answer.headers().get(LOCATION).cloned();
        let at = answer.headers().get(DATE).and_then(date).unwrap_or_else(now);
        let asked = answer.headers().get(RETRY_AFTER).and_then(|asked| retry_after(asked, at));
        let mut body = Vec::new();
        // A body that breaks off changes nothing: the answer is its status.
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(MOST_ANSWERED - body.len())]);
            if body.len() == MOST_ANSWERED {
                break;
            }
        }
        outcome(&self.url, status, location.as_ref(), asked, body)
    }
}

/// What an answer means.
fn outcome(
    url: &Url,
    status: StatusCode,
    location: Option<&HeaderValue>,
    asked: Option<Duration>,
    body: Vec<u8>,
) -> Outcome {
    if status.is_success() {
        return Outcome::Delivered(body);
    }
    if status.is_redirection() {
        let to = location.and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
        let why = redirected(url, status, to.as_ref());
        return Outcome::Later { why, asked, status: Some(status) };
    }
    let why = match first_line(&body) {
        Some(line) => format!("it answers {status}: {line}"),
        None => format!("it answers {status}"),
    };
    match status {
        // It understands the request, and not what is in it.
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Outcome::Refused(why)
        }
        // A wrong path or a missing right may be put right on its side.
        _ => Outcome::Later { why, asked, status: Some(status) },
    }
}

/// Names the host, and nothing after it: where it redirects to may hold a token.
fn redirected(url: &Url, status: StatusCode, to: Option<&Url>) -> String {
    let Some(to) = to else { return format!("it answers {status} and does not say where to") };
    let host = |url: &Url| printable(url.host_str().unwrap_or("nowhere"));
    let place = match host(url) == host(to) {
        true => "elsewhere".to_owned(),
        false => format!("to another host, {}", host(to)),
    };
    // Of the rest of it something may be a token.
    let origin = to.origin();
    let hint = match origin.is_tuple() {
        true => format!("if {} is right, ask it where to", printable(&origin.ascii_serialization())),
        false => "ask whoever runs it where it is".to_owned(),
    };
    format!(
        "it redirects {place}, which is not followed ({status})\nhint: {hint}, and write that in the configuration"
    )
}

/// Seconds, or a date. `at` is the receiver's own time where it says that, so that its clock and ours need not agree.
fn retry_after(value: &HeaderValue, at: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.to_str().ok()?.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    // A time that has passed asks for nothing.
    date(value)?.duration_since(at).ok()
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

#[allow(clippy::disallowed_methods, reason = "only where a receiver names a date and not what time it has")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn first_line(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(printable(line))
}

/// An error and its causes; the URL is left out, which may hold a token.
fn chain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut text =
        if error.is_connect() { "cannot connect".to_owned() } else { "the request failed".to_owned() };
    let mut cause = error.source();
    while let Some(error) = cause {
        cause = error.source();
        if cause.is_none() {
            text.push_str(&format!(": {}", printable(&error.to_string())));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, location: Option<&'static str>, body: &str) -> Outcome {
        let url = Url::parse("http://a.example/x").expect("it is one");
        let location = location.map(HeaderValue::from_static);
        let status = StatusCode::from_u16(status).expect("it is one");
        outcome(&url, status, location.as_ref(), Some(Duration::from_secs(3)), body.into())
    }

    #[test]
    fn garbage_with_a_200_is_delivered() {
        assert_eq!(answered(200, None, "\0<html>"), Outcome::Delivered(b"\0<html>".to_vec()));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_what_may_pass_is_tried_again() {
        for status in [400, 413, 422] {
            assert!(matches!(answered(status, None, ""), Outcome::Refused(_)), "{status}");
        }
        for status in [401, 403, 404, 408, 429, 500, 503] {
            let asked = Some(Duration::from_secs(3));
            assert!(
                matches!(answered(status, None, ""), Outcome::Later { asked: it, .. } if it == asked),
                "{status}"
            );
        }
        let why = "it answers 400 Bad Request: no \u{fffd}[31m".to_owned();
        assert_eq!(answered(400, None, "\n no \x1b[31m\nmore"), Outcome::Refused(why));
    }

    #[test]
    fn a_redirect_says_where_to_and_is_not_followed() {
        let why = |location| match answered(307, location, "") {
            Outcome::Later { why, .. } => why,
            other => panic!("{other:?}"),
        };
        let elsewhere = why(Some("http://evil.example/y"));
        assert!(
            elsewhere.starts_with("it redirects to another host, evil.example, which is not followed"),
            "{elsewhere}"
        );
        assert!(elsewhere.contains("\nhint: if http://evil.example is right"), "{elsewhere}");
        let secret = why(Some("https://u:s3cret@evil.example:8443/s3cret?s3cret#s3cret"));
        assert!(
            secret.contains("if https://evil.example:8443 is right") && !secret.contains("s3cret"),
            "{secret}"
        );
        assert!(why(Some("/y")).starts_with("it redirects elsewhere, "));
        assert!(why(None).ends_with("does not say where to"));
    }

    #[test]
    fn seconds_and_dates_are_understood_of_what_is_asked() {
        let at = date(&HeaderValue::from_static("Wed, 21 Oct 2015 07:27:30 GMT")).expect("it is a date");
        let asked = |text| retry_after(&HeaderValue::from_static(text), at);
        assert_eq!(asked(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Wednesday, 21-Oct-15 07:28:00 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:27:00 GMT"), None);
        assert_eq!((asked("-1"), asked("soon"), asked("")), (None, None, None));
    }
}
