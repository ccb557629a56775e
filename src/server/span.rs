//! The span of a request. Without `--tracing-endpoint` this layer is not in the router.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::ServerState;
use crate::telemetry::otlp;
use crate::telemetry::otlp::{Attribute, Traces};

/// Makes a span of the whole request, if the request is sampled.
pub(super) async fn span(State(traces): State<Traces>, request: Request, next: Next) -> Response {
    let Some(span) = traces.begin(&request) else { return next.run(request).await };
    let response = span.cover(next.run(request)).await;
    span.end(response.status());
    response
}

impl ServerState {
    /// Adds attributes to the span of this request. Without a span `attributes` is not called.
    pub(super) fn describe<const N: usize>(&self, attributes: impl FnOnce() -> [Attribute; N]) {
        if self.traces.is_some() {
            otlp::describe(attributes);
        }
    }
}
