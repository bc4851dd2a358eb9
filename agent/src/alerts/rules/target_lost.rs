//! Nothing has come from the target for the threshold, by the agent's clock.

use taskscope_proto::words;

use super::{SERVICES, from, seconds};
use crate::alerts::labels::Labels;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};

pub(crate) static RULE: Rule = Rule {
    name: "TargetLost",
    about: "nothing has come from the target for the threshold, by the agent's clock",
    unit: Unit::Seconds,
    defaults: &[at_once(from(Severity::Critical, 15.0))],
    remembers_ns: 0,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Agent,
    standing: None,
    read,
};

/// A target that speaks again is there.
const fn at_once(mut setting: Setting) -> Setting {
    setting.timing.keep_firing_ns = 0;
    setting
}

fn read(scene: &Scene<'_>, _: &Setting) -> Seen {
    let silence = scene.silence.filter(|silence| seconds(silence.for_ns) >= scene.matters_from);
    let reading = silence.map(|silence| {
        let summary = format!(
            "LOST {}: nothing comes from the target: {}. Do: see whether its process runs; its other alerts stand as they \
             were.",
            words::duration(silence.for_ns),
            // The hint is for whoever types the address.
            silence.reason.lines().next().unwrap_or_default()
        );
        Reading::new(Labels::default(), seconds(silence.for_ns), summary)
    });
    Seen::Readings(reading.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1;

    use super::*;
    use crate::alerts::memory::Memory;
    use crate::alerts::rule::Silence;
    use crate::alerts::rules::fixture::{S, readings_in, scene_of};

    #[test]
    fn silence_is_told_with_its_reason() {
        let (model, memory) = (scene_of(v1::Frame::default()), Memory::default());
        let silence =
            Silence { for_ns: 20 * S, reason: "nobody listens at unix:/x\nhint: see `taskscope ls`".into() };
        let scene = Scene { silence: Some(&silence), ..Scene::of(&model, &memory) };
        let found = readings_in(&RULE, &RULE.defaults[0], &scene);
        assert_eq!(
            found[0].summary,
            "LOST 20 s: nothing comes from the target: nobody listens at unix:/x. Do: see whether its process runs; its other \
             alerts stand as they were."
        );
        assert!((found[0].value - 20.0).abs() < 1e-9);
        assert_eq!(readings_in(&RULE, &RULE.defaults[0], &Scene { silence: None, ..scene }), []);
    }
}
