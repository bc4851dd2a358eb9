//! Every screen as it looks, at two sizes; and that no size and no text breaks any.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use taskscope_proto::ids::TaskId;
use taskscope_proto::v1;

use crate::app::{CodeOf, Edit, LinkView, Message, Move, Screen};
use crate::fixture::{self, MS, S, Scene};

const SIZES: [(u16, u16); 2] = [(80, 24), (120, 40)];

fn drawn(scene: &Scene, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test backend cannot fail");
    terminal.draw(|frame| super::view(frame, &scene.app)).expect("a test backend cannot fail");
    terminal.backend().clone()
}

/// Compares what `scene` draws at both sizes with the snapshots of `name`.
fn check(name: &str, scene: impl Fn(Scene) -> Scene, start: impl Fn() -> Scene) {
    for (width, height) in SIZES {
        let scene = scene(start().sized(width, height));
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), drawn(&scene, width, height));
    }
}

/// On `screen`, with a frame that answers its request.
fn on(screen: Screen) -> impl Fn(Scene) -> Scene {
    move |mut scene| {
        scene.tell(Message::Show(screen));
        scene.frame(v1::Frame { seq: 2, ..fixture::frame() });
        scene
    }
}

fn told(messages: &'static [Message]) -> impl Fn(Scene) -> Scene {
    move |mut scene| {
        for message in messages {
            scene.tell(message.clone());
        }
        scene
    }
}

#[test]
fn overview_of_a_service_in_trouble() {
    check("overview", |scene| scene, Scene::live);
}

#[test]
fn overview_of_a_healthy_service() {
    check(
        "overview_healthy",
        |mut scene| {
            let (frame, sentences) = fixture::healthy();
            scene.frame(frame);
            scene.tell(Message::Sentences(sentences));
            scene
        },
        || {
            let mut scene = Scene::new(false, true);
            scene.tell(Message::Described(Box::new(v1::Description {
                capabilities: vec![fixture::description().capabilities[1].clone()],
                ..fixture::description()
            })));
            scene.tell(Message::Link(LinkView::Live));
            scene
        },
    );
}

#[test]
fn overview_in_the_demo_with_its_strip() {
    check(
        "overview_strip",
        |mut scene| {
            scene.tell(Message::Described(Box::new(fixture::description())));
            scene.tell(Message::Link(LinkView::Live));
            scene.frame(fixture::frame());
            scene.tell(Message::Sentences(fixture::sentences()));
            scene.tell(Message::Strip(fixture::strip()));
            scene
        },
        || Scene::new(true, true),
    );
}

#[test]
fn overview_with_the_details_of_an_event() {
    check(
        "overview_event",
        told(&[Message::Move(Move::Down), Message::Move(Move::Down), Message::Open]),
        Scene::live,
    );
}

#[test]
fn workers_and_events_show_the_line_that_they_are_on() {
    check("overview_code", with_code, Scene::live);
}

#[test]
fn the_details_of_an_event_show_its_stack() {
    check(
        "overview_event_code",
        |scene| {
            told(&[Message::Move(Move::Down), Message::Move(Move::Down), Message::Open])(with_code(scene))
        },
        Scene::live,
    );
}

#[test]
fn the_details_of_a_running_task_show_its_stack_and_the_line_of_a_deep_one_is_in_sight() {
    let mut scene = on(Screen::Tasks)(Scene::live().sized(120, 40));
    scene.tell(Message::Move(Move::First));
    scene.tell(Message::Open);
    scene.tell(Message::Move(Move::Down));
    let selected = scene.app.selected_task().map_or(0, |row| row.id.0);
    let code = fixture::code().into_iter().map(|code| match code.of {
        CodeOf::Event(103) => crate::app::Code { of: CodeOf::Task(selected), ..code },
        _ => code,
    });
    scene.tell(Message::Code(code.collect()));
    insta::assert_snapshot!("tasks_details_code_120x40", drawn(&scene, 120, 40));
}

fn with_code(mut scene: Scene) -> Scene {
    scene.tell(Message::Code(fixture::code()));
    scene
}

