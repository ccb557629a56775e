//! Writes an `AdmissionReview` of `admission.k8s.io/v1` with a response.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/api/admission/v1/types.go; `Status` and its parts after
//! staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/types.go.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{API_VERSION, KIND};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionReview<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: &'a AdmissionResponse<'a>,
}

/// The response to one `AdmissionRequest`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionResponse<'a> {
    /// The `uid` of the request.
    pub uid: &'a str,
    /// False if the request is refused; then there is a `status`.
    pub allowed: bool,
    /// The reason for the refusal, which kubectl shows; `None` if the request is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'a Status>,
    /// Entries for the apiserver's audit log; `None` if there is nothing to record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_annotations: Option<AuditAnnotations>,
    /// Texts that kubectl shows beside the result.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub warnings: &'a [String],
    /// `JSONPatch`, or `None` without a patch: the apiserver refuses a patch without its type, and a type without a patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<&'static str>,
    /// The patch in base64, as a JSON string; `None` if nothing changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Box<RawValue>>,
}

/// Entries for the apiserver's audit log, which puts the webhook's name and a slash before each key.
#[derive(Debug, Serialize)]
pub struct AuditAnnotations {
    /// `patched` or `denied`.
    pub verdict: &'static str,
    /// The paths of the fields at fault, separated by commas; `None` unless the request is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<String>,
}

/// The refusal of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `Failure`.
    pub status: &'static str,
    /// The text that kubectl shows.
    pub message: String,
    /// One word of the API for clients, such as `Invalid`.
    pub reason: &'static str,
    /// The object and its faults.
    pub details: StatusDetails,
    /// The HTTP status of the user's request.
    pub code: u16,
}

/// The object that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusDetails {
    /// The object's name or generateName.
    pub name: String,
    /// The object's API group.
    pub group: String,
    /// The object's kind.
    pub kind: String,
    /// The object's faults.
    pub causes: Vec<StatusCause>,
}

/// One fault of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusCause {
    /// Upstream's type of error, such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// The text for this field.
    pub message: String,
    /// The path of the field.
    pub field: String,
}

impl AdmissionResponse<'_> {
    /// Returns the JSON of an `AdmissionReview` with this response.
    // Serialising fails for maps whose keys are not text; a review has none.
    #[expect(clippy::expect_used, reason = "a review has only text for keys")]
    pub fn to_review(&self) -> Vec<u8> {
        let review = AdmissionReview { api_version: API_VERSION, kind: KIND, response: self };
        serde_json::to_vec(&review).expect("a review is JSON")
    }
}
