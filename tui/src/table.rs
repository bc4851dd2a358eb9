//! What a table is: a list of columns, each with its title, width, cells and the key it sorts by, in one place.

pub(crate) mod groups;
pub(crate) mod labels;
pub(crate) mod tasks;

use taskscope_proto::words;

/// One column of a table of `R`, sortable by keys of `S`.
pub(crate) struct Column<R, S: 'static> {
    pub(crate) title: &'static str,
    pub(crate) width: Width,
    pub(crate) align: Align,
    /// Columns with the largest number leave first where the terminal is narrow; 0 always stays.
    pub(crate) leaves: u8,
    pub(crate) cell: fn(&R, &Context<'_>) -> Cell,
    pub(crate) sort: Option<S>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Fixed(u16),
    /// At least `min`, and a share of what is left.
    Share {
        min: u16,
        weight: u16,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// What a cell needs to know besides its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// Titles of the columns that have room.
    pub(crate) shown: &'a [&'static str],
    /// A poll this long is slow; `None`: not known.
    pub(crate) slow_poll_ns: Option<u64>,
    /// Workers of the target, by which a busy share is measured; `None`: not known.
    pub(crate) workers: Option<usize>,
}

impl Context<'_> {
    pub(crate) fn shows(&self, title: &str) -> bool {
        self.shown.contains(&title)
    }

    pub(crate) fn is_slow(&self, ns: u64) -> bool {
        self.slow_poll_ns.is_some_and(|slow| ns >= slow)
    }
}

/// Text of a target is written as it came; whoever draws it makes it harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
    pub(crate) cut: Cut,
}

/// Which end of a text that is too long goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    End,
    /// A path says most at its end; a `@` before it stays.
    Start,
}

/// How loud a text is, in colours or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Quiet,
    Strong,
    Accent,
    Good,
    Warning,
    Critical,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, cut: Cut::End }
    }

    /// A value that is not known, which is not zero.
    pub(crate) fn unknown() -> Self {
        Self::new("–").tone(Tone::Quiet)
    }

    /// A text, or unknown where it is empty.
    pub(crate) fn text(text: &str) -> Self {
        if text.is_empty() { Self::unknown() } else { Self::new(text) }
    }

    /// A place in a source.
    pub(crate) fn place(text: &str) -> Self {
        Self { cut: Cut::Start, ..Self::text(text) }
    }

    /// Where a task was spawned, standing in for a name: marked, and short.
    pub(crate) fn at(place: &str) -> Self {
        Self { cut: Cut::Start, ..Self::new(format!("@{}", place_in_file(place))) }
    }

    pub(crate) fn duration(ns: Option<u64>) -> Self {
        ns.map_or_else(Self::unknown, |ns| Self::new(words::duration(ns)))
    }

    pub(crate) fn count(n: u64) -> Self {
        Self::new(if n < 100_000 { words::count(n) } else { words::short_count(n as f64) })
    }

    pub(crate) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    /// `tone` where `condition` holds.
    pub(crate) fn tone_if(self, condition: bool, tone: Tone) -> Self {
        if condition { self.tone(tone) } else { self }
    }
}

/// `src/session.rs:71:9` without the column, which takes room and tells nobody more.
pub(crate) fn place_in_file(place: &str) -> &str {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match place.rsplit_once(':') {
        Some((rest, column))
            if is_number(column) && rest.rsplit_once(':').is_some_and(|(_, line)| is_number(line)) =>
        {
            rest
        }
        _ => place,
    }
}

/// The column a table is sorted by, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sort<S> {
    pub(crate) key: S,
    pub(crate) ascending: bool,
}

impl<S: Copy + PartialEq> Sort<S> {
    pub(crate) fn largest_first(key: S) -> Self {
        Self { key, ascending: false }
    }

