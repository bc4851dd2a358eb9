//! tokio-console: a live list of tasks, and a page of details of each.

use super::keys::{self, Key};
use super::place::{Place, places};

pub(crate) const SCRIPT: &str = "\
    `tokio-console http://127.0.0.1:PORT` and Enter; Right, which sorts by busy time; then, over and over with a second \
    between: `gg`, Down, Down and Enter for the details of the busiest task that is none of the runtime's two workers, \
    Escape, Left and `i` for the newest tasks first, `i` and Right for the busiest again. It points at the spawn site in the \
    details, at those of tasks that it warns of, and in the list of the newest at the spawn site of more than half of what is \
    on the screen.";

pub(crate) fn keys(turns: usize, port: u16) -> Vec<Key> {
    let text = |text: &str| Key::Text(text.to_owned());
    match turns {
        0 => keys::command(&format!("tokio-console http://127.0.0.1:{port}")),
        1 => vec![Key::Right],
        turns => match turns % 3 {
            2 => vec![text("gg"), Key::Down, Key::Down, Key::Enter],
            0 => vec![Key::Escape, Key::Left, text("i")],
            _ => vec![text("i"), Key::Right],
        },
    }
}

pub(crate) fn pointed_at(screen: &str) -> Vec<Place> {
    if screen.contains("Location: ") {
        return screen.lines().filter(|line| line.contains("Location: ")).flat_map(places).collect();
    }
    let rows = || screen.lines().filter(|line| line.contains(" task ") || line.contains(" blocking "));
    let mut pointed_at: Vec<Place> = rows().filter(|row| row.contains('⚠')).flat_map(places).collect();
    if screen.contains("Total▵") {
        let newest: Vec<Place> = rows().flat_map(places).collect();
        let most = newest.iter().max_by_key(|place| newest.iter().filter(|other| other == place).count());
        let count = |place: &Place| newest.iter().filter(|other| *other == place).count();
        pointed_at.extend(most.filter(|place| count(place) * 2 > rows().count()).cloned());
    }
    pointed_at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(screen: &str) -> Vec<String> {
        pointed_at(screen).iter().map(Place::to_string).collect()
    }

    const ROWS: &str = "\
│      4 ▶  12s   89ms 1 blocking <cargo>/tokio-1.54.1/src/runtime/worker.rs:515:13  fn=launch │
│    273 ⏸  12s   89ms 1 task     /me/demo/src/session.rs:63:20  size.bytes=880 │
│⚠ 1 272 ▶  12s   94ms 1 task     /me/demo/src/listener.rs:31:23 size.bytes=880 │
│    271 ⏸  12s  113ms 1 task     /me/demo/src/session.rs:63:20  size.bytes=880 │
│    270 ⏸  12s  113ms 1 task     /me/demo/src/session.rs:63:20  size.bytes=880 │
";

    #[test]
    fn a_list_points_at_what_it_warns_of_and_the_newest_at_most_of_them() {
        let sorted_by = |title: &str| format!("│Warn  ID  State  Name  {title} Kind  Location │\n{ROWS}");
        assert_eq!(read(&sorted_by("Total  Busy▿")), ["demo/src/listener.rs:31"]);
        assert_eq!(read(&sorted_by("Total▵ Busy ")), ["demo/src/listener.rs:31", "demo/src/session.rs:63"]);
        let one_less = sorted_by("Total▵ Busy ").replacen("session.rs:63", "queue.rs:9", 1);
        assert_eq!(read(&one_less), ["demo/src/listener.rs:31"]);
    }

    #[test]
    fn details_point_at_the_spawn_site() {
        let details = "╭Task──╮╭Waker──╮\n│ID: 241 ⏸ ││Current wakers: 1\n│Location: /me/demo/src/listener.rs:31:23 ││  Drops\n";
        assert_eq!(read(details), ["demo/src/listener.rs:31"]);
        assert!(read("│Location: <cargo>/tokio-1.54.1/src/worker.rs:515:13 ││\n").is_empty());
    }

    #[test]
    fn the_keys_of_its_views_come_round_again() {
        let strokes = |turns| keys(turns, 6669).iter().map(Key::strokes).sum::<usize>();
        assert_eq!([0, 1, 2, 3, 4, 5].map(strokes), [36, 1, 5, 3, 2, 5]);
        assert_eq!(keys(2, 6669), keys(5, 6669));
    }
}
