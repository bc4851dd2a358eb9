use super::pattern::{Match, Pattern};
use super::*;
use crate::alerts::life::Timing;
use crate::alerts::rule::{Setting, Severity, Unit};

const S: u64 = 1_000_000_000;

fn setting(severity: Severity, threshold: f64, window_ns: u64, min_count: Option<u64>) -> Setting {
    let timing = Timing { for_ns: 0, keep_firing_ns: 30 * S, clear_ratio: 0.8 };
    Setting { severity, threshold, window_ns, min_count, timing }
}

fn untouched() -> Vec<Untouched> {
    let slow = vec![
        setting(Severity::Warning, 0.1, 60 * S, Some(3)),
        setting(Severity::Critical, 1.0, 60 * S, Some(1)),
    ];
    let rule = |name, unit, is_on, settings| Untouched {
        name,
        unit,
        remembers_ns: 3_600 * S,
        matches: &["service", "task_group", "label"],
        is_on,
        settings,
    };
    vec![
        rule("TaskSlowPoll", Unit::Seconds, true, slow),
        rule("RuntimeBusy", Unit::Ratio, true, vec![setting(Severity::Warning, 0.95, 0, None)]),
        rule("TaskPanicked", Unit::Count, true, vec![setting(Severity::Warning, 1.0, 60 * S, Some(1))]),
        rule("TaskPendingTooLong", Unit::Seconds, false, vec![setting(Severity::Warning, 30.0, 0, None)]),
    ]
}

fn nothing(_: &'static str) -> Option<OsString> {
    None
}

fn read(source: &str) -> Result<Config, Vec<Problem>> {
    Config::read("a.toml", source, &nothing, &untouched())
}

/// What is said about a file, all of it.
fn wrong(source: &str) -> String {
    listed(&read(source).expect_err(source))
}

#[test]
fn defaults_are_useful_untouched() {
    let config = read("").expect("nothing is wrong with nothing");
    assert!(matches!(config.sinks[..], [sinks::Sink { kind: sinks::Kind::Stdout, .. }]));
    assert_eq!(config.targets.folder, Folder::Usual);
    assert_eq!(config.rules["TaskSlowPoll"].rulings.len(), 2);
    assert!(config.rules["TaskPendingTooLong"].rulings.is_empty());
}

#[test]
fn a_severitys_own_key_is_before_the_rules() {
    let config = read(
        "[rules.TaskSlowPoll]\nfor = '2s'\nthreshold = '250ms'\nwindow = '10s'\n\
         match = { task_group = 'http.*' }\n[rules.TaskSlowPoll.critical]\nthreshold = '2s'\nfor = '0s'\n\
         [rules.RuntimeBusy.warning]\nthreshold = '80%'\n[rules.TaskPanicked]\nthreshold = 3\n\
         [rules.TaskPendingTooLong]\nenabled = true\n",
    )
    .expect("it can be read");
    let of = |name: &str| -> Vec<(Severity, f64, u64, u64)> {
        let of = |it: &rules::Ruling| {
            (it.setting.severity, it.setting.threshold, it.setting.timing.for_ns, it.setting.window_ns)
        };
        config.rules[name].rulings.iter().map(of).collect()
    };
    assert_eq!(
        of("TaskSlowPoll"),
        [(Severity::Critical, 2.0, 0, 10 * S), (Severity::Warning, 0.25, 2 * S, 10 * S)]
    );
    assert_eq!(of("RuntimeBusy"), [(Severity::Warning, 0.8, 0, 0)]);
    assert_eq!(of("TaskPanicked"), [(Severity::Warning, 3.0, 0, 60 * S)]);
    assert_eq!(of("TaskPendingTooLong").len(), 1);
    let about = &config.rules["TaskSlowPoll"].rulings[0].about;
    assert!(about.holds(|name| (name == "task_group").then_some("http.accept")));
    assert!(!about.holds(|name| (name == "task_group").then_some("my http.accept")));
    assert!(!about.holds(|_| None));
}

#[test]
fn a_severity_is_switched_off_and_another_added() {
    let config = read(
        "[rules.TaskSlowPoll.warning]\nenabled = false\n[rules.RuntimeBusy.critical]\nthreshold = 1.0\nfor = '1m'\n",
    )
    .expect("it can be read");
    let severities = |name: &str| -> Vec<Severity> {
        config.rules[name].rulings.iter().map(|it| it.setting.severity).collect()
    };
    assert_eq!(severities("TaskSlowPoll"), [Severity::Critical]);
    assert_eq!(severities("RuntimeBusy"), [Severity::Critical, Severity::Warning]);
}

