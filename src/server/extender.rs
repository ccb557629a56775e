//! `POST /scheduler/filter` and `POST /scheduler/preempt`: the handlers read the arguments, call one pure function, and answer.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::http::body::BufferedBody;
use super::http::response::ErrorResponse;
use super::{AppState, RouteKind, handle};
use crate::api::extender_v1::preemption::ExtenderPreemptionArgs;
use crate::api::extender_v1::{BadArgs, ExtenderArgs};
use crate::api::meta::Metadata;
use crate::reservation::filter::FilterStats;
use crate::reservation::incoming_pod::IncomingDemand;
use crate::reservation::preemption::{self, PreemptionReason};
use crate::reservation::prepared_filter::{PreparedFilter, answer_verdicts};
use crate::telemetry::logs::Sanitized;
use crate::telemetry::metrics::{ExtenderOutcome, ExtenderVerb};
use crate::telemetry::otlp::Attribute;
use crate::watch::shared_cache::CacheGuard;

/// Answers `/scheduler/filter`: the nodes, of those that the scheduler has found feasible, on which a pod is allowed, and the
/// refused ones with the reason for each.
pub(super) async fn filter(State(state): State<AppState>, request: Request) -> Response {
    let respond = |state: &AppState, body, _| Ok(respond_to_filter(state, body));
    handle(state, request, RouteKind::Scheduler, respond, |_, _| None).await
}

fn respond_to_filter(state: &AppState, body: BufferedBody) -> Response {
    let begin = Instant::now();
    let filtered = state.with_decode_budget(&body, RouteKind::Scheduler, |budget| {
        let args = ExtenderArgs::parse_within(&body, budget)?;
        let prepared = PreparedFilter::new(&state.policy, &args, budget);
        let verdicts = match lock_if_fresh(state, begin) {
            Some(lock) => {
                let (verdicts, stats) = prepared.judge_with_cache(lock, begin);
                record_stats(state, stats);
                verdicts
            }
            None => prepared.judge_standalone(),
        };
        args.charge_answer(&verdicts, budget)?;
        let result = answer_verdicts(&args, verdicts);
        Ok((args.pod.metadata, result))
    });
    let (pod, result) = match filtered {
        Ok(filtered) => filtered,
        Err(error) => return respond_bad_request(state, ExtenderVerb::Filter, begin, &error),
    };
    let took = begin.elapsed();
    let refused: usize = result.refused.values().sum();
    let outcome = if refused == 0 { ExtenderOutcome::Passed } else { ExtenderOutcome::Refused };
    state.metrics.extender(ExtenderVerb::Filter, outcome, took);
    state.metrics.refused_nodes(&result.refused);
    describe(state, outcome, &pod, result.nodes, refused);
    // One line for every pod of the cluster, so only -v=4 shows it.
    tracing::debug!(
        verb = ExtenderVerb::Filter.as_str(),
        uid = %Sanitized(&pod.uid),
        namespace = %Sanitized(&pod.namespace),
        name = %Sanitized(&pod.name),
        nodes = result.nodes,
        refused,
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "filtered"
    );
    body.echo(result.body, &state.metrics)
}

/// Answers `/scheduler/preempt`: the scheduler's candidates on which a pod may evict others.
pub(super) async fn preempt(State(state): State<AppState>, request: Request) -> Response {
    let respond = |state: &AppState, body, _| Ok(respond_to_preempt(state, body));
    handle(state, request, RouteKind::Scheduler, respond, |_, _| None).await
}

