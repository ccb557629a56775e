//! `POST /validate` and `POST /mutate`: the handlers read the review, call one pure function, and answer.

use std::cell::Cell;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::http::body::{BufferedBody, LARGE_START};
use super::http::response::{self, ErrorResponse};
use super::{AnswerOn, AppState, RouteKind, handle};
use crate::admission::default_priority::{self, CandidatePod};
use crate::admission::mutation::{self, NamespaceChoice};
use crate::admission::patch::Patch;
use crate::admission::review_head::ReviewHead;
use crate::admission::validation::live_rules::{ReadCache, Unread};
use crate::admission::validation::{self, ReviewOutcome};
use crate::api::admission_v1;
use crate::api::admission_v1::response::{AdmissionResponse, AuditAnnotations, Status};
use crate::api::admission_v1::{AdmissionRequest, BadReview};
use crate::api::decode_budget::DecodeBudget;
use crate::cache::Cache;
use crate::policy::Oversized;
use crate::telemetry::logs::Sanitized;
use crate::telemetry::metrics::{AdmissionOutcome, Operation, Webhook};
use crate::telemetry::otlp::Attribute;

/// Answers `/validate`: allows or refuses a DaemonSet. The live-data rules apply only while the cache is fresh.
pub(super) async fn validate(state: State<AppState>, request: Request) -> Response {
    let review_object =
        |cache: &CacheReader<'_>, review: &AdmissionRequest<'_>, budget: &DecodeBudget<'_>| {
            Ok(ReviewResult::of(validation::review_within(&cache.state.policy, review, budget, cache)?))
        };
    let review_start = |state: &AppState, head: &ReviewHead<'_>| {
        ReviewResult::of(validation::review_unread(&state.policy, head))
    };
    respond(state, request, Webhook::Validate, review_object, review_start).await
}

/// Answers `/mutate`: patches daemon pods so that the scheduler places them. A priority class is added only while the cache is
/// fresh.
pub(super) async fn mutate(state: State<AppState>, request: Request) -> Response {
    let review_object = |cache: &CacheReader<'_>,
                         review: &AdmissionRequest<'_>,
                         budget: &DecodeBudget<'_>| {
        let state = cache.state;
        let policy = &state.policy;
        let namespace = state.cluster.as_ref().and_then(|cluster| {
            let view = cluster.lock();
            let namespace = view.cache.namespace(&review.namespace)?;
            Some(NamespaceChoice::of(policy, &namespace.metadata.labels))
        });
        // The lock is taken for the pods that may get a class as far as their own fields say: few, as the class is off by default.
        let may_have_class = |pod: &CandidatePod| {
            let view = state.cluster.as_ref().and_then(|cluster| cluster.fresh(Instant::now()));
            view.is_some_and(|view| default_priority::may_have(policy, &review.namespace, pod, &view.cache))
        };
        let patch = mutation::review_within(policy, review, namespace, budget, may_have_class)?;
        let oversized = budget.is_exceeded().then_some(Oversized::Allow);
        Ok(ReviewResult { patch, oversized, ..ReviewResult::default() })
    };
    // A daemon pod is never refused at admission.
    let review_start = |_: &AppState, head: &ReviewHead<'_>| {
        let oversized = head.request.is_pod().then_some(Oversized::Allow);
        ReviewResult { oversized, ..ReviewResult::default() }
    };
    respond(state, request, Webhook::Mutate, review_object, review_start).await
}

/// The steps of a review on the thread of its connection: a millisecond at most.
const STEPS_ON_CONNECTION: usize = 10_000;

/// The access of one review to the cache, which is locked for a short time only: the scheduler's calls wait for it.
struct CacheReader<'s> {
    state: &'s AppState,
    /// The time after which the cache is not read any more: the apiserver must get the answer.
    deadline: Instant,
    on: AnswerOn,
    steps: Cell<usize>,
    /// True if the review is to be repeated on a thread for long work.
    is_deferred: Cell<bool>,
}

impl<'s> CacheReader<'s> {
    fn new(state: &'s AppState, arrived: Instant, on: AnswerOn) -> Self {
        let deadline = arrived + state.limits.review_time;
        Self { state, deadline, on, steps: Cell::new(0), is_deferred: Cell::new(false) }
    }
}

impl ReadCache for CacheReader<'_> {
    fn read(&self, call: &mut dyn FnMut(&Cache)) -> Result<(), Unread> {
        let now = Instant::now();
        let view = self.state.cluster.as_ref().and_then(|cluster| cluster.fresh(now)).ok_or(Unread::Stale)?;
        if now >= self.deadline {
            return Err(Unread::TooLate);
        }
        call(&view.cache);
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        let cluster = self.state.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.may_refuse(Instant::now()))
    }

    fn may_take(&self, steps: usize) -> Result<(), Unread> {
        let steps = self.steps.get().saturating_add(steps);
        self.steps.set(steps);
        match self.on {
            AnswerOn::LongWork => Ok(()),
            _ if steps <= STEPS_ON_CONNECTION => Ok(()),
            AnswerOn::ConnectionOnly => Err(Unread::TooLate),
            AnswerOn::Connection => {
                self.is_deferred.set(true);
                Err(Unread::Deferred)
            }
        }
    }
}

/// The result of a pure function.
#[derive(Default)]
struct ReviewResult {
    /// The refusal, if the request is refused.
    status: Option<Status>,
    warnings: Vec<String>,
    patch: Patch,
    /// The choice that was made, if the object is too large to be reviewed.
    oversized: Option<Oversized>,
}

