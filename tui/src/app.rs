//! The state of the dashboard and its one way to change: [`App::update`]. Knows no terminal and reads no clock.
//!
//! What the target says lands in a `Model`; where one is on the screen is kept here. A selection is an id and never a row
//! number. Whatever a change of screen, sort, filter or place means for the target follows from the state: the request is
//! computed after each message and goes out when it differs from the last one.

pub(crate) mod filter_input;
pub(crate) mod listing;
mod words;

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use taskscope_proto::filter::Filter;
use taskscope_proto::ids::GroupId;
use taskscope_proto::row::{self, TaskRow};
use taskscope_proto::top::Place;
use taskscope_proto::v1::{self, SortKey};

pub use self::filter_input::Edit;
use self::filter_input::{Edited, FilterInput};
use self::listing::{Listing, Window};
pub use self::words::{Code, CodeOf, Sentence, Severity};
use crate::model::group::Group;
use crate::model::{Event, Model};
use crate::table::groups::{self, GroupSort};
use crate::table::{Context, Sort, tasks};

/// Time between frames that is asked for.
const INTERVAL: Duration = Duration::from_millis(250);
/// Groups and labels asked for.
const GROUPS: u32 = 200;
/// Rows fetched: this many screens, within these bounds.
const SCREENS_FETCHED: usize = 3;
const ROWS_FETCHED: std::ops::RangeInclusive<usize> = 30..=600;
/// What the pending screen shows, before the user's own terms.
const PENDING_FILTER: &str = "state!=running state!=ended";
/// Lines that a screen has besides the rows of its table.
const ROWS_TAKEN: u16 = 8;
/// No text of an overlay is longer than this many lines.
const OVERLAY_LINES: u16 = 200;

/// What the dashboard is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// The target as the user named it; shown until it says its own name.
    pub target: String,
    /// Whether colours may be used. Everything can be read without.
    pub colour: bool,
    /// Keep two lines at the bottom for [`Message::Strip`].
    pub strip: bool,
    /// The name of a system call, by architecture (as in `Description.arch`) and number.
    pub syscall_name: SyscallName,
}

/// See [`Options::syscall_name`].
pub type SyscallName = fn(arch: &str, number: u32) -> Option<&'static str>;

/// Everything that can happen to the dashboard.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Go to a screen.
    Show(Screen),
    /// Move the selection, or scroll where nothing is selected.
    Move(Move),
    /// Sort by the next column.
    SortNext,
    /// Sort by the column before.
    SortPrevious,
    /// Turn the order around.
    Invert,
    /// Freeze what is shown, or go on.
    Pause,
    /// Show all fields of the selected row; in the chooser: attach to it.
    Open,
    /// Close what was opened last.
    Back,
    /// Open or close the list of keys.
    Help,
    /// Open or close the page that says what cannot be seen, and why.
    Coverage,
    /// Begin to edit the filter.
    EditFilter,
    /// One edit of the filter being typed.
    Edit(Edit),
    Quit,
    /// The terminal has this size. 80×24 until told.
    Resized {
        columns: u16,
        rows: u16,
    },
    /// A frame of the stream, in the stream's order.
    Frame(Box<v1::Frame>),
    /// Who the target is. Another `instance` than before begins with nothing.
    Described(Box<v1::Description>),
    /// The state of the connection.
    Link(LinkView),
    /// The plain words for what is going on. Replaces the ones before.
    Sentences(Vec<Sentence>),
    /// Where in the code polls are. Threads and tasks replace the ones before; an event keeps what was said of it.
    Code(Vec<Code>),
    /// What the demo did. Shown where [`Options::strip`] is set.
    Strip(StripView),
    /// Several targets are there: let the user choose.
    Targets(Vec<TargetChoice>),
    /// Time has passed.
    Tick,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Quit,
    /// Ask the target for this from now on.
    Watch(Box<v1::WatchRequest>),
    /// Attach to the target with this [`TargetChoice::address`].
    Attach(String),
}

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    Overview,
    Groups,
    Tasks,
    Pending,
    /// Which target to attach to.
    Chooser,
}

/// A step of the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