fn respond_to_preempt(state: &AppState, body: BufferedBody) -> Response {
    let begin = Instant::now();
    let decided = state.with_decode_budget(&body, RouteKind::Scheduler, |budget| {
        let args = ExtenderPreemptionArgs::parse_within(&body, budget)?;
        let verdicts = judge_candidates(state, &args, begin);
        let result = args.to_result(|index| verdicts.get(index).is_none_or(Option::is_none));
        Ok((args.pod.metadata, result, preemption::count(&verdicts)))
    });
    let (pod, result, counts) = match decided {
        Ok(decided) => decided,
        Err(error) => return respond_bad_request(state, ExtenderVerb::Preempt, begin, &error),
    };
    let took = begin.elapsed();
    let dropped: usize = counts.values().sum();
    let outcome = if dropped == 0 { ExtenderOutcome::Passed } else { ExtenderOutcome::Refused };
    state.metrics.extender(ExtenderVerb::Preempt, outcome, took);
    state.metrics.dropped_nodes(&counts);
    describe(state, outcome, &pod, result.nodes, dropped);
    tracing::debug!(
        verb = ExtenderVerb::Preempt.as_str(),
        uid = %Sanitized(&pod.uid),
        namespace = %Sanitized(&pod.namespace),
        name = %Sanitized(&pod.name),
        nodes = result.nodes,
        dropped,
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "decided a preemption"
    );
    body.respond(result.body, &state.metrics)
}

/// Returns for each candidate the reason for which it is dropped.
fn judge_candidates(
    state: &AppState,
    args: &ExtenderPreemptionArgs<'_>,
    now: Instant,
) -> Vec<Option<PreemptionReason>> {
    let protect = state.policy.protect_daemon_pods;
    let candidates = args.candidates();
    let demand = IncomingDemand::of(&args.pod);
    let Some(lock) = lock_if_fresh(state, now) else { return vec![None; candidates.len()] };
    let judged = preemption::judge_candidates(lock, protect, &demand, &candidates, now);
    judged.unwrap_or_else(|| {
        state.metrics.unjudged_call(ExtenderVerb::Preempt);
        vec![None; candidates.len()]
    })
}

fn record_stats(state: &AppState, FilterStats { would_refuse, is_judged }: FilterStats) {
    state.metrics.cluster.record_audited(would_refuse);
    if !is_judged {
        state.metrics.unjudged_call(ExtenderVerb::Filter);
    }
}

/// Returns a function that locks the cache, if a refusal may be based on it. Counts a call that has to do without it because it is
/// not fresh.
fn lock_if_fresh<'s>(state: &'s AppState, now: Instant) -> Option<impl FnMut() -> CacheGuard<'s>> {
    let cluster = state.cluster.as_ref()?;
    if cluster.may_refuse(now) {
        cluster.refresh_before_call();
    }
    let mut fresh = cluster.fresh(now);
    if fresh.is_none() {
        state.metrics.cluster.fail_open.inc();
        return None;
    }
    Some(move || fresh.take().unwrap_or_else(|| cluster.lock()))
}

/// Adds the result of a call to its span.
fn describe(state: &AppState, outcome: ExtenderOutcome, pod: &Metadata, nodes: usize, refused: usize) {
    state.describe(|| {
        [
            Attribute::word("daemonset_warden.verdict", outcome.as_str()),
            Attribute::text("daemonset_warden.uid", &pod.uid),
            Attribute::text("daemonset_warden.namespace", &pod.namespace),
            Attribute::text("daemonset_warden.name", &pod.name),
            Attribute::count("daemonset_warden.nodes", nodes),
            Attribute::count("daemonset_warden.refused_nodes", refused),
        ]
    });
}

/// Counts a call whose arguments cannot be read, and returns a 400.
fn respond_bad_request(state: &AppState, verb: ExtenderVerb, begin: Instant, error: &BadArgs) -> Response {
    state.metrics.extender(verb, ExtenderOutcome::Bad, begin.elapsed());
    state.describe(|| [Attribute::word("daemonset_warden.verdict", ExtenderOutcome::Bad.as_str())]);
    tracing::debug!(verb = verb.as_str(), error = %Sanitized(&error.to_string()), "refused bad extender arguments");
    match error {
        BadArgs::TooLarge(_) => ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, error),
        _ => ErrorResponse::bad_request(error),
    }
    .into_response()
}
