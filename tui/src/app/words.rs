//! What whoever drives the dashboard says in words of its own: what is wrong, and where in the code polls are.

/// One line of plain words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    pub severity: Severity,
    pub text: String,
}

/// Where in the code a poll is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    pub of: CodeOf,
    /// The function and the line: `bcrypt::hash, src/login.rs:40`.
    pub on: String,
    /// With the part of the poll that it took: `2.9 of 3.1 s in bcrypt::hash, src/login.rs:40`.
    pub words: String,
    /// The functions of the poll, the innermost first, and whether it is the line: the first of the user's own code.
    pub stack: Vec<(String, bool)>,
}

/// Whose code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOf {
    /// The poll that runs on the thread with this number.
    Thread(u32),
    /// The poll of this task that runs now.
    Task(u64),
    /// The poll of the event with this sequence number.
    Event(u64),
}

/// How bad it is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Critical,
    Warning,
    Note,
    Healthy,
}
