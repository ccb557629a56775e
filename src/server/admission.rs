//! `POST /validate` and `POST /mutate`: read the review, ask one pure function, answer.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use opentelemetry::KeyValue;
use serde::Serialize;

use super::answer::ErrorAnswer;
use super::body::BufferedBody;
use super::{AppState, Shared, body};
use crate::daemonset::admission::{self, AdmissionRequest, BadReview};
use crate::daemonset::patch::Patch;
use crate::daemonset::{mutation, validation};
use crate::logs::Shown;
use crate::metrics::{Operation, Outcome, Webhook};
use crate::traces::text;

/// Says whether a DaemonSet is right.
pub(super) async fn validate(state: State<AppState>, request: Request) -> Response {
    answer(state, request, Webhook::Validate, |state, review| {
        let cluster = state.cluster.as_ref().and_then(|cluster| cluster.believed());
        let verdict = validation::review(&state.policy, review, cluster.as_deref())?;
        Ok(Verdict {
            status: verdict.refusal().map(|refusal| status(&verdict, refusal)),
            warnings: verdict.warnings(),
            patch: Patch::default(),
        })
    })
    .await
}

/// Gives daemon pods what they need to be placed by the scheduler.
pub(super) async fn mutate(state: State<AppState>, request: Request) -> Response {
    answer(state, request, Webhook::Mutate, |state, review| {
        let labels = state.cluster.as_ref().and_then(|cluster| cluster.namespace_labels(&review.namespace));
        // Nothing else needs it, and the scheduler's calls wait for whoever has it.
        let gives_priority = !state.policy.admission.default_priority_class_name.is_empty();
        let cluster =
            state.cluster.as_ref().filter(|_| gives_priority).and_then(|cluster| cluster.believed());
        let patch = mutation::review(&state.policy, review, labels.as_ref(), cluster.as_deref())?;
        Ok(Verdict { status: None, warnings: Vec::new(), patch })
    })
    .await
}

/// What the pure functions say, as the answer needs it.
struct Verdict {
    /// Why not, if it is refused.
    status: Option<Status>,
    warnings: Vec<String>,
    patch: Patch,
}

impl Verdict {
    fn outcome(&self) -> Outcome {
        match (self.status.is_none(), self.patch.is_empty(), self.warnings.is_empty()) {
            (false, _, _) => Outcome::Denied,
            (true, false, _) => Outcome::Patched,
            (true, true, false) => Outcome::Warned,
            (true, true, true) => Outcome::Allowed,
        }
    }
}

