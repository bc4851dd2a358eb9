//! What a person presses, and how much that is.

/// One thing to press, or a text to type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Key {
    Text(String),
    Enter,
    Escape,
    Up,
    Down,
    Left,
    Right,
}

impl Key {
    /// A letter is one, and so is every other key.
    pub(crate) fn strokes(&self) -> usize {
        match self {
            Self::Text(text) => text.chars().count(),
            Self::Enter | Self::Escape | Self::Up | Self::Down | Self::Left | Self::Right => 1,
        }
    }
}

/// A command and its end.
pub(crate) fn command(text: &str) -> Vec<Key> {
    vec![Key::Text(text.to_owned()), Key::Enter]
}

/// The shell's last command once more.
pub(crate) fn again() -> Vec<Key> {
    vec![Key::Up, Key::Enter]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strokes(keys: &[Key]) -> usize {
        keys.iter().map(Key::strokes).sum()
    }

    #[test]
    fn every_letter_and_every_key_is_a_stroke() {
        assert_eq!(strokes(&command("taskscope why demo")), 19);
        assert_eq!(strokes(&again()), 2);
        assert_eq!(strokes(&[Key::Text("→é".into()), Key::Escape]), 3);
    }
}