#[test]
fn everything_wrong_with_a_file_is_told_with_its_place() {
    let source = "[agent]\nlisten = \"http://0.0.0.0:6671\"\nmetrix = \"off\"\nstate = \"here\"\n\
        labels = { severity = \"x\", \"a.b\" = \"y\", cluster = 7 }\n\
        [targets]\nfixed = [\"http://x\"]\nrefresh = 10\ndns = [\"x\"]\n\
        [rules.TaskSlowPol]\n[rules.TaskSlowPoll]\nfor = \"5\"\nclear_ratio = 1.5\nmin_count = 0\nwindow = \"100ms\"\n\
        match = { task_group = \"a(b\", label = \"(x{0,1000}){0,1000}\", lable = \"x\" }\n\
        [rules.TaskSlowPoll.critical]\nthreshold = \"0s\"\n[rules.TaskPanicked.warnin]\n\
        [rules.RuntimeBusy]\nwindow = \"1m\"\nmin_count = 3\nthreshold = 80\n\
        [[sinks]]\n[[sinks]]\ntype = \"webhok\"\n[[sinks]]\ntype = \"webhook\"\nurl = \"ftp://x\"\nresend = \"60s\"\nrepeat = \"4\"\n\
        [[sinks]]\ntype = \"alertmanager\"\nurls = []\nsend_resolved = false\nsend_pending = true\nresend = \"1h\"\n\
        [[sinks]]\ntype = \"otlp\"\nendpoint = \"http://u:p@x\"\nmin_severity = \"warn\"\nqueue = 0\nname = \"a b\"\n\
        metrics = \"200ms\"\nalerts = \"yes\"\n";
    insta::assert_snapshot!(wrong(source));
}

#[test]
fn what_contradicts_itself_is_told() {
    let source = "[rules.TaskSlowPoll.warning]\nthreshold = \"5s\"\nmin_count = 1\n\
        [rules.TaskSlowPoll.critical]\nthreshold = \"90s\"\nwindow = \"1m\"\n\
        [rules.RuntimeBusy.critical]\nfor = \"1m\"\nmatch = { service = \"a\", class = \"work\" }\n\
        [rules.TaskPanicked.critical]\nthreshold = 1\n[rules.TaskPanicked.warning]\nthreshold = 5\nwindow = \"2h\"\n\
        [[sinks]]\ntype = \"stdout\"\n[[sinks]]\ntype = \"stdout\"\n\
        [[sinks]]\ntype = \"otlp\"\nendpoint = \"http://a:4318\"\nalerts = false\n[targets]\nfolder = false\n";
    insta::assert_snapshot!(wrong(source));
}

/// With every rule of this program, and not those of these tests.
fn read_as_the_agent_does(source: &str) -> Result<Config, Vec<Problem>> {
    Config::read("a.toml", source, &nothing, &rules::untouched())
}

#[test]
fn how_many_events_it_takes_is_taken_by_rules_that_count_and_refused_by_all_others() {
    let mut counting = Vec::new();
    for rule in crate::alerts::rules::RULES {
        let source = format!("[rules.{}]\nmin_count = 7\n", rule.name);
        match read_as_the_agent_does(&source) {
            Ok(config) => {
                counting.push(rule.name);
                let rulings = &config.rules[rule.name].rulings;
                assert!(rulings.iter().all(|it| it.setting.min_count == Some(7)), "{rulings:?}");
            }
            Err(problems) => assert_eq!(
                listed(&problems),
                format!("a.toml:2:13: {} counts nothing\nhint: leave `min_count` out", rule.name)
            ),
        }
    }
    assert_eq!(counting, ["TaskSlowPoll", "TaskPanicked", "TaskFailed", "ProbeDropping"]);
}

#[test]
fn a_text_that_is_no_toml_is_told_with_its_place() {
    insta::assert_snapshot!(wrong("[agent]\nlisten = \"unix:/x\n[rules\nx == 3\n[agent]\n"));
}

#[test]
fn what_is_printed_says_the_same_when_it_is_read() {
    let source = "[agent]\nlabels = { cluster = \"eu \\\"1\\\"\\n\" }\nmetrics = \"off\"\n[targets]\nfixed = [\"checkout\"]\n\
        [rules.TaskSlowPoll]\nfor = \"1500ms\"\nmatch = { label = '\\d+' }\n\
        [rules.TaskSlowPoll.warning]\nenabled = false\n\
        [rules.RuntimeBusy]\nenabled = false\n\
        [[sinks]]\ntype = \"alertmanager\"\nurls = [\"http://a:1\", \"http://b:1/am\"]\n\
        [[sinks]]\ntype = \"webhook\"\nurl = \"https://x/y?z\"\nsecret_file = \"/run/s\"\nmin_severity = \"critical\"\n\
        [[sinks]]\ntype = \"otlp\"\nendpoint = \"http://c:4318/otlp\"\nmetrics = \"30s\"\n";
    let state = |name: &'static str| (name == "STATE_DIRECTORY").then(|| "/var/lib/ts:/x".into());
    let config = Config::read("a.toml", source, &state, &untouched()).expect("it can be read");
    let printed = config.printed();
    insta::assert_snapshot!(without_sockets(&printed));
    let without_comments = |text: &str| -> String {
        text.lines()
            .map(|line| line.split(" # ").next().unwrap_or_default().trim_end().to_owned() + "\n")
            .collect()
    };
    let again = read(&printed).map_err(|problems| listed(&problems)).expect("it reads what it prints");
    assert_eq!(without_comments(&again.printed()), without_comments(&printed));
}

