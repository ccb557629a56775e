//! Calls to the apiserver: their errors, and the apiserver's clock.

use std::sync::Arc;

use axum::http::{Response, StatusCode, header};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use parking_lot::Mutex;
use tower::util::MapResponseLayer;

use super::validity::{local_time, unix_time};

/// The error of a call to the apiserver.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request did not get through, or the response cannot be read.
    #[error("failed to {0}")]
    Call(String, #[source] Box<kube::Error>),
    /// The apiserver answered with an error.
    #[error("failed to {doing}: {code} {message}")]
    Refused {
        /// The action, such as `read Secret a/b`.
        doing: String,
        /// The status code.
        code: u16,
        /// The apiserver's message.
        message: String,
    },
}

impl ApiError {
    /// Creates the error of a call. `doing` is a phrase such as `read Secret a/b`.
    pub(super) fn new(doing: impl Into<String>, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Self::Refused { doing: doing.into(), code: status.code, message: status.message }
            }
            error => Self::Call(doing.into(), Box::new(error)),
        }
    }
}

const NOT_FOUND: u16 = StatusCode::NOT_FOUND.as_u16();
const CONFLICT: u16 = StatusCode::CONFLICT.as_u16();

/// Returns the object that was read; `None` for a 404, unlike kube's `get_opt` also for one whose body is no Status. Any other
/// failure is an error; `doing` is its phrase, such as `read Secret a/b`.
pub(super) fn found<T>(doing: String, result: kube::Result<T>) -> Result<Option<T>, ApiError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(None),
        Err(error) => Err(ApiError::new(doing, error)),
    }
}

/// Returns true if the object was written. Returns false if it was changed or deleted since it was read (409 or 404): the caller
/// reads it again. Any other failure is an error; `doing` is its phrase.
pub(super) fn is_written<T>(doing: String, result: kube::Result<T>) -> Result<bool, ApiError> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, NOT_FOUND | CONFLICT) => Ok(false),
        Err(error) => Err(ApiError::new(doing, error)),
    }
}

/// The apiserver's clock, by the `Date` header of its last response. Certificates are made by it, because it is the same for all
/// replicas, and most clients that verify the certificates are apiservers. Clones share one clock.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerClock(Arc<Mutex<Option<i64>>>);

impl ServerClock {
    /// Makes a client whose responses set this clock. Fails if `config` cannot be used.
    pub(super) fn client(&self, config: Config) -> kube::Result<Client> {
        let clock = self.clone();
        let layer = MapResponseLayer::new(move |response| clock.observe(response));
        Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
    }

    fn observe<B>(&self, response: Response<B>) -> Response<B> {
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        *self.0.lock() = date.and_then(|date| httpdate::parse_http_date(date).ok()).map(unix_time);
        response
    }

    /// Returns the apiserver's time in Unix seconds. Returns this node's time if the last response had no date, or there was none
    /// yet.
    pub(super) fn now(&self) -> i64 {
        self.0.lock().unwrap_or_else(local_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_the_last_responses_date_or_else_ours() {
        let clock = ServerClock::default();
        let respond =
            |date: &str| clock.observe(Response::builder().header(header::DATE, date).body(()).unwrap());
        respond("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(clock.now(), 784_111_777);
        for bad in ["", "Sun, 06 Nov 1994 08:49:37", "Sun, 36 Nov 1994 08:49:37 GMT"] {
            respond(bad);
            assert!(clock.now().abs_diff(local_time()) <= 1, "{bad}");
        }
    }
}
