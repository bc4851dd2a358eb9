//! One figure in several rounds: its median and its spread.

/// What was measured, in the order of the rounds; a round that failed has none.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Sample {
    rounds: Vec<Option<f64>>,
}

/// Of the rounds that there are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// First and third quartile.
    pub(crate) quartiles: (f64, f64),
}

impl Sample {
    pub(crate) fn push(&mut self, figure: Option<f64>) {
        self.rounds.push(figure);
    }

    pub(crate) fn spread(&self) -> Option<Spread> {
        spread(self.rounds.iter().copied().flatten().collect())
    }

    /// What this one adds to `bare`, taken within each round: a machine that others use swings by a factor of two within
    /// minutes, and both of a round see the same swing.
    pub(crate) fn added_to(&self, bare: &Self) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&bare.rounds);
        spread(pairs.filter_map(|(mine, bare)| Some((*mine)? - (*bare)?)).collect())
    }
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (values.len() - 1) as f64;
        let below = values[place.floor() as usize];
        below + (values[place.ceil() as usize] - below) * place.fract()
    };
    (!values.is_empty()).then(|| Spread { median: at(0.5), quartiles: (at(0.25), at(0.75)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rounds: &[f64]) -> Sample {
        Sample { rounds: rounds.iter().map(|figure| figure.is_finite().then_some(*figure)).collect() }
    }

    #[test]
    fn the_median_and_the_quartiles_of_odd_even_and_none() {
        let odd = sample(&[5.0, 1.0, 4.0, 2.0, 3.0]).spread();
        assert_eq!(odd, Some(Spread { median: 3.0, quartiles: (2.0, 4.0) }));
        let even = sample(&[1.0, 2.0]).spread();
        assert_eq!(even, Some(Spread { median: 1.5, quartiles: (1.25, 1.75) }));
        assert_eq!(sample(&[f64::NAN]).spread(), None);
        assert_eq!(Sample::default().spread(), None);
    }

    #[test]
    fn what_is_added_is_taken_within_a_round() {
        // The machine was twice as slow in the second round: both saw it.
        let bare = sample(&[50.0, 100.0, 50.0, f64::NAN]);
        let watched = sample(&[60.0, 110.0, 60.0, 60.0]);
        assert_eq!(watched.added_to(&bare).map(|spread| spread.median), Some(10.0));
        assert_eq!(watched.added_to(&Sample::default()), None);
    }
}