#[test]
fn overview_of_many_workers_on_two_runtimes_without_labels() {
    check(
        "overview_many_workers",
        |mut scene| {
            let mut frame = fixture::frame();
            let first = &mut frame.runtimes[0];
            first.name = Some("http".into());
            for worker in &mut first.workers {
                let poll = worker.poll.get_or_insert_default();
                poll.label_sid = 0;
                poll.activity = Some(v1::ThreadActivity {
                    state: v1::thread_activity::State::OnCpu.into(),
                    on_cpu_ns: Some(1_200 * MS),
                    waiting_for_cpu_ns: Some(1_900 * MS),
                    observed_ns: 3_100 * MS,
                    syscall: None,
                    ..v1::ThreadActivity::default()
                });
            }
            let parked = first.workers[0].clone();
            let more = (2..32).map(|index| v1::Worker {
                index,
                tid: Some(4243 + index),
                state: v1::worker::State::Parked.into(),
                busy_ratio: Some(0.02),
                poll: None,
                ..parked
            });
            first.workers.extend(more);
            frame.runtimes.push(v1::Runtime {
                id: 2,
                flavor: v1::runtime::Flavor::CurrentThread.into(),
                workers: vec![v1::Worker {
                    state: v1::worker::State::BusyUnseen.into(),
                    since_ns: Some(4 * S),
                    busy_ratio: None,
                    poll: Some(v1::LivePoll {
                        since_ns: 4 * S,
                        activity: Some(v1::ThreadActivity {
                            state: v1::thread_activity::State::DiskSleep.into(),
                            syscall: Some(999),
                            ..v1::ThreadActivity::default()
                        }),
                        ..v1::LivePoll::default()
                    }),
                    ..parked
                }],
                ..v1::Runtime::default()
            });
            scene.frame(frame);
            scene
        },
        Scene::live,
    );
}

#[test]
fn groups_and_labels() {
    check(
        "groups",
        |mut scene| {
            scene = on(Screen::Groups)(scene);
            let mut later = fixture::frame();
            later.seq = 3;
            later.at_ns += 2 * S;
            for (at, group) in later.groups.iter_mut().flat_map(|it| &mut it.groups).enumerate() {
                group.polls.get_or_insert_default().busy_ns_total += [1_700, 20, 90, 0, 400, 0][at] * MS;
            }
            for (at, label) in later.groups.iter_mut().flat_map(|it| &mut it.labels).enumerate() {
                label.polls.get_or_insert_default().busy_ns_total += [900, 300, 350, 3, 40][at] * MS;
            }
            scene.frame(later);
            scene
        },
        Scene::live,
    );
}

#[test]
fn details_of_a_group() {
    check(
        "groups_details",
        |scene| {
            told(&[Message::Move(Move::Down), Message::Move(Move::Down), Message::Open])(on(Screen::Groups)(
                scene,
            ))
        },
        Scene::live,
    );
}

#[test]
fn tasks() {
    check("tasks", on(Screen::Tasks), Scene::live);
}

#[test]
fn tasks_with_one_selected_and_its_details() {
    check(
        "tasks_details",
        |scene| {
            told(&[
                Message::Move(Move::Down),
                Message::Move(Move::PageDown),
                Message::Move(Move::PageDown),
                Message::Open,
            ])(on(Screen::Tasks)(scene))
        },
        Scene::live,
    );
}

#[test]
fn tasks_with_a_filter_that_matches_none() {
    check(
        "tasks_none",
        |mut scene| {
            scene.tell(Message::Show(Screen::Tasks));
            scene.tell(Message::EditFilter);
            for c in "name~nobody age>30s".chars() {
                scene.tell(Message::Edit(Edit::Insert(c)));
            }
            scene.tell(Message::Edit(Edit::Apply));
            scene.frame(v1::Frame { seq: 2, tasks: Some(fixture::task_window(0, 0)), ..fixture::frame() });
            scene
        },
        Scene::live,
    );
}

#[test]
fn a_filter_that_does_not_parse() {
    check(
        "filter_error",
        |scene| {
            let mut scene = on(Screen::Tasks)(scene);
            scene.tell(Message::EditFilter);
            for c in "polls>100 age>30 name~mail".chars() {
                scene.tell(Message::Edit(Edit::Insert(c)));
            }
            scene.tell(Message::Edit(Edit::Apply));
            scene
        },
        Scene::live,
    );
}

#[test]
fn a_filter_being_typed() {
    check(
        "filter_typing",
        |scene| {
            let mut scene = on(Screen::Tasks)(scene);
            scene.tell(Message::EditFilter);
            for c in "state=idle label~\"POST /re".chars() {
                scene.tell(Message::Edit(Edit::Insert(c)));
            }
            scene
        },
        Scene::live,
    );
}