/// The connection, as people are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkView {
    Connecting {
        /// Counts from 1.
        attempt: u32,
    },
    Live,
    /// Connected, but nothing has come for a while.
    Stale {
        for_ns: u64,
    },
    Disconnected {
        /// May end with a line `hint: …`.
        reason: String,
        retry_in_ns: u64,
    },
    /// For good.
    Closed {
        /// May end with a line `hint: …`.
        reason: String,
    },
}

/// What the demo did to its service, and what the tool said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripView {
    /// The truth: `stuck-poll injected 3.4 s ago: POST /resize sleeps`.
    pub truth: String,
    /// The tool's sentence with its delay: `named after 0.6 s: STUCK …`; `None` until it said something.
    pub said: Option<String>,
}

/// A target to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetChoice {
    /// Given back in [`Command::Attach`]; different for each choice.
    pub address: String,
    pub name: String,
    pub pid: Option<u32>,
    /// Empty: not known.
    pub instance: String,
    pub up_ns: Option<u64>,
    /// Why it cannot be attached to, such as a socket that nobody listens on.
    pub trouble: Option<String>,
}

/// What lies over a screen or beside its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pane {
    Help { scroll: u16 },
    Coverage { scroll: u16 },
    Details,
}

/// What stands still while the user looks at it.
#[derive(Clone, Debug)]
struct Frozen {
    model: Model,
    since: Instant,
}

/// The user's filter, on all task screens.
#[derive(Clone, Debug, Default)]
struct UserFilter {
    text: String,
    parsed: Filter,
}

/// The state of the dashboard.
#[derive(Clone, Debug)]
pub struct App {
    target: String,
    colour: bool,
    has_strip: bool,
    syscall_name: SyscallName,
    /// The moment of the last message.
    now: Option<Instant>,
    columns: u16,
    rows: u16,
    screen: Screen,
    pane: Option<Pane>,
    live: Model,
    frozen: Option<Box<Frozen>>,
    /// When the last frame came.
    frame_at: Option<Instant>,
    link: LinkView,
    /// When the link came to be as it is.
    link_at: Option<Instant>,
    strip: Option<StripView>,
    choices: Vec<TargetChoice>,
    /// Address of the choice that is selected.
    choice: Option<String>,
    filter: UserFilter,
    input: Option<FilterInput>,
    tasks: Listing,
    pending: Listing,
    groups_sort: Sort<GroupSort>,
    group: Option<GroupId>,
    /// Sequence number of the selected event.
    event: Option<u64>,
    request: v1::WatchRequest,
}

impl App {
    pub fn new(options: Options) -> Self {
        let mut app = Self {
            target: options.target,
            colour: options.colour,
            has_strip: options.strip,
            syscall_name: options.syscall_name,
            now: None,
            columns: 80,
            rows: 24,
            screen: Screen::Overview,
            pane: None,
            live: Model::default(),
            frozen: None,
            frame_at: None,
            link: LinkView::Connecting { attempt: 1 },
            link_at: None,
            strip: None,
            choices: Vec::new(),
            choice: None,
            filter: UserFilter::default(),
            input: None,
            tasks: Listing::sorted_by(SortKey::SortBusy),
            pending: Listing::sorted_by(SortKey::SortSince),
            groups_sort: Sort::largest_first(GroupSort::Busy),
            group: None,
            event: None,
            request: v1::WatchRequest::default(),
        };
        app.request = v1::WatchRequest { request_id: 1, ..app.wanted() };
        app
    }

    /// What the present screen needs of the target. A new connection begins with it.
    pub fn watch_request(&self) -> v1::WatchRequest {
        self.request.clone()
    }

    /// Takes in what happened at `now`; the commands are to be performed in their order.
    pub fn update(&mut self, message: Message, now: Instant) -> Vec<Command> {
        self.now = Some(now);
        self.link_at.get_or_insert(now);
        // Holding a key down asks for nothing but other rows; the selection itself can wait for the next frame.
        let can_wait = matches!(message, Message::Move(_));
        let was_live = self.is_live();
        let mut commands = self.apply(message, now);
        let wanted = self.wanted();
        let same = v1::WatchRequest { request_id: self.request.request_id, ..wanted };
        if same != self.request {
            let only_kept =
                v1::WatchRequest { keep_task_ids: self.request.keep_task_ids.clone(), ..same.clone() };
            let other_rows = only_kept != self.request;
            if other_rows || !can_wait {
                // Rows asked for by the same query are the same rows, so their request keeps its number.
                let request_id = self.request.request_id + u64::from(other_rows);
                self.request = v1::WatchRequest { request_id, ..same };
                if was_live && self.is_live() {
                    commands.push(self.watch());
                }
            }
        }
        if self.is_live() && !was_live {
            commands.push(self.watch());
        }
        commands
    }

