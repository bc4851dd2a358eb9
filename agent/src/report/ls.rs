//! `taskscope ls`: the targets on this machine.

use anyhow::Context;
use serde::Serialize;
use taskscope_proto::v1::Totals;
use taskscope_proto::v1::agent_target::Link;
use taskscope_proto::words;

use super::{json_line, table};
use crate::address::{Address, Target};
use crate::connection::{Connection, targets_of};
use crate::discover::{Found, local_targets};
use crate::session::address_of;

#[derive(Serialize)]
struct Row {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    instance: String,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<u64>,
    /// Why it cannot be asked; absent where it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The text to print; what is no data goes to standard error.
pub(crate) async fn report(json: bool) -> anyhow::Result<String> {
    let local = local_targets();
    if local.removed > 0 {
        eprintln!("taskscope: removed {} socket files that dead processes had left", local.removed);
    }
    if local.targets.is_empty() {
        eprintln!("taskscope: {}", crate::discover::NoTarget::NoneRuns);
    }
    let asked = local.targets.into_iter().map(|found| tokio::spawn(ask(found)));
    let mut rows = Vec::new();
    for row in asked.collect::<Vec<_>>() {
        rows.push(row.await?);
    }
    if json {
        return rows.iter().map(json_line).collect();
    }
    let mut cells = vec![["NAME", "PID", "INSTANCE", "UP", "TASKS", "ADDRESS"].map(str::to_owned).to_vec()];
    let known = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    for row in &rows {
        cells.push(vec![
            row.name.clone(),
            known(row.pid.map(|pid| pid.to_string())),
            row.instance.clone(),
            known(row.uptime_ns.map(words::duration)),
            known(row.tasks.map(words::count)),
            row.address.clone(),
        ]);
    }
    Ok(if rows.is_empty() { String::new() } else { table(&cells) })
}

/// The targets of an agent, each with the address that it has there.
pub(crate) async fn of_agent(agent: &Target, json: bool) -> anyhow::Result<String> {
    let address = address_of(Some(agent))?;
    let targets = targets_of(&address).await?.with_context(|| {
        format!("{address} is a probe, not an agent\nhint: `taskscope ls` without an address lists the targets on this machine")
    })?;
    let rows: Vec<Through> = targets
        .into_iter()
        .map(|target| Through {
            address: Address::Through { agent: Box::new(address.clone()), target: target.name.clone() }
                .to_string(),
            link: words_of(target.link()),
            name: target.name,
            pid: target.pid,
            at: target.address,
            error: Some(target.reason).filter(|reason| !reason.is_empty()),
        })
        .collect();
    if json {
        return rows.iter().map(json_line).collect();
    }
    let mut cells = vec![["NAME", "PID", "LINK", "ADDRESS"].map(str::to_owned).to_vec()];
    for row in &rows {
        let pid = row.pid.map_or_else(|| "–".to_owned(), |pid| pid.to_string());
        cells.push(vec![row.name.clone(), pid, row.link.to_owned(), row.address.clone()]);
    }
    Ok(if rows.is_empty() { String::new() } else { table(&cells) })
}

fn words_of(link: Link) -> &'static str {
    match link {
        Link::Unspecified => "unknown",
        Link::Connecting => "connecting",
        Link::Live => "live",
        Link::Stale => "stale",
        Link::Lost => "lost",
    }
}

/// A target of an agent.
#[derive(Serialize)]
struct Through {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    link: &'static str,
    /// For this program.
    address: String,
    /// Where the agent reaches it.
    at: String,
    /// Why it is not live; absent where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn ask(found: Found) -> Row {
    let address = found.address();
    let row = Row {
        name: found.name,
        pid: None,
        instance: found.instance,
        address: address.to_string(),
        uptime_ns: None,
        tasks: None,
        error: None,
    };
    let answer = async {
        let mut connection = Connection::open(&address).await?;
        let frame = connection.ask(Default::default()).await?;
        Ok::<_, crate::connection::ConnectError>((connection.description, frame))
    };
    match answer.await {
        Ok((description, frame)) => Row {
            pid: Some(description.pid),
            uptime_ns: Some(frame.at_ns),
            tasks: frame.totals.map(|totals: Totals| totals.alive.unwrap_or(totals.followed)),
            ..row
        },
        Err(error) => Row { error: Some(error.to_string()), ..row },
    }
}
