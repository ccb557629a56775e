//! `POST /bind`: the handler reads the review of a binding, calls one pure function, and answers.
//!
//! The answer is always an AdmissionReview: allowed, refused with 403 because room is reserved, or denied with 503 because another
//! replica judges. kube-scheduler tries the binding again after a 503 (v1.37 at once, up to four times), and the pod after a pause.

use std::borrow::Cow;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::http::body::BufferedBody;
use super::http::response::{self, ErrorResponse};
use super::{AppState, RouteKind, handle};
use crate::admission::review_head::ReviewHead;
use crate::api::admission_v1;
use crate::api::admission_v1::AdmissionRequest;
use crate::api::admission_v1::response::{AdmissionResponse, AuditAnnotations, Status, StatusDetails};
use crate::api::binding::Binding;
use crate::policy::ReservationMode;
use crate::reservation::View;
use crate::reservation::bind::BindVerdict;
use crate::reservation::judge::JudgeTurn;
use crate::telemetry::logs::Sanitized;
use crate::telemetry::metrics::bind::{BindOutcome, UnjudgedReason};
use crate::telemetry::otlp::Attribute;

/// The message of a binding that another replica has to judge.
const ANOTHER_JUDGES: &str =
    "another replica of daemonset-warden judges bindings now; the binding is tried again";

/// Answers `/bind`: may a pod be bound to the node that its scheduler has chosen?
pub(super) async fn bind(State(state): State<AppState>, request: Request) -> Response {
    let respond = |state: &AppState, body, _| Ok(respond_to_bind(state, body));
    let respond_to_start = |state: &AppState, start: &[u8]| {
        let begin = Instant::now();
        let head = ReviewHead::read(start)?;
        let answer = Answer::unjudged(UnjudgedReason::TooLarge);
        record(state, &head.request, &answer, begin);
        // The rest of the body is not read.
        Some(closing(response::json(encode(&head.request, &answer))))
    };
    handle(state, request, RouteKind::Bind, respond, respond_to_start).await
}

/// The answer to a review.
struct Answer {
    outcome: BindOutcome,
    unjudged: Option<UnjudgedReason>,
    /// The text of a refusal, or of one that only Audit mode has prevented.
    message: Cow<'static, str>,
}

impl Answer {
    fn of(outcome: BindOutcome, message: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, unjudged: None, message: message.into() }
    }

    fn unjudged(reason: UnjudgedReason) -> Self {
        Self { outcome: BindOutcome::Unjudged, unjudged: Some(reason), message: Cow::Borrowed("") }
    }

    fn is_allowed(&self) -> bool {
        !matches!(self.outcome, BindOutcome::Refused | BindOutcome::Denied)
    }

    /// Returns the status of a refusal; `None` for an answer that allows.
    fn status(&self, review: &AdmissionRequest<'_>) -> Option<Status> {
        let (reason, code) = match self.outcome {
            BindOutcome::Refused => ("Forbidden", 403),
            BindOutcome::Denied => ("ServiceUnavailable", 503),
            _ => return None,
        };
        Some(Status {
            status: "Failure",
            message: self.message.clone().into_owned(),
            reason,
            details: StatusDetails {
                name: review.name.clone().into_owned(),
                group: String::new(),
                kind: "pods".to_owned(),
                causes: Vec::new(),
            },
            code,
        })
    }
}

fn respond_to_bind(state: &AppState, body: BufferedBody) -> Response {
    let begin = Instant::now();
    let (encoded, closes) = match admission_v1::parse(&body) {
        Ok(review) => {
            let answer = judge(state, &review, begin);
            record(state, &review, &answer, begin);
            let is_for_another =
                answer.outcome == BindOutcome::Denied || answer.unjudged == Some(UnjudgedReason::Standby);
            (encode(&review, &answer), is_for_another)
        }
        Err(error) => {
            state.metrics.bind.record(BindOutcome::Bad, begin.elapsed());
            state.describe(|| [Attribute::word("daemonset_warden.verdict", BindOutcome::Bad.as_str())]);
            tracing::debug!(error = %Sanitized(&error.to_string()), "refused a bad review of a binding");
            return ErrorResponse::bad_request(error).into_response();
        }
    };
    let response = body.respond(encoded, &state.metrics);
    // An apiserver keeps its connections; the next one goes to the replica that judges.
    if closes { closing(response) } else { response }
}

