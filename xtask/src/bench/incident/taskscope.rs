//! `taskscope why`, once a second until it names a line.

use super::place::{Place, places};

pub(crate) const COMMAND: &str = "taskscope why demo";

/// The first line of its first sentence: what a person who reads no further takes with him.
pub(crate) fn pointed_at(answer: &str) -> Vec<Place> {
    let mut lines = answer.lines().map(str::trim).filter(|line| !line.is_empty() && !line.ends_with(COMMAND));
    lines.next().map(places).unwrap_or_default().into_iter().take(1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_place_of_the_first_sentence_counts() {
        let read = |text: &str| pointed_at(text).iter().map(Place::to_string).collect::<Vec<_>>();
        let stuck = " taskscope why demo\nSTUCK 1.0 s: both in POST /resize, in std::thread::sleep, \
                     demo/src/storage.rs:37. 44 tasks ready.\nearlier: … demo/src/prices.rs:58\n";
        assert_eq!(read(stuck), ["demo/src/storage.rs:37"]);
        assert!(
            read(" taskscope why demo\nhealthy. 212 tasks\n\nearlier: … demo/src/prices.rs:58").is_empty()
        );
        assert!(read(" taskscope why demo\n").is_empty());
    }
}
