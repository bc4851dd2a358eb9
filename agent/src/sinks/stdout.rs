//! A line of JSON each, on standard output.

use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::post::Outcome;
use crate::alerts::life::Transition;
use crate::alerts::notice::{Notice, rfc3339};

const MOST_AT_ONCE: usize = 64;

#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    level: &'static str,
    agent_version: &'static str,
    #[serde(flatten)]
    notice: &'a Notice,
}

pub(super) fn belongs(before: &[Notice], _: &Notice) -> bool {
    before.len() < MOST_AT_ONCE
}

/// Waits for whoever reads.
pub(super) async fn deliver(notices: &[Notice], unix_ns: u64) -> Outcome {
    let lines: String = notices.iter().map(|notice| line(notice, unix_ns)).collect();
    let mut out = tokio::io::stdout();
    let written = async {
        out.write_all(lines.as_bytes()).await?;
        out.flush().await
    };
    match written.await {
        Ok(()) => Outcome::Delivered(Vec::new()),
        Err(error) => {
            let why = format!("cannot write to standard output: {error}");
            Outcome::Later { why, asked: None, status: None }
        }
    }
}

fn line(notice: &Notice, unix_ns: u64) -> String {
    let level = match (notice.transition, notice.alert.labels.get("severity")) {
        (Transition::Resolved | Transition::Pending, _) => "info",
        (Transition::Firing, Some("critical")) => "error",
        (Transition::Firing, Some("warning")) => "warn",
        (Transition::Firing, _) => "info",
    };
    let line = Line { ts: rfc3339(unix_ns), level, agent_version: env!("CARGO_PKG_VERSION"), notice };
    let mut text = serde_json::to_string(&line).expect("texts are always JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::fixture::notice;

    #[test]
    fn a_line_is_one_whatever_a_label_says() {
        let text = line(
            &notice("TaskSlowPoll", "a\nb\u{2028}\"\0", Transition::Resolved),
            1_795_225_779_822_000_000,
        );
        assert_eq!(text.matches('\n').count(), 1);
        insta::assert_snapshot!(text);
    }
}