/// Ends the connection after this response.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn judge(state: &AppState, review: &AdmissionRequest<'_>, now: Instant) -> Answer {
    let Some(binding) = Binding::of(review) else { return Answer::unjudged(UnjudgedReason::NotABinding) };
    let Some(cluster) = &state.cluster else { return Answer::unjudged(UnjudgedReason::Standalone) };
    if cluster.may_refuse(now) {
        cluster.refresh_before_call();
    }
    let view = cluster.fresh(now);
    // Under the lock, and by the time of now: a hand-over waits for every binding that was let through before, and this thread may
    // have stood still since the request came.
    let turn = state.judge.as_ref().map_or(JudgeTurn::Judges, |judge| judge.turn(Instant::now()));
    match turn {
        JudgeTurn::Judges => {}
        // Nothing is refused in the other modes, so there is nothing to ask another replica for.
        JudgeTurn::Denies if state.policy.reservation.mode == ReservationMode::Enforce => {
            return Answer::of(BindOutcome::Denied, ANOTHER_JUDGES);
        }
        JudgeTurn::Denies => return Answer::unjudged(UnjudgedReason::Standby),
        JudgeTurn::Allows => return Answer::unjudged(UnjudgedReason::NoJudge),
    }
    let Some(mut view) = view else { return Answer::unjudged(UnjudgedReason::NotFresh) };
    let View { cache, reservation } = &mut *view;
    match reservation.judge_bind(cache, &binding, review.dry_run, now) {
        BindVerdict::Allowed => Answer::of(BindOutcome::Allowed, ""),
        BindVerdict::Exempt => Answer::of(BindOutcome::Exempt, ""),
        BindVerdict::WouldRefuse(refusal) => Answer::of(BindOutcome::Audited, refusal.message),
        BindVerdict::Refused(refusal) => Answer::of(BindOutcome::Refused, refusal.message),
        BindVerdict::Unknown => Answer::unjudged(UnjudgedReason::Unknown),
    }
}

/// Counts, describes and logs an answered review.
fn record(state: &AppState, review: &AdmissionRequest<'_>, answer: &Answer, begin: Instant) {
    let took = begin.elapsed();
    let outcome = answer.outcome;
    state.metrics.bind.record(outcome, took);
    if let Some(reason) = answer.unjudged.filter(|_| !review.dry_run) {
        state.metrics.bind.record_unjudged(reason);
    }
    state.describe(|| {
        [
            Attribute::word("daemonset_warden.verdict", outcome.as_str()),
            Attribute::text("daemonset_warden.uid", &review.uid),
            Attribute::text("daemonset_warden.namespace", &review.namespace),
            Attribute::text("daemonset_warden.name", &review.name),
        ]
    });
    // One line for every pod of the cluster, so only -v=4 shows those that are allowed.
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                uid = %Sanitized(&review.uid),
                namespace = %Sanitized(&review.namespace),
                name = %Sanitized(&review.name),
                verdict = outcome.as_str(),
                unjudged = answer.unjudged.map(UnjudgedReason::as_str),
                message = %Sanitized(&answer.message),
                duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                "reviewed a binding"
            )
        };
    }
    match outcome {
        BindOutcome::Refused | BindOutcome::Audited => log!(info),
        _ => log!(debug),
    }
}

fn encode(review: &AdmissionRequest<'_>, answer: &Answer) -> Vec<u8> {
    let status = answer.status(review);
    let denied = || AuditAnnotations { verdict: "denied", fields: None };
    let response = AdmissionResponse {
        uid: &review.uid,
        allowed: answer.is_allowed(),
        audit_annotations: status.as_ref().map(|_| denied()),
        status: status.as_ref(),
        warnings: &[],
        patch_type: None,
        patch: None,
    };
    response.to_review()
}
