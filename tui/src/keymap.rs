//! Keys. One table says what each key does where, from which the help screen and the footer are made too.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::app::{App, Edit, Message, Move, Pane, Screen};

/// Where a key means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The overview.
    Overview,
    /// A screen with a table that sorts.
    Table,
    /// The help or coverage page lies over it.
    Page,
    /// A filter is being typed.
    Filter,
    /// The list of targets.
    Chooser,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    code: KeyCode,
    control: bool,
}

/// One line of the table.
pub(crate) struct Binding {
    pub(crate) keys: &'static [Key],
    pub(crate) places: &'static [Place],
    pub(crate) message: Message,
    /// What it does; lines with the same text are one in the help.
    pub(crate) help: &'static str,
    /// One word for the footer, where it is worth the room.
    pub(crate) footer: Option<&'static str>,
}

const fn plain(c: char) -> Key {
    Key { code: KeyCode::Char(c), control: false }
}

const fn control(c: char) -> Key {
    Key { code: KeyCode::Char(c), control: true }
}

const fn code(code: KeyCode) -> Key {
    Key { code, control: false }
}

const fn binding(
    places: &'static [Place],
    keys: &'static [Key],
    message: Message,
    help: &'static str,
    footer: Option<&'static str>,
) -> Binding {
    Binding { keys, places, message, help, footer }
}

const EVERYWHERE: &[Place] = &[Place::Overview, Place::Table, Place::Page, Place::Filter, Place::Chooser];
const NOT_TYPING: &[Place] = &[Place::Overview, Place::Table, Place::Page, Place::Chooser];
const DATA: &[Place] = &[Place::Overview, Place::Table, Place::Page];
const SCREEN: &[Place] = &[Place::Overview, Place::Table];
const TABLES: &[Place] = &[Place::Table];
const FILTER: &[Place] = &[Place::Filter];

/// Every key but the letters of a filter.
pub(crate) static TABLE: &[Binding] = &[
    binding(DATA, &[plain('1'), plain('o')], Message::Show(Screen::Overview), "overview", None),
    binding(DATA, &[plain('2'), plain('g')], Message::Show(Screen::Groups), "groups and labels", None),
    binding(DATA, &[plain('3'), plain('t')], Message::Show(Screen::Tasks), "tasks", None),
    binding(DATA, &[plain('4'), plain('p')], Message::Show(Screen::Pending), "pending, longest first", None),
    binding(
        NOT_TYPING,
        &[code(KeyCode::Up), plain('k')],
        Message::Move(Move::Up),
        "one row up or down",
        Some("select"),
    ),
    binding(
        NOT_TYPING,
        &[code(KeyCode::Down), plain('j')],
        Message::Move(Move::Down),
        "one row up or down",
        Some("select"),
    ),
    binding(NOT_TYPING, &[code(KeyCode::PageUp)], Message::Move(Move::PageUp), "one page up or down", None),
    binding(
        NOT_TYPING,
        &[code(KeyCode::PageDown)],
        Message::Move(Move::PageDown),
        "one page up or down",
        None,
    ),
    binding(NOT_TYPING, &[code(KeyCode::Home)], Message::Move(Move::First), "first or last row", None),
    binding(NOT_TYPING, &[code(KeyCode::End)], Message::Move(Move::Last), "first or last row", None),
    binding(SCREEN, &[code(KeyCode::Enter)], Message::Open, "details of the selection", Some("details")),
    binding(
        &[Place::Chooser],
        &[code(KeyCode::Enter)],
        Message::Open,
        "attach to the selected target",
        Some("attach"),
    ),
    binding(SCREEN, &[plain('/')], Message::EditFilter, "filter tasks", Some("filter")),
    binding(
        TABLES,
        &[plain('s'), code(KeyCode::Right)],
        Message::SortNext,
        "sort by next or previous",
        Some("sort"),
    ),
    binding(
        TABLES,
        &[plain('S'), code(KeyCode::Left)],
        Message::SortPrevious,
        "sort by next or previous",
        None,
    ),
    binding(TABLES, &[plain('i')], Message::Invert, "turn the order around", None),
    binding(DATA, &[plain(' ')], Message::Pause, "pause, or go on", Some("pause")),
    binding(DATA, &[plain('c')], Message::Coverage, "what is unseen, and why", None),
    binding(NOT_TYPING, &[plain('?')], Message::Help, "this page", Some("help")),
    binding(NOT_TYPING, &[code(KeyCode::Esc)], Message::Back, "back", None),
    binding(NOT_TYPING, &[plain('q')], Message::Quit, "quit", Some("quit")),
    binding(EVERYWHERE, &[control('c')], Message::Quit, "quit", None),
    binding(
        FILTER,
        &[code(KeyCode::Enter)],
        Message::Edit(Edit::Apply),
        "use it; empty shows all",
        Some("apply"),
    ),
    binding(FILTER, &[code(KeyCode::Esc)], Message::Edit(Edit::Cancel), "leave it as it was", Some("cancel")),
    binding(FILTER, &[code(KeyCode::Backspace)], Message::Edit(Edit::Backspace), "delete a character", None),
    binding(FILTER, &[code(KeyCode::Delete)], Message::Edit(Edit::Delete), "delete a character", None),
    binding(FILTER, &[code(KeyCode::Left)], Message::Edit(Edit::Left), "cursor left or right", None),
    binding(FILTER, &[code(KeyCode::Right)], Message::Edit(Edit::Right), "cursor left or right", None),
    binding(
        FILTER,
        &[code(KeyCode::Home), control('a')],
        Message::Edit(Edit::Start),
        "to the start or end",
        None,
    ),
    binding(
        FILTER,
        &[code(KeyCode::End), control('e')],
        Message::Edit(Edit::End),
        "to the start or end",
        None,
    ),
    binding(FILTER, &[control('w')], Message::Edit(Edit::DeleteWord), "delete a word", None),
    binding(FILTER, &[control('u')], Message::Edit(Edit::Clear), "delete everything", Some("clear")),
];

