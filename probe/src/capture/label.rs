//! Labels: what the current stretch of a poll is doing, for whom.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use taskscope_proto::ids::{Sid, TaskId};
use taskscope_proto::v1::loss::Reason;

use super::{mine, reason};
use crate::clock::Ticks;
use crate::engine;
use crate::engine::pauses::MIN_PAUSE_NS;
use crate::registry::Registry;
use crate::registry::labels::LabelIndex;

/// Labels the current stretch of a poll until the returned guard is dropped; then the outer label, if any, is back.
///
/// `text` says what is being done for whom, such as `POST /resize`. It is stored once; use few distinct ones (the first
/// 200 have figures of their own, later ones are counted together). Outside every poll it labels what the thread does.
/// The guard cannot be sent to another thread; a label over several polls is [`labelled`].
///
/// Cost: one hash of the text and two clock reads, no allocation. Without a running probe it does nothing.
///
/// ```
/// fn resize(picture: &[u8]) -> usize {
///     let _label = taskscope_probe::label("POST /resize");
///     picture.len() / 2
/// }
/// # resize(&[0; 8]);
/// ```
#[must_use = "the label lasts until the guard is dropped"]
pub fn label(text: &str) -> LabelGuard {
    LabelGuard {
        open: engine::registry().and_then(|registry| open(registry, find(registry, text)?)),
        here: PhantomData,
    }
}

/// Runs `future` with the label `text` around each of its polls. Cost and limits as for [`label`].
///
/// ```
/// # async fn work() {}
/// # async fn example() {
/// taskscope_probe::labelled("nightly report", work()).await;
/// # }
/// ```
pub fn labelled<F: Future>(text: &str, future: F) -> Labelled<F> {
    Labelled { future, label: engine::registry().and_then(|registry| find(registry, text)) }
}

/// Keeps a label; see [`label`].
#[derive(Debug)]
pub struct LabelGuard {
    open: Option<Stretch>,
    /// A label belongs to the thread that set it.
    here: PhantomData<*const ()>,
}

#[derive(Debug)]
pub(super) struct Stretch {
    label: LabelIndex,
    start: Ticks,
    before: (Option<LabelIndex>, Ticks),
    /// The bracket in which it was opened: a guard that is held over an `await` ends with the poll.
    bracket: u64,
}

pub(crate) fn find(registry: &Registry, text: &str) -> Option<LabelIndex> {
    find_parts(registry, &[text])
}

/// The label of the parts joined. Past the limit it is `other`, and a new text is not stored.
pub(crate) fn find_parts(registry: &Registry, parts: &[&str]) -> Option<LabelIndex> {
    // One that is stored is clean: only a new one has to be looked at.
    let known = if reason::fits(parts) { registry.texts.find_parts(parts) } else { None };
    let sid = known.or_else(|| intern_new(registry, parts));
    if sid == Some(Sid(0)) {
        return None;
    }
    sid.and_then(|sid| registry.labels.find(sid)).or_else(|| {
        registry.losses.add(Reason::FoldedLabels, 1);
        Some(LabelIndex(0))
    })
}

#[cold]
fn intern_new(registry: &Registry, parts: &[&str]) -> Option<Sid> {
    if registry.labels.is_full() {
        reason::find_clean(registry, parts)
    } else {
        reason::intern_clean(registry, parts)
    }
}

pub(super) fn open(registry: &Registry, label: LabelIndex) -> Option<Stretch> {
    let line = registry.my_line()?;
    let start = registry.clock.now();
    let own_bracket = line.open().is_none();
    if own_bracket {
        let id = tokio::task::try_id().map_or(TaskId(0), super::task_id);
        line.enter(id, None, start);
        line.mark_own();
        engine::adopt_current_runtime(line);
    }
    let open = line.open()?;
    if let Some(slot) = open.slot.and_then(|slot| registry.slots.tenant(slot, open.id)) {
        slot.set_label(label);
    }
    let before = line.set_label(Some(label), start);
    // Its end has to look at the label.
    mine::close();
    line.add_label();
    Some(Stretch { label, start, before, bracket: open.start })
}

pub(super) fn close(registry: &Registry, stretch: Stretch) {
    let Some(line) = registry.my_line() else { return };
    // A guard that was held over an `await` is of a bracket that has ended.
    let Some(open) = line.open().filter(|open| open.start == stretch.bracket) else { return };
    let ns = registry.clock.between(stretch.start, registry.clock.now());
    if ns >= MIN_PAUSE_NS {
        // Before it is counted, as a slow poll is.
        registry.long_stretches.push([stretch.start, ns, stretch.label.0.into()]);
    }
    let entry = registry.labels.entry(stretch.label);
    entry.unsorted.note_length(ns);
    let label = stretch.label.0 as u8;
    if !registry.label_polls.add(&line.labels, label, ns)
        && !registry.label_polls.add_first(&line.labels, label, ns)
    {
        registry.losses.add(Reason::UnsortedPolls, 1);
        entry.unsorted.add(ns);
    }
    line.note_stretch(stretch.label, ns);
    let last = line.remove_label();
    if last {
        line.set_label(None, 0);
    } else if line.label() == Some(stretch.label) {
        line.set_label(stretch.before.0, stretch.before.1);
    }
    if last && open.own {
        registry.end_poll(line);
    }
}

impl Drop for LabelGuard {
    fn drop(&mut self) {
        if let Some(stretch) = self.open.take()
            && let Some(registry) = engine::registry()
        {
            close(registry, stretch);
        }
    }
}

pin_project! {
    /// A future whose polls are labelled; made by [`labelled`].
    #[derive(Debug)]
    pub struct Labelled<F> {
        #[pin]
        future: F,
        label: Option<LabelIndex>,
    }
}

impl<F> Labelled<F> {
    #[cfg(feature = "axum")]
    pub(crate) fn with_label(label: Option<LabelIndex>, future: F) -> Self {
        Self { future, label }
    }
}

impl<F: Future> Future for Labelled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let open = this.label.and_then(|label| open(engine::registry()?, label));
        let _guard = LabelGuard { open, here: PhantomData };
        this.future.poll(cx)
    }
}
