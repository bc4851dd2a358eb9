use super::*;

fn socket(service: &str, instance: &str) -> Listed {
    let path = format!("/run/{service}.{instance}.sock").into();
    Listed::Socket { service: service.into(), instance: instance.into(), path }
}

fn names(fleet: &Fleet) -> Vec<(&str, bool)> {
    fleet.members().map(|(_, member)| (member.name.as_str(), member.is_lost())).collect()
}

#[allow(clippy::disallowed_methods, reason = "any instant does")]
fn start() -> Instant {
    Instant::now()
}

fn folder(fleet: &mut Fleet, targets: &[Listed], now: Instant) -> Vec<Effect> {
    fleet.apply(Input::Listed { source: Source::Folder(None), targets: targets.to_vec() }, now)
}

#[test]
fn a_target_that_goes_is_lost_and_forgotten_later() {
    let (mut fleet, t0) = (Fleet::default(), start());
    let begun = folder(&mut fleet, &[socket("api", "1")], t0);
    assert!(matches!(begun.as_slice(), [Effect::Begin { .. }]), "{begun:?}");
    let went = folder(&mut fleet, &[], t0);
    assert!(matches!(went.as_slice(), [Effect::Lose(_)]), "{went:?}");
    assert_eq!(names(&fleet), [("api", true)]);
    assert_eq!(folder(&mut fleet, &[], t0), [], "it is lost once");
    assert_eq!(fleet.apply(Input::Tick, t0 + LOST_FOR - Duration::from_nanos(1)), []);
    let forgotten = fleet.apply(Input::Tick, t0 + LOST_FOR);
    assert!(
        matches!(forgotten.as_slice(), [Effect::Forget { why: Forgotten::GivenUp, .. }]),
        "{forgotten:?}"
    );
    assert_eq!(names(&fleet), []);
}

#[test]
fn a_restart_keeps_its_name_and_its_member() {
    let (mut fleet, t0) = (Fleet::default(), start());
    folder(&mut fleet, &[socket("api", "1")], t0);
    let id = fleet.named("api").expect("it is listed").0;
    // At once, and after a time of being lost.
    for gap in [false, true] {
        if gap {
            folder(&mut fleet, &[], t0);
        }
        let next = socket("api", if gap { "3" } else { "2" });
        let effects = folder(&mut fleet, std::slice::from_ref(&next), t0);
        assert_eq!(effects, [Effect::Begin { id, target: next.target() }]);
        assert_eq!(names(&fleet), [("api", false)]);
    }
}

#[test]
fn of_two_with_one_name_the_second_has_its_instance_in_it() {
    let (mut fleet, t0) = (Fleet::default(), start());
    folder(&mut fleet, &[socket("api", "1"), socket("api", "2"), socket("db", "3")], t0);
    assert_eq!(names(&fleet), [("api", false), ("api.2", false), ("db", false)]);
    assert_eq!(
        fleet.named("api.2").map(|(_, member)| member.target.clone()),
        Some(socket("api", "2").target())
    );
}

#[test]
fn replicas_whose_instances_are_random_have_numbers() {
    let (mut fleet, t0) = (Fleet::default(), start());
    let sockets = [socket("api", "1a2b3c4d"), socket("api", "00ffee11"), socket("api", "deadbeef")];
    folder(&mut fleet, &sockets, t0);
    assert_eq!(names(&fleet), [("api", false), ("api-2", false), ("api-3", false)]);
    // One restarts, at once or after a while: it has the name that it had.
    let again = [sockets[0].clone(), socket("api", "11111111"), sockets[2].clone()];
    let effects = folder(&mut fleet, &again, t0);
    assert!(matches!(effects.as_slice(), [Effect::Begin { .. }]), "{effects:?}");
    let target = |fleet: &Fleet, name: &str| fleet.named(name).map(|(_, member)| member.target.clone());
    assert_eq!(target(&fleet, "api-2"), Some(again[1].target()));
    folder(&mut fleet, &again[1..], t0);
    assert_eq!(names(&fleet), [("api", true), ("api-2", false), ("api-3", false)]);
    let last = socket("api", "22222222");
    folder(&mut fleet, &[again[1].clone(), again[2].clone(), last.clone()], t0 + Duration::from_secs(300));
    assert_eq!(target(&fleet, "api"), Some(last.target()));
    // Eight other characters were chosen by somebody.
    folder(&mut fleet, &[again[1].clone(), again[2].clone(), last, socket("api", "instance")], t0);
    assert!(fleet.named("api.instance").is_some());
    assert_eq!(fleet.named("api-2").map(|(_, member)| member.name_of_before()), Some("api.11111111".into()));
}

