//! Field paths and errors, after kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/util/validation/field.
//!
//! An error is data: the [`Path`] of the field, the [`ErrorKind`], the wrong value, and a detail in words. The texts are
//! upstream's to the letter, because users search for them. Only their length and number are bounded, far above those of real
//! objects: an object of 40 KB can have 2,000 faults, each of which shows 40 KB.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

/// The most bytes of a value, and of a detail, that an error shows. The longest of real objects, a selector, has a few hundred.
const SHOWN: usize = 8 * 1024;
/// The most errors of one object: a user repairs fewer at a time.
const MAX_ERRORS: usize = 200;
/// The bytes of text after which no further error is taken: no more would be read, and the response shows each text twice.
const MAX_TEXT: usize = 64 * 1024;

/// The path of a field from the root of an object, such as `spec.selector.matchExpressions[0].key`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    /// Creates a path with one element.
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    /// Returns the path of the field `name` of the object at this path.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// Returns the path of an element of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// Returns the path of an entry of the map at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of an error. The kinds are the values that `StatusCause.reason` may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A required field is not set.
    Required,
    /// A value that breaks a rule.
    Invalid,
    /// A value outside an enumeration.
    NotSupported,
    /// A field that may not be set here.
    Forbidden,
    /// A value that must be unique and is not.
    Duplicate,
    /// A value that is too long.
    TooLong,
}

impl ErrorKind {
    /// Returns the upstream `ErrorType`, the value of `StatusCause.reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
        }
    }

    /// Returns the words in front of the value (`ErrorType.String` upstream).
    pub fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
        }
    }

    /// Returns true if the text of an error of this kind shows the value.
    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong)
    }
}

/// One error of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The kind, which gives the text its first words.
    pub kind: ErrorKind,
    /// The path of the field, from the root of the object.
    pub field: Path,
    /// The wrong value as upstream prints it: JSON, or Go's `%q` where the Go type is a plain string. Empty for a kind whose text
    /// shows no value.
    pub bad_value: String,
    /// The rule that the value breaks, in words; may be empty.
    pub detail: String,
}

impl Error {
    /// Creates the error of a required field that is not set.
    pub fn required(field: Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Required, field, bad_value: String::new(), detail: shortened(detail.into()) }
    }

    /// Creates the error of a value that breaks a rule; the value is printed as JSON.
    pub fn invalid(field: Path, value: &impl Serialize, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, field, bad_value: json(value), detail: shortened(detail.into()) }
    }

    /// Creates the error of a value that breaks a rule and that is a plain string in Go. Go prints it by `%q`, which differs from
    /// JSON in characters that are not printable.
    pub fn invalid_text(field: Path, value: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Invalid,
            field,
            bad_value: quote_start(value),
            detail: shortened(detail.into()),
        }
    }

    /// Creates the error of a value outside an enumeration; `supported` is in upstream's order.
    pub fn not_supported(field: Path, value: &impl Serialize, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        Self { kind: ErrorKind::NotSupported, field, bad_value: json(value), detail }
    }

    /// Creates the error of a field that may not be set here.
    pub fn forbidden(field: Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Forbidden, field, bad_value: String::new(), detail: shortened(detail.into()) }
    }

    /// Creates the error of a value that must be unique and is not.
    pub fn duplicate(field: Path, value: &impl Serialize) -> Self {
        Self { kind: ErrorKind::Duplicate, field, bad_value: json(value), detail: String::new() }
    }

    /// Creates the error of a value that is longer than `max` bytes.
    pub fn too_long(field: Path, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self { kind: ErrorKind::TooLong, field, bad_value: String::new(), detail }
    }

    /// Returns the text without the path, the value of `StatusCause.message` (`Error.ErrorBody` upstream).
    pub fn body(&self) -> String {
        let mut body = self.kind.text().to_owned();
        if self.kind.shows_value() {
            body.push_str(": ");
            body.push_str(&self.bad_value);
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// The errors of one object, in the order of the rules that found them: as many as a user can read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorList {
    errors: Vec<Error>,
    /// The bytes of their texts.
    text: usize,
    is_full: bool,
}

impl ErrorList {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns true if an error was left out because there are too many. Whoever looks for further errors can stop.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Adds an error, unless there are too many.
    pub fn push(&mut self, error: Error) {
        if self.errors.len() == MAX_ERRORS || self.text >= MAX_TEXT {
            self.is_full = true;
            return;
        }
        self.text += error.field.as_str().len() + error.bad_value.len() + error.detail.len();
        self.errors.push(error);
    }
}

impl Extend<Error> for ErrorList {
    fn extend<T: IntoIterator<Item = Error>>(&mut self, errors: T) {
        for error in errors {
            self.push(error);
            if self.is_full {
                return;
            }
        }
    }
}

impl FromIterator<Error> for ErrorList {
    fn from_iter<T: IntoIterator<Item = Error>>(errors: T) -> Self {
        let mut list = Self::new();
        list.extend(errors);
        list
    }
}

impl From<Error> for ErrorList {
    fn from(error: Error) -> Self {
        Self::from_iter([error])
    }
}

impl Deref for ErrorList {
    type Target = [Error];

    fn deref(&self) -> &[Error] {
        &self.errors
    }
}

impl IntoIterator for ErrorList {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.iter()
    }
}

