//! The list of node names that the scheduler sends to an extender with `nodeCacheCapable: true`: up to 5,000 in every call.

use std::borrow::Cow;
use std::ops::Range;

use super::charge;
use crate::api::decode_budget::DecodeBudget;
use crate::api::json::plain_text::plain_length;
use crate::api::json::{JsonError, JsonString, Scanner};

/// The most nodes of a call, more than any cluster has. It bounds memory: a body of 64 MiB of `{}` would take a hundred times its
/// size.
pub(crate) const MAX_NODES: usize = 200_000;

/// The longest name of a node and UID of a pod, in bytes.
pub(crate) const MAX_NAME: usize = 253;
/// The bytes of an escape, which is at least one byte of a name.
const ESCAPE: usize = 6;

/// The names of a call, and the range of their array in the text that the scanner reads.
#[derive(Debug)]
pub(crate) struct NodeNames<'a> {
    pub(crate) sent: Range<usize>,
    pub(crate) names: Vec<JsonString<'a>>,
}

impl<'a> NodeNames<'a> {
    /// Reads an array of strings.
    pub(crate) fn parse(scanner: &mut Scanner<'a>, budget: &DecodeBudget<'_>) -> Result<Self, JsonError> {
        scanner.peek();
        let start = scanner.position();
        let rest = scanner.rest();
        if let Some((length, names)) = Self::parse_plain(rest) {
            charge::<JsonString<'_>>(scanner, names.capacity(), budget)?;
            scanner.skip(&rest[..length]);
            return Ok(Self { sent: start..start + length, names });
        }
        let mut names = Vec::new();
        scanner.array(|scanner| {
            check_count(scanner, names.len())?;
            charge::<JsonString<'_>>(scanner, 2, budget)?;
            names.push(name(scanner)?);
            Ok(())
        })?;
        Ok(Self { sent: start..scanner.position(), names })
    }

    /// Returns the length of the array at the start of `text` and its names, if the array has the form that Go writes for node
    /// names: nothing but quotes, commas, and characters that need no escape. Returns `None` for any other array, also for an empty
    /// one, for one of more than [`MAX_NODES`] names, and for a name of more than [`MAX_NAME`] bytes.
    fn parse_plain(text: &'a str) -> Option<(usize, Vec<JsonString<'a>>)> {
        let bytes = text.as_bytes();
        let mut names = Vec::new();
        // The position of the bracket, or of the comma after the last name.
        let mut before = 0;
        if bytes.first() != Some(&b'[') {
            return None;
        }
        while bytes.get(before + 1) == Some(&b'"') && names.len() < MAX_NODES {
            let start = before + 1;
            let end = start + 1 + plain_length(&bytes[start + 1..]);
            if bytes.get(end) != Some(&b'"') || end - start > MAX_NAME + 1 {
                return None;
            }
            let name = JsonString::plain(&text[start..=end]);
            if names.is_empty() {
                // Names of a cluster are of about one length: reserve for as many as fit into the rest of the text.
                names.reserve_exact((text.len() / name.quoted().len()).min(MAX_NODES));
            }
            names.push(name);
            before = end + 1;
            match bytes.get(before) {
                Some(b',') => {}
                Some(b']') => return Some((before + 1, names)),
                _ => return None,
            }
        }
        None
    }
}

/// Reads a string that can be decoded and so compared with the name of a node or the UID of a pod. Fails as [`decode_name`] does.
pub(crate) fn name<'a>(scanner: &mut Scanner<'a>) -> Result<JsonString<'a>, JsonError> {
    let name = scanner.string()?;
    decode_name(scanner, &name).map(|_| name)
}

/// Decodes a name. Fails if an escape is half of a surrogate pair, or if the name is longer than any: it would be decoded again and
/// looked up while the cache is locked.
pub(crate) fn decode_name<'a>(
    scanner: &Scanner<'_>,
    name: &JsonString<'a>,
) -> Result<Cow<'a, str>, JsonError> {
    let is_short = name.quoted().len() <= 2 + ESCAPE * MAX_NAME;
    let decoded = if is_short { name.decode() } else { Some(Cow::Borrowed(name.quoted())) };
    match decoded {
        Some(decoded) if decoded.len() <= MAX_NAME => Ok(decoded),
        Some(_) => Err(scanner.fault("a name or UID of more than 253 bytes")),
        None => Err(scanner.fault("half a surrogate pair in a name")),
    }
}

/// Fails if `count` nodes are already the most that a call may have.
pub(crate) fn check_count(scanner: &Scanner<'_>, count: usize) -> Result<(), JsonError> {
    if count < MAX_NODES { Ok(()) } else { Err(scanner.fault("too many nodes")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Option<Vec<&str>> {
        let (_, names) = NodeNames::parse_plain(text)?;
        Some(names.iter().map(JsonString::quoted).collect())
    }

    #[test]
    fn arrays_of_another_form_are_left_to_the_scanner() {
        assert_eq!(names(r#"["a","b.c"],"Nodes":null}"#), Some(vec![r#""a""#, r#""b.c""#]));
        assert_eq!(names(r#"["a]b"]"#), Some(vec![r#""a]b""#]));
        assert_eq!(names(r#"["",""]"#), Some(vec![r#""""#, r#""""#]));
        let others = [
            "[]",
            "[ ]",
            r#"["a""b"]"#,
            r#"["a" ,"b"]"#,
            r#"[ "a"]"#,
            r#"["a" ]"#,
            r#"["a",]"#,
            r#"[,"a"]"#,
            r#"["a"#,
            r#"["a\u0062"]"#,
            "[\"a\tb\"]",
            r#"[1,"a"]"#,
            r#"["a",1]"#,
            r#"["a",["b"]]"#,
            "",
            "null",
            r#""a"]"#,
            r#"x"a"]"#,
        ];
        for text in others {
            assert_eq!(names(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_that_no_node_has_is_a_fault() {
        let parse = |name: &str| {
            let text = format!(r#"["{name}"]"#);
            let parsed = NodeNames::parse(&mut Scanner::new(&text), &DecodeBudget::default());
            parsed.map(|names| names.names.len()).map_err(|error| error.to_string())
        };
        for name in ["a".repeat(253), "\\u0061".repeat(253), "ä".repeat(126)] {
            assert_eq!(parse(&name), Ok(1), "{name}");
        }
        for name in ["a".repeat(254), "\\u0061".repeat(254), "ä".repeat(127), "\\u0061".repeat(1 << 20)] {
            let error = parse(&name).unwrap_err();
            assert!(error.contains("more than 253 bytes"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_read_the_same(text in r#"\[("[a-z\]\\]{0,3}"|,|,"a"| |[\]1\[]){0,6}\]x?"#) {
            let mut scanner = Scanner::new(&text);
            let mut slow = Vec::new();
            let slowly = scanner.array(|scanner| {
                slow.push(name(scanner)?.quoted());
                Ok(())
            });
            if let Some((length, names)) = NodeNames::parse_plain(&text) {
                prop_assert_eq!(slowly, Ok(()));
                prop_assert_eq!(&text[..length], scanner.text_since(0));
                prop_assert_eq!(names.iter().map(JsonString::quoted).collect::<Vec<_>>(), slow);
            }
        }
    }
}
