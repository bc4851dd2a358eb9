//! What each message does.

use std::time::Duration;

use taskscope_proto::v1::{self, SortKey};

use super::*;
use crate::fixture::{self, S, Scene};

fn watched(commands: &[Command]) -> Option<&v1::WatchRequest> {
    match commands {
        [Command::Watch(request)] => Some(request),
        _ => None,
    }
}

fn on(screen: Screen) -> Scene {
    let mut scene = Scene::live();
    scene.tell(Message::Show(screen));
    scene.frame(v1::Frame { seq: 2, ..fixture::frame() });
    scene
}

fn ids(scene: &Scene) -> Vec<u64> {
    scene.app.task_rows().iter().map(|row| row.id.0).collect()
}

fn typed(scene: &mut Scene, filter: &str) -> Vec<Command> {
    scene.tell(Message::EditFilter);
    scene.tell(Message::Edit(Edit::Clear));
    for c in filter.chars() {
        scene.tell(Message::Edit(Edit::Insert(c)));
    }
    scene.tell(Message::Edit(Edit::Apply))
}

#[test]
fn the_first_request_asks_for_what_the_overview_shows_and_for_the_history() {
    let scene = Scene::new(false, true);
    let request = scene.app.watch_request();
    assert_eq!((request.interval_ns, request.history_seconds, request.once), (S / 4, 900, false));
    assert_eq!(
        request.groups,
        Some(v1::GroupQuery { limit: GROUPS, histograms: false, ..Default::default() })
    );
    assert_eq!((request.tasks, request.keep_task_ids), (None, vec![]));
}

#[test]
fn a_link_that_becomes_live_is_asked_once_and_one_that_is_not_is_not_asked() {
    let mut scene = Scene::new(false, true);
    assert_eq!(scene.tell(Message::Show(Screen::Tasks)), []);
    let commands = scene.tell(Message::Link(LinkView::Live));
    assert_eq!(watched(&commands), Some(&scene.app.watch_request()));
    assert_eq!(scene.tell(Message::Link(LinkView::Live)), []);
    assert_eq!(scene.tell(Message::Link(LinkView::Stale { for_ns: 1 })), []);
    assert!(watched(&scene.tell(Message::Link(LinkView::Live))).is_some());
}

#[test]
fn each_screen_asks_for_what_it_shows() {
    let mut scene = Scene::live();
    let first = scene.app.watch_request().request_id;
    assert_eq!(scene.tell(Message::Show(Screen::Groups)), [], "the groups were there already");
    let commands = scene.tell(Message::Show(Screen::Tasks));
    let request = watched(&commands).expect("tasks are asked for");
    let tasks = request.tasks.as_ref().expect("tasks are asked for");
    assert_eq!((tasks.filter.as_str(), tasks.sort(), tasks.ascending), ("", SortKey::SortBusy, false));
    assert_eq!((tasks.after, tasks.limit, tasks.include_ended), (None, 48, false));
    assert_eq!((request.groups.as_ref(), request.request_id), (None, first + 1));
    let commands = scene.tell(Message::Show(Screen::Pending));
    let request = watched(&commands).expect("pending tasks are asked for");
    let tasks = request.tasks.as_ref().expect("tasks are asked for");
    assert_eq!((tasks.filter.as_str(), tasks.sort()), (PENDING_FILTER, SortKey::SortSince));
    assert!(tasks.filter.parse::<Filter>().is_ok());
}

#[test]
fn a_larger_terminal_asks_for_more_rows() {
    let mut scene = on(Screen::Tasks);
    let commands = scene.tell(Message::Resized { columns: 120, rows: 60 });
    let limit = watched(&commands).and_then(|request| request.tasks.as_ref()).map(|tasks| tasks.limit);
    assert_eq!(limit, Some(156));
}

#[test]
fn the_selection_is_kept_in_sight_and_asked_for_with_the_next_frame() {
    let mut scene = on(Screen::Tasks);
    let id = scene.app.watch_request().request_id;
    assert_eq!(scene.tell(Message::Move(Move::Down)), []);
    let commands = scene.tell(Message::Tick);
    let request = watched(&commands).expect("the selection is sent");
    assert_eq!((request.keep_task_ids.as_slice(), request.request_id), (&[9_214][..], id));
    assert_eq!(scene.tell(Message::Tick), []);
    scene.tell(Message::Back);
    assert!(scene.app.watch_request().keep_task_ids.is_empty());
}

