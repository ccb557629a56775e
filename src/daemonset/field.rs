//! Field paths and errors, after kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/util/validation/field.
//!
//! A fault is data: where ([`Path`]), of which kind ([`ErrorKind`]), the value that is wrong and what to do about it.
//! Texts are upstream's to the letter, because people search for them.

use std::fmt;

use serde::Serialize;

/// The path of a field from the root of an object, such as `spec.selector.matchExpressions[0].key`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    /// A path with one element.
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    /// The path of a field of this object.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of an element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of an entry of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The closed set of kinds that is also the set of values of `StatusCause.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A field that must be set is not.
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
    /// The upstream `ErrorType`, as it stands in `StatusCause.reason`.
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

    /// The words in front of the value, after `ErrorType.String` upstream.
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

    /// Whether the text shows the value.
    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong)
    }
}

/// One fault of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind of fault it is.
    pub kind: ErrorKind,
    /// Where it is.
    pub field: Path,
    /// The value as upstream prints it: JSON, which for a string is also what Go's `%q` gives but for control characters.
    pub bad_value: String,
    /// What is wrong with it; may be empty.
    pub detail: String,
}

impl Error {
    /// A field that must be set is not.
    pub fn required(field: Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Required, field, bad_value: String::new(), detail: detail.into() }
    }

    /// A value that breaks a rule.
    pub fn invalid(field: Path, value: &impl Serialize, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, field, bad_value: json(value), detail: detail.into() }
    }

    /// A value outside an enumeration; `supported` in upstream's order.
    pub fn not_supported(field: Path, value: &impl Serialize, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        Self { kind: ErrorKind::NotSupported, field, bad_value: json(value), detail }
    }

    /// A field that may not be set here.
    pub fn forbidden(field: Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Forbidden, field, bad_value: String::new(), detail: detail.into() }
    }

    /// A value that must be unique and is not.
    pub fn duplicate(field: Path, value: &impl Serialize) -> Self {
        Self { kind: ErrorKind::Duplicate, field, bad_value: json(value), detail: String::new() }
    }

    /// A value that is longer than `max` bytes.
    pub fn too_long(field: Path, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self { kind: ErrorKind::TooLong, field, bad_value: String::new(), detail }
    }

    /// The text without the field, as it stands in `StatusCause.message` (`Error.ErrorBody` upstream).
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

/// The faults of one object, in the order in which the rules found them.
pub type ErrorList = Vec<Error>;

fn json(value: &impl Serialize) -> String {
    // Only maps with keys that are no strings and failing Serialize implementations fail, and no value here is either.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
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
}
