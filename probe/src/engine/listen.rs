//! Where the probe listens, and who may connect: Unix sockets of the same user, or loopback TCP when asked.

use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;

use crate::settings::{Listen, Settings};

/// Bytes of a socket's path that every system takes: 108 on Linux and 104 on macOS, one of them for the end.
const MAX_SOCKET_PATH: usize = 103;
/// After a failed accept (out of file descriptors, say) the next try waits this long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

pub(crate) enum Listener {
    Unix { listener: UnixListener, path: PathBuf, owner: u32 },
    Tcp { listener: TcpListener, address: std::net::SocketAddr },
}

impl Listener {
    /// As a user types it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Unix { path, .. } => format!("unix:{}", path.display()),
            Self::Tcp { address, .. } => format!("http://{address}"),
        }
    }
}

/// Binds the address that was asked for, or the first default that can be written. The error is one line with a hint.
pub(crate) async fn bind(settings: &Settings, instance: &str) -> Result<Listener, String> {
    match &settings.listen {
        Some(Listen::Unix(path)) => bind_unix(path).map_err(|error| refusal(path, &error)),
        Some(Listen::Tcp(address)) => bind_tcp(*address).await,
        None => bind_default(settings, instance),
    }
}

async fn bind_tcp(address: std::net::SocketAddr) -> Result<Listener, String> {
    let bound = TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    match bound {
        Ok((address, listener)) => Ok(Listener::Tcp { listener, address }),
        Err(error) => {
            Err(format!("cannot listen on {address}: {error}; hint: another port, or a Unix socket"))
        }
    }
}

fn bind_default(settings: &Settings, instance: &str) -> Result<Listener, String> {
    let file = format!("{}.{instance}.sock", settings.name);
    let mut refusals = Vec::new();
    for folder in default_folders() {
        let path = folder.join(&file);
        match private_folder(&folder).and_then(|()| bind_unix(&path)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refusals.push(format!("{}: {error}", folder.display())),
        }
    }
    let tried = refusals.join(", ");
    Err(format!("no folder for the socket can be written ({tried}); hint: set TASKSCOPE_LISTEN=unix:PATH"))
}

/// The folders that a viewer looks in, too.
fn default_folders() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let systemd = std::env::var("RUNTIME_DIRECTORY").ok();
    let systemd =
        systemd.and_then(|list| list.split(':').next().filter(|dir| !dir.is_empty()).map(PathBuf::from));
    let session = var("XDG_RUNTIME_DIR").map(|folder| folder.join("taskscope"));
    let temporary = own_uid().map(|uid| std::env::temp_dir().join(format!("taskscope-{uid}")));
    [systemd, session, temporary].into_iter().flatten().collect()
}

/// The user that this process acts as.
fn own_uid() -> Option<u32> {
    #[cfg(target_os = "linux")]
    return Some(rustix::process::geteuid().as_raw());
    #[cfg(not(target_os = "linux"))]
    return std::fs::metadata(std::env::var_os("HOME")?).map(|meta| meta.uid()).ok();
}

/// Makes `folder` for this user alone, or checks that it is; a folder of somebody else's is refused.
fn private_folder(folder: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).recursive(false).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let meta = std::fs::symlink_metadata(folder)?;
    if !meta.is_dir() || own_uid().is_some_and(|uid| uid != meta.uid()) {
        return Err(io::Error::other("it belongs to somebody else"));
    }
    Ok(())
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let len = path.as_os_str().len();
    if len > MAX_SOCKET_PATH {
        return Err(io::Error::other(format!("the path has {len} bytes, a socket takes {MAX_SOCKET_PATH}")));
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let owner = std::fs::metadata(path)?.uid();
    Ok(Listener::Unix { listener, path: path.to_owned(), owner })
}

/// Whether it is a socket on which nobody listens any more.
fn is_left_behind(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn refusal(path: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; give each its own path",
        io::ErrorKind::NotFound => "make the folder first",
        _ => "a shorter path in a folder that this user can write",
    };
    format!("cannot listen on unix:{}: {error}; hint: {hint}", path.display())
}

/// Connections at once; more are closed as they come, so that they use up no file descriptors of the service's.
const MAX_CONNECTIONS: usize = 32;

/// Accepts what may connect, as a stream; errors of accepting are waited out.
pub(crate) struct Incoming<A> {
    accept: A,
    permits: Arc<Semaphore>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// A way to accept a connection.
pub(crate) trait Accept: Unpin {
    type Stream;
    /// The next connection; `None` for one that may not connect.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Self::Stream>>>;
}

/// Of the socket's owner.
pub(crate) struct SameUser {
    pub(crate) listener: UnixListener,
    pub(crate) owner: u32,
}

impl Accept for SameUser {
    type Stream = UnixStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<UnixStream>>> {
        let (stream, _) = std::task::ready!(self.listener.poll_accept(cx))?;
        // Root may look at everything anyway.
        let may = |uid| uid == self.owner || uid == 0;
        let allowed = stream.peer_cred().is_ok_and(|peer| may(peer.uid()));
        Poll::Ready(Ok(allowed.then_some(stream)))
    }
}

/// Over loopback.
pub(crate) struct Loopback {
    pub(crate) listener: TcpListener,
}

impl Accept for Loopback {
    type Stream = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<TcpStream>>> {
        let (stream, _) = std::task::ready!(self.listener.poll_accept(cx))?;
        let _ = stream.set_nodelay(true);
        Poll::Ready(Ok(Some(stream)))
    }
}

impl<A: Accept> Incoming<A> {
    pub(crate) fn new(accept: A) -> Self {
        Self { accept, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)), pause: None }
    }
}

impl<A: Accept> Stream for Incoming<A> {
    type Item = io::Result<Peer<A::Stream>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.accept.poll_accept(cx)) {
                Ok(Some(stream)) => {
                    if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                        return Poll::Ready(Some(Ok(Peer { stream, _permit: permit })));
                    }
                }
                Ok(None) => {}
                Err(_) => self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_AGAIN))),
            }
        }
    }
}

/// An accepted connection, with its place among [`MAX_CONNECTIONS`].
pub(crate) struct Peer<S> {
    stream: S,
    _permit: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Peer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Peer<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
