//! The settings of the rules: a rule's own keys hold for all of its severities, a severity's own for that one.

use std::collections::BTreeMap;
use std::ops::Range;

use taskscope_proto::filter::nearest;
use taskscope_proto::words::printable;

use super::pattern::{Match, Pattern};
use super::section::{Document, Section};
use super::value;
use crate::alerts::rule::{Rule, Setting, Severity, Unit};
use crate::alerts::rules::RULES;

/// A rule as it is before anybody configures it.
#[derive(Clone, Debug)]
pub(crate) struct Untouched {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) remembers_ns: u64,
    pub(crate) matches: &'static [&'static str],
    /// Unless the configuration says otherwise.
    pub(crate) is_on: bool,
    pub(crate) settings: Vec<Setting>,
}

/// Every rule of this program.
pub(crate) fn untouched() -> Vec<Untouched> {
    let untouched = |rule: &&'static Rule| Untouched {
        name: rule.name,
        unit: rule.unit,
        remembers_ns: rule.remembers_ns,
        matches: rule.matches,
        is_on: !rule.opt_in,
        settings: rule.defaults.to_vec(),
    };
    RULES.iter().map(untouched).collect()
}

/// A setting of a rule, and what it is about.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Ruling {
    pub(crate) setting: Setting,
    pub(crate) about: Match,
}

/// The settings of one rule; none when it is switched off.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Ruled {
    pub(crate) unit: Unit,
    pub(crate) rulings: Vec<Ruling>,
}

const OWN_KEYS: [&str; 8] =
    ["enabled", "threshold", "min_count", "for", "window", "clear_ratio", "keep_firing_for", "match"];
const SEVERITY_KEYS: [&str; 3] = ["info", "warning", "critical"];
/// A rule that looks back is asked about once a second.
const LEAST_WINDOW_NS: u64 = 1_000_000_000;

pub(super) fn read(
    document: &mut Document<'_>,
    root: &Section<'_>,
    untouched: &[Untouched],
) -> BTreeMap<&'static str, Ruled> {
    let names: Vec<&str> = untouched.iter().map(|rule| rule.name).collect();
    // Told here, and not as an unknown key: the hint is about rules.
    let mut section = None;
    if let Some(rules) = root.open_section(document, "rules") {
        for (key, span) in rules.keys() {
            if !names.contains(&key) {
                let hint = match nearest(key, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "`taskscope rules list` shows them".to_owned(),
                };
                document.tell(&span, format!("no rule is called `{}`\nhint: {hint}", printable(key)));
            }
        }
        section = Some(rules);
    }
    let known: Vec<&str> = OWN_KEYS.into_iter().chain(SEVERITY_KEYS).collect();
    let ruled = |rule: &Untouched| {
        let own = section.as_ref().and_then(|rules| rules.section(document, rule.name, &known));
        let rulings = match own {
            Some(own) => rulings(document, &own, rule),
            None if rule.is_on => rule
                .settings
                .iter()
                .cloned()
                .map(|setting| Ruling { setting, about: Match::default() })
                .collect(),
            None => Vec::new(),
        };
        (rule.name, Ruled { unit: rule.unit, rulings })
    };
    untouched.iter().map(ruled).collect()
}

/// What one place (the rule or one of its severities) says; the rest is left as it is.
struct Said {
    enabled: Option<bool>,
    threshold: Option<f64>,
    min_count: Option<u64>,
    for_ns: Option<u64>,
    window_ns: Option<u64>,
    clear_ratio: Option<f64>,
    keep_firing_ns: Option<u64>,
    about: Option<Match>,
}

impl Said {
    fn read(document: &mut Document<'_>, section: &Section<'_>, rule: &Untouched) -> Self {
        Self {
            enabled: section.take(document, "enabled", value::truth),
            threshold: section.take(document, "threshold", |it| value::threshold(it, rule.unit)),
            min_count: section.take(document, "min_count", |it| value::count(it, 1, u64::from(u32::MAX))),
            for_ns: section.take(document, "for", value::duration),
            window_ns: section.take(document, "window", value::duration),
            clear_ratio: section.take(document, "clear_ratio", clear_ratio),
            keep_firing_ns: section.take(document, "keep_firing_for", value::duration),
            about: about(document, section, rule),
        }
    }

    fn apply(&self, setting: &mut Setting) {
        fn set<T: Copy>(to: &mut T, said: Option<T>) {
            if let Some(said) = said {
                *to = said;
            }
        }
        set(&mut setting.threshold, self.threshold);
        // Where it counts nothing that was told, or is.
        setting.min_count = setting.min_count.map(|least| self.min_count.unwrap_or(least));
        set(&mut setting.window_ns, self.window_ns);
        set(&mut setting.timing.for_ns, self.for_ns);
        set(&mut setting.timing.keep_firing_ns, self.keep_firing_ns);
        set(&mut setting.timing.clear_ratio, self.clear_ratio);
    }
}

fn clear_ratio(it: &toml::de::DeValue<'_>) -> Result<f64, String> {
    match value::ratio(it) {
        Ok(0.0) => Err("no value is below this, so the alert would never end\nhint: 0.8 is usual".to_owned()),
        Ok(ratio) => Ok(ratio),
        Err(_) => Err("an alert would end while its value is past the threshold, or never\nhint: write a share above 0 and at \
                       most 1, as in 0.8 or \"80%\""
            .to_owned()),
    }
}