    /// Moves to the next (or the previous) sortable column, largest first; the last is followed by the first.
    pub(crate) fn step<R>(&mut self, columns: &[Column<R, S>], forward: bool) {
        let keys: Vec<S> = columns.iter().filter_map(|column| column.sort).collect();
        if keys.is_empty() {
            return;
        }
        let at = keys.iter().position(|&key| key == self.key);
        let to = match (at, forward) {
            (None, _) => 0,
            (Some(at), true) => (at + 1) % keys.len(),
            (Some(at), false) => (at + keys.len() - 1) % keys.len(),
        };
        *self = Self::largest_first(keys[to]);
    }

    /// `▼` largest first, `▲` smallest first.
    pub(crate) fn mark(&self) -> char {
        if self.ascending { '▲' } else { '▼' }
    }
}

/// The columns that have room in `width`, with the width of each. One blank stands between two columns.
pub(crate) fn fit<R, S>(columns: &[Column<R, S>], width: u16) -> Vec<(&Column<R, S>, u16)> {
    let mut shown: Vec<&Column<R, S>> = columns.iter().collect();
    let least = |shown: &[&Column<R, S>]| -> usize {
        let cells: usize = shown
            .iter()
            .map(|column| match column.width {
                Width::Fixed(width) | Width::Share { min: width, .. } => usize::from(width),
            })
            .sum();
        cells + shown.len().saturating_sub(1)
    };
    while least(&shown) > usize::from(width) {
        let Some((at, _)) =
            shown.iter().enumerate().filter(|(_, it)| it.leaves > 0).max_by_key(|(_, it)| it.leaves)
        else {
            break;
        };
        shown.remove(at);
    }
    let spare = usize::from(width).saturating_sub(least(&shown));
    let weights: usize = shown
        .iter()
        .map(|column| match column.width {
            Width::Fixed(_) => 0,
            Width::Share { weight, .. } => usize::from(weight),
        })
        .sum();
    let (mut weight_left, mut spare_left) = (weights, spare);
    shown
        .into_iter()
        .map(|column| match column.width {
            Width::Fixed(width) => (column, width),
            Width::Share { min, weight } => {
                let more = (spare_left * usize::from(weight)).checked_div(weight_left).unwrap_or(0);
                weight_left -= usize::from(weight);
                spare_left -= more;
                (column, min.saturating_add(more as u16))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths<R, S>(columns: &[Column<R, S>], width: u16) -> (Vec<&'static str>, u16) {
        let fitted = fit(columns, width);
        let used: u16 = fitted.iter().map(|(_, width)| width).sum();
        (fitted.iter().map(|(column, _)| column.title).collect(), used + fitted.len() as u16 - 1)
    }

    #[test]
    fn every_table_uses_the_whole_width_and_no_more() {
        for width in 60..=200 {
            assert_eq!(widths(tasks::TASKS, width).1, width);
            assert_eq!(widths(tasks::PENDING, width).1, width);
            assert_eq!(widths(groups::GROUPS, width).1, width);
            assert_eq!(widths(labels::LABELS, width).1, width);
        }
    }

    #[test]
    fn a_wide_terminal_shows_every_column_and_a_narrow_one_keeps_what_matters() {
        assert_eq!(widths(tasks::TASKS, 140).0.len(), tasks::TASKS.len());
        assert_eq!(widths(groups::GROUPS, 120).0.len(), groups::GROUPS.len());
        let (narrow, _) = widths(tasks::TASKS, 40);
        assert_eq!(narrow, ["id", "name", "state"]);
    }

    #[test]
    fn every_sort_key_is_reached_and_the_last_is_followed_by_the_first() {
        let mut sort = Sort::largest_first(tasks::TASKS[0].sort.expect("the id sorts"));
        let start = sort;
        let count = tasks::TASKS.iter().filter(|column| column.sort.is_some()).count();
        let mut seen = Vec::new();
        for _ in 0..count {
            assert!(!seen.contains(&sort.key));
            seen.push(sort.key);
            sort.step(tasks::TASKS, true);
        }
        assert_eq!(sort, start);
        assert_eq!(seen.len(), taskscope_proto::row::SORT_KEYS.len());
        sort.step(tasks::TASKS, false);
        assert_eq!(sort.key, seen[seen.len() - 1]);
    }
}
