//! The part of `admission.k8s.io/v1` that is read, borrowed from the request's body.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/api/admission/v1/types.go. Objects stay raw JSON here: each rule decodes
//! what it reads, and what nobody reads survives untouched.

use std::borrow::Cow;

use serde::Deserialize;

use super::json::nullable::{optional_object, optional_text};
use super::json::{self, Fault, Scanner, Text};
use crate::scheduling::object::GroupKind;

/// The only version that is answered; the webhook configurations ask for it.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of the request and of the answer.
pub const KIND: &str = "AdmissionReview";

/// What the apiserver asks.
#[derive(Debug, Default)]
struct AdmissionReview<'a> {
    api_version: Cow<'a, str>,
    kind: Cow<'a, str>,
    request: Option<AdmissionRequest<'a>>,
}

/// One operation on one object.
#[derive(Debug, Default)]
pub struct AdmissionRequest<'a> {
    /// Names this call; the answer repeats it.
    pub uid: Cow<'a, str>,
    /// The kind of `object` and `old_object`.
    pub kind: GroupVersionKind<'a>,
    /// Such as `status`; empty for the object itself.
    pub sub_resource: Cow<'a, str>,
    /// Empty while the apiserver has not made the name yet.
    pub name: Cow<'a, str>,
    /// Empty for kinds without namespaces.
    pub namespace: Cow<'a, str>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: Cow<'a, str>,
    /// Who asks.
    pub user_info: UserInfo<'a>,
    /// JSON; absent on DELETE.
    pub object: Option<&'a str>,
    /// JSON; absent on CREATE.
    pub old_object: Option<&'a str>,
}

/// A kind with its group and version.
#[derive(Debug, Default)]
pub struct GroupVersionKind<'a> {
    /// Empty for the core group.
    pub group: Cow<'a, str>,
    /// Such as `v1`.
    pub version: Cow<'a, str>,
    /// Such as `Pod`.
    pub kind: Cow<'a, str>,
}

/// Who asks.
#[derive(Debug, Default)]
pub struct UserInfo<'a> {
    /// Such as `system:serviceaccount:kube-system:daemon-set-controller`.
    pub username: Cow<'a, str>,
}

impl AdmissionRequest<'_> {
    /// The name, or the prefix that the apiserver will make it from: what to call the object in a log.
    pub fn display_name(&self) -> Cow<'_, str> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Named {
            metadata: crate::scheduling::object::Metadata,
        }
        if !self.name.is_empty() {
            return Cow::Borrowed(&self.name);
        }
        let named = self.object.and_then(|object| serde_json::from_str::<Named>(object).ok());
        Cow::Owned(named.unwrap_or_default().metadata.generate_name)
    }

    /// Whether it is about a pod itself, not one of its subresources.
    pub fn is_pod(&self) -> bool {
        self.kind.group.is_empty() && self.kind.kind == "Pod" && self.sub_resource.is_empty()
    }

    /// The kind of DaemonSet among `kinds` that it is about, if any; not one of its subresources.
    pub fn daemon_set_kind<'k>(&self, kinds: &'k [GroupKind]) -> Option<&'k GroupKind> {
        let same = |kind: &&GroupKind| kind.group == self.kind.group && kind.kind == self.kind.kind;
        kinds.iter().find(same).filter(|_| self.sub_resource.is_empty())
    }
}

