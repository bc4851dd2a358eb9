//! A client of the wire that is not our agent: it keeps every frame that it is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use taskscope_proto::v1::introspect_client::IntrospectClient;
use taskscope_proto::v1::{Event, Frame, WatchRequest, event};
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;

use crate::eventually;

/// Watches until it is dropped.
pub struct Watcher {
    frames: Arc<Mutex<Vec<Frame>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Watcher {
    /// Of a target that listens on TCP; returns once the first frame is there.
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    pub fn attach(address: &str, request: WatchRequest) -> Self {
        let frames: Arc<Mutex<Vec<Frame>>> = Arc::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let endpoint = Endpoint::from_shared(address.to_owned()).expect("the address is one");
        let kept = Arc::clone(&frames);
        runtime.spawn(async move {
            let mut client = IntrospectClient::new(endpoint.connect().await.expect("the probe listens"));
            // A request stream that ends is no end of the watch.
            let requests = tokio_stream::once(request).chain(tokio_stream::pending());
            let mut stream = client.watch(requests).await.expect("it is served").into_inner();
            while let Ok(Some(frame)) = stream.message().await {
                kept.lock().expect("no holder panics").push(frame);
            }
        });
        let watcher = Self { frames, runtime: Some(runtime) };
        eventually(Duration::from_secs(10), || match watcher.frames().len() {
            0 => Err("no frame came".to_owned()),
            _ => Ok(()),
        });
        watcher
    }

    /// All frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().expect("no holder panics").clone()
    }

    /// The last frame.
    pub fn last(&self) -> Frame {
        self.frames.lock().expect("no holder panics").last().cloned().expect("one has come")
    }

    /// All events so far that are of this kind.
    pub fn events(&self, kind: event::Kind) -> Vec<Event> {
        let frames = self.frames.lock().expect("no holder panics");
        frames.iter().flat_map(|frame| &frame.events).filter(|event| event.kind() == kind).cloned().collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