fn about(document: &mut Document<'_>, section: &Section<'_>, rule: &Untouched) -> Option<Match> {
    let section = section.section(document, "match", &Match::KEYS)?;
    // What is read has no such label: nothing, or everything, would match.
    for key in Match::KEYS.into_iter().filter(|key| section.has(key) && !rule.matches.contains(key)) {
        let known = rule.matches.join(", ");
        document.tell(
            &section.span_of(key),
            format!("{} knows no `{key}`\nhint: match it by {known}", rule.name),
        );
    }
    let mut pattern = |key: &str| section.take(document, key, |it| Pattern::of_match(&value::text(it)?));
    Some(Match {
        service: pattern("service"),
        task_group: pattern("task_group"),
        label: pattern("label"),
        class: pattern("class"),
    })
}

fn rulings(document: &mut Document<'_>, own: &Section<'_>, rule: &Untouched) -> Vec<Ruling> {
    let said = Said::read(document, own, rule);
    let mut rulings = Vec::new();
    for severity in value::SEVERITIES {
        let section = own.section(document, severity.name(), &OWN_KEYS);
        let here = section.as_ref().map(|section| Said::read(document, section, rule));
        let untouched = rule.settings.iter().filter(|setting| setting.severity == severity);
        let mut settings: Vec<Setting> = untouched.cloned().collect();
        // A severity that the rule has not by itself begins as its first one.
        if let (true, Some(section), Some(here), Some(first)) =
            (settings.is_empty(), &section, &here, rule.settings.first())
        {
            if here.enabled == Some(false) {
                continue;
            }
            if here.threshold.is_none() && !section.has("threshold") {
                let text = format!(
                    "{} has no severity `{}` of its own\nhint: give it a threshold of its own here",
                    rule.name,
                    severity.name()
                );
                document.tell(&section.span, text);
                continue;
            }
            settings.push(Setting { severity, ..first.clone() });
        }
        let is_on = here.as_ref().and_then(|here| here.enabled).or(said.enabled).unwrap_or(rule.is_on);
        for mut setting in settings {
            said.apply(&mut setting);
            if let Some(here) = &here {
                here.apply(&mut setting);
            }
            contradictions(document, [section.as_ref().unwrap_or(own), own], rule, &setting);
            let about = here.as_ref().and_then(|here| here.about.clone()).or_else(|| said.about.clone());
            if is_on {
                rulings.push(Ruling { setting, about: about.unwrap_or_default() });
            }
        }
    }
    never_first(document, own, rule, &rulings);
    // The most severe first: it decides.
    rulings.sort_by_key(|ruling| std::cmp::Reverse(ruling.setting.severity));
    rulings
}

/// What each value alone allows and all together do not. `places` are the severity's section and the rule's.
fn contradictions(
    document: &mut Document<'_>,
    places: [&Section<'_>; 2],
    rule: &Untouched,
    setting: &Setting,
) {
    let span_of = |key: &str| -> Range<usize> {
        places
            .iter()
            .find(|place| place.has(key))
            .map_or_else(|| places[0].span.clone(), |place| place.span_of(key))
    };
    let is_said = |key: &str| places.iter().any(|place| place.has(key));
    let looks_back = rule.settings.iter().any(|setting| setting.window_ns > 0);
    let window = value::duration_text(setting.window_ns);
    let mut tell = |key: &str, text: String| {
        let span = span_of(key);
        // A rule's own key is looked at once for each of its severities.
        if !document.has_told(&span) {
            document.tell(&span, text);
        }
    };
    if !looks_back && is_said("window") {
        tell(
            "window",
            format!("{} looks at the present only and has no window\nhint: leave `window` out", rule.name),
        );
    } else if looks_back && setting.window_ns < LEAST_WINDOW_NS {
        tell(
            "window",
            format!(
                "a window of {window} is shorter than the second between two looks\nhint: write \"1s\" or more"
            ),
        );
    } else if setting.window_ns > rule.remembers_ns {
        let most = value::duration_text(rule.remembers_ns);
        tell(
            "window",
            format!("{} can look back {most}, and not {window}\nhint: write \"{most}\" or less", rule.name),
        );
    } else if looks_back && rule.unit == Unit::Seconds && setting.threshold * 1e9 >= setting.window_ns as f64
    {
        let threshold = value::duration_text((setting.threshold * 1e9).round() as u64);
        let key = if is_said("threshold") { "threshold" } else { "window" };
        tell(
            key,
            format!(
                "nothing within a window of {window} lasts {threshold}\nhint: make the window longer, or the threshold shorter"
            ),
        );
    }
    if setting.min_count.is_none() && is_said("min_count") {
        tell("min_count", format!("{} counts nothing\nhint: leave `min_count` out", rule.name));
    }
}

/// A louder severity that needs no more than a softer one, so that the softer one never comes first.
fn never_first(document: &mut Document<'_>, own: &Section<'_>, rule: &Untouched, rulings: &[Ruling]) {
    for (at, soft) in rulings.iter().enumerate() {
        for loud in &rulings[at + 1..] {
            let (a, b) = (&soft.setting, &loud.setting);
            let comes_first = b.threshold < a.threshold
                && b.min_count <= a.min_count
                && b.timing.for_ns <= a.timing.for_ns
                && a.severity != b.severity;
            if comes_first {
                let place =
                    [b.severity, a.severity].into_iter().map(Severity::name).find(|name| own.has(name));
                let span = place.map_or_else(|| own.span.clone(), |name| own.span_of(name));
                let text = format!(
                    "{}: {} would be told before {}, whose threshold is higher\nhint: give `{}` the higher threshold, or \
                     switch one of them off with enabled = false",
                    rule.name,
                    b.severity.name(),
                    a.severity.name(),
                    b.severity.name()
                );
                document.tell(&span, text);
            }
        }
    }
}
