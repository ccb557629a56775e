//! A strict scanner of JSON text: finds values and skips them, without decoding or copying any.
//!
//! `/scheduler/filter` gets up to 64 MiB of Nodes of which a few bytes each are read and all are echoed. serde_json's
//! `RawValue` scans such a text twice, once to find where each Node ends and once to read from it; this does both in one
//! pass. What it accepts is JSON by RFC 8259, so that what is echoed can be decoded by whoever sent it; nothing recurses, and
//! what is nested deeper than any Kubernetes object is refused.

pub(crate) mod plain_text;

use std::borrow::Cow;
use std::fmt;

use self::plain_text::plain_length;

/// How deep values may be nested: Kubernetes objects stay far below a hundred, and Go itself stops at 10,000.
const MAX_DEPTH: usize = 1_024;

/// A body as a text. The fast check does not say where it fails.
///
/// # Errors
/// When it is not UTF-8.
pub fn text(body: &[u8]) -> Result<&str, std::str::Utf8Error> {
    simdutf8::basic::from_utf8(body).or_else(|_| std::str::from_utf8(body))
}

/// Where and why a text is not the JSON that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    what: &'static str,
    at: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for JsonError {}

/// A JSON string as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonString<'a> {
    /// With its quotes.
    quoted: &'a str,
    escaped: bool,
}

impl<'a> JsonString<'a> {
    /// A string without escapes, with its quotes.
    pub(crate) fn plain(quoted: &'a str) -> Self {
        Self { quoted, escaped: false }
    }

    /// The string as it was sent, with its quotes.
    pub fn quoted(&self) -> &'a str {
        self.quoted
    }

    /// What it says; `None` when its escapes name half a surrogate pair.
    #[inline]
    pub fn decode(&self) -> Option<Cow<'a, str>> {
        if self.escaped {
            serde_json::from_str(self.quoted).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(&self.quoted[1..self.quoted.len() - 1]))
        }
    }

    /// Whether it says `text`.
    pub fn says(&self, text: &str) -> bool {
        self.decode().is_some_and(|own| own == text)
    }

    /// Whether it says `key`, in any case, as Go's decoder compares keys.
    pub fn is_key(&self, key: &str) -> bool {
        self.decode().is_some_and(|text| text.eq_ignore_ascii_case(key))
    }
}

/// A position in a text.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// At the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// How many bytes were passed.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What was not passed.
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Passes the start of [`Self::rest`] that was read by other means.
    pub fn pass(&mut self, text: &str) {
        debug_assert!(self.rest().starts_with(text));
        self.at += text.len();
    }

    /// What was passed since `start`, a [`Self::position`].
    pub fn text_since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// A fault here.
    pub fn fault(&self, what: &'static str) -> JsonError {
        JsonError { what, at: self.at }
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("unexpected text after the value")),
        }
    }

    /// The first byte of the next token.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                _ => return Some(*byte),
            }
        }
        None
    }

    /// Passes `null` if that is next.
    pub fn null(&mut self) -> bool {
        let is_null = self.peek() == Some(b'n') && self.text.as_bytes()[self.at..].starts_with(b"null");
        if is_null {
            self.at += 4;
        }
        is_null
    }

    /// Passes a string.
    pub fn string(&mut self) -> Result<JsonString<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a string"));
        }
        let start = self.at;
        let escaped = self.pass_string()?;
        Ok(JsonString { quoted: &self.text[start..self.at], escaped })
    }

    /// Passes an object; `member` gets each key and must pass the value.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, JsonString<'a>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect(b'{', "expected an object")?;
        if self.passes(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "expected a colon")?;
            member(self, key)?;
            if self.passes(b'}') {
                return Ok(());
            }
            self.expect(b',', "expected a comma or the end of the object")?;
        }
    }

    /// Passes an object or `null`, and says which it was.
    pub fn optional_object(
        &mut self,
        member: impl FnMut(&mut Self, JsonString<'a>) -> Result<(), JsonError>,
    ) -> Result<bool, JsonError> {
        if self.null() { Ok(false) } else { self.object(member).map(|()| true) }
    }

    /// Passes an array; `item` must pass each of its values.
    pub fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect(b'[', "expected an array")?;
        if self.passes(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.passes(b']') {
                return Ok(());
            }
            self.expect(b',', "expected a comma or the end of the array")?;
        }
    }

    /// Passes any value and returns its text.
    pub fn value(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let start = self.at;
        self.pass_value()?;
        Ok(&self.text[start..self.at])
    }

    fn pass_value(&mut self) -> Result<(), JsonError> {
        let mut open = OpenContainers::default();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.pass_string()?;
                }
                Some(b'{') => {
                    self.at += 1;
                    if !self.passes(b'}') {
                        open.push(true).ok_or_else(|| self.fault("nested too deep"))?;
                        self.pass_key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if !self.passes(b']') {
                        open.push(false).ok_or_else(|| self.fault("nested too deep"))?;
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.pass_number()?,
                Some(b't') => self.pass_word("true")?,
                Some(b'f') => self.pass_word("false")?,
                Some(b'n') => self.pass_word("null")?,
                Some(_) => return Err(self.fault("expected a value")),
                None => return Err(self.fault("unexpected end")),
            }
            // A value is complete: so may be what holds it.
            loop {
                let Some(in_object) = open.last() else { return Ok(()) };
                match (self.peek(), in_object) {
                    (Some(b','), true) => {
                        self.at += 1;
                        self.pass_key()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        open.pop();
                    }
                    (None, _) => return Err(self.fault("unexpected end")),
                    (Some(_), true) => return Err(self.fault("expected a comma or the end of the object")),
                    (Some(_), false) => return Err(self.fault("expected a comma or the end of the array")),
                }
            }
        }
    }

    fn pass_key(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a key"));
        }
        self.pass_string()?;
        self.expect(b':', "expected a colon")
    }

    /// Passes a string, whose quote is next, and says whether it has escapes.
    fn pass_string(&mut self) -> Result<bool, JsonError> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_length(&bytes[self.at..]);
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.pass_escape()?;
                }
                Some(_) => return Err(self.fault("control character in a string")),
                None => return Err(self.fault("unexpected end of a string")),
            }
        }
    }

    fn pass_escape(&mut self) -> Result<(), JsonError> {
        let length = match self.text.as_bytes()[self.at + 1..] {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(self.fault("invalid escape in a string")),
        };
        self.at += length;
        Ok(())
    }

    fn pass_number(&mut self) -> Result<(), JsonError> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.pass_digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.pass_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.pass_digits()?;
        }
        Ok(())
    }

    fn pass_digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.fault("invalid number")) } else { Ok(()) }
    }

    fn pass_word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn passes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.passes(byte) { Ok(()) } else { Err(self.fault(what)) }
    }
}

