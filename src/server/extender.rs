//! `POST /scheduler/filter`: read the arguments, ask one pure function, answer.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::answer::{ErrorAnswer, json};
use super::body;
use super::metrics::{Filtered, Verb};
use crate::daemonset::extender::ExtenderArgs;
use crate::daemonset::filter::DaemonPodJudge;
use crate::logs::Shown;

/// Says which of the nodes that the scheduler has found a pod may not go to.
pub(super) async fn filter(State(state): State<AppState>, request: Request) -> Response {
    let body = match body::read(request, state.scheduler_allowance(), &state.metrics).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let begin = Instant::now();
    let args = match ExtenderArgs::parse(&body) {
        Ok(args) => args,
        Err(error) => {
            state.metrics.extender(Verb::Filter, Filtered::Bad, begin.elapsed());
            tracing::debug!(error = %Shown(&error.to_string()), "refused bad extender arguments");
            return ErrorAnswer::bad_request(error).into_response();
        }
    };
    let judge = DaemonPodJudge::new(&state.policy, &args.pod);
    let result = args.filter(|name, node| judge.as_ref()?.refuse(name, node));
    let took = begin.elapsed();
    let refused: usize = result.refused.iter().sum();
    let outcome = if refused == 0 { Filtered::Passed } else { Filtered::Refused };
    state.metrics.extender(Verb::Filter, outcome, took);
    state.metrics.refused_nodes(&result.refused);
    // For every pod of the cluster: only -v=4 shows them.
    tracing::debug!(
        verb = Verb::Filter.as_str(),
        uid = %Shown(&args.pod.metadata.uid),
        namespace = %Shown(&args.pod.metadata.namespace),
        name = %Shown(&args.pod.metadata.name),
        nodes = result.nodes,
        refused,
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "filtered"
    );
    json(result.body)
}
