//! How loud things look. Colours only add: what matters is told by words, marks, and bold or reversed text too.

use ratatui::style::{Color, Modifier, Style};

use crate::app::Severity;
use crate::table::Tone;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    colour: bool,
}

impl Theme {
    pub(crate) fn new(colour: bool) -> Self {
        Self { colour }
    }

    /// Only the sixteen colours that every terminal lets its user choose.
    pub(crate) fn tone(self, tone: Tone) -> Style {
        let style = Style::new();
        match tone {
            Tone::Plain => style,
            Tone::Quiet => style.add_modifier(Modifier::DIM),
            Tone::Strong => style.add_modifier(Modifier::BOLD),
            Tone::Accent => self.coloured(style, Color::Cyan),
            Tone::Good => self.coloured(style, Color::Green),
            Tone::Warning => self.coloured(style, Color::Yellow).add_modifier(Modifier::BOLD),
            Tone::Critical => self.coloured(style, Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// A short word that must be seen from across the room.
    pub(crate) fn badge(self, tone: Tone) -> Style {
        self.tone(tone).remove_modifier(Modifier::DIM).add_modifier(Modifier::REVERSED | Modifier::BOLD)
    }

    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.colour { style.fg(colour) } else { style }
    }
}

/// The mark before a sentence, two cells wide, and its tone.
pub(crate) fn severity(severity: Severity) -> (&'static str, Tone) {
    match severity {
        Severity::Critical => ("!!", Tone::Critical),
        Severity::Warning => ("! ", Tone::Warning),
        Severity::Note => ("· ", Tone::Plain),
        Severity::Healthy => ("✓ ", Tone::Good),
    }
}
