//! `top NAME` follows the name, not the process.

use std::path::Path;
use std::time::Duration;

use taskscope_tests::Build;
use taskscope_tests::screen::Screen;
use taskscope_tests::stopwatch::Stopwatch;
use taskscope_tests::target::{Target, runtime_folder};
use taskscope_tests::{eventually, evidence, peer};

fn shop(folder: &Path, mark: &str) -> Target {
    let target = Target::program("target-plain").args(["--idle", "3", "--mark", mark]);
    target.env("TASKSCOPE_NAME", "shop").in_runtime_folder(folder).start()
}

#[test]
fn new_rows_come_within_three_seconds_and_are_never_mixed_with_old_ones() {
    if !peer("tmux") {
        return;
    }
    let (_guard, folder) = runtime_folder();
    let mut target = shop(&folder, "old");
    let screen = Screen::open(120, 30, &[("XDG_RUNTIME_DIR", &folder.to_string_lossy()), ("NO_COLOR", "1")]);
    screen.run(&format!("{} top shop", Build::Hooks.program("taskscope").display()));
    screen.shows(Duration::from_secs(15), |_| screen.is_alternate());
    screen.keys(&["t"]);
    screen.shows(Duration::from_secs(15), |text| text.contains("idle-old"));

    let mut slowest = Duration::ZERO;
    for (before, after) in [("old", "new"), ("new", "newest")] {
        let (before, after) = (format!("idle-{before} "), format!("idle-{after} "));
        target.process.kill();
        target = shop(&folder, after.trim_start_matches("idle-").trim());
        let listening = Stopwatch::start();
        eventually(Duration::from_secs(3), || {
            let text = screen.text();
            assert!(
                !(text.contains(&before) && text.contains(&after)),
                "old and new rows are mixed:\n{text}"
            );
            if text.contains(&after) { Ok(()) } else { Err(text) }
        });
        slowest = slowest.max(listening.elapsed());
    }
    evidence(
        "rows of a restarted target under `top NAME`",
        format!("after {} ms at most", slowest.as_millis()),
    );
    screen.keys(&["q"]);
    screen.shows(Duration::from_secs(5), |_| !screen.is_alternate());
}
