//! The parts of a review that are read without decoding it: all that a review which is too large needs for an answer.
//!
//! The apiserver writes the fields of Go's structs in their order: the object comes after everything that identifies the request, and
//! its metadata begins with its name and the time of its deletion. So the first kilobytes of a body say what it is about.

use std::borrow::Cow;

use crate::api::admission_v1::{API_VERSION, AdmissionRequest, GroupVersionKind, KIND};
use crate::api::json::{JsonError, Scanner};
use crate::policy::opt_out::opts_out;

/// The start of a review.
#[derive(Debug, Default)]
pub struct ReviewHead<'a> {
    /// The request, without its objects.
    pub request: AdmissionRequest<'a>,
    /// The new object, as far as it was read.
    pub object: ObjectHead<'a>,
    api_version: Cow<'a, str>,
    kind: Cow<'a, str>,
}

/// The fields of an object that decide if it is checked at all.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ObjectHead<'a> {
    /// Empty if the apiserver has not generated it.
    pub name: Cow<'a, str>,
    /// True if the object has a deletionTimestamp.
    pub is_deleting: bool,
    /// True if the object has the label of those that opted out.
    pub is_opted_out: bool,
    /// The text of the spec, if it is there to its end.
    pub spec: Option<&'a str>,
}

impl<'a> ReviewHead<'a> {
    /// Reads `body`, which may end anywhere. Returns `None` if it is no review, or does not say which request it is about.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            // The body may end within a character.
            Err(error) => std::str::from_utf8(&body[..error.valid_up_to()]).ok()?,
        };
        let mut head = Self::default();
        // The body ends before the review does: an error is expected, and what was read before it counts.
        let _ = head.read_review(&mut Scanner::new(text));
        let is_review = head.api_version == API_VERSION && head.kind == KIND;
        (is_review && !head.request.uid.is_empty()).then_some(head)
    }

    fn read_review(&mut self, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        scanner.object(|scanner, key| {
            if key.says("apiVersion") {
                self.api_version = text(scanner)?;
            } else if key.says("kind") {
                self.kind = text(scanner)?;
            } else if key.says("request") {
                self.read_request(scanner)?;
            } else {
                scanner.value()?;
            }
            Ok(())
        })
    }

    fn read_request(&mut self, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        let Self { request, object, .. } = self;
        scanner.object(|scanner, key| {
            let field = match key.decode().as_deref() {
                Some("uid") => &mut request.uid,
                Some("subResource") => &mut request.sub_resource,
                Some("name") => &mut request.name,
                Some("namespace") => &mut request.namespace,
                Some("operation") => &mut request.operation,
                Some("kind") => return read_kind(scanner, &mut request.kind),
                Some("object") => return object.read(scanner),
                _ => return scanner.value().map(drop),
            };
            *field = text(scanner)?;
            Ok(())
        })
    }
}

impl<'a> ObjectHead<'a> {
    /// Reads the JSON of an object, which may end anywhere.
    pub fn of(json: &'a str) -> Self {
        let mut head = Self::default();
        // What was read before an error counts.
        let _ = head.read(&mut Scanner::new(json));
        head
    }

    fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        scanner.object(|scanner, key| {
            if key.says("metadata") {
                scanner.object(|scanner, key| self.read_metadata(scanner, &key.decode().unwrap_or_default()))
            } else {
                let value = scanner.value()?;
                if key.says("spec") {
                    self.spec = Some(value);
                }
                Ok(())
            }
        })
    }

    fn read_metadata(&mut self, scanner: &mut Scanner<'a>, key: &str) -> Result<(), JsonError> {
        match key {
            "name" => self.name = text(scanner)?,
            "deletionTimestamp" => {
                self.is_deleting = !scanner.null();
                if self.is_deleting {
                    scanner.value()?;
                }
            }
            "labels" => {
                scanner.optional_object(|scanner, key| {
                    let value = text(scanner)?;
                    self.is_opted_out |= key.decode().is_some_and(|key| opts_out(&key, &value));
                    Ok(())
                })?;
            }
            _ => {
                scanner.value()?;
            }
        }
        Ok(())
    }
}

fn read_kind<'a>(scanner: &mut Scanner<'a>, kind: &mut GroupVersionKind<'a>) -> Result<(), JsonError> {
    scanner.object(|scanner, key| {
        if key.says("group") {
            kind.group = text(scanner)?;
        } else if key.says("kind") {
            kind.kind = text(scanner)?;
        } else {
            scanner.value()?;
        }
        Ok(())
    })
}

/// Reads a string; `null` is the empty one.
fn text<'a>(scanner: &mut Scanner<'a>) -> Result<Cow<'a, str>, JsonError> {
    if scanner.null() {
        return Ok(Cow::default());
    }
    Ok(scanner.string()?.decode().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1","kind":{"group":"apps","version":"v1","kind":"DaemonSet"},"name":"a","namespace":"s","operation":"UPDATE","userInfo":{"username":"u","groups":["g"]},"object":{"kind":"DaemonSet","metadata":{"name":"a","deletionTimestamp":"2026-01-01T00:00:00Z","labels":{"x":"y","daemonset-warden.io/ignore":"true"}},"spec":{"a":"ä"}}}}"#;

    #[test]
    fn a_review_is_read_as_far_as_it_goes() {
        let whole = ReviewHead::read(BODY.as_bytes()).unwrap();
        let expected = ObjectHead {
            name: "a".into(),
            is_deleting: true,
            is_opted_out: true,
            spec: Some(r#"{"a":"ä"}"#),
        };
        assert_eq!(whole.object, expected);
        for end in 0..BODY.len() {
            let Some(head) = ReviewHead::read(&BODY.as_bytes()[..end]) else {
                assert!(!BODY[..end].contains(r#""uid":"1""#));
                continue;
            };
            assert_eq!(head.request.uid, "1");
            assert_eq!(
                head.request.operation.is_empty(),
                !BODY.as_bytes()[..end].windows(8).any(|part| part == b"\"UPDATE\"")
            );
            assert_eq!(head.object.spec.is_some(), end >= BODY.len() - 3, "only a whole spec counts");
        }
        let cut = ReviewHead::read(&BODY.as_bytes()[..BODY.find("labels").unwrap()]).unwrap();
        assert!(cut.object.is_deleting && !cut.object.is_opted_out && cut.request.kind.kind == "DaemonSet");
    }

    #[test]
    fn what_is_no_review_has_no_head() {
        for body in ["", "[", "{}", r#"{"kind":"AdmissionReview","request":{"uid":"1"}}"#, "\u{e4}"] {
            assert!(ReviewHead::read(body.as_bytes()).is_none(), "{body}");
        }
        assert!(ReviewHead::read(&BODY.replace("\"1\"", "null").into_bytes()).is_none());
        let object = ObjectHead::of(r#"{"metadata":{"deletionTimestamp":null,"labels":null},"spec":null}"#);
        assert_eq!(object, ObjectHead { spec: Some("null"), ..ObjectHead::default() });
    }
}
