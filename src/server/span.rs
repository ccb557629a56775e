//! The span of a request. Without `--tracing-endpoint` this layer is not in the router.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::KeyValue;
use opentelemetry::trace::{FutureExt, get_active_span};

use super::ServerState;
use crate::telemetry::otlp;
use crate::telemetry::otlp::Traces;

/// Makes a span of the whole request if it is sampled.
pub(super) async fn span(State(traces): State<Traces>, request: Request, next: Next) -> Response {
    let Some(context) = traces.begin(&request) else { return next.run(request).await };
    let response = next.run(request).with_context(context.clone()).await;
    otlp::end(&context, response.status());
    response
}

impl ServerState {
    /// Adds attributes to the span of this request. Without a span `attributes` is not called.
    pub(super) fn describe<const N: usize>(&self, attributes: impl FnOnce() -> [KeyValue; N]) {
        if self.traces.is_some() {
            get_active_span(|span| {
                if span.is_recording() {
                    span.set_attributes(attributes());
                }
            });
        }
    }
}