/// Reads a review, lets `judge` say what becomes of it, counts, logs and answers.
async fn answer(
    State(state): State<AppState>,
    request: Request,
    webhook: Webhook,
    judge: impl FnOnce(&AppState, &AdmissionRequest<'_>) -> Result<Verdict, BadReview> + Send + 'static,
) -> Response {
    let answer = move |state: &AppState, body| answer_body(state, body, webhook, judge);
    body::handle(state, request, Shared::admission_limits, answer).await
}

fn answer_body(
    state: &AppState,
    body: BufferedBody,
    webhook: Webhook,
    judge: impl FnOnce(&AppState, &AdmissionRequest<'_>) -> Result<Verdict, BadReview>,
) -> Response {
    let begin = Instant::now();
    let parsed = admission::parse(&body);
    let operation =
        parsed.as_ref().map_or(Operation::Other, |review| Operation::from_review(&review.operation));
    let judged = parsed.and_then(|review| {
        let verdict = judge(state, &review)?;
        let answer = encode(&review, &verdict);
        Ok((review, verdict, answer))
    });
    match judged {
        Ok((review, verdict, answer)) => {
            let took = begin.elapsed();
            let outcome = verdict.outcome();
            state.metrics.admission(webhook, operation, outcome, took);
            // Plain answers are most, and say nothing: only -v=4 shows them. The others change or refuse something.
            macro_rules! log {
                ($level:ident) => {
                    tracing::$level!(
                        webhook = webhook.as_str(),
                        uid = %Shown(&review.uid),
                        operation = operation.as_str(),
                        kind = %Shown(&review.kind.kind),
                        namespace = %Shown(&review.namespace),
                        name = %Shown(&review.display_name()),
                        verdict = outcome.as_str(),
                        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                        "reviewed"
                    )
                };
            }
            state.describe(|| {
                [
                    KeyValue::new("daemonset_warden.verdict", outcome.as_str()),
                    KeyValue::new("daemonset_warden.operation", operation.as_str()),
                    text("daemonset_warden.uid", &review.uid),
                    text("daemonset_warden.kind", &review.kind.kind),
                    text("daemonset_warden.namespace", &review.namespace),
                    text("daemonset_warden.name", &review.display_name()),
                ]
            });
            if outcome == Outcome::Allowed {
                log!(debug)
            } else {
                log!(info)
            }
            drop(review);
            body.answer(answer, &state.metrics)
        }
        Err(error) => {
            state.metrics.admission(webhook, operation, Outcome::Bad, begin.elapsed());
            state.describe(|| [KeyValue::new("daemonset_warden.verdict", Outcome::Bad.as_str())]);
            tracing::debug!(webhook = webhook.as_str(), error = %Shown(&error.to_string()), "refused a bad review");
            ErrorAnswer::bad_request(error).into_response()
        }
    }
}

/// An `AdmissionReview` with a response, after kubernetes v1.36.3 staging/src/k8s.io/api/admission/v1/types.go.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: ReviewResponse<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewResponse<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_annotations: Option<AuditAnnotations>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
}

/// What the apiserver's audit log says of the request; it puts the webhook's name and a slash before each key.
#[derive(Serialize)]
struct AuditAnnotations {
    /// `patched` or `denied`.
    verdict: &'static str,
    /// Of a refusal: the fields at fault, so many as an audit log should hold of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<String>,
}

/// How many fields an audit annotation names at most.
const AUDITED_FIELDS: usize = 10;

/// Nothing for a request that was neither changed nor refused: audit logs are long enough.
fn audit_annotations(verdict: &Verdict) -> Option<AuditAnnotations> {
    let outcome = verdict.outcome();
    let verdict_text = outcome.as_str();
    match outcome {
        Outcome::Patched => Some(AuditAnnotations { verdict: verdict_text, fields: None }),
        Outcome::Denied => {
            let causes = verdict.status.iter().flat_map(|status| &status.details.causes);
            let fields: Vec<_> = causes.map(|cause| cause.field.as_str()).take(AUDITED_FIELDS).collect();
            Some(AuditAnnotations { verdict: verdict_text, fields: Some(fields.join(",")) })
        }
        _ => None,
    }
}

/// What kubectl shows of a refusal, after kubernetes v1.36.3
/// staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/types.go (`Status`, `StatusDetails`, `StatusCause`).
#[derive(Serialize)]
struct Status {
    status: &'static str,
    message: String,
    reason: &'static str,
    details: StatusDetails,
    code: u16,
}

#[derive(Serialize)]
struct StatusDetails {
    name: String,
    group: String,
    kind: String,
    causes: Vec<StatusCause>,
}

#[derive(Serialize)]
struct StatusCause {
    reason: &'static str,
    message: String,
    field: String,
}

fn status(verdict: &validation::Verdict, refusal: validation::Refusal) -> Status {
    let causes = refusal.causes.into_iter();
    let causes =
        causes.map(|cause| StatusCause { reason: cause.reason, message: cause.message, field: cause.field });
    let validation::Verdict { name, group, kind, .. } = verdict;
    Status {
        status: "Failure",
        message: refusal.message,
        reason: refusal.reason,
        details: StatusDetails {
            name: name.clone(),
            group: group.clone(),
            kind: kind.clone(),
            causes: causes.collect(),
        },
        code: refusal.code,
    }
}

fn encode(review: &AdmissionRequest<'_>, verdict: &Verdict) -> Vec<u8> {
    // The apiserver refuses a patch without its type, and a type without a patch.
    let patch = (!verdict.patch.is_empty()).then(|| verdict.patch.to_base64());
    to_json(&Review {
        api_version: admission::API_VERSION,
        kind: admission::KIND,
        response: ReviewResponse {
            uid: &review.uid,
            allowed: verdict.status.is_none(),
            status: verdict.status.as_ref(),
            audit_annotations: audit_annotations(verdict),
            warnings: &verdict.warnings,
            patch_type: patch.as_ref().map(|_| "JSONPatch"),
            patch,
        },
    })
}

// Serialising fails for maps with keys that are no text, and there are none in an answer.
#[expect(clippy::expect_used, reason = "an answer has only text for keys")]
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("an answer is JSON")
}
