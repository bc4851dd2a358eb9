#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]

use super::*;
use proptest::prelude::*;

fn failed() -> Input {
    Input::Failed { reason: "gone".into() }
}

#[test]
fn a_link_that_is_lost_is_tried_again_and_comes_back() {
    let t0 = Instant::now();
    let mut link = Link::new(7);
    assert_eq!(link.apply(Input::Connected, t0), [Effect::Tell]);
    assert_eq!(link.apply(failed(), t0), [Effect::Tell]);
    let retry_at = link.next_timeout().expect("it is tried again");
    assert!(retry_at >= t0 + BACK_OFF_MIN);
    assert_eq!(link.apply(Input::Tick, t0), []);
    assert_eq!(link.apply(Input::Tick, retry_at), [Effect::Tell, Effect::Connect]);
    assert_eq!(link.apply(Input::Connected, retry_at), [Effect::Tell]);
    assert_eq!((link.state(), link.attempt()), (&State::Live { heard: retry_at }, 0));
}

#[test]
fn a_target_that_appears_is_connected_to_at_once() {
    let t0 = Instant::now();
    let mut link = Link::new(7);
    link.apply(failed(), t0);
    assert_eq!(link.apply(Input::Appeared, t0), [Effect::Tell, Effect::Connect]);
    assert_eq!(link.apply(Input::Appeared, t0), []);
}

#[test]
fn silence_makes_a_link_stale_and_a_frame_makes_it_live() {
    let t0 = Instant::now();
    let mut link = Link::new(7);
    link.apply(Input::Connected, t0);
    let later = t0 + STALE_AFTER;
    assert_eq!(link.apply(Input::Tick, later), [Effect::Tell]);
    assert_eq!(link.state(), &State::Stale { heard: t0 });
    assert_eq!(link.apply(Input::Frame, later), [Effect::Tell]);
    assert_eq!(link.state(), &State::Live { heard: later });
}

#[test]
fn a_closed_link_stays_closed() {
    let t0 = Instant::now();
    let mut link = Link::new(7);
    link.apply(Input::Closed { reason: "end of the file".into() }, t0);
    for input in [Input::Connected, Input::Frame, failed(), Input::Tick] {
        assert_eq!(link.apply(input, t0), []);
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_either_waits_for_something_or_is_tried_again(
        seed: u64,
        inputs in prop::collection::vec(0u8..5, 0..200),
    ) {
        let mut now = Instant::now();
        let mut link = Link::new(seed);
        for input in inputs {
            let input = match input {
                0 => Input::Connected,
                1 => Input::Frame,
                2 => failed(),
                3 => Input::Appeared,
                _ => Input::Tick,
            };
            now += Duration::from_millis(100);
            link.apply(input, now);
            if let State::Disconnected { retry_at, .. } = link.state() {
                prop_assert!(*retry_at <= now + BACK_OFF_MAX);
            }
        }
    }
}
