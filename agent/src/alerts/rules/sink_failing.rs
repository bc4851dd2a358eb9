//! A sink of the agent has failed and delivered nothing for the threshold, or has dropped something within the last minute, which
//! counts as the threshold: what is dropped never arrives.

use taskscope_proto::words;

use super::{SERVICES, from, seconds};
use crate::alerts::labels::Labels;
use crate::alerts::rule::{Clock, Reading, Rule, Scene, Seen, Setting, Severity, Unit};
use crate::alerts::vitals::Sink;

pub(crate) static RULE: Rule = Rule {
    name: "SinkFailing",
    about: "a sink of the agent has failed and delivered nothing for the threshold, or has dropped something in the last minute",
    unit: Unit::Seconds,
    defaults: &[from(Severity::Warning, 60.0)],
    remembers_ns: 0,
    matches: &SERVICES,
    opt_in: false,
    clock: Clock::Own,
    standing: None,
    read,
};

fn read(scene: &Scene<'_>, setting: &Setting) -> Seen {
    let Some(vitals) = scene.vitals else { return super::not_the_agent() };
    let readings = vitals.ways().map(|(sink, failing_ns, dropped)| {
        let failing = seconds(failing_ns);
        let value = if dropped > 0 { failing.max(setting.threshold) } else { failing };
        let labels = Labels::default().with("sink", &sink.told.sink);
        let labels = labels.with("instance_address", &sink.told.instance);
        let reading = Reading::new(labels, value, sentence(sink, failing_ns, dropped));
        match &sink.told.failing {
            Some(why) => reading.with("why", first_line(why)),
            None => reading,
        }
    });
    Seen::Readings(readings.collect())
}

fn sentence(sink: &Sink, failing_ns: u64, dropped: u64) -> String {
    let who = match sink.told.instance.as_str() {
        "" => format!("sink {}", sink.told.sink),
        instance => format!("sink {} ({instance})", sink.told.sink),
    };
    let lost = match dropped {
        0 => String::new(),
        1 => " A notice was dropped in the last minute.".to_owned(),
        n => format!(" {} notices were dropped in the last minute.", words::count(n)),
    };
    match &sink.told.failing {
        Some(why) => format!(
            "NOT DELIVERED {}: {who} fails: {}.{lost} Do: see to its receiver; {} there late or not at all.",
            words::duration(failing_ns),
            // The hint is for whoever configures it.
            first_line(why),
            // A sink of figures, whose name is the only one with a `/`.
            if sink.told.sink.contains('/') { "figures arrive" } else { "alerts are told" }
        ),
        None => format!(
            "NOT DELIVERED: {who} has more to deliver than it can.{lost} Do: raise its `queue`, or make rules that fire so \
             often narrower."
        ),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::fixture::{S, of_the_agent};
    use crate::alerts::vitals::{Told, Vitals};

    fn after(first: Told, last: Told, second: u64) -> Vec<Reading> {
        let mut vitals = Vitals::default();
        vitals.sinks([first]);
        vitals.turn(0, second * S);
        vitals.sinks([last]);
        of_the_agent(&RULE, &vitals)
    }

    fn told(failing: Option<&str>, dropped: u64) -> Told {
        let instance = "am-0:9093".to_owned();
        Told { sink: "am".into(), instance, delivered: 3, dropped, failing: failing.map(str::to_owned) }
    }

    #[test]
    fn a_sink_that_fails_is_told_with_why() {
        let down = || told(Some("cannot connect: refused\nhint: start it"), 0);
        let found = after(down(), down(), 61);
        assert!((found[0].value - 61.0).abs() < 1e-9);
        assert_eq!(
            found[0].summary,
            "NOT DELIVERED 1m01s: sink am (am-0:9093) fails: cannot connect: refused. Do: see to its receiver; alerts are told \
             there late or not at all."
        );
        assert_eq!(found[0].labels.get("instance_address"), Some("am-0:9093"));
        assert!(after(told(None, 0), told(None, 0), 61)[0].value < 1e-9);
    }

    #[test]
    fn a_sink_that_drops_is_told_at_once() {
        let found = after(told(None, 0), told(None, 7), 1);
        assert!((found[0].value - 60.0).abs() < 1e-9);
        assert!(
            found[0].summary.contains("7 notices were dropped in the last minute"),
            "{}",
            found[0].summary
        );
        assert!(after(told(None, 7), told(None, 7), 100)[0].value < 1e-9);
    }
}
