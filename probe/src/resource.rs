//! Where the service runs, as OpenTelemetry has an operator say it: `OTEL_RESOURCE_ATTRIBUTES=k8s.pod.name=a,k8s.node.name=b`.
//! Read once, when the probe starts; whatever is in it is passed on and means nothing here.

use taskscope_proto::v1::ResourceAttribute;
use taskscope_proto::words::printable;

pub(crate) const VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// A description stays small whatever the environment holds.
const MOST: usize = 64;
const MOST_BYTES: usize = 255;

/// The pairs that can be understood, in their order; the last of one key holds. What cannot is told in one line.
pub(crate) fn attributes(text: &str, complaints: &mut Vec<String>) -> Vec<ResourceAttribute> {
    let mut attributes: Vec<ResourceAttribute> = Vec::new();
    let mut left_out = 0;
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let Some(attribute) = attribute(pair) else {
            left_out += 1;
            continue;
        };
        match attributes.iter().position(|known| known.key == attribute.key) {
            Some(known) => attributes[known] = attribute,
            None if attributes.len() < MOST => attributes.push(attribute),
            None => left_out += 1,
        }
    }
    if left_out > 0 {
        complaints.push(format!(
            "{VARIABLE}: {left_out} of its entries are left out; hint: write KEY=VALUE,KEY=VALUE with %2C for a comma, \
             {MOST} at most, each text of {MOST_BYTES} bytes at most"
        ));
    }
    attributes
}

fn attribute(pair: &str) -> Option<ResourceAttribute> {
    let (key, value) = pair.split_once('=')?;
    let (key, value) = (decoded(key.trim())?, decoded(value.trim().trim_matches('"'))?);
    let fits = |text: &str| (1..=MOST_BYTES).contains(&text.len());
    let (key, value) = (printable(&key), printable(&value));
    (fits(&key) && fits(&value)).then_some(ResourceAttribute { key, value })
}

/// Percent-encoding undone, as OpenTelemetry's specification has it.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits =
                std::str::from_utf8(&digits).ok().filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(String, String)>, usize) {
        let mut complaints = Vec::new();
        let read = attributes(text, &mut complaints);
        assert!(
            complaints.iter().all(|line| line.contains("hint: ") && !line.contains('\n')),
            "{complaints:?}"
        );
        (read.into_iter().map(|it| (it.key, it.value)).collect(), complaints.len())
    }

    #[test]
    fn pairs_are_passed_on_as_they_are_meant() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let (read, complaints) =
            read(" k8s.pod.name = checkout-7d9 ,a=1%2C2%20%25,b=\"q\",,k8s.pod.name=x=y,");
        assert_eq!(read, [pair("k8s.pod.name", "x=y"), pair("a", "1,2 %"), pair("b", "q")]);
        assert_eq!(complaints, 0);
        assert_eq!(attributes("", &mut Vec::new()), []);
    }

    #[test]
    fn what_cannot_be_meant_is_left_out_and_told_once() {
        let long = format!("long={},many", "x".repeat(256));
        for text in ["a", "=b", "a=", "a=%", "a=%+1", "a=%ff", "a=%e4%", long.as_str()] {
            assert_eq!(read(&format!("{text},good=1")), (vec![("good".into(), "1".into())], 1), "{text}");
        }
        let many: Vec<String> = (0..100).map(|n| format!("k{n}=v")).collect();
        let (read, complaints) = read(&many.join(","));
        assert_eq!((read.len(), complaints), (MOST, 1));
    }

    #[test]
    fn nothing_in_it_reaches_a_terminal_as_control() {
        let (read, _) = read("a=%1b[2Jx%0ay");
        assert!(read[0].1.chars().all(|c| !c.is_control()), "{read:?}");
    }
}