/// What an event of the terminal means to the dashboard as it is; `None`: nothing.
pub fn keymap(event: &Event, app: &App) -> Option<Message> {
    match event {
        Event::Resize(columns, rows) => Some(Message::Resized { columns: *columns, rows: *rows }),
        Event::Key(key) if key.kind != KeyEventKind::Release => pressed(*key, place(app)),
        _ => None,
    }
}

/// Where the next key goes.
pub(crate) fn place(app: &App) -> Place {
    match (app.input(), app.pane(), app.screen()) {
        (Some(_), _, _) => Place::Filter,
        (None, Some(Pane::Help { .. } | Pane::Coverage { .. }), _) => Place::Page,
        (None, _, Screen::Chooser) => Place::Chooser,
        (None, _, Screen::Overview) => Place::Overview,
        (None, _, _) => Place::Table,
    }
}

fn pressed(event: KeyEvent, place: Place) -> Option<Message> {
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    let alt = event.modifiers.contains(KeyModifiers::ALT);
    let key = Key { code: event.code, control };
    let bound = TABLE.iter().find(|binding| binding.places.contains(&place) && binding.keys.contains(&key));
    match (bound, event.code) {
        (Some(binding), _) if !alt => Some(binding.message.clone()),
        (None, KeyCode::Char(c)) if place == Place::Filter && !control && !alt => {
            Some(Message::Edit(Edit::Insert(c)))
        }
        _ => None,
    }
}

impl Key {
    /// As it is written on the keyboard.
    pub(crate) fn label(self) -> String {
        let name = match self.code {
            KeyCode::Char(' ') => "space".to_owned(),
            KeyCode::Char(c) => c.to_string(),
            KeyCode::Up => "↑".to_owned(),
            KeyCode::Down => "↓".to_owned(),
            KeyCode::Left => "←".to_owned(),
            KeyCode::Right => "→".to_owned(),
            KeyCode::PageUp => "PgUp".to_owned(),
            KeyCode::PageDown => "PgDn".to_owned(),
            KeyCode::Home => "Home".to_owned(),
            KeyCode::End => "End".to_owned(),
            KeyCode::Enter => "Enter".to_owned(),
            KeyCode::Esc => "Esc".to_owned(),
            KeyCode::Backspace => "Backspace".to_owned(),
            KeyCode::Delete => "Del".to_owned(),
            _ => "?".to_owned(),
        };
        if self.control { format!("Ctrl-{}", name.to_uppercase()) } else { name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [Place; 5] = [Place::Overview, Place::Table, Place::Page, Place::Filter, Place::Chooser];

    fn press(code: KeyCode, modifiers: KeyModifiers, place: Place) -> Option<Message> {
        pressed(KeyEvent::new(code, modifiers), place)
    }

    #[test]
    fn no_key_means_two_things_in_one_place() {
        for place in PLACES {
            let mut seen = Vec::new();
            for key in TABLE.iter().filter(|it| it.places.contains(&place)).flat_map(|it| it.keys) {
                assert!(!seen.contains(&key), "{} is bound twice in {place:?}", key.label());
                seen.push(key);
            }
        }
    }

    #[test]
    fn every_line_of_the_table_can_be_reached_and_says_what_it_does() {
        for binding in TABLE {
            assert!(!binding.help.is_empty() && !binding.keys.is_empty() && !binding.places.is_empty());
            for (key, &place) in
                binding.keys.iter().flat_map(|key| binding.places.iter().map(move |it| (key, it)))
            {
                let modifiers = if key.control { KeyModifiers::CONTROL } else { KeyModifiers::NONE };
                assert_eq!(press(key.code, modifiers, place).as_ref(), Some(&binding.message));
                assert!(key.label() != "?" || key.code == KeyCode::Char('?'), "{key:?} has no name");
            }
        }
    }

    #[test]
    fn every_message_of_the_user_has_a_key() {
        let bound = |message: &Message| TABLE.iter().any(|binding| binding.message == *message);
        for message in [
            Message::Show(Screen::Overview),
            Message::Show(Screen::Groups),
            Message::Show(Screen::Tasks),
            Message::Show(Screen::Pending),
            Message::Move(Move::Up),
            Message::Move(Move::Down),
            Message::Move(Move::PageUp),
            Message::Move(Move::PageDown),
            Message::Move(Move::First),
            Message::Move(Move::Last),
            Message::SortNext,
            Message::SortPrevious,
            Message::Invert,
            Message::Pause,
            Message::Open,
            Message::Back,
            Message::Help,
            Message::Coverage,
            Message::EditFilter,
            Message::Quit,
        ] {
            assert!(bound(&message), "{message:?} has no key");
        }
    }

    #[test]
    fn a_capital_letter_is_the_same_with_and_without_the_shift_that_made_it() {
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            assert_eq!(press(KeyCode::Char('S'), modifiers, Place::Table), Some(Message::SortPrevious));
        }
    }

    #[test]
    fn letters_that_are_keys_elsewhere_are_letters_in_a_filter() {
        for c in ['q', '1', '/', ' ', '?'] {
            let message = press(KeyCode::Char(c), KeyModifiers::NONE, Place::Filter);
            assert_eq!(message, Some(Message::Edit(Edit::Insert(c))));
        }
        for place in PLACES {
            assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL, place), Some(Message::Quit));
        }
        assert_eq!(press(KeyCode::Char('x'), KeyModifiers::CONTROL, Place::Filter), None);
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::ALT, Place::Table), None);
    }
}