#[test]
fn pending_tasks() {
    check(
        "pending",
        |mut scene| {
            scene.tell(Message::Show(Screen::Pending));
            let mut window = fixture::task_window(40, 1_460);
            window.order.drain(..2);
            window
                .order
                .retain(|id| *id > TaskId::OWN || (*id - fixture::FIRST_ID) / fixture::ID_STEP % 9 != 8);
            window.order.reverse();
            scene.frame(v1::Frame { seq: 2, tasks: Some(window), ..fixture::frame() });
            scene.tell(Message::Move(Move::Down));
            scene
        },
        Scene::live,
    );
}

#[test]
fn before_the_target_answers() {
    check(
        "connecting",
        |mut scene| {
            scene.tell(Message::Tick);
            scene.pass(Duration::from_millis(2_345));
            scene
        },
        || Scene::new(false, true),
    );
}

#[test]
fn when_nobody_listens() {
    check(
        "cannot_connect",
        |mut scene| {
            scene.tell(Message::Link(LinkView::Disconnected {
            reason: "nothing listens on unix:/run/user/1000/taskscope/orders-api.3f9ac1d2.sock: connection refused\n\
                     hint: is the service running? `taskscope ls` lists what is there"
                .into(),
            retry_in_ns: 2_300 * MS,
        }));
            scene.pass(Duration::from_millis(1_100));
            scene
        },
        || Scene::new(false, true),
    );
}

#[test]
fn after_the_target_went_away() {
    check(
        "disconnected",
        |mut scene| {
            scene.pass(Duration::from_secs(9));
            scene.tell(Message::Link(LinkView::Disconnected {
                reason: "the target closed the connection".into(),
                retry_in_ns: 5 * S,
            }));
            scene.pass(Duration::from_secs(3));
            scene
        },
        Scene::live,
    );
}

#[test]
fn while_the_target_is_silent() {
    check(
        "stale",
        |scene| {
            let mut scene = on(Screen::Tasks)(scene);
            scene.tell(Message::Link(LinkView::Stale { for_ns: 4 * S }));
            scene.pass(Duration::from_secs(2));
            scene
        },
        Scene::live,
    );
}

#[test]
fn paused() {
    check(
        "paused",
        |scene| {
            let mut scene = on(Screen::Tasks)(scene);
            scene.tell(Message::Pause);
            scene.pass(Duration::from_secs(42));
            scene
        },
        Scene::live,
    );
}

#[test]
fn chooser() {
    check(
        "chooser",
        |mut scene| {
            scene.tell(Message::Targets(fixture::targets()));
            scene.tell(Message::Move(Move::Down));
            scene
        },
        || Scene::new(false, true),
    );
}

#[test]
fn help() {
    check("help", told(&[Message::Help]), Scene::live);
}

#[test]
fn coverage() {
    check("coverage", told(&[Message::Coverage]), Scene::live);
}

#[test]
fn a_tiny_terminal_says_what_it_needs() {
    let said = |width, height| drawn(&Scene::live(), width, height).to_string();
    assert!(said(20, 5).contains("terminal too small:"));
    assert!(said(39, 8).contains("terminal too small: 39×8; hint: at"));
    assert!(!said(40, 8).contains("terminal too small"));
}

/// Scenes that between them draw every part of every screen.
fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for strip in [false, true] {
        for full in [false, true] {
            for screen in [Screen::Overview, Screen::Groups, Screen::Tasks, Screen::Pending, Screen::Chooser]
            {
                for extra in [
                    vec![],
                    vec![Message::Open],
                    vec![Message::Help, Message::Move(Move::PageDown)],
                    vec![Message::Coverage, Message::Move(Move::Last)],
                    vec![Message::EditFilter, Message::Edit(Edit::Insert('x')), Message::Edit(Edit::Apply)],
                    vec![
                        Message::Pause,
                        Message::Link(LinkView::Stale { for_ns: 0 }),
                        Message::Move(Move::Last),
                    ],
                ] {
                    let mut scene = Scene::new(strip, full);
                    if full {
                        scene.tell(Message::Described(Box::new(fixture::description())));
                        scene.tell(Message::Targets(fixture::targets()));
                        scene.tell(Message::Link(LinkView::Live));
                        scene.tell(Message::Sentences(fixture::sentences()));
                        scene.tell(Message::Strip(fixture::strip()));
                    }
                    scene.tell(Message::Show(screen));
                    if full {
                        scene.frame(fixture::frame());
                        scene.tell(Message::Code(fixture::code()));
                    }
                    for message in extra {
                        scene.tell(message);
                    }
                    scenes.push(scene);
                }
            }
        }
    }
    scenes
}

