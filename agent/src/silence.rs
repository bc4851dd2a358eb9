//! `taskscope silence`: silences of an agent, from the command line.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde_json::json;
use taskscope_proto::v1::{LabelMatcher, SilenceRequest, SilenceStatus};
use taskscope_proto::words;

use crate::alerts::notice::rfc3339;
use crate::cli;
use crate::connection::agent_at;
use crate::report::{json_line, print, table};

/// What a label must say, as it is typed: `alertname=TaskSlowPoll`, `service=~"check.*"`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Matcher(LabelMatcher);

impl FromStr for Matcher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        // The longer ones first: `=~` begins as `=` does.
        let signs = [("=~", true, false), ("!~", true, true), ("!=", false, true), ("=", false, false)];
        let said = signs
            .into_iter()
            .find_map(|(sign, is_regex, is_not)| Some((rest.strip_prefix(sign)?, is_regex, is_not)));
        let is_first = |c: char| is_name(c) && !c.is_ascii_digit();
        match said.filter(|_| name.starts_with(is_first)) {
            Some((value, is_regex, is_not)) => {
                // As in Alertmanager's notation, where a shell has left them.
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                let value = quoted.unwrap_or(value).to_owned();
                Ok(Self(LabelMatcher { name: name.to_owned(), value, is_regex, is_not }))
            }
            None => {
                Err("no matcher\nhint: write it as in alertname=TaskSlowPoll or service=~\"check.*\""
                    .to_owned())
            }
        }
    }
}

/// As it is typed.
fn typed(matcher: &LabelMatcher) -> String {
    let sign = match (matcher.is_regex, matcher.is_not) {
        (false, false) => "=",
        (false, true) => "!=",
        (true, false) => "=~",
        (true, true) => "!~",
    };
    format!("{}{sign}\"{}\"", words::printable(&matcher.name), words::printable(&matcher.value))
}

pub(crate) async fn run(options: cli::Silence) -> anyhow::Result<()> {
    let agent = agent_at(Some(&options.agent)).await?;
    let mut agent = agent.with_context(|| {
        format!(
            "{} is no agent\nhint: silences are an agent's; name it by the address that `taskscope agent` prints",
            options.agent
        )
    })?;
    if let Some(id) = options.end {
        return Ok(agent.unsilence(id).await?);
    }
    let now = unix_ns();
    if let Some(run_for) = options.run_for {
        let request = SilenceRequest {
            matchers: options.matchers.into_iter().map(|matcher| matcher.0).collect(),
            ends_at_unix_ns: now.saturating_add(nanoseconds(run_for)),
            comment: options.comment.unwrap_or_default(),
            created_by: user(),
        };
        let ends = rfc3339(request.ends_at_unix_ns);
        let id = agent.silence(request).await?;
        crate::complain(&format!(
            "taskscope: silenced until {ends}; `taskscope silence {} --end {id}` ends it",
            options.agent
        ));
        return print(&format!("{id}\n"));
    }
    let silences = agent.silences().await?;
    print(&if options.json { as_json(&silences)? } else { as_text(&silences, now) })
}

fn as_text(silences: &[SilenceStatus], now: u64) -> String {
    if silences.is_empty() {
        return String::new();
    }
    let mut rows = vec![["ID", "ENDS IN", "HOLDS", "BY", "MATCHERS", "COMMENT"].map(str::to_owned).to_vec()];
    for status in silences {
        let request = status.silence.clone().unwrap_or_default();
        let known = |text: &str| if text.is_empty() { "–".to_owned() } else { words::printable(text) };
        rows.push(vec![
            words::printable(&status.id),
            words::duration(request.ends_at_unix_ns.saturating_sub(now)),
            words::count(status.holds.into()),
            known(&request.created_by),
            request.matchers.iter().map(typed).collect::<Vec<_>>().join(" "),
            words::printable(&request.comment),
        ]);
    }
    table(&rows)
}

fn as_json(silences: &[SilenceStatus]) -> anyhow::Result<String> {
    let line = |status: &SilenceStatus| {
        let request = status.silence.clone().unwrap_or_default();
        let matcher = |it: &LabelMatcher| json!({ "name": it.name, "value": it.value, "is_regex": it.is_regex, "is_not": it.is_not });
        json_line(&json!({
            "id": status.id,
            "matchers": request.matchers.iter().map(matcher).collect::<Vec<_>>(),
            "ends_at": rfc3339(request.ends_at_unix_ns),
            "created_by": request.created_by,
            "comment": request.comment,
            "holds": status.holds,
        }))
    };
    silences.iter().map(line).collect()
}

/// Who makes it; empty where the system does not say.
fn user() -> String {
    let named = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    named("USER").or_else(|| named("LOGNAME")).unwrap_or_default()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[allow(clippy::disallowed_methods, reason = "a silence ends at a time of day")]
fn unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matcher_is_typed_as_for_alertmanager() {
        let of = |text: &str| {
            text.parse::<Matcher>().map(|it| (it.0.name, it.0.value, it.0.is_regex, it.0.is_not))
        };
        let is = |name: &str, value: &str, is_regex, is_not| {
            Ok((name.to_owned(), value.to_owned(), is_regex, is_not))
        };
        assert_eq!(of("alertname=TaskSlowPoll"), is("alertname", "TaskSlowPoll", false, false));
        assert_eq!(of("service=~\"check.*\""), is("service", "check.*", true, false));
        assert_eq!(of("label!=POST /a=b"), is("label", "POST /a=b", false, true));
        assert_eq!(of("_x1!~a|b"), is("_x1", "a|b", true, true));
        assert_eq!(of("pool="), is("pool", "", false, false));
        for wrong in ["", "=", "a", "a~b", "1a=b", "a b=c", "a!b"] {
            assert!(of(wrong).is_err_and(|why| why.contains("\nhint: ")), "{wrong}");
        }
    }

    #[test]
    fn silences_are_listed_with_their_end_and_what_they_hold() {
        let matcher = |text: &str| text.parse::<Matcher>().expect("it is one").0;
        let silence = SilenceRequest {
            matchers: vec![matcher("alertname=TaskSlowPoll"), matcher("service=~check.*")],
            ends_at_unix_ns: 7_200_000_000_000,
            comment: "deploy".into(),
            created_by: String::new(),
        };
        let all = [SilenceStatus { id: "3".into(), silence: Some(silence), holds: 2 }];
        assert_eq!(
            as_text(&all, 60_000_000_000),
            "ID  ENDS IN  HOLDS  BY  MATCHERS                                     COMMENT\n\
             3   1h59m    2      –   alertname=\"TaskSlowPoll\" service=~\"check.*\"  deploy\n"
        );
        let json = as_json(&all).expect("it is text");
        assert!(json.contains(r#""ends_at":"1970-01-01T02:00:00.000Z","holds":2,"id":"3""#), "{json}");
        assert_eq!(as_text(&[], 0), "");
    }
}