#[test]
fn the_selection_stays_on_its_task_while_rows_move() {
    let mut scene = on(Screen::Tasks);
    scene.tell(Message::Move(Move::Down));
    scene.tell(Message::Move(Move::Down));
    let mut window = fixture::task_window(40, 40);
    window.order.reverse();
    scene.frame(v1::Frame { seq: 3, tasks: Some(window), ..fixture::frame() });
    assert_eq!(scene.app.selected_task().map(|row| row.id.0), Some(9_251));
    assert_eq!(ids(&scene)[38], 9_251);
}

#[test]
fn sorting_goes_round_the_columns_and_turns_around() {
    let mut scene = on(Screen::Tasks);
    let query = |commands: &[Command]| {
        let tasks =
            watched(commands).and_then(|request| request.tasks.clone()).expect("the order is asked for");
        (tasks.sort(), tasks.ascending)
    };
    assert_eq!(query(&scene.tell(Message::SortNext)), (SortKey::SortScheduled, false));
    assert_eq!(query(&scene.tell(Message::SortPrevious)), (SortKey::SortBusy, false));
    assert_eq!(query(&scene.tell(Message::Invert)), (SortKey::SortBusy, true));
    assert_eq!(query(&scene.tell(Message::SortNext)), (SortKey::SortScheduled, false));
}

#[test]
fn groups_are_sorted_here_and_ask_for_nothing() {
    let mut scene = on(Screen::Groups);
    let live = |scene: &Scene| scene.app.groups().iter().map(|group| group.live).collect::<Vec<_>>();
    while scene.app.groups_sort().key != GroupSort::Live {
        assert_eq!(scene.tell(Message::SortNext), []);
    }
    assert_eq!(live(&scene), [1_312, 96, 56, 12, 8, 1]);
    scene.tell(Message::Invert);
    assert_eq!(live(&scene), [1, 8, 12, 56, 96, 1_312]);
    scene.tell(Message::Move(Move::Last));
    assert_eq!(scene.app.selected_group().map(|group| group.live), Some(1_312));
}

#[test]
fn until_the_answer_to_another_order_comes_the_rows_at_hand_are_shown_in_it() {
    let mut scene = on(Screen::Tasks);
    scene.tell(Message::SortNext);
    scene.tell(Message::SortPrevious);
    scene.tell(Message::Invert);
    let mut reversed = fixture::task_window(40, 1_485).order;
    reversed.reverse();
    assert_eq!(ids(&scene), reversed);
    // A frame that answers the request before is no answer to this one.
    let request_id = scene.app.watch_request().request_id - 1;
    scene.tell(Message::Frame(Box::new(v1::Frame { request_id, seq: 3, ..fixture::frame() })));
    assert_eq!(ids(&scene), reversed);
}

#[test]
fn a_filter_is_asked_for_once_it_parses_and_holds_on_both_task_screens() {
    let mut scene = on(Screen::Tasks);
    let commands = typed(&mut scene, "name~session-watch");
    let filter = |commands: &[Command]| watched(commands).and_then(|it| it.tasks.clone()).map(|it| it.filter);
    assert_eq!(filter(&commands).as_deref(), Some("name~session-watch"));
    assert!(scene.app.task_rows().iter().all(|row| row.name == "session-watch"));
    assert_eq!(typed(&mut scene, "age>30"), []);
    assert_eq!(scene.app.input().and_then(|input| input.error.as_ref()).map(|error| error.column), Some(5));
    assert_eq!(scene.app.filter_text(), "name~session-watch");
    assert_eq!(scene.tell(Message::Edit(Edit::Cancel)), []);
    let commands = scene.tell(Message::Show(Screen::Pending));
    assert_eq!(filter(&commands), Some(format!("{PENDING_FILTER} name~session-watch")));
    let commands = typed(&mut scene, "");
    assert_eq!(filter(&commands).as_deref(), Some(PENDING_FILTER));
}

#[test]
fn a_filter_that_asks_for_ended_tasks_gets_them() {
    let mut scene = on(Screen::Tasks);
    let commands = typed(&mut scene, "state=ended");
    let asked = watched(&commands).and_then(|it| it.tasks.as_ref()).map(|tasks| tasks.include_ended);
    assert_eq!(asked, Some(true));
}

#[test]
fn a_filter_typed_on_the_overview_leads_to_the_tasks() {
    let mut scene = Scene::live();
    typed(&mut scene, "polls>3");
    assert_eq!((scene.app.screen(), scene.app.filter_text()), (Screen::Tasks, "polls>3"));
}

