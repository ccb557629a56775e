//! The names of `otlp.rs` for a build without the cargo feature `otlp`: there is no endpoint, and so there are no traces.

use std::convert::Infallible;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::{Request, StatusCode};

use crate::telemetry::OtlpSettings;
use crate::telemetry::metrics::Metrics;

/// The URL of an OTLP receiver, which no text is in this build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Infallible);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(_: &str) -> Result<Self, EndpointError> {
        Err(EndpointError)
    }
}

/// The error of parsing any text as an endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this daemonset-warden exports no traces: it was built without the cargo feature otlp")]
pub struct EndpointError;

/// The maker of spans, which does not exist in this build.
#[derive(Debug, Clone)]
pub struct Traces(Infallible);

impl Traces {
    /// Cannot be called, for want of an endpoint.
    ///
    /// # Errors
    /// Never.
    pub fn start(settings: &OtlpSettings, _: Arc<Metrics>) -> Result<Self, Infallible> {
        match settings.endpoint.0 {}
    }

    pub(crate) fn begin<B>(&self, _: &Request<B>) -> Option<RequestSpan> {
        match self.0 {}
    }

    /// Cannot be called, for want of a receiver.
    pub async fn flush(self) {
        match self.0 {}
    }
}

/// The span of a request, which does not exist in this build.
pub(crate) struct RequestSpan(Infallible);

impl RequestSpan {
    pub(crate) fn cover<T>(&self, _: impl Future<Output = T>) -> std::future::Pending<T> {
        match self.0 {}
    }

    pub(crate) fn end(self, _: StatusCode) {
        match self.0 {}
    }
}

/// A key and a value for a span, which are dropped in this build.
pub(crate) struct Attribute;

impl Attribute {
    pub(crate) fn word(_: &'static str, _: &'static str) -> Self {
        Self
    }

    pub(crate) fn text(_: &'static str, _: &str) -> Self {
        Self
    }

    pub(crate) fn count(_: &'static str, _: usize) -> Self {
        Self
    }
}

/// Does nothing: there is no current span.
pub(crate) fn describe<const N: usize>(_: impl FnOnce() -> [Attribute; N]) {}

/// Returns `work` as it is.
pub(crate) fn in_current_span<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    work
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_endpoint_is_refused_with_the_reason() {
        let error = "http://collector:4318".parse::<Endpoint>().unwrap_err();
        assert!(error.to_string().contains("cargo feature otlp"), "{error}");
    }
}
