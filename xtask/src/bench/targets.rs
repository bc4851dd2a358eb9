//! What watching may cost, and whether it does. Instructions gate; times swing with the machine and are published.

use super::figures::{Figure, Figures};
use super::modes::Mode;
use super::table::{Table, number, signed};

/// One thing that must hold of what a mode adds to bare.
#[derive(Debug)]
struct Target {
    figure: Figure,
    mode: Mode,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    /// It adds no more than this.
    Added(f64),
    /// It is no more than this: bare has nothing of the kind.
    Is(f64),
    /// It adds no more than one part in so many of what the other adds.
    PartOf(Mode, u32),
}

const fn added(figure: Figure, mode: Mode, most: f64) -> Target {
    Target { figure, mode, bound: Bound::Added(most) }
}

const fn part(figure: Figure, parts: u32, of: Mode) -> Target {
    Target { figure, mode: Mode::TaskscopeHooks, bound: Bound::PartOf(of, parts) }
}

/// 16 MiB for 100 000 live tasks with timers.
const TIMER_TASK_BYTES: f64 = (16 << 20) as f64 / 100_000.0;

const TARGETS: [Target; 20] = [
    added(Figure::YieldInstructions, Mode::TaskscopeHooks, 95.0),
    added(Figure::YieldInstructions, Mode::TaskscopeStacks, 95.0),
    part(Figure::YieldInstructions, 5, Mode::Dial9),
    part(Figure::YieldInstructions, 20, Mode::ConsoleSubscriber),
    Target {
        figure: Figure::YieldInstructions,
        mode: Mode::TaskscopeWrapper,
        bound: Bound::PartOf(Mode::Dial9Spawn, 1),
    },
    part(Figure::PingpongInstructions, 5, Mode::Dial9),
    part(Figure::PingpongInstructions, 20, Mode::ConsoleSubscriber),
    part(Figure::SpawnInstructions, 2, Mode::Dial9),
    part(Figure::YieldNs, 5, Mode::Dial9),
    part(Figure::YieldNs, 20, Mode::ConsoleSubscriber),
    part(Figure::PingpongNs, 5, Mode::Dial9),
    part(Figure::PingpongNs, 20, Mode::ConsoleSubscriber),
    part(Figure::SpawnNs, 2, Mode::Dial9),
    part(Figure::SpawnNs, 300, Mode::ConsoleSubscriber),
    added(Figure::IdleTaskBytes, Mode::TaskscopeHooks, 96.0),
    added(Figure::IdleTaskBytes, Mode::TaskscopeWrapper, 192.0),
    added(Figure::IdleTimerTaskBytes, Mode::TaskscopeHooks, 96.0),
    added(Figure::IdleTimerTaskBytes, Mode::TaskscopeWrapper, 192.0),
    added(Figure::IdleTimerTaskBytes, Mode::TaskscopeHooks, TIMER_TASK_BYTES),
    Target { figure: Figure::StackSampleNs, mode: Mode::TaskscopeStacks, bound: Bound::Is(50_000.0) },
];

/// Each target for which there are figures, and whether it is met.
pub(crate) fn table(figures: &Figures) -> Table {
    let mut table = Table::new(3, &["target", "mode", "at most", "measured", "met"]);
    for Target { figure, mode, bound } in TARGETS {
        let (most, measured, met) = match bound {
            Bound::Added(most) => {
                let Some(added) = figures.added(mode, figure) else { continue };
                (signed(most), signed(added.median), Some(added.median <= most))
            }
            Bound::Is(most) => {
                let Some(all) = figures.spread(mode, figure) else { continue };
                (number(most), number(all.median), Some(all.median <= most))
            }
            Bound::PartOf(other, parts) => {
                let measured = [mode, other].map(|mode| figures.added(mode, figure).is_some());
                if measured != [true; 2] {
                    continue;
                }
                let most = format!("1/{parts} of {}", other.name());
                match figures.share(mode, other, figure) {
                    Some(share) => (most, fraction(share), Some(share * f64::from(parts) <= 1.0)),
                    None => (most, format!("{} adds nothing", other.name()), None),
                }
            }
        };
        let met = match met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not known",
        };
        table.row([figure.title().to_owned(), mode.name().to_owned(), most, measured, met.to_owned()]);
    }
    table
}

/// What the probe adds as a share of what its peers add.
pub(crate) fn shares(figures: &Figures) -> Table {
    const AGAINST: [(Mode, Mode); 4] = [
        (Mode::TaskscopeHooks, Mode::Dial9),
        (Mode::TaskscopeHooks, Mode::ConsoleSubscriber),
        (Mode::TaskscopeWrapper, Mode::Dial9Spawn),
        (Mode::TaskscopeWrapper, Mode::TokioMetrics),
    ];
    let titles: Vec<String> =
        AGAINST.iter().map(|(mode, other)| format!("{} / {}", mode.name(), other.name())).collect();
    let mut table =
        Table::new(1, &std::iter::once("added").chain(titles.iter().map(String::as_str)).collect::<Vec<_>>());
    for figure in Figure::ALL {
        let shares = AGAINST.map(|(mode, other)| figures.share(mode, other, figure));
        if shares.iter().any(Option::is_some) {
            let cells = shares.map(|share| share.map_or("–".to_owned(), fraction));
            table.row(std::iter::once(figure.title().to_owned()).chain(cells));
        }
    }
    table
}

/// `1/5.0` for less than the whole, `2.0 ×` for more, and what is not above nothing as it is.
fn fraction(share: f64) -> String {
    if share <= 0.0 {
        "nothing".to_owned()
    } else if share < 1.0 {
        format!("1/{}", number(1.0 / share))
    } else {
        format!("{} ×", number(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_or_not_by_what_is_added() {
        let mut figures = Figures::default();
        for (mode, value) in [
            (Mode::Bare, 600.0),
            (Mode::TaskscopeHooks, 690.0),
            (Mode::Dial9, 1000.0),
            (Mode::ConsoleSubscriber, 3600.0),
        ] {
            figures.push(mode, Figure::YieldInstructions, Some(value));
        }
        figures.push(Mode::TaskscopeStacks, Figure::StackSampleNs, Some(60_000.0));
        // The machine was in the way of bare.
        for (mode, value) in [(Mode::Bare, 1400.0), (Mode::TaskscopeHooks, 1500.0), (Mode::Dial9, 1100.0)] {
            figures.push(mode, Figure::SpawnNs, Some(value));
        }
        let text = table(&figures).markdown();
        let rows: Vec<Vec<&str>> =
            text.lines().skip(2).map(|row| row.split('|').skip(2).map(str::trim).collect()).collect();
        assert_eq!(
            rows,
            [
                ["taskscope-hooks", "+95.0", "+90.0", "yes", ""],
                ["taskscope-hooks", "1/5 of dial9", "1/4.4", "**no**", ""],
                ["taskscope-hooks", "1/20 of console-subscriber", "1/33.3", "yes", ""],
                ["taskscope-hooks", "1/2 of dial9", "dial9 adds nothing", "not known", ""],
                ["taskscope-stacks", "50 000", "60 000", "**no**", ""],
            ]
        );
        assert!(shares(&figures).markdown().contains("1/4.4"));
        assert!(table(&Figures::default()).is_empty() && shares(&Figures::default()).is_empty());
    }

    #[test]
    fn shares_are_read_as_parts_or_multiples() {
        assert_eq!([0.2, 2.0, -0.1].map(fraction), ["1/5.0", "2.0 ×", "nothing"]);
    }
}