    fn watch(&self) -> Command {
        Command::Watch(Box::new(self.request.clone()))
    }

    fn apply(&mut self, message: Message, now: Instant) -> Vec<Command> {
        match message {
            Message::Show(screen) => self.show(screen),
            Message::Move(step) => self.go(step),
            Message::SortNext => self.sort(true),
            Message::SortPrevious => self.sort(false),
            Message::Invert => self.invert(),
            Message::Pause => self.pause(now),
            Message::Open => return self.open(),
            Message::Back => self.back(),
            Message::Help => self.toggle(Pane::Help { scroll: 0 }),
            Message::Coverage => self.toggle(Pane::Coverage { scroll: 0 }),
            Message::EditFilter => {
                self.pane = None;
                self.input = Some(FilterInput::of(&self.filter.text));
            }
            Message::Edit(edit) => self.edit(edit),
            Message::Quit => return vec![Command::Quit],
            Message::Resized { columns, rows } => (self.columns, self.rows) = (columns, rows),
            Message::Frame(frame) => self.take_frame(*frame, now),
            Message::Described(description) => self.describe(*description),
            Message::Link(link) => {
                let same = std::mem::discriminant(&self.link) == std::mem::discriminant(&link);
                if !same || matches!(link, LinkView::Disconnected { .. } | LinkView::Stale { .. }) {
                    self.link_at = Some(now);
                }
                self.link = link;
            }
            Message::Sentences(mut sentences) => {
                sentences.sort_by_key(|sentence| sentence.severity);
                self.live.sentences = sentences;
            }
            Message::Code(code) => self.live.codes.take(code),
            Message::Strip(strip) => self.strip = Some(strip),
            Message::Targets(choices) => {
                let still_there = |address: &String| choices.iter().any(|choice| choice.address == *address);
                self.choice = self.choice.take().filter(still_there);
                self.choices = choices;
                self.show(Screen::Chooser);
            }
            Message::Tick => {}
        }
        Vec::new()
    }

    fn show(&mut self, screen: Screen) {
        if self.screen != screen {
            self.screen = screen;
            self.pane = None;
            self.input = None;
            self.tasks.rewind();
            self.pending.rewind();
        }
    }

    fn toggle(&mut self, pane: Pane) {
        let open =
            self.pane.is_some_and(|open| std::mem::discriminant(&open) == std::mem::discriminant(&pane));
        self.pane = (!open).then_some(pane);
    }

    fn back(&mut self) {
        if self.input.take().is_some() || self.pane.take().is_some() {
            return;
        }
        match self.screen {
            Screen::Overview => self.event = None,
            Screen::Groups => self.group = None,
            Screen::Tasks => self.tasks.rewind(),
            Screen::Pending => self.pending.rewind(),
            Screen::Chooser => {}
        }
    }

    fn open(&mut self) -> Vec<Command> {
        if self.screen == Screen::Chooser {
            let Some(choice) = self.chosen() else { return Vec::new() };
            let address = choice.address.clone();
            self.target = choice.name.clone();
            self.show(Screen::Overview);
            return vec![Command::Attach(address)];
        }
        if self.pane == Some(Pane::Details) {
            self.pane = None;
            return Vec::new();
        }
        let nothing_selected = match self.screen {
            Screen::Overview => self.event.is_none(),
            Screen::Groups => self.group.is_none(),
            Screen::Tasks => self.tasks.selected.is_none(),
            Screen::Pending => self.pending.selected.is_none(),
            Screen::Chooser => false,
        };
        self.pane = None;
        if nothing_selected {
            self.go(Move::First);
        }
        self.pane = Some(Pane::Details);
        Vec::new()
    }