#[test]
fn paused_data_stand_still_while_frames_come_and_can_still_be_sorted_and_filtered() {
    let mut scene = on(Screen::Tasks);
    scene.tell(Message::Pause);
    let mut window = fixture::task_window(3, 3);
    window.order.reverse();
    scene.frame(v1::Frame { seq: 3, at_ns: 900 * S, resync: true, tasks: Some(window), ..fixture::frame() });
    scene.tell(Message::Sentences(vec![]));
    scene.pass(Duration::from_secs(5));
    assert_eq!(scene.app.paused_for(), Some(Duration::from_secs(5)));
    assert_eq!((ids(&scene).len(), scene.app.shown().at_ns), (40, Some(725 * S)));
    assert_eq!(scene.app.shown().sentences.len(), 5);
    scene.tell(Message::Invert);
    assert_eq!(ids(&scene)[39], 9_214);
    typed(&mut scene, "polls>500000");
    assert_eq!(ids(&scene), [9_251, 9_214]);
    scene.tell(Message::Pause);
    assert_eq!((scene.app.paused_for(), scene.app.shown().at_ns), (None, Some(900 * S)));
    assert_eq!(scene.app.shown().sentences.len(), 0);
}

#[test]
fn another_instance_begins_with_nothing() {
    let mut scene = on(Screen::Tasks);
    scene.tell(Message::Move(Move::Down));
    scene.tell(Message::Open);
    scene.tell(Message::Described(Box::new(fixture::description())));
    assert_eq!(ids(&scene).len(), 40, "the same instance goes on");
    let again = v1::Description { instance: "ffff0000".into(), pid: 4_300, ..fixture::description() };
    scene.tell(Message::Described(Box::new(again)));
    let shown = scene.app.shown();
    assert!(ids(&scene).is_empty());
    assert_eq!((shown.at_ns, shown.events.len(), shown.groups.groups.len()), (None, 0, 0));
    assert_eq!((shown.sentences.len(), shown.losses.len(), shown.runtimes.len()), (0, 0, 0));
    assert_eq!(shown.history.series(|sample| Some(sample.polls), 10).cells.len(), 0);
    assert_eq!((scene.app.pane(), scene.app.listing().selected), (None, None));
    assert_eq!(scene.app.data_age(), None);
    assert!(scene.app.watch_request().keep_task_ids.is_empty());
}

#[test]
fn a_frame_with_resync_forgets_the_rows_before_it() {
    let mut scene = on(Screen::Tasks);
    let next = v1::Frame {
        seq: 3,
        resync: false,
        tasks: Some(v1::TaskWindow { rows: None, ..fixture::task_window(5, 5) }),
        ..fixture::frame()
    };
    scene.frame(next.clone());
    assert_eq!(ids(&scene).len(), 5, "rows from before, in the new order");
    scene.frame(v1::Frame { seq: 4, resync: true, ..next });
    assert!(ids(&scene).is_empty());
}

#[test]
fn frames_of_a_recording_are_filtered_and_sorted_here() {
    let mut scene = Scene::live();
    scene.tell(Message::Show(Screen::Pending));
    scene.tell(Message::Frame(Box::new(v1::Frame { request_id: 0, seq: 2, ..fixture::frame() })));
    let rows = scene.app.task_rows();
    assert!(rows.iter().all(|row| !matches!(row.state, v1::TaskState::Running | v1::TaskState::Ended)));
    assert!(rows.is_sorted_by(|a, b| a.since_ns >= b.since_ns) && rows.len() > 20);
}

#[test]
fn the_last_data_stay_when_the_target_goes_and_say_how_old_they_are() {
    let mut scene = Scene::live();
    assert!(!scene.app.is_old());
    scene.pass(Duration::from_secs(9));
    scene.tell(Message::Link(LinkView::Disconnected { reason: "gone".into(), retry_in_ns: S }));
    scene.pass(Duration::from_secs(3));
    assert!(scene.app.is_old());
    assert_eq!(
        (scene.app.data_age(), scene.app.link_for()),
        (Some(Duration::from_secs(12)), Duration::from_secs(3))
    );
    assert_eq!(scene.app.shown().events.len(), 6);
}

#[test]
fn sentences_stand_worst_first() {
    let scene = Scene::live();
    let severities: Vec<Severity> = scene.app.shown().sentences.iter().map(|it| it.severity).collect();
    assert!(severities.is_sorted());
    assert!(scene.app.shown().sentences[0].text.starts_with("STUCK"));
}

#[test]
fn the_strip_is_replaced() {
    let mut scene = Scene::new(true, true);
    assert!(scene.app.has_strip() && scene.app.strip().is_none());
    scene.tell(Message::Strip(fixture::strip()));
    scene.tell(Message::Strip(StripView { truth: "pool-full".into(), said: None }));
    assert_eq!(scene.app.strip().map(|strip| strip.truth.as_str()), Some("pool-full"));
}

