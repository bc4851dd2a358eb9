//! Where an agent listens for viewers: a Unix socket of the same user, or loopback TCP. There is no access control yet, so
//! nothing else is opened.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::address::Address;
use crate::discover;

/// After a failed accept (out of file descriptors, say) the next try waits this long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Where the user wants it to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Unix(PathBuf),
    Loopback(SocketAddr),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("`{0}` is nothing to listen on\nhint: unix:PATH, or http://127.0.0.1:PORT")]
    Unknown(String),
    #[error(
        "`{0}` can be reached by others, and an agent has no access control yet\nhint: listen on unix:PATH or \
         http://127.0.0.1:PORT, and reach it through `kubectl port-forward` or `ssh -L`"
    )]
    Open(String),
    #[error("cannot listen on {0}: {1}\nhint: {2}")]
    Refused(String, String, &'static str),
}

impl Listen {
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Unix(path) => Address::Unix(path.clone()),
            Self::Loopback(address) => Address::Http(format!("http://{address}")),
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let unknown = || ListenError::Unknown(taskscope_proto::words::printable(text));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(unknown()) } else { Ok(Self::Unix(path.into())) };
        }
        let host = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')).ok_or_else(unknown)?;
        // Whatever a resolver says of it.
        let host = host
            .strip_prefix("localhost:")
            .map_or_else(|| host.to_owned(), |port| format!("127.0.0.1:{port}"));
        let address: SocketAddr = host.parse().map_err(|_| unknown())?;
        if address.ip().is_loopback() {
            Ok(Self::Loopback(address))
        } else {
            Err(ListenError::Open(text.to_owned()))
        }
    }
}

/// Listening. A socket's file is removed at the end.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix { listener: UnixListener, file: SocketFile, owner: u32 },
    Loopback { listener: TcpListener, address: SocketAddr },
}

#[derive(Clone, Debug)]
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    /// Nobody connects to it from now on.
    pub(crate) fn remove(&self) {
        // Without it there is nothing to do: the next agent takes the place of a file on which nobody listens.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// A folder in which targets are looked for is made where it is missing.
    pub(crate) async fn bind(listen: &Listen) -> Result<Self, ListenError> {
        match listen {
            Listen::Unix(path) => {
                let usual = path.parent().filter(|parent| discover::folders().iter().any(|it| it == parent));
                let made = usual.map_or(Ok(()), private_folder);
                made.and_then(|()| bind_unix(path)).map_err(|error| refused(path, &error))
            }
            Listen::Loopback(address) => {
                let bound = TcpListener::bind(address).await;
                let bound = bound
                    .and_then(|listener| Ok(Self::Loopback { address: listener.local_addr()?, listener }));
                bound.map_err(|error| {
                    let hint = "choose another port; --listen says which";
                    ListenError::Refused(format!("http://{address}"), error.to_string(), hint)
                })
            }
        }
    }

    /// As a viewer is given it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Unix { file, .. } => format!("unix:{}", file.0.display()),
            Self::Loopback { address, .. } => format!("http://{address}"),
        }
    }

    pub(crate) fn file(&self) -> Option<SocketFile> {
        match self {
            Self::Unix { file, .. } => Some(file.clone()),
            Self::Loopback { .. } => None,
        }
    }
}

/// Makes `folder` for this user alone, or checks that it is this user's.
fn private_folder(folder: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).recursive(false).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let meta = std::fs::symlink_metadata(folder)?;
    let mine = std::fs::metadata("/proc/self").map(|own| own.uid()).map_or(true, |uid| uid == meta.uid());
    if meta.is_dir() && mine { Ok(()) } else { Err(io::Error::other("it belongs to somebody else")) }
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let owner = std::fs::metadata(path)?.uid();
    Ok(Listener::Unix { listener, file: SocketFile(path.to_owned()), owner })
}

/// Whether it is a socket on which nobody listens any more.
fn is_left_behind(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn refused(path: &Path, error: &io::Error) -> ListenError {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another agent listens there; give each its own with --listen",
        io::ErrorKind::NotFound => "make the folder first",
        _ => "a shorter path in a folder that this user can write",
    };
    ListenError::Refused(format!("unix:{}", path.display()), error.to_string(), hint)
}

/// Connections of the socket's owner, and of root, who may look at everything anyway. Others are closed as they come.
pub(crate) fn same_user(listener: UnixListener, owner: u32) -> impl Stream<Item = io::Result<UnixStream>> {
    futures_util::stream::unfold(listener, move |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let may = |uid| uid == owner || uid == 0;
                    if stream.peer_cred().is_ok_and(|peer| may(peer.uid())) {
                        return Some((Ok(stream), listener));
                    }
                }
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
    })
}

/// Connections over loopback.
pub(crate) fn loopback(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    futures_util::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_else_can_reach_is_listened_on() {
        let listen = |text: &str| text.parse::<Listen>();
        assert_eq!(listen("unix:/run/a.sock"), Ok(Listen::Unix("/run/a.sock".into())));
        assert!(matches!(listen("http://127.0.0.1:6671"), Ok(Listen::Loopback(_))));
        assert!(matches!(listen("http://[::1]:6671/"), Ok(Listen::Loopback(_))));
        assert_eq!(listen("http://localhost:6671"), listen("http://127.0.0.1:6671"));
        for open in ["http://0.0.0.0:6671", "http://10.0.0.7:6671", "http://[::]:6671"] {
            let error = listen(open).expect_err(open);
            assert!(matches!(error, ListenError::Open(_)), "{open}: {error}");
            assert!(error.to_string().contains("\nhint: listen on unix:PATH"), "{error}");
        }
        for wrong in ["", "unix:", "127.0.0.1:6671", "https://127.0.0.1:1", "http://127.0.0.1"] {
            assert!(matches!(listen(wrong), Err(ListenError::Unknown(_))), "{wrong}");
        }
    }
}
