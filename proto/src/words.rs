//! Durations, counts and places as people read them, the same on every screen and in every sentence.

/// `212 ms`, `3.2 s`, `4m05s`, `2h10m`, `3d04h`; two significant places at the most below a minute.
pub fn duration(ns: u64) -> String {
    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;
    const S: u64 = 1_000_000_000;
    let seconds = ns / S;
    match ns {
        0..US => format!("{ns} ns"),
        US..MS => format!("{} µs", ns / US),
        MS..S => format!("{} ms", ns / MS),
        _ if ns < 10 * S => format!("{:.1} s", (ns / (S / 10)) as f64 / 10.0),
        _ if seconds < 60 => format!("{seconds} s"),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Digits in groups of three: `1 312`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A rate or size with a suffix: `870`, `1.1 k`, `23 k`, `4.0 M`.
pub fn short_count(n: f64) -> String {
    if n < 10.0 && n.fract() > 0.05 {
        return format!("{n:.1}");
    }
    match n {
        n if n < 1_000.0 => format!("{n:.0}"),
        n if n < 9_950.0 => format!("{:.1} k", n / 1e3),
        n if n < 1_000_000.0 => format!("{:.0} k", n / 1e3),
        n => format!("{:.1} M", n / 1e6),
    }
}

/// `412 B`, `1.5 MiB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_024 => format!("{n} B"),
        1_024..1_048_576 => format!("{:.1} KiB", n as f64 / 1_024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", n as f64 / 1_073_741_824.0),
    }
}

/// A source file as its reader knows it, as two parts to be joined; allocates nothing. Paths into Cargo's registry or
/// checkouts begin at the package, without its version; paths into the standard library begin at `std`.
pub fn source_parts(file: &str) -> (&str, &str) {
    if let Some((_, rest)) = file.split_once("/registry/src/") {
        return without_version(rest.split_once('/').map_or(rest, |(_, package)| package));
    }
    if let Some((_, rest)) = file.split_once("/git/checkouts/") {
        // <name>-<hash>/<revision>/src/…
        if let Some((checkout, inside)) = rest.split_once('/')
            && let Some(slash) = inside.find('/')
        {
            return (checkout.rsplit_once('-').map_or(checkout, |(name, _)| name), &inside[slash..]);
        }
    }
    if file.starts_with("/rustc/")
        && let Some((_, rest)) = file.split_once("/library/")
    {
        return (rest, "");
    }
    (file, "")
}

/// [`source_parts`], joined.
pub fn source_path(file: &str) -> String {
    let (package, rest) = source_parts(file);
    [package, rest].concat()
}

/// `axum-0.8.9/src/serve.rs` → `axum`, `/src/serve.rs`.
fn without_version(path: &str) -> (&str, &str) {
    let (package, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let version = package.match_indices('-').find(|&(at, _)| {
        package[at + 1..].starts_with(|c: char| c.is_ascii_digit()) && package[at..].contains('.')
    });
    (version.map_or(package, |(at, _)| &package[..at]), rest)
}

/// Replaces control characters, so that a name from a target cannot write to a terminal or a log.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let cases = [
            (999, "999 ns"),
            (1_500, "1 µs"),
            (212_400_000, "212 ms"),
            (3_250_000_000, "3.2 s"),
            (9_990_000_000, "9.9 s"),
            (33_000_000_000, "33 s"),
            (245_000_000_000, "4m05s"),
            (7_800_000_000_000, "2h10m"),
            (273_600_000_000_000, "3d04h"),
        ];
        for (ns, expected) in cases {
            assert_eq!(duration(ns), expected);
        }
    }

    #[test]
    fn counts_read_as_people_say_them() {
        assert_eq!([count(7), count(1_312), count(1_000_000)], ["7", "1 312", "1 000 000"]);
        assert_eq!(
            [short_count(870.0), short_count(1_120.0), short_count(23_400.0)],
            ["870", "1.1 k", "23 k"]
        );
        assert_eq!(short_count(0.5), "0.5");
    }

    #[test]
    fn a_path_begins_where_its_reader_knows_it() {
        let cases = [
            (
                "/home/a/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/axum-0.8.9/src/serve/mod.rs",
                "axum/src/serve/mod.rs",
            ),
            ("/c/registry/src/x/h2-0.4.20/src/lib.rs", "h2/src/lib.rs"),
            ("/c/git/checkouts/mini-redis-0a1b2c/3d93b42/src/server.rs", "mini-redis/src/server.rs"),
            ("/rustc/59807616e/library/std/src/thread/mod.rs", "std/src/thread/mod.rs"),
            ("src/session.rs", "src/session.rs"),
        ];
        for (file, expected) in cases {
            assert_eq!(source_path(file), expected);
        }
    }
}