#[test]
fn the_chosen_target_is_attached_to() {
    let mut scene = Scene::new(false, true);
    assert_eq!(scene.tell(Message::Targets(fixture::targets())), []);
    assert_eq!(scene.app.screen(), Screen::Chooser);
    scene.tell(Message::Move(Move::Down));
    // The list comes again in another order: the choice stays.
    let mut targets = fixture::targets();
    targets.rotate_left(1);
    scene.tell(Message::Targets(targets));
    let commands = scene.tell(Message::Open);
    assert_eq!(commands, [Command::Attach(fixture::targets()[1].address.clone())]);
    assert_eq!((scene.app.screen(), scene.app.target()), (Screen::Overview, "image-resizer"));
    scene.tell(Message::Targets(vec![]));
    assert_eq!(scene.tell(Message::Open), []);
}

#[test]
fn enter_opens_and_closes_and_escape_goes_back_one_step() {
    let mut scene = on(Screen::Tasks);
    scene.tell(Message::Open);
    assert_eq!(
        (scene.app.pane(), scene.app.selected_task().map(|row| row.id.0)),
        (Some(Pane::Details), Some(9_214))
    );
    scene.tell(Message::Move(Move::Down));
    assert_eq!(scene.app.selected_task().map(|row| row.id.0), Some(9_251), "the pane follows the selection");
    scene.tell(Message::Open);
    assert_eq!(scene.app.pane(), None);
    scene.tell(Message::Open);
    scene.tell(Message::Back);
    assert_eq!((scene.app.pane(), scene.app.listing().selected.is_some()), (None, true));
    scene.tell(Message::Back);
    assert_eq!((scene.app.listing().selected, scene.app.screen()), (None, Screen::Tasks));
}

#[test]
fn pages_open_close_and_scroll() {
    let mut scene = Scene::live();
    scene.tell(Message::Help);
    scene.tell(Message::Move(Move::Down));
    scene.tell(Message::Move(Move::PageDown));
    assert_eq!(scene.app.pane(), Some(Pane::Help { scroll: 17 }));
    scene.tell(Message::Coverage);
    assert_eq!(scene.app.pane(), Some(Pane::Coverage { scroll: 0 }));
    scene.tell(Message::Move(Move::Up));
    scene.tell(Message::Coverage);
    assert_eq!(scene.app.pane(), None);
}

#[test]
fn an_event_is_selected_by_what_it_is() {
    let mut scene = Scene::live();
    scene.tell(Message::Move(Move::Down));
    assert_eq!(scene.app.selected_event().map(|event| event.seq), Some(106));
    let later = v1::Event { seq: 107, at_ns: 726 * S, ..v1::Event::default() };
    scene.frame(v1::Frame { seq: 2, events: vec![later], ..fixture::frame() });
    assert_eq!(scene.app.selected_event().map(|event| event.seq), Some(106));
    scene.tell(Message::Move(Move::Up));
    assert_eq!(scene.app.selected_event().map(|event| event.seq), Some(107));
}

#[test]
fn quit_quits_from_everywhere() {
    for message in [Message::Tick, Message::Help, Message::EditFilter, Message::Targets(vec![])] {
        let mut scene = Scene::live();
        scene.tell(message);
        assert_eq!(scene.tell(Message::Quit), [Command::Quit]);
    }
}

#[test]
fn scrolling_a_long_list_asks_for_its_next_window_by_a_cursor() {
    let mut scene = on(Screen::Tasks);
    scene.tell(Message::Move(Move::Down));
    let mut asked = None;
    for _ in 0..3 {
        let commands = scene.tell(Message::Move(Move::PageDown));
        asked = asked.or(watched(&commands).cloned());
    }
    let asked = asked.expect("the next window is asked for");
    let after = asked.tasks.as_ref().and_then(|tasks| tasks.after).expect("by a cursor");
    let row = scene
        .app
        .shown()
        .tasks
        .row(taskscope_proto::ids::TaskId(after.task_id))
        .expect("the cursor is a row");
    assert_eq!(after.value, row::sort_value(row, SortKey::SortBusy));
    assert!(asked.keep_task_ids.contains(&after.task_id));
    // Sorting anew begins at the top.
    let commands = scene.tell(Message::SortNext);
    assert_eq!(watched(&commands).and_then(|it| it.tasks.as_ref()).and_then(|tasks| tasks.after), None);
}
