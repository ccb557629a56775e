//! Reads an `AdmissionReview` of `admission.k8s.io/v1` with a request. The result borrows from the request's body.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/api/admission/v1/types.go. Objects stay raw JSON: each reader decodes
//! the fields that it needs, and the others survive untouched.

pub mod response;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::de::SliceRead;
use serde_json::value::RawValue;

use crate::api::meta::{GroupKind, object, object_or_default, parse_object};

/// The only version that [`parse`] accepts; the webhook configurations ask for it.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of the body of requests and of responses.
pub const KIND: &str = "AdmissionReview";

/// The longest name of an object, in bytes.
const MAX_NAME: usize = 253;
/// The longest string with escapes, in bytes: the fields of a review are names, and no budget counts their copies.
const MAX_COPIED: usize = 64 * 1024;

/// The body that an apiserver sends.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReviewEnvelope<'a> {
    #[serde(borrow, deserialize_with = "text")]
    api_version: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    kind: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "object")]
    request: Option<AdmissionRequest<'a>>,
}

/// One operation on one object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdmissionRequest<'a> {
    /// Identifies the request; the response repeats it.
    #[serde(borrow, deserialize_with = "text")]
    pub uid: Cow<'a, str>,
    /// The kind of `object` and `old_object`.
    #[serde(borrow, deserialize_with = "object_or_default")]
    pub kind: GroupVersionKind<'a>,
    /// The subresource, such as `status`; empty for the object itself.
    #[serde(borrow, deserialize_with = "text")]
    pub sub_resource: Cow<'a, str>,
    /// Empty on CREATE if the client leaves the name to the apiserver (`generateName`).
    #[serde(borrow, deserialize_with = "text")]
    pub name: Cow<'a, str>,
    /// Empty for cluster-scoped kinds.
    #[serde(borrow, deserialize_with = "text")]
    pub namespace: Cow<'a, str>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(borrow, deserialize_with = "text")]
    pub operation: Cow<'a, str>,
    /// True if nothing is written: the webhooks must not change anything either.
    #[serde(deserialize_with = "flag")]
    pub dry_run: bool,
    /// The user that sent the object to the apiserver.
    #[serde(borrow, deserialize_with = "object_or_default")]
    pub user_info: UserInfo<'a>,
    /// The object's JSON; `None` on DELETE.
    #[serde(borrow, deserialize_with = "raw")]
    pub object: Option<&'a str>,
    /// The JSON of the object before the operation; `None` on CREATE.
    #[serde(borrow, deserialize_with = "raw")]
    pub old_object: Option<&'a str>,
}

/// An object that the apiserver will name, reduced to the prefix of its name.
#[derive(Default, Deserialize)]
#[serde(default)]
struct UnnamedObject<'a> {
    #[serde(borrow, deserialize_with = "object_or_default")]
    metadata: UnnamedMetadata<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UnnamedMetadata<'a> {
    #[serde(borrow, deserialize_with = "text")]
    generate_name: Cow<'a, str>,
}

/// A kind with its group and version.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupVersionKind<'a> {
    /// Empty for the core group.
    #[serde(borrow, deserialize_with = "text")]
    pub group: Cow<'a, str>,
    /// The version without the group, such as `v1`.
    #[serde(borrow, deserialize_with = "text")]
    pub version: Cow<'a, str>,
    /// The kind, such as `Pod`.
    #[serde(borrow, deserialize_with = "text")]
    pub kind: Cow<'a, str>,
}

/// A user of the apiserver.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserInfo<'a> {
    /// The name of the user, such as `system:serviceaccount:kube-system:daemon-set-controller`.
    #[serde(borrow, deserialize_with = "text")]
    pub username: Cow<'a, str>,
}

impl AdmissionRequest<'_> {
    /// Returns the name in the request, for logs. Without one, returns the object's generateName; empty if there is none either.
    pub fn display_name(&self) -> Cow<'_, str> {
        if !self.name.is_empty() {
            return Cow::Borrowed(&self.name);
        }
        let unnamed = self.object.and_then(|object| serde_json::from_str::<UnnamedObject<'_>>(object).ok());
        unnamed.unwrap_or_default().metadata.generate_name
    }

    /// Returns true if the request is about a pod itself, not one of its subresources.
    pub fn is_pod(&self) -> bool {
        self.kind.group.is_empty() && self.kind.kind == "Pod" && self.sub_resource.is_empty()
    }

    /// Returns the entry of `kinds` that the request's object is of. Returns `None` if the object is of another kind, or if the
    /// request is about a subresource.
    pub fn daemon_set_kind<'k>(&self, kinds: &'k [GroupKind]) -> Option<&'k GroupKind> {
        let same = |kind: &&GroupKind| kind.group == self.kind.group && kind.kind == self.kind.kind;
        kinds.iter().find(same).filter(|_| self.sub_resource.is_empty())
    }
}

