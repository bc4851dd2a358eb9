//! What an alert is about. Its labels are its identity, here and in Alertmanager: none holds a task id, a process id or a
//! duration, which would make a new alert of each.

use std::collections::BTreeMap;
use std::fmt;

/// Sorted by name; a label with an empty value is none, as for Alertmanager.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, serde::Serialize)]
#[serde(transparent)]
pub(crate) struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Replaces a label of that name; an empty value removes it.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.0.remove(name);
        } else {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same as Alertmanager's.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        const SEPARATOR: u8 = 0xff;
        let mut hash = Fnv::default();
        for (name, value) in &self.0 {
            hash.add(name.as_bytes());
            hash.add(&[SEPARATOR]);
            hash.add(value.as_bytes());
            hash.add(&[SEPARATOR]);
        }
        Fingerprint(hash.0)
    }
}

/// Names an alert: two with the same labels are one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Fingerprint(pub(crate) u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// FNV-1a of 64 bits.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_labels_have_the_hash_of_nothing() {
        assert_eq!(Labels::default().fingerprint().to_string(), "cbf29ce484222325");
    }

    #[test]
    fn the_order_of_setting_does_not_matter_and_the_border_of_name_and_value_does() {
        let labels = Labels::default().with("b", "2").with("a", "1");
        assert_eq!(labels.fingerprint(), Labels::default().with("a", "1").with("b", "2").fingerprint());
        assert_ne!(
            Labels::default().with("ab", "c").fingerprint(),
            Labels::default().with("a", "bc").fingerprint()
        );
    }

    #[test]
    fn an_empty_value_is_no_label() {
        let labels = Labels::default().with("pod", "a").with("pod", "");
        assert_eq!(labels.get("pod"), None);
        assert_eq!(labels, Labels::default());
    }
}