#[test]
fn no_size_breaks_any_screen() {
    let scenes = scenes();
    // Another scene at every size, all of them within a few columns; and every one where the layout changes.
    let sizes = (1..=130).flat_map(|width| (1..=45).map(move |height| (width, height)));
    for (at, (width, height)) in sizes.enumerate() {
        drawn(&scenes[at * 7 % scenes.len()], width, height);
    }
    for (width, height) in [(39, 8), (40, 8), (59, 9), (60, 11), (69, 13), (70, 16), (76, 20), (130, 45)] {
        for scene in &scenes {
            drawn(scene, width, height);
        }
    }
}

#[test]
fn without_colour_no_cell_has_one() {
    for scene in scenes().iter().filter(|scene| !scene.app.colour()) {
        let backend = drawn(scene, 100, 30);
        for cell in backend.buffer().content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
        }
    }
    let mut scene = Scene::new(true, false);
    scene.frame(fixture::frame());
    scene.tell(Message::Sentences(fixture::sentences()));
    let backend = drawn(&scene, 100, 30);
    assert!(backend.buffer().content().iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
}

#[test]
fn what_a_target_writes_cannot_harm_the_terminal() {
    let hostile = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\t\u{9b}31m",
        "\u{202e}gnp.exe\u{200b}\u{feff}",
        "漢字かな交じり文漢字かな交じり文漢字かな交じり文漢字かな交じり文",
        "👩‍👩‍👧‍👦🏳️‍🌈e\u{301}\u{301}\u{301}",
        "",
    ];
    let huge = "x".repeat(1 << 20);
    for text in hostile.into_iter().chain([huge.as_str()]) {
        for screen in [Screen::Overview, Screen::Groups, Screen::Tasks, Screen::Pending, Screen::Chooser] {
            for open in [Message::Tick, Message::Open, Message::Coverage] {
                let scene = hostile_scene(text, screen, open);
                for (width, height) in [(40, 8), (80, 24), (120, 40)] {
                    let backend = drawn(&scene, width, height);
                    for cell in backend.buffer().content() {
                        let turns =
                            |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}');
                        let bad = |c: char| c.is_control() || turns(c);
                        assert!(!cell.symbol().contains(bad), "{:?} on {screen:?}", cell.symbol());
                    }
                }
            }
        }
    }
}

fn hostile_scene(text: &str, screen: Screen, open: Message) -> Scene {
    let mut scene = Scene::new(true, true);
    let mut description = fixture::description();
    description.name = text.into();
    description.host = Some(text.into());
    description.instance = text.into();
    description.arch = text.into();
    for capability in &mut description.capabilities {
        capability.reason = text.into();
        capability.hint = text.into();
    }
    scene.tell(Message::Described(Box::new(description)));
    let mut choices = fixture::targets();
    for choice in &mut choices {
        choice.name = text.into();
        choice.instance = text.into();
        choice.address.push_str(text);
        choice.trouble = choice.trouble.take().map(|_| text.into());
    }
    scene.tell(Message::Targets(choices));
    scene.tell(Message::Show(screen));
    let mut frame = fixture::frame();
    for string in &mut frame.strings {
        string.text = text.into();
    }
    for pool in &mut frame.pools {
        pool.name = text.into();
    }
    for runtime in &mut frame.runtimes {
        runtime.name = Some(text.into());
    }
    frame.runtimes.push(frame.runtimes[0].clone());
    scene.frame(frame);
    let mut sentences = fixture::sentences();
    sentences[0].text = text.into();
    scene.tell(Message::Sentences(sentences));
    let mut code = fixture::code();
    for code in &mut code {
        (code.on, code.words) = (text.into(), text.into());
        code.stack.iter_mut().for_each(|(frame, _)| *frame = text.into());
    }
    scene.tell(Message::Code(code));
    let mut strip = fixture::strip();
    strip.truth = text.into();
    scene.tell(Message::Strip(strip));
    scene.tell(Message::Link(LinkView::Closed { reason: text.into() }));
    scene.tell(open);
    scene
}