/// The error of an AdmissionReview that cannot be reviewed: a part is missing, or has the wrong shape. The server answers 400; no
/// apiserver sends such a review.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// The body is not JSON, or JSON of another shape.
    #[error("the body is no AdmissionReview: {0}")]
    NotAReview(#[source] serde_json::Error),
    /// The body's apiVersion and kind are not those of an AdmissionReview v1.
    #[error("expected {API_VERSION}, Kind={KIND}, got {api_version}, Kind={kind}")]
    WrongKind {
        /// The version that was sent.
        api_version: String,
        /// The kind that was sent.
        kind: String,
    },
    /// The review has no request.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// The request has no uid, so the apiserver could not match a response with it.
    #[error("the AdmissionReview's request has no uid")]
    NoUid,
    /// A CREATE or UPDATE has no object.
    #[error("the AdmissionReview's request has operation {0} and no object")]
    NoObject(String),
    /// An UPDATE has no old object.
    #[error("the AdmissionReview's request has operation UPDATE and no oldObject")]
    NoOldObject,
    /// The object does not have the shape of its kind.
    #[error("{field} cannot be handled as a {kind}: {source}")]
    BadObject {
        /// `object` or `oldObject`.
        field: &'static str,
        /// The kind in the request.
        kind: String,
        /// The fault and its position.
        source: serde_json::Error,
    },
}

/// Reads a review and returns its request, which borrows from `body`. The request's objects stay undecoded.
///
/// # Errors
/// Fails if the body is not JSON of the right shape, is no AdmissionReview v1, or has no request or no uid.
pub fn parse(body: &[u8]) -> Result<AdmissionRequest<'_>, BadReview> {
    let review: ReviewEnvelope<'_> = parse_object(SliceRead::new(body)).map_err(BadReview::NotAReview)?;
    if review.api_version != API_VERSION || review.kind != KIND {
        return Err(BadReview::WrongKind {
            api_version: start_of_name(&review.api_version),
            kind: start_of_name(&review.kind),
        });
    }
    let request = review.request.ok_or(BadReview::NoRequest)?;
    if request.uid.is_empty() {
        return Err(BadReview::NoUid);
    }
    Ok(request)
}

/// Returns the start of a text that should be a name.
fn start_of_name(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_NAME)].to_owned()
}

/// Reads a string; `null` is the empty one. It is borrowed from the body unless it has escapes.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Cow<'de, str>, D::Error> {
    struct ShortText;
    impl<'de> Visitor<'de> for ShortText {
        type Value = Cow<'de, str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            match text.len() {
                0..=MAX_COPIED => Ok(Cow::Owned(text.to_owned())),
                _ => Err(E::custom("a string with escapes is too long")),
            }
        }
    }
    from.deserialize_any(ShortText)
}

/// Reads a bool; `null` is false.
fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(from)?.unwrap_or_default())
}

/// Returns the JSON of a value, borrowed; `None` for `null`.
fn raw<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de str>, D::Error> {
    Ok(Option::<&'de RawValue>::deserialize(from)?.map(RawValue::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_requests_and_refuses_other_bodies() {
        let body = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","kind":{"group":"","version":"v1","kind":"Pod"},"operation":"CREATE","object":{"a":1},"oldObject":null,"name":null}}"#;
        let request = parse(body).unwrap();
        assert!(request.is_pod() && request.old_object.is_none() && request.name.is_empty());
        assert!(matches!(request.uid, Cow::Borrowed("1")));
        assert_eq!(request.object, Some(r#"{"a":1}"#));

        let body = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","object":{"metadata":{"generateName":"d-"}}}}"#;
        assert_eq!(parse(body).unwrap().display_name(), "d-");

        let faults: [(&[u8], &str); 9] = [
            (br#"["admission.k8s.io/v1","AdmissionReview",{"uid":"1"}]"#, "the body is no AdmissionReview"),
            (
                br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":["1"]}"#,
                "is no Adm",
            ),
            (b"", "the body is no AdmissionReview"),
            (b"[1]", "the body is no AdmissionReview"),
            (b"\xff\xfe", "the body is no AdmissionReview"),
            (b"{}", "expected admission.k8s.io/v1"),
            (br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "has no request"),
            (br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#, "has no uid"),
            (
                br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":1}}"#,
                "is no Adm",
            ),
        ];
        let long = r"\u0061".repeat(1 << 20);
        for body in [
            format!(r#"{{"apiVersion":"{long}"}}"#),
            format!(r#"{{"apiVersion":"{}"}}"#, "a".repeat(1 << 20)),
            format!(r#"{{"request":"{long}"}}"#),
            format!(r#"{{"request":{{"uid":"{long}"}}}}"#),
        ] {
            let error = parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.len() < 500, "{}", error.len());
        }
        for (body, text) in faults {
            let error = parse(body).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