#[test]
fn of_several_that_are_lost_the_last_one_is_continued() {
    let (mut fleet, t0) = (Fleet::default(), start());
    let second = Duration::from_secs(1);
    folder(&mut fleet, &[socket("api", "1"), socket("api", "2"), socket("api", "3")], t0);
    let ids: Vec<MemberId> = fleet.members().map(|(id, _)| id).collect();
    folder(&mut fleet, &[socket("api", "2"), socket("api", "3")], t0 + 100 * second);
    folder(&mut fleet, &[socket("api", "3")], t0 + 200 * second);
    assert_eq!(names(&fleet), [("api", true), ("api.2", true), ("api.3", false)]);
    let effects = folder(&mut fleet, &[socket("api", "3"), socket("api", "4")], t0 + 201 * second);
    assert_eq!(effects, [Effect::Begin { id: ids[1], target: socket("api", "4").target() }]);
    // And what goes now comes before what was lost already.
    let effects = folder(&mut fleet, &[socket("api", "4"), socket("api", "5")], t0 + 202 * second);
    assert_eq!(effects, [Effect::Begin { id: ids[2], target: socket("api", "5").target() }]);
    assert_eq!(names(&fleet), [("api", true), ("api.2", false), ("api.3", false)]);
}

/// A service, and another run of it that began so long before the first one went.
fn beside(before: Duration) -> (Fleet, MemberId, Vec<Effect>, Instant) {
    let (mut fleet, t0) = (Fleet::default(), start());
    folder(&mut fleet, &[socket("api", "1")], t0);
    let id = fleet.named("api").expect("it is listed").0;
    let both = t0 + Duration::from_secs(1000);
    folder(&mut fleet, &[socket("api", "1"), socket("api", "2")], both);
    let effects = folder(&mut fleet, &[socket("api", "2")], both + before);
    (fleet, id, effects, both + before)
}

#[test]
fn in_a_deployment_the_old_one_is_not_lost_and_the_new_one_takes_its_place() {
    let (fleet, id, effects, _) = beside(BESIDE_FOR);
    let [Effect::Forget { id: other, why: Forgotten::Moved }, begun] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_ne!(*other, id);
    assert_eq!(*begun, Effect::Begin { id, target: socket("api", "2").target() });
    assert_eq!(names(&fleet), [("api", false)]);
}

#[test]
fn of_two_replicas_the_end_of_either_is_a_loss() {
    let (fleet, id, effects, _) = beside(BESIDE_FOR + Duration::from_nanos(1));
    assert_eq!(effects, [Effect::Lose(id)]);
    assert_eq!(names(&fleet), [("api", true), ("api.2", false)]);
    // Of the younger one, too; and where both were there when the agent began.
    for goes in [0, 1] {
        let (mut fleet, t0) = (Fleet::default(), start());
        let both = [socket("api", "1"), socket("api", "2")];
        folder(&mut fleet, &both, t0);
        let effects = folder(&mut fleet, &both[1 - goes..2 - goes], t0 + Duration::from_secs(1));
        assert!(matches!(effects.as_slice(), [Effect::Lose(_)]), "{effects:?}");
    }
}

#[test]
fn one_run_continues_one_other() {
    // It is there instead of the first already.
    let (mut fleet, _, _, now) = beside(Duration::from_secs(1));
    let with = |fleet: &mut Fleet, instances: &[&str], now| {
        folder(fleet, &instances.iter().map(|it| socket("api", it)).collect::<Vec<_>>(), now)
    };
    with(&mut fleet, &["2", "3"], now);
    let effects = with(&mut fleet, &["2"], now);
    assert!(matches!(effects.as_slice(), [Effect::Lose(_)]), "{effects:?}");
    // Two go, and one has begun.
    let (mut fleet, t0) = (Fleet::default(), start());
    with(&mut fleet, &["1", "2"], t0);
    let later = t0 + Duration::from_secs(100);
    with(&mut fleet, &["1", "2", "3"], later);
    let effects = with(&mut fleet, &["3"], later);
    assert!(
        matches!(effects.as_slice(), [Effect::Forget { .. }, Effect::Begin { .. }, Effect::Lose(_)]),
        "{effects:?}"
    );
    // And where that one goes with them, it continues nobody.
    let (mut fleet, t0) = (Fleet::default(), start());
    with(&mut fleet, &["1"], t0);
    with(&mut fleet, &["1", "2"], later);
    let effects = with(&mut fleet, &[], later);
    assert!(matches!(effects.as_slice(), [Effect::Lose(_), Effect::Lose(_)]), "{effects:?}");
}