    fn go(&mut self, step: Move) {
        if let Some(Pane::Help { scroll } | Pane::Coverage { scroll }) = &mut self.pane {
            let page = self.rows.saturating_sub(ROWS_TAKEN).max(1);
            *scroll = match step {
                Move::Up => scroll.saturating_sub(1),
                Move::Down => *scroll + 1,
                Move::PageUp => scroll.saturating_sub(page),
                Move::PageDown => *scroll + page,
                Move::First => 0,
                Move::Last => OVERLAY_LINES,
            }
            .min(OVERLAY_LINES);
            return;
        }
        let page = self.page();
        match self.screen {
            Screen::Overview => {
                let seqs: Vec<u64> = self.events().map(|event| event.seq).collect();
                self.event = moved(&seqs, self.event.as_ref(), step, page);
            }
            Screen::Groups => {
                let ids: Vec<GroupId> = self.groups().iter().map(|group| group.id).collect();
                self.group = moved(&ids, self.group.as_ref(), step, page);
            }
            Screen::Chooser => {
                let addresses: Vec<String> =
                    self.choices.iter().map(|choice| choice.address.clone()).collect();
                let at = self.chosen().map(|choice| choice.address.clone());
                self.choice = moved(&addresses, at.as_ref(), step, page);
            }
            Screen::Tasks | Screen::Pending => {
                let places = self.places();
                let window = self.window(&places);
                let mut listing = self.listing().clone();
                listing.select(step, &window);
                *self.listing_mut() = listing;
            }
        }
    }

    fn sort(&mut self, forward: bool) {
        match self.screen {
            Screen::Groups => self.groups_sort.step(groups::GROUPS, forward),
            Screen::Tasks => {
                self.tasks.sort.step(tasks::TASKS, forward);
                self.tasks.rewind();
            }
            Screen::Pending => {
                self.pending.sort.step(tasks::PENDING, forward);
                self.pending.rewind();
            }
            Screen::Overview | Screen::Chooser => {}
        }
    }

    fn invert(&mut self) {
        match self.screen {
            Screen::Groups => self.groups_sort.ascending ^= true,
            Screen::Tasks | Screen::Pending => {
                let listing = self.listing_mut();
                listing.sort.ascending ^= true;
                listing.rewind();
            }
            Screen::Overview | Screen::Chooser => {}
        }
    }

    fn pause(&mut self, now: Instant) {
        if self.frozen.take().is_some() {
            self.tasks.rewind();
            self.pending.rewind();
        } else {
            self.frozen = Some(Box::new(Frozen { model: self.live.clone(), since: now }));
        }
    }

    fn edit(&mut self, edit: Edit) {
        let Some(input) = &mut self.input else { return };
        match input.edit(edit) {
            Edited::Open => {}
            Edited::Cancelled => self.input = None,
            Edited::Applied(text, parsed) => {
                self.input = None;
                self.filter = UserFilter { text, parsed };
                self.tasks.rewind();
                self.pending.rewind();
                if !matches!(self.screen, Screen::Tasks | Screen::Pending) {
                    self.show(Screen::Tasks);
                }
            }
        }
    }

    fn take_frame(&mut self, frame: v1::Frame, now: Instant) {
        self.frame_at = Some(now);
        self.live.take(frame);
        self.live.tasks.prune(&self.request.keep_task_ids);
        if self.frozen.is_some() || !matches!(self.screen, Screen::Tasks | Screen::Pending) {
            return;
        }
        let places = self.places();
        let window = self.window(&places);
        let mut listing = self.listing().clone();
        let cursor = listing.cursor_task().and_then(|id| self.live.tasks.row(id));
        let cursor_value = cursor.map(|row| row::sort_value(row, listing.sort.key));
        listing.follow(&window, cursor_value);
        *self.listing_mut() = listing;
    }

    fn describe(&mut self, description: v1::Description) {
        if self.live.instance() == Some(description.instance.as_str()) {
            self.live.description = Some(description);
            return;
        }
        // Frames that came before the first description are of this run; those of another run are not.
        if self.live.instance().is_none() {
            if self.live.capabilities.is_empty() {
                self.live.capabilities = description.capabilities.clone();
            }
            self.live.description = Some(description);
            return;
        }
        self.live = Model::of(description);
        self.frame_at = None;
        if self.frozen.is_none() {
            self.event = None;
            self.group = None;
            self.tasks.rewind();
            self.pending.rewind();
            if self.pane == Some(Pane::Details) {
                self.pane = None;
            }
        }
    }