/// Which containers are open: one bit each, set for an object.
struct OpenContainers {
    bits: [u64; MAX_DEPTH / 64],
    depth: usize,
}

impl Default for OpenContainers {
    fn default() -> Self {
        Self { bits: [0; MAX_DEPTH / 64], depth: 0 }
    }
}

impl OpenContainers {
    fn push(&mut self, object: bool) -> Option<()> {
        let word = self.bits.get_mut(self.depth / 64)?;
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        Some(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }

    fn last(&self) -> Option<bool> {
        let depth = self.depth.checked_sub(1)?;
        Some(self.bits[depth / 64] >> (depth % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn accepts(text: &str) -> Result<&str, JsonError> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value()?;
        scanner.end()?;
        Ok(value)
    }

    #[test]
    fn accepts_json_and_nothing_else() {
        let good = [
            "0",
            "-0.5e+10",
            "1E9",
            " true ",
            "null",
            r#""""#,
            r#""\u00e9\n\"""#,
            "[]",
            "[ ]",
            "{}",
            "{ }",
            r#"{"a":[1,{"b":null}],"c":"d"}"#,
            "[[],[[]],{}]",
            r#""0123456789abcdefé""#,
            "[1e400]",
        ];
        for text in good {
            assert_eq!(accepts(text), Ok(text.trim()), "{text}");
        }
        let bad = [
            "",
            " ",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "nul",
            "truex",
            "[1,]",
            "[,]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{1:1}"#,
            "[1 2]",
            "[}",
            "{]",
            "[1",
            r#"{"a":1"#,
            r#"""#,
            r#""\x""#,
            r#""\u12g4""#,
            "\"\n\"",
            "\"01234567\u{1}\"",
            "1 1",
            "[] ,",
            "\u{feff}1",
            "nan",
            "'a'",
            r#""\"#,
            r#""\u00"#,
        ];
        for text in bad {
            assert!(accepts(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        assert!(accepts(&format!("{}1{}", "[".repeat(1_025), "]".repeat(1_025))).is_err());
        assert!(accepts(&format!("{}1{}", "[".repeat(1_024), "]".repeat(1_024))).is_ok());
        let error = accepts(&"[".repeat(200_000)).unwrap_err();
        assert_eq!(error.to_string(), "nested too deep at byte 1025");
        assert!(accepts(&r#"{"a":"#.repeat(200_000)).is_err());
    }

    #[test]
    fn strings_decode() {
        let text = Scanner::new(r#" "n\u0031/" "#).string().unwrap();
        assert_eq!((text.quoted(), text.decode()), (r#""n\u0031/""#, Some("n1/".into())));
        assert_eq!(Scanner::new(r#""\ud800""#).string().unwrap().decode(), None);
        assert!(Scanner::new(r#""nODEnames""#).string().unwrap().is_key("NodeNames"));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"([\[\]{},:" \n\\]|"[a-z\\]{0,9}"|-?[0-9]{1,3}|\.[0-9]|e[0-9]|null|true|false|"a":|\\u[0-9a-f]{4}|é){0,12}"#) {
            let theirs = serde_json::from_str::<&RawValue>(&text).map(RawValue::get);
            prop_assert_eq!(accepts(&text).ok(), theirs.ok());
        }

        #[test]
        fn agrees_with_serde_json_about_strings(text in ".{0,40}", control in any::<char>()) {
            let text = format!("\"{text}{control}\"");
            prop_assert_eq!(accepts(&text).is_ok(), serde_json::from_str::<&RawValue>(&text).is_ok());
        }
    }
}