#[test]
fn two_deployments_at_once_are_one_after_the_other() {
    let (mut fleet, t0) = (Fleet::default(), start());
    let second = Duration::from_secs(1);
    folder(&mut fleet, &[socket("api", "1")], t0);
    let id = fleet.named("api").expect("it is listed").0;
    folder(&mut fleet, &[socket("api", "1"), socket("api", "2")], t0 + 100 * second);
    folder(&mut fleet, &[socket("api", "1"), socket("api", "2"), socket("api", "3")], t0 + 110 * second);
    for (at, left) in [(120, &["2", "3"][..]), (130, &["3"])] {
        let left: Vec<Listed> = left.iter().map(|it| socket("api", it)).collect();
        let effects = folder(&mut fleet, &left, t0 + at * second);
        assert!(effects.contains(&Effect::Begin { id, target: left[0].target() }), "{effects:?}");
    }
    assert_eq!(names(&fleet), [("api", false)]);
}

#[test]
fn what_the_user_named_is_not_found_again_in_the_folder_and_never_goes() {
    let (mut fleet, t0) = (Fleet::default(), start());
    let fixed: Vec<Listed> = ["api", "unix:/run/db.3.sock", "http://10.0.0.7:6670"]
        .iter()
        .map(|text| Listed::Named(text.parse().expect("it is a target")))
        .collect();
    fleet.apply(Input::Listed { source: Source::Fixed, targets: fixed }, t0);
    assert_eq!(folder(&mut fleet, &[socket("api", "1"), socket("db", "3"), socket("web", "4")], t0).len(), 1);
    let dns = Source::Dns("shop:6670".into());
    let hosts = vec![Listed::Host("10.0.0.7:6670".into()), Listed::Host("10.0.0.8:6670".into())];
    assert_eq!(fleet.apply(Input::Listed { source: dns, targets: hosts }, t0).len(), 1);
    assert_eq!(
        names(&fleet).iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["api", "unix:/run/db.3.sock", "10.0.0.7:6670", "web", "10.0.0.8:6670"]
    );
    assert!(folder(&mut fleet, &[], t0).iter().all(|effect| matches!(effect, Effect::Lose(_))));
    assert_eq!(names(&fleet).iter().filter(|(_, lost)| *lost).count(), 1);
}

#[test]
fn one_source_does_not_end_what_another_lists() {
    let (mut fleet, t0) = (Fleet::default(), start());
    let dns = |name: &str, hosts: &[&str]| Input::Listed {
        source: Source::Dns(name.into()),
        targets: hosts.iter().map(|host| Listed::Host((*host).into())).collect(),
    };
    fleet.apply(dns("a:1", &["10.0.0.1:1", "10.0.0.2:1"]), t0);
    assert_eq!(fleet.apply(dns("b:1", &[]), t0), []);
    let effects = fleet.apply(dns("a:1", &["10.0.0.2:1"]), t0);
    assert!(matches!(effects.as_slice(), [Effect::Lose(_)]), "{effects:?}");
    let effects = fleet.apply(dns("a:1", &["10.0.0.1:1", "10.0.0.2:1"]), t0);
    assert!(matches!(effects.as_slice(), [Effect::Begin { .. }]), "it is back: {effects:?}");
}

#[test]
fn past_the_most_targets_are_counted_and_lost_ones_make_room() {
    let (mut fleet, t0) = (Fleet::default(), start());
    let all: Vec<Listed> = (0..MOST + 3).map(|n| socket(&format!("s{n}"), "1")).collect();
    assert_eq!(folder(&mut fleet, &all, t0).len(), MOST);
    assert_eq!((fleet.members().count(), fleet.turned_away()), (MOST, 3));
    // Of those that have gone, the rest takes the places.
    folder(&mut fleet, &all[10..MOST], t0);
    let effects = folder(&mut fleet, &all[10..], t0);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Begin { .. })).count(), 3);
    assert_eq!((fleet.members().count(), fleet.turned_away()), (MOST, 0));
}

