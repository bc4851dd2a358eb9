//! Asks the probe of this process over its socket, as an agent would.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use taskscope_proto::row::TaskRow;
use taskscope_proto::strings::Strings;
use taskscope_proto::v1::introspect_client::IntrospectClient;
use taskscope_proto::v1::loss::Reason;
use taskscope_proto::v1::{Frame, Group, GroupQuery, TaskQuery, WatchRequest};
use taskscope_proto::{columns, v1};
use tonic::transport::{Channel, Endpoint};

const WITHIN: Duration = Duration::from_secs(20);

/// Whether the processor is an emulated one, some twenty times slower: what is there within milliseconds elsewhere takes
/// tenths of a second.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("TASKSCOPE_TEST_EMULATED").is_some()
}

/// A client on a runtime of its own.
pub(crate) struct Asker {
    runtime: tokio::runtime::Runtime,
    client: IntrospectClient<Channel>,
}

/// What one frame says.
pub(crate) struct Answer {
    pub(crate) frame: Frame,
    pub(crate) rows: Vec<TaskRow>,
    strings: Strings,
}

impl Asker {
    /// Of the probe that was given this name, in this process.
    pub(crate) fn of(name: &str) -> Self {
        let path = eventually(|| socket(name).ok_or_else(|| format!("no socket of {name}")));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built");
        // Its socket is there a moment before it listens.
        let channel = eventually(|| {
            let path = path.clone();
            let connect = tower::service_fn(move |_: tonic::transport::Uri| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            });
            let endpoint = Endpoint::from_static("http://probe");
            runtime
                .block_on(endpoint.connect_with_connector(connect))
                .map_err(|error| format!("the probe does not listen: {error:?}"))
        });
        Self { runtime, client: IntrospectClient::new(channel) }
    }

    /// One frame, with all rows (ended ones too) and groups.
    pub(crate) fn ask(&mut self) -> Answer {
        self.ask_for(WatchRequest {
            tasks: Some(TaskQuery { limit: 5_000, include_ended: true, ..Default::default() }),
            groups: Some(GroupQuery { limit: 1_000, histograms: false, ..Default::default() }),
            ..Default::default()
        })
    }

    /// One frame.
    pub(crate) fn ask_for(&mut self, request: WatchRequest) -> Answer {
        let request = WatchRequest { once: true, ..request };
        let client = &mut self.client;
        let frame = self.runtime.block_on(async {
            let mut frames =
                client.watch(tokio_stream::once(request)).await.expect("it is served").into_inner();
            frames.message().await.expect("it is answered").expect("with one frame")
        });
        let mut strings = Strings::default();
        strings.extend(&frame.strings);
        let window = frame.tasks.as_ref().and_then(|tasks| tasks.rows.as_ref());
        let rows =
            window.map_or_else(Vec::new, |rows| columns::decode(rows, &strings).expect("rows fit").collect());
        Answer { frame, rows, strings }
    }

    /// Asks until the answer is the wanted one.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, mut wanted: impl FnMut(&Answer) -> Option<T>) -> T {
        eventually(|| {
            let answer = self.ask();
            wanted(&answer).ok_or_else(|| format!("{:#?}", answer.rows))
        })
    }

    /// The only row of this name, once it is as wanted.
    #[track_caller]
    pub(crate) fn row(&mut self, name: &str, wanted: impl Fn(&TaskRow) -> bool) -> TaskRow {
        self.until(|answer| {
            let rows: Vec<_> = answer.named(name).collect();
            (rows.len() == 1 && wanted(rows[0])).then(|| rows[0].clone())
        })
    }
}

impl Answer {
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a TaskRow> {
        self.rows.iter().filter(move |row| row.name == name)
    }

    /// The only group of this name.
    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        let groups = self.frame.groups.as_ref()?;
        let mut of = groups.groups.iter().filter(|group| self.text(group.name_sid) == name);
        let group = of.next();
        assert!(of.next().is_none(), "two groups are named {name}");
        group
    }

    pub(crate) fn text(&self, sid: u32) -> &str {
        self.strings.text(taskscope_proto::ids::Sid(sid))
    }

    pub(crate) fn lost(&self, reason: Reason) -> u64 {
        self.frame.losses.iter().find(|loss| loss.reason() == reason).map_or(0, |loss| loss.count)
    }

    /// Of this kind, about tasks of this name.
    pub(crate) fn events(&self, kind: v1::event::Kind, name: &str) -> usize {
        let of = |event: &&v1::Event| {
            event.kind() == kind && event.poll.as_ref().is_some_and(|poll| self.text(poll.name_sid) == name)
        };
        self.frame.events.iter().filter(of).count()
    }
}

/// Asks every 20 ms until the answer is `Ok`, and gives it.
#[track_caller]
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Result<T, String>) -> T {
    #[allow(clippy::disallowed_methods, reason = "this is what drives the test")]
    let start = Instant::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(state) if start.elapsed() >= WITHIN => {
                panic!("did not become true within {WITHIN:?}; last seen:\n{state}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Where a probe listens that was told nothing: the folders that an agent looks in.
fn socket(name: &str) -> Option<PathBuf> {
    let folder = |variable: &str| std::env::var_os(variable).filter(|it| !it.is_empty()).map(PathBuf::from);
    let session = folder("XDG_RUNTIME_DIR").map(|folder| folder.join("taskscope"));
    let temporary = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let temporary = temporary
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("taskscope-")));
    let folders = folder("RUNTIME_DIRECTORY").into_iter().chain(session).chain(temporary);
    let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let mut sockets = files.map(|entry| entry.path()).filter(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".sock"))
    });
    sockets.next()
}