impl ReviewResult {
    fn of(outcome: ReviewOutcome) -> Self {
        Self {
            status: outcome.status(),
            warnings: outcome.warnings(),
            patch: Patch::default(),
            oversized: outcome.oversized,
        }
    }

    fn outcome(&self) -> AdmissionOutcome {
        match (self.status.is_none(), self.patch.is_empty(), self.warnings.is_empty()) {
            (false, _, _) => AdmissionOutcome::Denied,
            (true, false, _) => AdmissionOutcome::Patched,
            (true, true, false) => AdmissionOutcome::Warned,
            (true, true, true) => AdmissionOutcome::Allowed,
        }
    }
}

/// Reads a review, calls `review_object` for the result, counts, logs and answers. Calls `review_start` for a review that is too large
/// to be read.
async fn respond(
    State(state): State<AppState>,
    request: Request,
    webhook: Webhook,
    review_object: impl Fn(
        &CacheReader<'_>,
        &AdmissionRequest<'_>,
        &DecodeBudget<'_>,
    ) -> Result<ReviewResult, BadReview>
    + Send
    + 'static,
    review_start: impl FnOnce(&AppState, &ReviewHead<'_>) -> ReviewResult,
) -> Response {
    let respond = move |state: &AppState, body, on| respond_to_body(state, body, on, webhook, &review_object);
    let respond_to_start = |state: &AppState, start: &[u8]| {
        let begin = Instant::now();
        let head = ReviewHead::read(start)?;
        let result = review_start(state, &head);
        record(state, webhook, &head.request, &result, begin);
        let mut response = response::json(encode(&head.request, &result));
        // The rest of the body is not read.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Some(response)
    };
    handle(state, request, RouteKind::Admission, respond, respond_to_start).await
}

fn respond_to_body(
    state: &AppState,
    body: BufferedBody,
    on: AnswerOn,
    webhook: Webhook,
    review_object: impl Fn(
        &CacheReader<'_>,
        &AdmissionRequest<'_>,
        &DecodeBudget<'_>,
    ) -> Result<ReviewResult, BadReview>,
) -> Result<Response, BufferedBody> {
    let begin = Instant::now();
    let cache = CacheReader::new(state, body.arrived(), on);
    let mut is_starved = false;
    let parsed = admission_v1::parse(&body);
    let operation =
        parsed.as_ref().map_or(Operation::Other, |review| Operation::from_review(&review.operation));
    let reviewed = parsed.and_then(|review| {
        let reviewed = state.with_decode_budget(&body, RouteKind::Admission, |budget| {
            let result = review_object(&cache, &review, budget);
            is_starved = match webhook {
                Webhook::Validate => (1..LARGE_START).contains(&budget.starved()),
                // A pod is not refused for its size, so it may be sent again whatever that is.
                Webhook::Mutate => budget.starved() > 0,
            };
            result
        });
        let result = reviewed?;
        let response = encode(&review, &result);
        Ok((review, result, response))
    });
    if cache.is_deferred.get() {
        drop(reviewed);
        return Err(body);
    }
    // As for a body that there is no memory for: a usual object must not count as too large because others take the memory.
    if is_starved {
        return Ok(ErrorResponse::overloaded("too many large bodies at once").into_response());
    }
    Ok(match reviewed {
        Ok((review, result, response)) => {
            record(state, webhook, &review, &result, begin);
            drop(review);
            body.respond(response, &state.metrics)
        }
        Err(error) => {
            state.metrics.admission(webhook, operation, AdmissionOutcome::Bad, begin.elapsed());
            state.describe(|| [Attribute::word("daemonset_warden.verdict", AdmissionOutcome::Bad.as_str())]);
            tracing::debug!(webhook = webhook.as_str(), error = %Sanitized(&error.to_string()), "refused a bad review");
            ErrorResponse::bad_request(error).into_response()
        }
    })
}

/// Counts, describes and logs an answered review.
fn record(
    state: &AppState,
    webhook: Webhook,
    review: &AdmissionRequest<'_>,
    result: &ReviewResult,
    begin: Instant,
) {
    let took = begin.elapsed();
    let operation = Operation::from_review(&review.operation);
    let outcome = result.outcome();
    state.metrics.admission(webhook, operation, outcome, took);
    if let Some(choice) = result.oversized {
        state.metrics.oversized(webhook, choice);
    }
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
                oversized = result.oversized.is_some(),
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
    if outcome == AdmissionOutcome::Allowed && result.oversized.is_none() { log!(debug) } else { log!(info) }
}

/// The number of fields that an audit annotation names at most.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::server::http::limits::Limits;

    #[test]
    fn many_steps_are_made_on_a_thread_for_long_work_or_not_at_all() {
        let state = AppState::new(Policy::default(), Limits::default(), false);
        let takes = |on: AnswerOn, steps: &[usize]| {
            let cache = CacheReader::new(&state, Instant::now(), on);
            let taken = steps.iter().try_for_each(|steps| cache.may_take(*steps));
            (taken, cache.is_deferred.get())
        };
        let (few, many) = (&[STEPS_ON_CONNECTION], &[STEPS_ON_CONNECTION, 1]);
        for on in [AnswerOn::Connection, AnswerOn::ConnectionOnly, AnswerOn::LongWork] {
            assert_eq!(takes(on, few), (Ok(()), false));
        }
        assert_eq!(takes(AnswerOn::Connection, many), (Err(Unread::Deferred), true));
        assert_eq!(takes(AnswerOn::ConnectionOnly, many), (Err(Unread::TooLate), false));
        assert_eq!(takes(AnswerOn::LongWork, many), (Ok(()), false));
    }
}
