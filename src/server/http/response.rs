//! The form of responses: JSON, and for errors a status and `{"error": "..."}`.

use std::convert::Infallible;
use std::fmt::Display;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::stream;

/// Returns true for a 4xx or 5xx.
pub(crate) fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// The longest text of an error, in bytes: a name, a path and a position fit.
const MAX_MESSAGE: usize = 1_024;

/// The response to a request that cannot be answered.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    status: StatusCode,
    message: String,
    /// True if the connection ends after this response.
    close: bool,
}

impl ErrorResponse {
    /// Returns an error with the text that the client is shown. The text may repeat what the client has sent, so its length is bounded.
    pub(crate) fn new(status: StatusCode, message: impl Display) -> Self {
        let mut message = message.to_string();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        Self { status, message, close: false }
    }

    /// Returns 400: the client sent something that cannot be answered.
    pub(crate) fn bad_request(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Returns 503: a limit is reached. It has no `Retry-After`, with which an apiserver would ask ten times within its timeout
    /// (kubernetes v1.36.3 staging/src/k8s.io/client-go/rest/with_retry.go).
    pub(crate) fn overloaded(message: impl Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// Ends the connection after this response.
    #[must_use]
    pub(crate) fn and_close(mut self) -> Self {
        self.close = true;
        self
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.message }).to_string();
        let mut response = json(body.into_bytes());
        *response.status_mut() = self.status;
        if self.close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Returns a 200 with this JSON.
pub(crate) fn json(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns a 200 with the JSON that `pieces` are together; none of them is copied.
pub(crate) fn json_pieces(pieces: [Bytes; 3]) -> Response {
    // A stream does not say its length, so the header does: without it the response would be sent in chunks.
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let mut response = json(Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>))));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

/// Answers 404 to requests that no route takes.
pub(crate) async fn not_found(uri: Uri) -> ErrorResponse {
    // The client chose the path and may have made it long, so only its start is repeated.
    let path: String = uri.path().chars().take(100).collect();
    ErrorResponse::new(StatusCode::NOT_FOUND, format!("there is no {path:?} here"))
}

/// Answers 405 to requests for a route with a method that it does not take.
pub(crate) async fn method_not_allowed() -> ErrorResponse {
    ErrorResponse::new(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed here; see the Allow header")
}
