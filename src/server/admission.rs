//! `POST /validate` and `POST /mutate`: the handlers read the review, call one pure function, and answer.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::http::body::BufferedBody;
use super::http::response::ErrorResponse;
use super::{AppState, ServerState, handle};
use crate::admission::patch::Patch;
use crate::admission::{mutation, validation};
use crate::api::admission_v1;
use crate::api::admission_v1::response::{AdmissionResponse, AuditAnnotations, Status};
use crate::api::admission_v1::{AdmissionRequest, BadReview};
use crate::telemetry::logs::Sanitized;
use crate::telemetry::metrics::{AdmissionOutcome, Operation, Webhook};
use crate::telemetry::otlp::Attribute;

/// Answers `/validate`: allows or refuses a DaemonSet. The live-data rules apply only while the cache is fresh.
pub(super) async fn validate(state: State<AppState>, request: Request) -> Response {
    respond(state, request, Webhook::Validate, |state, review| {
        let cluster = state.cluster.as_ref().and_then(|cluster| cluster.fresh());
        let outcome = validation::review(&state.policy, review, cluster.as_deref().map(|view| &view.cache))?;
        Ok(ReviewResult { status: outcome.status(), warnings: outcome.warnings(), patch: Patch::default() })
    })
    .await
}

/// Answers `/mutate`: patches daemon pods so that the scheduler places them. A priority class is added only while the cache is
/// fresh.
pub(super) async fn mutate(state: State<AppState>, request: Request) -> Response {
    respond(state, request, Webhook::Mutate, |state, review| {
        let labels = state.cluster.as_ref().and_then(|cluster| cluster.namespace_labels(&review.namespace));
        // Only the default priority needs the cluster, and the scheduler's calls wait for its lock.
        let gives_priority = !state.policy.admission.default_priority_class_name.is_empty();
        let cluster = state.cluster.as_ref().filter(|_| gives_priority).and_then(|cluster| cluster.fresh());
        let patch = mutation::review(
            &state.policy,
            review,
            labels.as_ref(),
            cluster.as_deref().map(|view| &view.cache),
        )?;
        Ok(ReviewResult { status: None, warnings: Vec::new(), patch })
    })
    .await
}

/// The result of a pure function.
struct ReviewResult {
    /// The refusal, if the request is refused.
    status: Option<Status>,
    warnings: Vec<String>,
    patch: Patch,
}

impl ReviewResult {
    fn outcome(&self) -> AdmissionOutcome {
        match (self.status.is_none(), self.patch.is_empty(), self.warnings.is_empty()) {
            (false, _, _) => AdmissionOutcome::Denied,
            (true, false, _) => AdmissionOutcome::Patched,
            (true, true, false) => AdmissionOutcome::Warned,
            (true, true, true) => AdmissionOutcome::Allowed,
        }
    }
}

/// Reads a review, calls `review_object` for the result, counts, logs and answers. Answers 400 if the review or its object cannot
/// be read.
async fn respond(
    State(state): State<AppState>,
    request: Request,
    webhook: Webhook,
    review_object: impl FnOnce(&AppState, &AdmissionRequest<'_>) -> Result<ReviewResult, BadReview>
    + Send
    + 'static,
) -> Response {
    let respond = move |state: &AppState, body| respond_to_body(state, body, webhook, review_object);
    handle(state, request, ServerState::admission_limits, respond).await
}

fn respond_to_body(
    state: &AppState,
    body: BufferedBody,
    webhook: Webhook,
    review_object: impl FnOnce(&AppState, &AdmissionRequest<'_>) -> Result<ReviewResult, BadReview>,
) -> Response {
    let begin = Instant::now();
    let parsed = admission_v1::parse(&body);
    let operation =
        parsed.as_ref().map_or(Operation::Other, |review| Operation::from_review(&review.operation));
    let reviewed = parsed.and_then(|review| {
        let result = review_object(state, &review)?;
        let response = encode(&review, &result);
        Ok((review, result, response))
    });
    match reviewed {
        Ok((review, result, response)) => {
            let took = begin.elapsed();
            let outcome = result.outcome();
            state.metrics.admission(webhook, operation, outcome, took);
            // Most requests are allowed as they are, and only -v=4 shows those.
            macro_rules! log {
                ($level:ident) => {
                    tracing::$level!(
                        webhook = webhook.as_str(),
                        uid = %Sanitized(&review.uid),
                        operation = operation.as_str(),
                        kind = %Sanitized(&review.kind.kind),
                        namespace = %Sanitized(&review.namespace),
                        name = %Sanitized(&review.display_name()),
                        verdict = outcome.as_str(),
                        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                        "reviewed"
                    )
                };
            }
            state.describe(|| {
                [
                    Attribute::word("daemonset_warden.verdict", outcome.as_str()),
                    Attribute::word("daemonset_warden.operation", operation.as_str()),
                    Attribute::text("daemonset_warden.uid", &review.uid),
                    Attribute::text("daemonset_warden.kind", &review.kind.kind),
                    Attribute::text("daemonset_warden.namespace", &review.namespace),
                    Attribute::text("daemonset_warden.name", &review.display_name()),
                ]
            });
            if outcome == AdmissionOutcome::Allowed {
                log!(debug)
            } else {
                log!(info)
            }
            drop(review);
            body.respond(response, &state.metrics)
        }
        Err(error) => {
            state.metrics.admission(webhook, operation, AdmissionOutcome::Bad, begin.elapsed());
            state.describe(|| [Attribute::word("daemonset_warden.verdict", AdmissionOutcome::Bad.as_str())]);
            tracing::debug!(webhook = webhook.as_str(), error = %Sanitized(&error.to_string()), "refused a bad review");
            ErrorResponse::bad_request(error).into_response()
        }
    }
}

/// The most fields that an audit annotation names.
const AUDITED_FIELDS: usize = 10;

/// Returns the audit annotations of an answer; `None` for a request that was neither patched nor refused, so that the audit log
/// does not grow with each request.
fn audit_annotations(result: &ReviewResult) -> Option<AuditAnnotations> {
    let outcome = result.outcome();
    let verdict_text = outcome.as_str();
    match outcome {
        AdmissionOutcome::Patched => Some(AuditAnnotations { verdict: verdict_text, fields: None }),
        AdmissionOutcome::Denied => {
            let causes = result.status.iter().flat_map(|status| &status.details.causes);
            let fields: Vec<_> = causes.map(|cause| cause.field.as_str()).take(AUDITED_FIELDS).collect();
            Some(AuditAnnotations { verdict: verdict_text, fields: Some(fields.join(",")) })
        }
        _ => None,
    }
}

fn encode(review: &AdmissionRequest<'_>, result: &ReviewResult) -> Vec<u8> {
    let patch = (!result.patch.is_empty()).then(|| result.patch.to_base64());
    let response = AdmissionResponse {
        uid: &review.uid,
        allowed: result.status.is_none(),
        status: result.status.as_ref(),
        audit_annotations: audit_annotations(result),
        warnings: &result.warnings,
        patch_type: patch.is_some().then_some("JSONPatch"),
        patch,
    };
    response.to_review()
}
