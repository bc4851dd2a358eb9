//! `taskscope alerts AGENT`: what fires at an agent, and what becomes of it.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use taskscope_proto::v1::{Alert, WatchAlertsRequest};

use crate::alerts::labels::Fingerprint;
use crate::alerts::life::Transition;
use crate::alerts::notice::Notice;
use crate::alerts::wire;
use crate::connection::AgentConnection;
use crate::foreground::Show;
use crate::report::print;

/// What an agent told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// What fires now. Two targets may have alerts with the same labels.
    firing: BTreeSet<(Fingerprint, u64)>,
    /// Alerts that fired, and what they are called.
    firings: usize,
    fired: BTreeSet<String>,
    ends: usize,
}

impl Heard {
    pub(crate) fn has_fired(&self) -> bool {
        self.firings > 0
    }

    /// `2 alerts fired (TaskLeak, TaskSlowPoll), 1 is over`
    pub(crate) fn summary(&self) -> String {
        if self.firings == 0 {
            return "nothing fired".to_owned();
        }
        let alerts = if self.firings == 1 { "alert" } else { "alerts" };
        let over = if self.ends == 1 { "is" } else { "are" };
        let names: Vec<&str> = self.fired.iter().map(String::as_str).collect();
        format!("{} {alerts} fired ({}), {} {over} over", self.firings, names.join(", "), self.ends)
    }

    /// What people are told of an update, as they would be told of the alert at its target: nothing while another alert is told
    /// instead, and of its end only where they know that it fired.
    fn take(&mut self, alert: Alert) -> Option<Notice> {
        let (silenced, inhibited) = (alert.silenced, alert.inhibited_by.is_some());
        let mut notice = wire::notice(alert)?;
        let key = (notice.alert.fingerprint, notice.alert.starts_at_unix_ns);
        match notice.transition {
            _ if inhibited && notice.transition != Transition::Resolved => return None,
            Transition::Pending => {}
            Transition::Firing => {
                if !self.firing.insert(key) {
                    return None;
                }
                self.firings += 1;
                self.fired.insert(notice.alert.name().to_owned());
            }
            Transition::Resolved => {
                if !self.firing.remove(&key) {
                    return None;
                }
                self.ends += 1;
            }
        }
        if silenced {
            notice.alert.annotations.insert("silenced".to_owned(), "true".to_owned());
        }
        Some(notice)
    }
}

/// Follows until `run_for` is over, or ctrl-c.
pub(crate) async fn alerts(
    agent: AgentConnection,
    run_for: Option<Duration>,
    show: Show,
) -> anyhow::Result<Heard> {
    let targets = match agent.targets.len() {
        1 => "1 target".to_owned(),
        count => format!("{count} targets"),
    };
    let mut updates = agent.watch_alerts(WatchAlertsRequest::default()).await?;
    crate::complain(&format!("taskscope: the agent watches {targets}"));
    let mut heard = Heard::default();
    let end = async {
        match run_for {
            Some(run_for) => tokio::time::sleep(run_for).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            update = updates.next() => {
                let Some(alert) = update? else { anyhow::bail!("the agent ended") };
                if let Some(notice) = heard.take(alert)
                    && let Some(text) = show(&notice, unix_ns())?
                {
                    print(&text)?;
                }
            }
            () = &mut end => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    Ok(heard)
}

#[allow(clippy::disallowed_methods, reason = "people are told the time of day")]
fn unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::wire::HeldBack;
    use crate::sinks::fixture::notice;

    #[test]
    fn what_is_told_at_an_agent_is_what_would_be_told_at_its_target() {
        let mut heard = Heard::default();
        let mut take = |name, transition, silenced, by: Option<u64>| {
            let alert = notice(name, "a", transition).alert;
            let held_back = HeldBack { silenced, by: by.map(Fingerprint) };
            heard.take(wire::alert(alert, held_back)).map(|notice| notice.transition.name())
        };
        use Transition::{Firing, Pending, Resolved};
        assert_eq!(take("A", Pending, false, None), Some("pending"));
        // It never fired.
        assert_eq!(take("A", Resolved, false, None), None);
        assert_eq!(take("A", Firing, false, Some(7)), None, "its cause is told instead");
        assert_eq!(take("A", Firing, false, None), Some("firing"), "its cause is over");
        assert_eq!(take("A", Firing, true, None), None, "it fires already");
        assert_eq!(take("B", Firing, true, None), Some("firing"));
        assert_eq!(take("A", Resolved, false, None), Some("resolved"));
        assert_eq!(take("A", Resolved, false, None), None);
        assert!(heard.has_fired());
        assert_eq!(heard.summary(), "2 alerts fired (A, B), 1 is over");
        assert_eq!(Heard::default().summary(), "nothing fired");
    }
}
