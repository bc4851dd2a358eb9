//! Asks the sources of a fleet what they list now.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::{Input, Listed, Source};
use crate::discover::{self, Found};

/// A resolver that has not answered by then has not.
const RESOLVED_WITHIN: Duration = Duration::from_secs(5);

/// What a source lists; an error says why it cannot be asked, and nothing is known then. Sockets in `linked` are not tried: one
/// whose process stands still would take no more connections some day.
pub(crate) async fn ask(source: Source, linked: BTreeSet<PathBuf>) -> Result<Input, String> {
    let targets = match &source {
        // They were listed once, at the start.
        Source::Fixed => return Ok(Input::Tick),
        Source::Folder(folder) => {
            let folder = folder.clone();
            let found = tokio::task::spawn_blocking(move || {
                let folders = folder.map_or_else(discover::folders, |folder| vec![folder]);
                discover::targets_in(&folders, &linked)
            });
            sockets(found.await.map_err(|error| error.to_string())?.targets)
        }
        Source::Dns(host) => hosts(host).await?,
    };
    Ok(Input::Listed { source, targets })
}

/// The oldest first: where two have one name, the younger gets the longer one.
fn sockets(mut found: Vec<Found>) -> Vec<Listed> {
    found.sort_by_key(|found| found.made);
    let listed =
        |found: Found| Listed::Socket { service: found.name, instance: found.instance, path: found.path };
    found.into_iter().map(listed).collect()
}

/// Every address that the system's resolver has for `HOST:PORT`, of the family that it prefers: with both, each target would
/// be there twice.
async fn hosts(host: &str) -> Result<Vec<Listed>, String> {
    let resolved = tokio::time::timeout(RESOLVED_WITHIN, tokio::net::lookup_host(host))
        .await
        .map_err(|_| format!("{host} was not resolved within {} s", RESOLVED_WITHIN.as_secs()))?
        .map_err(|error| format!("{host} cannot be resolved: {error}"))?;
    let mut resolved = resolved.peekable();
    let prefers_v4 = resolved.peek().is_some_and(std::net::SocketAddr::is_ipv4);
    let preferred = resolved.filter(|address| address.is_ipv4() == prefers_v4);
    let mut hosts: Vec<String> = preferred.map(|address| address.to_string()).collect();
    hosts.sort();
    hosts.dedup();
    Ok(hosts.into_iter().map(Listed::Host).collect())
}
