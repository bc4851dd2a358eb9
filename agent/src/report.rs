//! What the commands print: text for people, one JSON object a line for programs (unknown is absent). Data goes to
//! standard output; a reader that has gone is no error.

use std::io::{self, Write};

pub(crate) mod check;
pub(crate) mod flame;
pub(crate) mod ls;
pub(crate) mod pools;
pub(crate) mod rules;
pub(crate) mod stacks;
pub(crate) mod status;
pub(crate) mod tasks;

/// Standard output, with a broken pipe told apart.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(anyhow::Error::from)
}

/// One JSON object on its line.
pub(crate) fn json_line(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string(value)?))
}

/// Columns of a table for people: as wide as their widest cell, two spaces between, the last one not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_with_their_text() {
        let rows = [vec!["ID".into(), "NAME".into()], vec!["1 000".into(), "a".into()]];
        assert_eq!(table(&rows), "ID     NAME\n1 000  a\n");
    }
}
