//! Tables that are read on a terminal and as Markdown.

use std::fmt::Write as _;

/// The first columns are of words, all others of numbers.
#[derive(Debug)]
pub(crate) struct Table {
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// The first `words` columns are of words.
    pub(crate) fn new(words: usize, titles: &[&str]) -> Self {
        Self { words, rows: vec![titles.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// As many cells as there are titles.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(crate) fn markdown(&self) -> String {
        let columns = self.rows[0].len();
        let widths: Vec<usize> = (0..columns)
            .map(|at| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default().max(3))
            .collect();
        let mut out = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let _ = match at {
                    at if at < self.words => write!(out, "| {cell:width$} "),
                    _ => write!(out, "| {cell:>width$} "),
                };
            }
            out.push_str("|\n");
            if number == 0 {
                for (at, &width) in widths.iter().enumerate() {
                    let _ = match at {
                        at if at < self.words => write!(out, "|{:-<1$}", "", width + 2),
                        _ => write!(out, "|{:-<1$}:", "", width + 1),
                    };
                }
                out.push_str("|\n");
            }
        }
        out
    }
}

/// A number as people read it: `38.2`, `1 081`, `52 773`.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 99.95 {
        // `-0.0` is nothing, and looks like something.
        return format!("{:.1}", if value.abs() < 0.05 { 0.0 } else { value });
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A number that is added: with its sign.
pub(crate) fn signed(value: f64) -> String {
    let number = number(value);
    if number.starts_with('-') || number == "0.0" { number } else { format!("+{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_small_ones_have_a_decimal() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.01, "0.0"),
            (38.16, "38.2"),
            (99.96, "100"),
            (1081.4, "1 081"),
            (52_772.9, "52 773"),
            (-1234.0, "-1 234"),
            (1_234_567.0, "1 234 567"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!([signed(5.0), signed(-5.0), signed(0.0)], ["+5.0", "-5.0", "0.0"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(1, &["mode", "ns"]);
        assert!(table.is_empty());
        table.row(["a|b".to_owned(), "1 081".to_owned()]);
        assert!(!table.is_empty());
        assert_eq!(table.markdown(), "| mode |    ns |\n|------|------:|\n| a\\|b | 1 081 |\n");
    }
}
