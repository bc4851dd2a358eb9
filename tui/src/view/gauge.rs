//! Bars and graphs out of characters.

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar of `width` cells, `ratio` of it full. A little is never nothing.
pub(crate) fn bar(ratio: f64, width: usize) -> String {
    let ratio = if ratio.is_finite() { ratio.clamp(0.0, 1.0) } else { 0.0 };
    let full = ((ratio * width as f64).round() as usize).max(usize::from(ratio > 0.0)).min(width);
    "■".repeat(full) + &"·".repeat(width - full)
}

/// One line of a graph that goes from 0 to the largest value. What is not known is blank; zero is the lowest level.
pub(crate) fn spark(cells: &[Option<f64>]) -> String {
    let largest = cells.iter().flatten().copied().fold(0.0, f64::max);
    let level = |value: f64| match largest {
        largest if largest > 0.0 && value > 0.0 => {
            // Whatever is above zero is seen to be.
            (1.0 + (value / largest * 6.0).round()).min(7.0) as usize
        }
        _ => 0,
    };
    cells.iter().map(|cell| cell.map_or(' ', |value| LEVELS[level(value)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_when_it_is_and_empty_only_when_it_is() {
        assert_eq!([bar(0.0, 4), bar(0.01, 4), bar(0.5, 4), bar(1.0, 4)], ["····", "■···", "■■··", "■■■■"]);
        assert_eq!([bar(f64::NAN, 2), bar(9.0, 2), bar(-1.0, 2), bar(0.5, 0)], ["··", "■■", "··", ""]);
    }

    #[test]
    fn zero_and_unknown_look_different() {
        assert_eq!(spark(&[Some(0.0), None, Some(0.001), Some(4.0), Some(8.0)]), "▁ ▂▅█");
        assert_eq!(spark(&[Some(0.0), Some(0.0)]), "▁▁");
    }
}