/// The folder of sockets is another on each machine.
fn without_sockets(printed: &str) -> String {
    printed.lines().filter(|line| !line.starts_with("listen")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_rules_of_the_demo_are_right_and_each_fault_has_one() {
    let rules = crate::config::rules::untouched();
    let config = Config::read("demo.toml", crate::demo::RULES, &nothing, &rules).map_err(|all| listed(&all));
    let config = config.expect("nothing is wrong with it");
    for fault in taskscope_demo::Fault::ALL {
        assert!(crate::demo::RULES.contains(&format!("{fault}")), "{fault} has no rule");
    }
    // What it changes ends soon: nobody waits for the demo.
    let none_of_a_service = ["TargetLost", "ProbeDropping", "SinkFailing", "AgentDegraded"];
    let names = crate::alerts::rules::RULES.iter().map(|rule| rule.name);
    for name in names.filter(|name| !none_of_a_service.contains(name)) {
        let rulings = &config.rules[name].rulings;
        assert!(!rulings.is_empty(), "{name}");
        for ruling in rulings {
            let setting = &ruling.setting;
            let seconds = (setting.window_ns + setting.timing.for_ns + setting.timing.keep_firing_ns) / S;
            assert!(seconds <= 12, "{name} takes {seconds} s");
        }
    }
}

#[test]
fn how_often_a_webhook_is_told_again_is_said_and_off_is_never() {
    let repeat = |said: &str| {
        let source = format!("[[sinks]]\ntype = \"webhook\"\nurl = \"http://x\"\n{said}");
        read(&source).map_err(|all| listed(&all)).map(|config| match &config.sinks[0].kind {
            sinks::Kind::Webhook { repeat, .. } => repeat.map(|it| it.as_secs()),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(repeat(""), Ok(Some(4 * 3600)));
    assert_eq!(repeat("repeat = \"30m\""), Ok(Some(1800)));
    assert_eq!(repeat("repeat = \"off\""), Ok(None));
    for wrong in ["repeat = \"0s\"", "repeat = \"10ms\"", "repeat = 4", "repeat = \"often\""] {
        assert!(repeat(wrong).is_err_and(|error| error.contains("\nhint: ")), "{wrong}");
    }
}

#[test]
fn a_pattern_is_for_the_whole_of_a_text() {
    let pattern = |text: &str| Pattern::new(text).expect(text);
    assert!(pattern("a|b").holds("a") && !pattern("a|b").holds("ab"));
    assert!(pattern("a.b").holds("a\nb") && !pattern("a").holds("a\n"));
    assert!(pattern("").holds("") && !pattern("").holds("x"));
    for bad in ["a)(b", "(", "[", "*", r"\", "(?x)a #", "(((x{0,99}){0,99}){0,99}){0,99}", &"x".repeat(1001)]
    {
        let error = Pattern::new(bad).expect_err(bad);
        assert!(error.contains("\nhint: "), "{bad}: {error}");
    }
    assert!(Match::default().holds(|_| None));
    // What is left out.
    let not = |text: &str| Pattern::of_match(text).expect(text);
    assert!(not("!a|b").holds("c") && !not("!a|b").holds("b") && not("a|b").holds("a"));
    let about = Match { task_group: Some(not("!batch.*")), ..Match::default() };
    let group = |text: &'static str| about.holds(move |key| (key == "task_group").then_some(text));
    assert!(group("mailer") && !group("batch-7") && about.holds(|_| None));
    assert!(Pattern::of_match("!(").is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_label_may_say_anything(text in "\\PC{0,40}|[\u{0}-\u{1f}\u{7f}\u{85}\u{2028}\u{202e}\u{feff}\"\\\\'\u{1f980}]{1,20}") {
        let table = toml::Table::from_iter([("cluster".to_owned(), toml::Value::String(text.clone()))]);
        let source = format!("[agent.labels]\n{table}");
        let config = read(&source).map_err(|all| listed(&all)).expect("any text is a label");
        proptest::prop_assert_eq!(&config.labels["cluster"], &text);
        let again = read(&config.printed()).map_err(|all| listed(&all)).expect("it reads what it prints");
        proptest::prop_assert_eq!(&again.labels["cluster"], &text);
        // None at all where it says nothing, as everywhere.
        let labels = config.labels();
        proptest::prop_assert_eq!(labels.get("cluster"), Some(text.as_str()).filter(|text| !text.is_empty()));
    }

    #[test]
    fn any_text_is_answered(source in "(\\[[a-z.]{0,12}\\]\n|[a-z_]{1,8} = [0-9\"a-z{}\\[\\]%]{0,9}\n|.){0,12}") {
        if let Err(problems) = read(&source) {
            proptest::prop_assert!(!problems.is_empty());
            for problem in problems {
                proptest::prop_assert!(problem.line >= 1 && problem.line <= source.lines().count().max(1) + 1);
            }
        }
    }
}
