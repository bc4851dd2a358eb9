//! Reading what `--json` prints: one object a line.

use serde_json::Value;

/// Each line's object.
///
/// # Panics
/// On a line that is no JSON object.
#[track_caller]
pub fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) => value,
            Ok(other) => panic!("a line of --json is no object: {other}"),
            Err(error) => panic!("a line of --json is no JSON ({error}): {line}"),
        })
        .collect()
}

/// The only object of a text.
///
/// # Panics
/// If there is none, or more than one.
#[track_caller]
pub fn one(text: &str) -> Value {
    let mut lines = lines(text);
    assert_eq!(lines.len(), 1, "expected one object, found {}:\n{text}", lines.len());
    lines.remove(0)
}

/// The text under a key; empty if it is absent.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The elements of the list under a key; none if it is absent.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The duration under a `_ns` key.
pub fn duration(value: &Value, key: &str) -> Option<std::time::Duration> {
    value[key].as_u64().map(std::time::Duration::from_nanos)
}
