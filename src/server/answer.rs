//! What answers look like: JSON, and for errors a status and `{"error": "..."}`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

/// Why a request has no other answer.
#[derive(Debug)]
pub(crate) struct ErrorAnswer {
    status: StatusCode,
    message: String,
    /// Whether the connection ends with it.
    close: bool,
}

impl ErrorAnswer {
    /// An error with its text.
    pub(crate) fn new(status: StatusCode, message: impl Display) -> Self {
        Self { status, message: message.to_string(), close: false }
    }

    /// The caller sent something that is no question.
    pub(crate) fn bad_request(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A limit is reached. Without `Retry-After`, which would make an apiserver come back ten times within its timeout
    /// (kubernetes v1.36.3 staging/src/k8s.io/client-go/rest/with_retry.go).
    pub(crate) fn overloaded(message: impl Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// Ends the connection too.
    #[must_use]
    pub(crate) fn and_close(mut self) -> Self {
        self.close = true;
        self
    }
}

impl IntoResponse for ErrorAnswer {
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

/// 200 with JSON; the length is known, so it is sent, and no client needs to wait for the end of a chunk.
pub(crate) fn json(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body in pieces, which are sent as they are.
pub(crate) struct Pieces(VecDeque<Bytes>);

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Self {
        Self::new(pieces)
    }
}

impl<const N: usize> From<[Bytes; N]> for Pieces {
    fn from(pieces: [Bytes; N]) -> Self {
        Self(pieces.into())
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// No such route.
pub(crate) async fn not_found(uri: Uri) -> ErrorAnswer {
    // The path is the client's text: as much of it as helps to find a typing error.
    let path: String = uri.path().chars().take(100).collect();
    ErrorAnswer::new(StatusCode::NOT_FOUND, format!("there is no {path:?} here"))
}

/// The route exists, for another method.
pub(crate) async fn method_not_allowed() -> ErrorAnswer {
    ErrorAnswer::new(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed here; see the Allow header")
}