/// Why a review cannot be answered: a 400, because only a caller that is no apiserver sends such a thing.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// The body is not even text.
    #[error("the body is no AdmissionReview: it is not UTF-8: {0}")]
    NotText(#[source] std::str::Utf8Error),
    /// The body is no JSON, or JSON of another shape.
    #[error("the body is no AdmissionReview: {0}")]
    NotAReview(#[source] Fault),
    /// Another kind or version.
    #[error("expected {API_VERSION}, Kind={KIND}, got {api_version}, Kind={kind}")]
    WrongKind {
        /// As sent.
        api_version: String,
        /// As sent.
        kind: String,
    },
    /// Nothing is asked.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// The answer could not be matched with the question.
    #[error("the AdmissionReview's request has no uid")]
    NoUid,
    /// CREATE and UPDATE are about an object.
    #[error("the AdmissionReview's request has operation {0} and no object")]
    NoObject(String),
    /// UPDATE is about two objects.
    #[error("the AdmissionReview's request has operation UPDATE and no oldObject")]
    NoOldObject,
    /// The object is not of the shape that its kind has.
    #[error("{field} cannot be handled as a {kind}: {source}")]
    BadObject {
        /// `object` or `oldObject`.
        field: &'static str,
        /// The kind that the request says it is.
        kind: String,
        /// What is wrong and where.
        source: serde_json::Error,
    },
}

/// Reads a review and its request.
///
/// # Errors
/// When the body is no review that can be answered.
pub fn parse(body: &[u8]) -> Result<AdmissionRequest<'_>, BadReview> {
    let text = json::text(body).map_err(BadReview::NotText)?;
    let review = AdmissionReview::read(text).map_err(BadReview::NotAReview)?;
    if review.api_version != API_VERSION || review.kind != KIND {
        return Err(BadReview::WrongKind {
            api_version: review.api_version.into_owned(),
            kind: review.kind.into_owned(),
        });
    }
    let request = review.request.ok_or(BadReview::NoRequest)?;
    if request.uid.is_empty() {
        return Err(BadReview::NoUid);
    }
    Ok(request)
}

impl<'a> AdmissionReview<'a> {
    fn read(text: &'a str) -> Result<Self, Fault> {
        let mut review = Self::default();
        let mut scanner = Scanner::new(text);
        optional_object(&mut scanner, |scanner, key| {
            if key.says("apiVersion") {
                review.api_version = optional_text(scanner)?;
            } else if key.says("kind") {
                review.kind = optional_text(scanner)?;
            } else if key.says("request") {
                let mut request = AdmissionRequest::default();
                let is_there = scanner.optional_object(|scanner, key| request.read(scanner, key))?;
                review.request = is_there.then_some(request);
            } else {
                scanner.value()?;
            }
            Ok(())
        })?;
        scanner.end()?;
        Ok(review)
    }
}

impl<'a> AdmissionRequest<'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>, key: Text<'a>) -> Result<(), Fault> {
        let text = match key {
            _ if key.says("uid") => &mut self.uid,
            _ if key.says("subResource") => &mut self.sub_resource,
            _ if key.says("name") => &mut self.name,
            _ if key.says("namespace") => &mut self.namespace,
            _ if key.says("operation") => &mut self.operation,
            _ if key.says("kind") => {
                self.kind = GroupVersionKind::default();
                return optional_object(scanner, |scanner, key| self.kind.read(scanner, key));
            }
            _ if key.says("userInfo") => {
                self.user_info = UserInfo::default();
                return optional_object(scanner, |scanner, key| self.user_info.read(scanner, key));
            }
            _ => {
                let value = Some(scanner.value()?).filter(|value| *value != "null");
                if key.says("object") {
                    self.object = value;
                } else if key.says("oldObject") {
                    self.old_object = value;
                }
                return Ok(());
            }
        };
        *text = optional_text(scanner)?;
        Ok(())
    }
}

impl<'a> GroupVersionKind<'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>, key: Text<'a>) -> Result<(), Fault> {
        let text = match key {
            _ if key.says("group") => &mut self.group,
            _ if key.says("version") => &mut self.version,
            _ if key.says("kind") => &mut self.kind,
            _ => return scanner.value().map(drop),
        };
        *text = optional_text(scanner)?;
        Ok(())
    }
}

impl<'a> UserInfo<'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>, key: Text<'a>) -> Result<(), Fault> {
        if key.says("username") {
            self.username = optional_text(scanner)?;
            Ok(())
        } else {
            scanner.value().map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_request_and_refuses_what_is_none() {
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
        for (body, text) in faults {
            let error = parse(body).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
