//! The columns of labels: what polls were doing for whom.

use taskscope_proto::words;

use super::groups::{busy, rate, slow};
use super::{Align, Cell, Column, Context, Tone, Width};
use crate::model::group::Label;

/// Labels come busiest first and stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsorted {}

type LabelColumn = Column<Label, Unsorted>;

const fn number(
    title: &'static str,
    width: u16,
    leaves: u8,
    cell: fn(&Label, &Context<'_>) -> Cell,
) -> LabelColumn {
    Column { title, width: Width::Fixed(width), align: Align::Right, leaves, cell, sort: None }
}

pub(crate) const LABELS: &[LabelColumn] = &[
    Column {
        title: "label",
        width: Width::Share { min: 18, weight: 1 },
        align: Align::Left,
        leaves: 0,
        cell: |label, _| Cell::text(&label.text).tone(Tone::Accent),
        sort: None,
    },
    number("requests", 9, 5, |label, _| label.requests_total.map_or_else(Cell::unknown, Cell::count)),
    number("stretches", 10, 4, |label, _| Cell::count(label.polls.polls_total)),
    number("per s", 8, 3, |label, _| rate(&label.polls)),
    number("busy", 6, 0, |label, cx| busy(label.busy_cores, cx)),
    number("p99", 7, 0, |label, cx| slow(label.polls.p99_window_ns, cx)),
    number("max", 7, 2, |label, cx| slow(label.polls.max_window_ns, cx)),
    number("slow", 6, 1, |label, _| {
        let slow = label.polls.slow_window;
        Cell::count(slow).tone_if(slow > 0, Tone::Warning).tone_if(slow == 0, Tone::Quiet)
    }),
    number("slow on CPU", 12, 6, |label, _| {
        let ratio = label.polls.slow_on_cpu_ratio.filter(|ratio| ratio.is_finite());
        ratio.map_or_else(Cell::unknown, |ratio| Cell::new(format!("{:.0} %", ratio * 100.0)))
    }),
];

/// Requests of all labels, where any layer counts them.
pub(crate) fn requests_total(labels: &[Label]) -> Option<String> {
    let known: Vec<u64> = labels.iter().filter_map(|label| label.requests_total).collect();
    (!known.is_empty()).then(|| words::count(known.iter().fold(0, |sum: u64, n| sum.saturating_add(*n))))
}
