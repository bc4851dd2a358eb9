//! Lines of the service's own code, as tools write them.

use std::fmt;

/// Where the service's own code is; every other path is a library's.
const OWN: &str = "demo/src/";

/// `demo/src/storage.rs:37`, whatever stands before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// All in the order of the text. A file without a line is no place.
pub(crate) fn places(text: &str) -> Vec<Place> {
    text.match_indices(OWN)
        .filter_map(|(at, _)| {
            let rest = &text[at..];
            let (file, rest) = rest.split_once(".rs:")?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let is_path = file.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_'));
            is_path.then_some(())?;
            Some(Place { file: format!("{file}.rs"), line: rest[..digits].parse().ok()? })
        })
        .collect()
}

/// Each once, in the order of the first.
pub(crate) fn distinct(places: impl IntoIterator<Item = Place>) -> Vec<Place> {
    let mut all = Vec::new();
    for place in places {
        if !all.contains(&place) {
            all.push(place);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        places(text).iter().map(Place::to_string).collect()
    }

    #[test]
    fn a_place_is_read_as_every_tool_writes_it() {
        assert_eq!(
            read("in std::thread::sleep, demo/src/storage.rs:37. 44 tasks ready"),
            ["demo/src/storage.rs:37"]
        );
        assert_eq!(read("#4  has () at /home/me/shop/demo/src/storage.rs:37\n"), ["demo/src/storage.rs:37"]);
        assert_eq!(
            read("spawned at demo/src/session.rs:63:20, demo/src/load/connection.rs:9"),
            ["demo/src/session.rs:63", "demo/src/load/connection.rs:9"]
        );
    }

    #[test]
    fn libraries_and_files_without_a_line_are_no_places() {
        assert!(read("tokio-1.54.1/src/runtime/blocking/pool.rs:764").is_empty());
        assert!(read("demo/src/storage.rs, demo/src/ and x.rs:3, demo/src/work.rs:").is_empty());
    }

    #[test]
    fn a_place_counts_once() {
        let twice = places("demo/src/work.rs:14 demo/src/work.rs:15 demo/src/work.rs:14");
        assert_eq!(distinct(twice).len(), 2);
    }
}
