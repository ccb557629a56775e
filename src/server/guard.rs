//! The layers around every handler: limits, the client's certificate, and panics.

use std::panic::AssertUnwindSafe;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;

use super::http::response::{ErrorResponse, is_error};
use super::{AppState, ClientInfo};
use crate::telemetry::metrics::ShedReason;

/// Answers 503 to requests on surplus connections and to requests that take longer than
/// [`super::http::limits::Limits::handler_time`], and 500 to a panic.
pub(crate) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if request.extensions().get::<ClientInfo>().is_some_and(|peer| peer.surplus) {
        state.metrics.record_shed(ShedReason::Connections);
        return ErrorResponse::overloaded("too many connections").and_close().into_response();
    }
    state.metrics.http_in_flight.inc();
    let answered =
        tokio::time::timeout(state.limits.handler_time, AssertUnwindSafe(next.run(request)).catch_unwind())
            .await;
    state.metrics.http_in_flight.dec();
    match answered {
        Ok(Ok(response)) => response,
        // The panic hook has logged it. The cache's lock does not poison: later calls go on with it.
        Ok(Err(_)) => {
            state.metrics.panics.inc();
            ErrorResponse::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "this request met a bug; see the server's log",
            )
            .into_response()
        }
        Err(_) => ErrorResponse::overloaded("the request took too long").and_close().into_response(),
    }
}

/// Answers 401 to clients without a certificate, if the operator has configured a client CA.
///
/// The TLS handshake has verified the certificate, and the connection knows if it is still good. The handshake cannot require one,
/// because apiservers call the webhooks without.
pub(crate) async fn require_certificate(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let shown = request.extensions().get::<ClientInfo>().is_some_and(|peer| peer.certificate);
    if state.scheduler_needs_certificate && !shown {
        return ErrorResponse::new(
            StatusCode::UNAUTHORIZED,
            "a client certificate that --client-ca-file has signed, and that has not expired, is required here",
        )
        .and_close()
        .into_response();
    }
    next.run(request).await
}

/// Counts a response if it is an error, and returns it as it is.
pub(crate) fn count_error(state: &AppState, response: Response) -> Response {
    let status = response.status();
    if is_error(status) {
        state.metrics.http_error(status.as_u16());
    }
    response
}
