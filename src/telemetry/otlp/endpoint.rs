//! The URL of the collector.

use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// The URL of an OTLP receiver, http or https. The path of a text without one is `/v1/traces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub(super) Uri);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let mut parts = text.parse::<Uri>().map_err(|_| EndpointError::NoUrl)?.into_parts();
        match parts.scheme.as_ref().map(|scheme| scheme.as_str()) {
            Some("http" | "https") => {}
            _ => return Err(EndpointError::NoUrl),
        }
        // A password would be in the log and in the list of processes.
        if parts.authority.as_ref().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(EndpointError::Password);
        }
        let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
        if path == "/" {
            parts.path_and_query = Some(PathAndQuery::from_static("/v1/traces"));
        }
        Uri::from_parts(parts).map(Self).map_err(|_| EndpointError::NoUrl)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The error of parsing a text that is no endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The text is no http or https URL, such as the HOST:PORT of gRPC.
    #[error("expected a URL such as http://HOST:4318")]
    NoUrl,
    /// The URL has a user or a password.
    #[error("credentials belong into OTEL_EXPORTER_OTLP_HEADERS")]
    Password,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_receivers() {
        let endpoint = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        assert_eq!(endpoint("http://collector:4318").as_deref(), Ok("http://collector:4318/v1/traces"));
        assert_eq!(endpoint("https://[::1]:4318/").as_deref(), Ok("https://[::1]:4318/v1/traces"));
        assert_eq!(endpoint("http://a/otlp/v1/traces").as_deref(), Ok("http://a/otlp/v1/traces"));
        for none in ["", "collector", "collector:4317", "localhost:4317", "ftp://a", "/v1/traces", "http://"]
        {
            assert_eq!(endpoint(none), Err(EndpointError::NoUrl), "{none}");
        }
        assert_eq!(endpoint("http://me:secret@a"), Err(EndpointError::Password));
    }
}
