//! OpenTelemetry traces: a span for each request that is sampled, sent to a collector by OTLP over HTTP.
//!
//! As kube-apiserver and the kubelet do it: an endpoint, a rate per million, and who calls has the first word on whether
//! a request is sampled (kubernetes v1.36.3 staging/src/k8s.io/component-base/tracing/utils.go NewProvider).
//!
//! Here and nowhere else the SDK is set up; nothing of it is global, so without [`Traces`] nothing of it runs.

mod collector;
mod queue;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use self::collector::Exporter;
use self::queue::CountingSpanProcessor;
use crate::telemetry::logs::Sanitized;
use crate::telemetry::metrics::Metrics;

/// How long the end of the process waits for spans to be sent. Requests are answered by then, and nobody waits for spans.
const FLUSH_TIME: Duration = Duration::from_secs(3);

/// What of a `tracestate` is kept: as much as everybody must (https://www.w3.org/TR/trace-context/#tracestate-limits), because a
/// span in the queue holds it.
const TRACE_STATE: usize = 512;

/// Where spans are sent, and which.
#[derive(Debug, Clone)]
pub struct OtlpSettings {
    /// The collector.
    pub endpoint: Endpoint,
    /// How many of a million requests that come without a trace are sampled.
    pub sampling_rate_per_million: u32,
    /// The pod that we are, if we are one.
    pub pod: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
}

/// The URL of an OTLP receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let mut parts = text.parse::<Uri>().map_err(|_| EndpointError::NoUrl)?.into_parts();
        match parts.scheme.as_ref().map(|scheme| scheme.as_str()) {
            Some("http" | "https") => {}
            _ => return Err(EndpointError::NoUrl),
        }
        // It would be in the log and in the list of processes.
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

/// Why a text is no endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Another form, such as the HOST:PORT of gRPC.
    #[error("expected a URL such as http://HOST:4318")]
    NoUrl,
    /// A user or a password in it.
    #[error("credentials belong into OTEL_EXPORTER_OTLP_HEADERS")]
    Password,
}

/// Why traces could not start.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The system has no certificate authorities.
    #[error("failed to find certificate authorities for an https endpoint; SSL_CERT_FILE may name some")]
    Roots(#[source] std::io::Error),
    /// One of the variables of OpenTelemetry asks for what is not there.
    #[error("failed to set up the export of spans")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Who makes spans and sends them; cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    samples_by_itself: bool,
}

impl Traces {
    /// Starts a thread that sends spans; to be called in the runtime, which does its I/O.
    ///
    /// # Errors
    /// When the system or the environment do not give what is needed. Whether anybody listens is not asked.
    pub fn start(settings: &OtlpSettings, metrics: Arc<Metrics>) -> Result<Self, TracesError> {
        let rate = settings.sampling_rate_per_million;
        let root = match rate {
            0 => Sampler::AlwaysOff,
            rate => Sampler::TraceIdRatioBased(f64::from(rate) / 1_000_000.0),
        };
        let exporter = Exporter::new(&settings.endpoint.0, metrics.clone())?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .with_resource(resource(settings))
            .with_span_processor(CountingSpanProcessor::new(exporter, metrics))
            .build();
        tracing::info!(endpoint = %settings.endpoint, sampling_rate_per_million = rate, "exporting traces");
        Ok(Self {
            tracer: provider.tracer(env!("CARGO_PKG_NAME")),
            provider,
            propagator: TraceContextPropagator::new(),
            samples_by_itself: rate > 0,
        })
    }

    /// A context with the span of `request`, if it is sampled. `request` must have found its route, so that its path is one.
    pub fn begin<B>(&self, request: &Request<B>) -> Option<Context> {
        let caller = self.propagator.extract_with_context(&Context::new(), &Headers(request.headers()));
        let parent = caller.span().span_context().clone();
        // The sampler would say the same, of a span that has been made by then.
        let may_be_sampled = if parent.is_valid() { parent.is_sampled() } else { self.samples_by_itself };
        if !may_be_sampled {
            return None;
        }
        let (method, route) = (method(request.method()), request.uri().path());
        let name = match method {
            "_OTHER" => format!("HTTP {route}"),
            method => format!("{method} {route}"),
        };
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server);
        let context = caller.with_span(self.tracer.build_with_context(builder, &caller));
        let span = context.span();
        if !span.is_recording() {
            return None;
        }
        // https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server
        span.set_attributes([
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("url.path", route.to_owned()),
            KeyValue::new("url.scheme", "https"),
            KeyValue::new("network.protocol.version", version(request.version())),
        ]);
        if let Some(agent) = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            span.set_attribute(text("user_agent.original", agent));
        }
        Some(context)
    }

    /// Sends what waits, for `FLUSH_TIME` at most. Spans that end later are lost.
    pub async fn flush(self) {
        let (done, flushed) = tokio::sync::oneshot::channel();
        // A thread of its own and none of the runtime's, whose end would wait for it after a second signal.
        let flush = move || drop(done.send(self.provider.shutdown_with_timeout(FLUSH_TIME)));
        let started = std::thread::Builder::new().name("flush".to_owned()).spawn(flush);
        let flushed = match started {
            Ok(_) => flushed.await.unwrap_or(Err(OTelSdkError::AlreadyShutdown)),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        };
        if let Err(error) = flushed {
            tracing::warn!(%error, "ended with spans that were not sent");
        }
    }
}

/// Ends the span of a context.
pub fn end(context: &Context, status: StatusCode) {
    let span = context.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    // Of a server's span a 4xx is no error: somebody else has made it.
    if status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_u16().to_string()));
        span.set_status(Status::error(""));
    }
    span.end();
}

/// An attribute with text from outside: short, and without control characters.
pub fn text(key: &'static str, value: &str) -> KeyValue {
    KeyValue::new(key, Sanitized(value).to_string())
}

/// Who we are. What OTEL_RESOURCE_ATTRIBUTES says comes on top.
fn resource(settings: &OtlpSettings) -> Resource {
    let pod = settings.pod.clone().map(|pod| KeyValue::new("k8s.pod.name", pod));
    let namespace = settings.namespace.clone().map(|name| KeyValue::new("k8s.namespace.name", name));
    Resource::builder_empty()
        .with_service_name(env!("CARGO_PKG_NAME"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(pod.into_iter().chain(namespace))
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())])
        .build()
}

/// The method, as one of a closed set.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::POST => "POST",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// The headers of a request, as the propagator reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.to_str().ok()?;
        (key != "tracestate" || value.len() <= TRACE_STATE).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(header::HeaderName::as_str).collect()
    }
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

    #[test]
    fn a_long_tracestate_is_left_out() {
        let mut headers = HeaderMap::new();
        headers.insert("tracestate", format!("a={}", "b".repeat(510)).parse().unwrap());
        assert!(Headers(&headers).get("tracestate").is_some());
        headers.insert("tracestate", format!("a={}", "b".repeat(511)).parse().unwrap());
        assert_eq!(Headers(&headers).get("tracestate"), None);
    }
}
