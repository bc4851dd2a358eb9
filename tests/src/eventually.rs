//! Waiting for what must become true.

use std::time::Duration;

use crate::stopwatch::Stopwatch;

const POLL_EVERY: Duration = Duration::from_millis(20);

/// Asks every 20 ms until the answer is `Ok`, and gives it.
///
/// # Panics
/// When `within` is over, with the last answer: the state that was seen instead.
#[track_caller]
pub fn eventually<T>(within: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let watch = Stopwatch::start();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(state) if watch.elapsed() >= within => {
                panic!("did not become true within {within:?}; last seen:\n{state}")
            }
            Err(_) => std::thread::sleep(POLL_EVERY),
        }
    }
}

/// For as long as `during`, asks every 20 ms; what is true must stay true.
///
/// # Panics
/// On the first answer that is no `Ok`.
#[track_caller]
pub fn always(during: Duration, mut ask: impl FnMut() -> Result<(), String>) {
    let watch = Stopwatch::start();
    loop {
        if let Err(state) = ask() {
            panic!("no longer true after {:?}:\n{state}", watch.elapsed());
        }
        if watch.elapsed() >= during {
            return;
        }
        std::thread::sleep(POLL_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_the_first_good_answer() {
        let mut asked = 0;
        let answer = eventually(Duration::from_secs(5), || {
            asked += 1;
            if asked < 3 { Err(format!("asked {asked} times")) } else { Ok(asked) }
        });
        assert_eq!(answer, 3);
    }

    #[test]
    #[should_panic(expected = "last seen:\nstill no")]
    fn it_says_what_it_saw_last() {
        eventually(Duration::from_millis(50), || Err::<(), _>("still no".to_owned()));
    }

    #[test]
    #[should_panic(expected = "broke")]
    fn what_must_stay_true_is_asked_again() {
        let mut asked = 0;
        always(Duration::from_secs(5), || {
            asked += 1;
            if asked < 3 { Ok(()) } else { Err("broke".to_owned()) }
        });
    }
}
