//! dial9 afterwards: its recorder writes segments, and the toolkit that its crate ships makes a report of those that are
//! sealed.

use super::place::{Place, places};

/// Folders inside the run's.
pub(crate) const TRACES: &str = "traces";
pub(crate) const TOOLKIT: &str = "toolkit";

pub(crate) const COMMAND: &str = "node toolkit/analyze.js traces";

/// What each part of the report that names culprits puts first: of the longest poll that has a stack in the service's own
/// code its innermost such frame, of the calls that blocked in a poll the same, where leaked tasks were spawned, and of the
/// code that is on CPU most the innermost frame of the heaviest path.
pub(crate) fn pointed_at(answer: &str, own_files: &[String]) -> Vec<Place> {
    let first = |section: &str| {
        let lines = section.lines().filter(|line| !line.contains("spawn: "));
        lines.flat_map(|line| named(line, own_files)).next()
    };
    let leak = part(answer, "POSSIBLE TASK LEAK").and_then(|section| places(section).into_iter().next());
    let hot = part(answer, "CPU HOTSPOTS")
        .and_then(|section| heaviest(section).into_iter().flat_map(|line| named(line, own_files)).last());
    [
        part(answer, "LONG POLLS").and_then(first),
        part(answer, "IN-POLL blocking call stacks").and_then(first),
        leak,
        hot,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// From a title to the next part.
fn part<'a>(answer: &'a str, title: &str) -> Option<&'a str> {
    let (_, rest) = answer.split_once(title)?;
    let (_, rest) = rest.split_once('\n')?;
    // The rule under the title is not its end.
    let body = rest.trim_start_matches('─').trim_start_matches('\n');
    Some(body.split("\n──").next().unwrap_or(body))
}

/// Of a tree whose heaviest branches come first, the first path from the root: lines that go further in.
fn heaviest(tree: &str) -> Vec<&str> {
    let mut path: Vec<&str> = Vec::new();
    let depth = |line: &str| line.len() - line.trim_start().len();
    for line in tree.lines().filter(|line| line.contains(" samples (")) {
        if path.last().is_some_and(|last| depth(line) <= depth(last)) {
            break;
        }
        path.push(line);
    }
    path
}

/// Places of the service's own code; of frames dial9 tells the file's name without its folder.
fn named(line: &str, own_files: &[String]) -> Vec<Place> {
    let full = places(line);
    if !full.is_empty() {
        return full;
    }
    let words = line.split_whitespace();
    words
        .filter_map(|word| {
            let (file, number) = word.split_once(':')?;
            own_files.iter().any(|own| own == file).then_some(())?;
            Some(Place { file: format!("demo/src/{file}"), line: number.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
────────────
LONG POLLS (>1ms)
────────────
  Found 2 long poll(s) — worst 5.00s

  ▸ 5.00s on worker 1 at 11.94s [trace.2.bin]
    Task 121, spawn: /home/me/demo/src/listener.rs:24:62
    1 scheduling sample(s) — blocking call stacks:
      Called from:  syscall :38
      App call chain (69 frames):
        sleep functions.rs:313
        has storage.rs:37
        {async_fn#0} api.rs:87

────────────
TASK LIFECYCLE
────────────
  Spawns by location:
     12 × /home/me/demo/src/queue.rs:9:1
  ⚠ POSSIBLE TASK LEAK — active count grew monotonically
    600 leaked from /home/me/demo/src/session.rs:63:20
    50 leaked from /home/me/demo/src/listener.rs:24:62

────────────
CPU HOTSPOTS (on-CPU samples)
────────────
  422 CPU sample(s)

    31 samples (7.3%) write_thumbnail storage.rs:45
      21 samples (5.0%) spend work.rs:14
        18 samples (4.3%) lt cmp.rs:1916 (self: 18)
      8 samples (1.9%) spend work.rs:15
    14 samples (3.3%) {closure#0} load.rs:84
";

    fn own_files() -> Vec<String> {
        ["api.rs", "load.rs", "storage.rs", "work.rs"].map(str::to_owned).into()
    }

    fn read(report: &str) -> Vec<String> {
        pointed_at(report, &own_files()).iter().map(Place::to_string).collect()
    }

    #[test]
    fn each_part_of_the_report_points_at_what_it_puts_first() {
        assert_eq!(read(REPORT), ["demo/src/storage.rs:37", "demo/src/session.rs:63", "demo/src/work.rs:14"]);
    }

    #[test]
    fn lists_of_spawn_sites_and_files_of_libraries_point_at_nothing() {
        let healthy = "\nLONG POLLS (>1ms)\n───\n  ▸ 1ms\n    Task 1, spawn: /me/demo/src/listener.rs:24:62\n    run mod.rs:9\n\
                       \n──\nTASK LIFECYCLE\n──\n  Spawns by location:\n   12 × /me/demo/src/queue.rs:9:1\n";
        assert!(read(healthy).is_empty());
        assert!(read("").is_empty());
    }
}