/// Returns true if Go calls a character printable (`unicode.IsPrint`).
pub fn is_printable(char: char) -> bool {
    if char.is_ascii() {
        return matches!(char, ' '..='~');
    }
    // The character stands behind an `a`, because Rust escapes a combining mark that stands alone and Go does not.
    let mut buffer = [b'a', 0, 0, 0, 0];
    let length = char.encode_utf8(&mut buffer[1..]).len();
    let text = std::str::from_utf8(&buffer[..=length]).unwrap_or_default();
    text.escape_debug().nth(1) == Some(char)
}

/// Returns the start of JSON as Go writes it, with the characters escaped that have a meaning in HTML.
fn json(value: &impl Serialize) -> String {
    // Only a map whose keys are not strings or a Serialize implementation of one's own can fail; the values here have neither.
    let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    let text = shortened(text);
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    // In JSON these characters stand only inside strings.
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            _ => escaped.push(char),
        }
    }
    escaped
}

/// Returns as much of a text as an error shows, with a sign if more follows.
pub fn start_of(text: &str) -> String {
    match text.len() {
        0..=SHOWN => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(SHOWN)]),
    }
}

fn shortened(text: String) -> String {
    if text.len() <= SHOWN { text } else { start_of(&text) }
}

/// Quotes the start of a string.
fn quote_start(text: &str) -> String {
    match text.len() {
        0..=SHOWN => quote(text),
        _ => quote(&text[..text.floor_char_boundary(SHOWN)]) + "…",
    }
}

/// Quotes a string as Go's `%q` does (`strconv.Quote`).
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            _ if is_printable(char) => quoted.push(char),
            _ => {
                let code = u32::from(char);
                quoted.push_str(&match code {
                    0..0x80 => format!("\\x{code:02x}"),
                    0x80..0x1_0000 => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let spec = Path::new("spec");
        let cases = [
            (Error::required(spec.child("selector"), ""), "spec.selector: Required value"),
            (
                Error::invalid(spec.child("minReadySeconds"), &-1, "must be greater than or equal to 0"),
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                Error::not_supported(spec.child("a").index(2), &"Never", &["Always", "Other"]),
                r#"spec.a[2]: Unsupported value: "Never": supported values: "Always", "Other""#,
            ),
            (Error::forbidden(spec.clone(), "no"), "spec: Forbidden: no"),
            (Error::duplicate(spec.key("k"), &"v"), r#"spec[k]: Duplicate value: "v""#),
            (Error::too_long(spec, 3), "spec: Too long: may not be more than 3 bytes"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn the_number_and_the_length_of_errors_are_bounded() {
        let long = "ä".repeat(SHOWN);
        let path = || Path::new("a");
        for error in [
            Error::invalid(path(), &long, &*long),
            Error::invalid(path(), &vec![&long; 1_000], &*long),
            Error::invalid_text(path(), &long, &*long),
            Error::not_supported(path(), &long, &["b"]),
        ] {
            assert!(error.body().len() < 2 * SHOWN + 100, "{}", error.body().len());
            assert!(error.bad_value.ends_with('…') && !error.bad_value.contains(char::REPLACEMENT_CHARACTER));
        }
        let mut list: ErrorList = std::iter::repeat_with(|| Error::required(path(), "b")).collect();
        assert!(list.is_full() && list.len() == MAX_ERRORS);
        list = ErrorList::new();
        list.extend((0..100).map(|_| Error::invalid_text(path(), &long, "")));
        assert!(list.is_full() && list.len() <= 1 + MAX_TEXT / SHOWN);
        list = (0..MAX_ERRORS).map(|_| Error::required(path(), "")).collect();
        assert!(!list.is_full());
    }

    #[test]
    fn values_are_printed_as_go_prints_them() {
        let path = Path::new("a");
        for (text, quoted) in [
            ("a\"b\\", r#""a\"b\\""#),
            ("\x07\x00\n\x7f", r#""\a\x00\n\x7f""#),
            ("ä\u{301}<\u{200b}\u{e0001}", "\"ä\u{301}<\\u200b\\U000e0001\""),
        ] {
            assert_eq!(Error::invalid_text(path.clone(), text, "").bad_value, quoted);
        }
        assert_eq!(
            Error::invalid(path, &"<&>\u{2028}\x00", "").bad_value,
            r#""\u003c\u0026\u003e\u2028\u0000""#
        );
    }
}