    /// The request that the present state needs.
    fn wanted(&self) -> v1::WatchRequest {
        let on_tasks = matches!(self.screen, Screen::Tasks | Screen::Pending);
        let tasks = on_tasks.then(|| {
            let listing = self.listing();
            let user = self.filter.text.as_str();
            let filter = match self.screen {
                Screen::Pending if user.is_empty() => PENDING_FILTER.to_owned(),
                Screen::Pending => format!("{PENDING_FILTER} {user}"),
                _ => user.to_owned(),
            };
            let rows = self.page().saturating_mul(SCREENS_FETCHED);
            v1::TaskQuery {
                filter,
                sort: listing.sort.key.into(),
                ascending: listing.ascending(),
                after: listing.after(),
                limit: rows.clamp(*ROWS_FETCHED.start(), *ROWS_FETCHED.end()) as u32,
                include_ended: self.screen == Screen::Tasks && self.filter.parsed.asks_for_ended(),
            }
        });
        v1::WatchRequest {
            request_id: 0,
            interval_ns: INTERVAL.as_nanos() as u64,
            tasks,
            keep_task_ids: if on_tasks { self.listing().keep() } else { Vec::new() },
            groups: (!on_tasks).then_some(v1::GroupQuery {
                limit: GROUPS,
                histograms: false,
                ..Default::default()
            }),
            standing: Vec::new(),
            history_seconds: crate::model::history::SECONDS as u32,
            once: false,
            stacks: None,
            histograms_total: false,
        }
    }

    fn is_live(&self) -> bool {
        self.link == LinkView::Live
    }

    /// Whether the rows at hand answer the request as it is now. A frame with request 0 was made for nobody in particular.
    fn has_answer(&self) -> bool {
        self.live.tasks.request_id == self.request.request_id
    }

    /// Rows that fit in a table.
    fn page(&self) -> usize {
        usize::from(self.rows.saturating_sub(ROWS_TAKEN).max(1))
    }

    fn listing_mut(&mut self) -> &mut Listing {
        if self.screen == Screen::Pending { &mut self.pending } else { &mut self.tasks }
    }

    fn places(&self) -> Vec<Place> {
        let key = self.listing().sort.key;
        self.task_rows().iter().map(|row| Place { value: row::sort_value(*row, key), id: row.id }).collect()
    }

    fn window<'a>(&self, places: &'a [Place]) -> Window<'a> {
        Window {
            places,
            matching: self.shown().tasks.matching().unwrap_or(places.len() as u64),
            page: self.page(),
            settled: self.frozen.is_none() && self.has_answer(),
        }
    }
}

/// What the screens read.
impl App {
    /// The data on the screen: live, or as they were when the user paused.
    pub(crate) fn shown(&self) -> &Model {
        self.frozen.as_ref().map_or(&self.live, |frozen| &frozen.model)
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    pub(crate) fn has_strip(&self) -> bool {
        self.has_strip
    }

    pub(crate) fn screen(&self) -> Screen {
        self.screen
    }

    pub(crate) fn pane(&self) -> Option<Pane> {
        self.pane
    }

    pub(crate) fn link(&self) -> &LinkView {
        &self.link
    }

    /// How long the link has been as it is.
    pub(crate) fn link_for(&self) -> Duration {
        self.passed_since(self.link_at)
    }

    /// How long the screen has stood still; `None` unless paused.
    pub(crate) fn paused_for(&self) -> Option<Duration> {
        self.frozen.as_ref().map(|frozen| self.passed_since(Some(frozen.since)))
    }

    /// How old the last frame is; `None` where none has come.
    pub(crate) fn data_age(&self) -> Option<Duration> {
        self.frame_at.map(|at| self.passed_since(Some(at)))
    }

    /// Whether what is shown may no longer be so.
    pub(crate) fn is_old(&self) -> bool {
        self.frame_at.is_some() && !self.is_live()
    }

    pub(crate) fn strip(&self) -> Option<&StripView> {
        self.strip.as_ref()
    }

    pub(crate) fn choices(&self) -> &[TargetChoice] {
        &self.choices
    }

    /// The selected choice; the first until one was selected.
    pub(crate) fn chosen(&self) -> Option<&TargetChoice> {
        let selected = self.choice.as_ref();
        self.choices.iter().find(|choice| Some(&choice.address) == selected).or(self.choices.first())
    }

    pub(crate) fn filter_text(&self) -> &str {
        &self.filter.text
    }

    pub(crate) fn input(&self) -> Option<&FilterInput> {
        self.input.as_ref()
    }

    /// The list of tasks that the present screen shows.
    pub(crate) fn listing(&self) -> &Listing {
        if self.screen == Screen::Pending { &self.pending } else { &self.tasks }
    }

    pub(crate) fn groups_sort(&self) -> Sort<GroupSort> {
        self.groups_sort
    }

    /// Groups in the order of the screen.
    pub(crate) fn groups(&self) -> Vec<&Group> {
        groups::sorted(&self.shown().groups.groups, self.groups_sort)
    }

    pub(crate) fn selected_group(&self) -> Option<&Group> {
        let id = self.group?;
        self.shown().groups.groups.iter().find(|group| group.id == id)
    }

    /// Events, the latest first.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.shown().events.values().rev()
    }

