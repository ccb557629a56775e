//! `POST /scheduler/filter` and `POST /scheduler/preempt`: the handlers read the arguments, call one pure function, and answer.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::http::body::BufferedBody;
use super::http::response::ErrorResponse;
use super::{AppState, ServerState, handle};
use crate::api::extender_v1::preemption::ExtenderPreemptionArgs;
use crate::api::extender_v1::{BadArgs, ExtenderArgs};
use crate::api::meta::Metadata;
use crate::reservation::preemption::filter_candidates;
use crate::reservation::{View, filter, preemption};
use crate::telemetry::logs::Sanitized;
use crate::telemetry::metrics::{ExtenderOutcome, ExtenderVerb};
use crate::telemetry::otlp::Attribute;
use crate::watch::shared_cache::CacheGuard;

/// Answers `/scheduler/filter`: the nodes, of those that the scheduler has found feasible, on which a pod is allowed, and the
/// refused ones with the reason for each.
pub(super) async fn filter(State(state): State<AppState>, request: Request) -> Response {
    handle(state, request, ServerState::scheduler_limits, respond_to_filter).await
}

fn respond_to_filter(state: &AppState, body: BufferedBody) -> Response {
    let begin = Instant::now();
    let args = match ExtenderArgs::parse(&body) {
        Ok(args) => args,
        Err(error) => return respond_bad_request(state, ExtenderVerb::Filter, begin, &error),
    };
    let result = match fresh_cluster(state) {
        Some(mut cluster) => {
            let View { cache, reservation } = &mut *cluster;
            let (result, stats) = filter::filter_with_cache(reservation, cache, &args, begin);
            state.metrics.cluster.record_audited(stats.would_refuse);
            result
        }
        None => filter::filter_standalone(&state.policy, &args),
    };
    let took = begin.elapsed();
    let refused: usize = result.refused.values().sum();
    let outcome = if refused == 0 { ExtenderOutcome::Passed } else { ExtenderOutcome::Refused };
    state.metrics.extender(ExtenderVerb::Filter, outcome, took);
    state.metrics.refused_nodes(&result.refused);
    describe(state, outcome, &args.pod.metadata, result.nodes, refused);
    // One line for every pod of the cluster, so only -v=4 shows it.
    tracing::debug!(
        verb = ExtenderVerb::Filter.as_str(),
        uid = %Sanitized(&args.pod.metadata.uid),
        namespace = %Sanitized(&args.pod.metadata.namespace),
        name = %Sanitized(&args.pod.metadata.name),
        nodes = result.nodes,
        refused,
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "filtered"
    );
    drop(args);
    body.echo(result.body, &state.metrics)
}

/// Answers `/scheduler/preempt`: the scheduler's candidates on which a pod may evict others.
pub(super) async fn preempt(State(state): State<AppState>, request: Request) -> Response {
    handle(state, request, ServerState::scheduler_limits, respond_to_preempt).await
}

fn respond_to_preempt(state: &AppState, body: BufferedBody) -> Response {
    let begin = Instant::now();
    let args = match ExtenderPreemptionArgs::parse(&body) {
        Ok(args) => args,
        Err(error) => return respond_bad_request(state, ExtenderVerb::Preempt, begin, &error),
    };
    let protect = state.policy.protect_daemon_pods;
    let candidates = args.candidates();
    let verdicts = match fresh_cluster(state) {
        Some(mut cluster) => {
            let View { cache, reservation } = &mut *cluster;
            let mut call = reservation.begin_preemption(cache, &args.pod, begin);
            filter_candidates(protect, Some(&mut call), &candidates)
        }
        None => filter_candidates(protect, None, &candidates),
    };
    let result = args.to_result(|index| verdicts.get(index).is_none_or(Option::is_none));
    let counts = preemption::count(&verdicts);
    let took = begin.elapsed();
    let dropped: usize = counts.values().sum();
    let outcome = if dropped == 0 { ExtenderOutcome::Passed } else { ExtenderOutcome::Refused };
    state.metrics.extender(ExtenderVerb::Preempt, outcome, took);
    state.metrics.dropped_nodes(&counts);
    describe(state, outcome, &args.pod.metadata, result.nodes, dropped);
    tracing::debug!(
        verb = ExtenderVerb::Preempt.as_str(),
        uid = %Sanitized(&args.pod.metadata.uid),
        namespace = %Sanitized(&args.pod.metadata.namespace),
        name = %Sanitized(&args.pod.metadata.name),
        nodes = result.nodes,
        dropped,
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "decided a preemption"
    );
    drop(args);
    body.respond(result.body, &state.metrics)
}

/// Locks the cache if a refusal may be based on it. Returns `None` if the server runs standalone, or if the cache is not fresh,
/// which is counted.
fn fresh_cluster(state: &AppState) -> Option<CacheGuard<'_>> {
    let fresh = state.cluster.as_ref()?.fresh();
    if fresh.is_none() {
        state.metrics.cluster.fail_open.inc();
    }
    fresh
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
    ErrorResponse::bad_request(error).into_response()
}
