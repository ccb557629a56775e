//! A strict scanner of JSON text that finds and skips values without decoding or copying them.
//!
//! `/scheduler/filter` gets up to 64 MiB of Nodes, reads a few bytes of each and echoes them all. serde_json's `RawValue` scans
//! such a text twice, once to find the end of each Node and once to read from it; this scanner does both at once. It accepts
//! JSON by RFC 8259, so the scheduler can decode the echo of its text. It does not recurse, and it refuses values that are nested
//! deeper than any Kubernetes object.

pub(crate) mod plain_text;

use std::borrow::Cow;
use std::fmt;

use self::plain_text::plain_length;

/// The greatest depth of nested values. Kubernetes objects stay far below a hundred; Go itself stops at 10,000.
const MAX_DEPTH: usize = 1_024;

/// Returns a body as text, without a copy.
///
/// # Errors
/// Fails if the body is not UTF-8. The error has the position of the first wrong byte, which a second, slower check finds.
pub fn text(body: &[u8]) -> Result<&str, std::str::Utf8Error> {
    simdutf8::basic::from_utf8(body).or_else(|_| std::str::from_utf8(body))
}

/// The error of a text that is not the expected JSON: the expectation, and the position in bytes where the text breaks it.
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
    /// The text of the string, with its quotes.
    quoted: &'a str,
    escaped: bool,
}

impl<'a> JsonString<'a> {
    /// Creates a string from `quoted`, a text with its quotes. The caller has checked that there are no escapes in it.
    pub(crate) fn plain(quoted: &'a str) -> Self {
        Self { quoted, escaped: false }
    }

    /// Returns the string as it was sent, with its quotes.
    pub fn quoted(&self) -> &'a str {
        self.quoted
    }

    /// Returns the content: a borrow, or a copy if there are escapes. Returns `None` if an escape is half of a surrogate pair.
    #[inline]
    pub fn decode(&self) -> Option<Cow<'a, str>> {
        if self.escaped {
            serde_json::from_str(self.quoted).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(&self.quoted[1..self.quoted.len() - 1]))
        }
    }

    /// Returns true if the content is `text`.
    pub fn says(&self, text: &str) -> bool {
        self.decode().is_some_and(|own| own == text)
    }

    /// Returns true if the content is `key` in upper or lower case, as Go's decoder compares keys.
    pub fn is_key(&self, key: &str) -> bool {
        self.decode().is_some_and(|text| text.eq_ignore_ascii_case(key))
    }
}

/// Reads a text from start to end. It holds the text and the position before which everything has been read.
///
/// Every method that reads a value first skips white space. After an error, do not read on.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Creates a scanner at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Returns the number of bytes before the position.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns the text after the position.
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Moves the position behind `text`, the start of [`Self::rest`], which the caller has read by other means.
    pub fn skip(&mut self, text: &str) {
        debug_assert!(self.rest().starts_with(text));
        self.at += text.len();
    }

    /// Returns the text from `start`, an earlier [`Self::position`], to the position.
    pub fn text_since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// Creates an error at the position. `what` says what was expected.
    pub fn fault(&self, what: &'static str) -> JsonError {
        JsonError { what, at: self.at }
    }

    /// Skips white space. Fails if that is not the end of the text.
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("unexpected text after the value")),
        }
    }

    /// Skips white space and returns the first byte of the next token, which is not skipped. Returns `None` at the end of the text.
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

    /// Skips `null` and returns true if that is the next token. Skips nothing but white space and returns false otherwise.
    pub fn null(&mut self) -> bool {
        let is_null = self.peek() == Some(b'n') && self.text.as_bytes()[self.at..].starts_with(b"null");
        if is_null {
            self.at += 4;
        }
        is_null
    }

    /// Reads a string. Fails for any other value, and for a string with an invalid escape or a control character.
    pub fn string(&mut self) -> Result<JsonString<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a string"));
        }
        let start = self.at;
        let escaped = self.skip_string()?;
        Ok(JsonString { quoted: &self.text[start..self.at], escaped })
    }

    /// Reads an object. `member` gets each key, in the order of the text, and must read or skip the value. Fails for any other
    /// value, and if `member` fails.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, JsonString<'a>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect(b'{', "expected an object")?;
        if self.skip_byte(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "expected a colon")?;
            member(self, key)?;
            if self.skip_byte(b'}') {
                return Ok(());
            }
            self.expect(b',', "expected a comma or the end of the object")?;
        }
    }

    /// Reads an object as [`Self::object`] does and returns true. Returns false for `null`, and fails for any other value.
    pub fn optional_object(
        &mut self,
        member: impl FnMut(&mut Self, JsonString<'a>) -> Result<(), JsonError>,
    ) -> Result<bool, JsonError> {
        if self.null() { Ok(false) } else { self.object(member).map(|()| true) }
    }

    /// Reads an array. `item` is called for each item and must read or skip it. Fails for any other value, and if `item` fails.
    pub fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect(b'[', "expected an array")?;
        if self.skip_byte(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.skip_byte(b']') {
                return Ok(());
            }
            self.expect(b',', "expected a comma or the end of the array")?;
        }
    }

    /// Skips any value and returns its text. Fails if the value is not JSON, or is nested deeper than 1,024 levels.
    pub fn value(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let start = self.at;
        self.skip_value()?;
        Ok(&self.text[start..self.at])
    }

    fn skip_value(&mut self) -> Result<(), JsonError> {
        let mut open = OpenContainers::default();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.skip_string()?;
                }
                Some(b'{') => {
                    self.at += 1;
                    if !self.skip_byte(b'}') {
                        open.push(true).ok_or_else(|| self.fault("nested too deep"))?;
                        self.skip_key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if !self.skip_byte(b']') {
                        open.push(false).ok_or_else(|| self.fault("nested too deep"))?;
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                Some(b't') => self.skip_word("true")?,
                Some(b'f') => self.skip_word("false")?,
                Some(b'n') => self.skip_word("null")?,
                Some(_) => return Err(self.fault("expected a value")),
                None => return Err(self.fault("unexpected end")),
            }
            // The value is complete, and so may be the containers around it.
            loop {
                let Some(in_object) = open.last() else { return Ok(()) };
                match (self.peek(), in_object) {
                    (Some(b','), true) => {
                        self.at += 1;
                        self.skip_key()?;
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

    fn skip_key(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a key"));
        }
        self.skip_string()?;
        self.expect(b':', "expected a colon")
    }

    /// Skips a string whose first quote is the next byte. Returns true if the string has escapes, and false if it has none.
    fn skip_string(&mut self) -> Result<bool, JsonError> {
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
                    self.skip_escape()?;
                }
                Some(_) => return Err(self.fault("control character in a string")),
                None => return Err(self.fault("unexpected end of a string")),
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), JsonError> {
        let length = match self.text.as_bytes()[self.at + 1..] {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(self.fault("invalid escape in a string")),
        };
        self.at += length;
        Ok(())
    }

    fn skip_number(&mut self) -> Result<(), JsonError> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.fault("invalid number")) } else { Ok(()) }
    }

    fn skip_word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_byte(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.skip_byte(byte) { Ok(()) } else { Err(self.fault(what)) }
    }
}

/// The containers around the position: one bit each, set for an object.
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