mod any_order {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever sources say, names are unique, and the links that were begun are those of the listed members.
        #[test]
        fn names_are_unique_and_links_are_those_of_the_listed(
            steps in prop::collection::vec((0..3u8, prop::collection::btree_set((0..3u8, 0..3u8), 0..6), 0..700u64), 0..30),
        ) {
            let (mut fleet, mut now) = (Fleet::default(), start());
            let mut links = BTreeMap::new();
            for (source, sockets, seconds) in steps {
                now += Duration::from_secs(seconds);
                let input = match source {
                    0 => Input::Tick,
                    1 => Input::Listed {
                        source: Source::Folder(None),
                        targets: sockets.iter().map(|(s, i)| socket(&format!("s{s}"), &i.to_string())).collect(),
                    },
                    _ => Input::Listed {
                        source: Source::Dns("x:1".into()),
                        targets: sockets.iter().map(|(s, i)| Listed::Host(format!("10.0.{s}.{i}:1"))).collect(),
                    },
                };
                for effect in fleet.apply(input, now) {
                    match effect {
                        Effect::Begin { id, target } => { links.insert(id, target); }
                        Effect::Lose(id) => prop_assert!(links.remove(&id).is_some()),
                        Effect::Forget { id, .. } => { links.remove(&id); }
                    }
                }
                let unique: BTreeSet<&str> = fleet.members().map(|(_, member)| member.name.as_str()).collect();
                prop_assert_eq!(unique.len(), fleet.members().count());
                let listed: BTreeMap<MemberId, Target> = fleet
                    .members()
                    .filter(|(_, member)| !member.is_lost())
                    .map(|(id, member)| (id, member.target.clone()))
                    .collect();
                prop_assert_eq!(&listed, &links);
            }
        }
    }
}

#[test]
fn what_is_configured_away_is_forgotten_and_not_lost() {
    let (mut fleet, t0) = (Fleet::default(), start());
    let named = |name: &str| Listed::Named(Target::Named(name.into()));
    let here = Source::Folder(None);
    let configured = |fleet: &mut Fleet, sources: &[&Source], fixed: &[Listed]| {
        let sources = sources.iter().map(|&source| source.clone()).collect();
        fleet.apply(Input::Configured { sources, fixed: fixed.to_vec() }, t0)
    };
    configured(&mut fleet, &[&Source::Fixed, &here], &[named("a"), named("b")]);
    folder(&mut fleet, &[socket("api", "1")], t0);
    assert_eq!(names(&fleet), [("a", false), ("b", false), ("api", false)]);
    let effects = configured(&mut fleet, &[&Source::Fixed, &here], &[named("b"), named("c")]);
    assert!(matches!(effects.as_slice(), [Effect::Forget { .. }, Effect::Begin { .. }]), "{effects:?}");
    assert_eq!(names(&fleet), [("b", false), ("api", false), ("c", false)]);
    // Another folder is another source: what the first one listed goes with it, and it has not been asked yet.
    let there = Source::Folder(Some("/run/other".into()));
    assert!(fleet.has_heard(&here));
    let effects = configured(&mut fleet, &[&Source::Fixed, &there], &[named("b"), named("c")]);
    assert!(matches!(effects.as_slice(), [Effect::Forget { .. }]), "{effects:?}");
    assert_eq!(names(&fleet), [("b", false), ("c", false)]);
    assert!(!fleet.has_heard(&here) && !fleet.has_heard(&there));
}

#[test]
fn what_the_user_names_while_it_is_watched_is_watched_once() {
    let (mut fleet, t0) = (Fleet::default(), start());
    folder(&mut fleet, &[socket("api", "1")], t0);
    let (id, _) = fleet.named("api").expect("it is watched");
    let configured = |fleet: &mut Fleet, target: Target| {
        let sources = BTreeSet::from([Source::Fixed, Source::Folder(None)]);
        fleet.apply(Input::Configured { sources, fixed: vec![Listed::Named(target)] }, t0)
    };
    let effects = configured(&mut fleet, Target::Named("api".into()));
    // It is linked to as the user says, and what is known of it stays.
    assert_eq!(effects, [Effect::Begin { id, target: Target::Named("api".into()) }]);
    assert!(folder(&mut fleet, &[socket("api", "1")], t0).is_empty());
    assert_eq!(names(&fleet), [("api", false)]);
    assert!(configured(&mut fleet, Target::Named("api".into())).is_empty());
    let effects = configured(&mut fleet, Target::Named("other".into()));
    assert_eq!(effects[0], Effect::Forget { id, why: Forgotten::NotWatched });
}