    pub(crate) fn selected_event(&self) -> Option<&Event> {
        self.shown().events.get(&self.event?)
    }

    /// Task rows in the order of the screen.
    ///
    /// Rows that answer the present request stand as the target ordered them. Others (the screen is frozen, another order
    /// was asked for a moment ago, or they are from a recording) are filtered and sorted here.
    pub(crate) fn task_rows(&self) -> Vec<&TaskRow> {
        let listing = self.listing();
        let window = &self.shown().tasks;
        if self.frozen.is_none() && self.has_answer() {
            let mut rows: Vec<&TaskRow> = window.ordered().collect();
            if listing.is_reversed() {
                rows.reverse();
            }
            return rows;
        }
        let pending = PENDING_FILTER.parse::<Filter>().unwrap_or_default();
        let mut rows: Vec<&TaskRow> = window
            .all()
            .filter(|row| self.filter.parsed.matches(*row))
            .filter(|row| self.screen != Screen::Pending || pending.matches(*row))
            .collect();
        let sort = listing.sort;
        rows.sort_by(|a, b| {
            let (value_a, value_b) = (row::sort_value(*a, sort.key), row::sort_value(*b, sort.key));
            let by_value: Ordering = value_a.cmp(&value_b);
            if sort.ascending { by_value } else { by_value.reverse() }.then_with(|| a.id.cmp(&b.id))
        });
        rows
    }

    pub(crate) fn selected_task(&self) -> Option<&TaskRow> {
        self.shown().tasks.row(self.listing().selected?)
    }

    pub(crate) fn context<'a>(&self, shown: &'a [&'static str]) -> Context<'a> {
        let model = self.shown();
        let workers = model.workers().count();
        Context { shown, slow_poll_ns: model.slow_poll_ns(), workers: (workers > 0).then_some(workers) }
    }

    /// The name of a system call of the target.
    pub(crate) fn syscall(&self, number: u32) -> Option<&'static str> {
        let description = self.shown().description.as_ref()?;
        (self.syscall_name)(&description.arch, number)
    }

    fn passed_since(&self, at: Option<Instant>) -> Duration {
        self.now.zip(at).map_or(Duration::ZERO, |(now, at)| now.saturating_duration_since(at))
    }
}

/// The id to select after a step among `ids`; the first where none was selected, or where it is gone.
fn moved<T: Clone + PartialEq>(ids: &[T], selected: Option<&T>, step: Move, page: usize) -> Option<T> {
    let last = ids.len().checked_sub(1)?;
    let at = selected.and_then(|selected| ids.iter().position(|id| id == selected));
    let to = match (step, at) {
        (Move::First, _) => 0,
        (Move::Last, _) => last,
        (_, None) => 0,
        (Move::Up, Some(at)) => at.saturating_sub(1),
        (Move::Down, Some(at)) => at + 1,
        (Move::PageUp, Some(at)) => at.saturating_sub(page),
        (Move::PageDown, Some(at)) => at + page,
    };
    Some(ids[to.min(last)].clone())
}

#[cfg(test)]
mod tests;
