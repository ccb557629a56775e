//! OpenTelemetry traces: a span for each request that is sampled, sent to a collector by OTLP over HTTP.
//!
//! As kube-apiserver and the kubelet do it: an endpoint, a rate per million, and the caller has the first word on whether a request
//! is sampled (kubernetes v1.36.3 staging/src/k8s.io/component-base/tracing/utils.go NewProvider).
//!
//! The SDK is set up here alone; nothing of it is global, so without [`Traces`] nothing of it runs. The rest of the crate names no
//! type of it: without the cargo feature `otlp`, `otlp_disabled.rs` takes the place of this file.

mod collector;
mod endpoint;
mod queue;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, StatusCode, Version, header};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    FutureExt, SpanKind, Status, TraceContextExt, Tracer, TracerProvider, get_active_span,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use self::collector::OtlpExporter;
pub use self::endpoint::{Endpoint, EndpointError};
use self::queue::CountingSpanProcessor;
use crate::telemetry::OtlpSettings;
use crate::telemetry::logs::Sanitized;
use crate::telemetry::metrics::Metrics;

/// The time for which the end of the process waits for spans to be sent. Requests are answered by then, and no caller waits for
/// spans.
const FLUSH_TIME: Duration = Duration::from_secs(3);

/// The longest `tracestate` that is kept, in bytes: the least that the standard asks for
/// (<https://www.w3.org/TR/trace-context/#tracestate-limits>), because a span in the queue holds it.
const MAX_TRACE_STATE: usize = 512;

/// The error for traces that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The system has no certificate authorities.
    #[error("failed to find certificate authorities for an https endpoint; SSL_CERT_FILE may name some")]
    Roots(#[source] std::io::Error),
    /// An environment variable of OpenTelemetry asks for something that this build does not have.
    #[error("failed to set up the export of spans")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Makes spans and sends them; cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    samples_by_itself: bool,
}

impl Traces {
    /// Starts the thread that sends spans. Call it inside the tokio runtime: the thread uses it for its I/O.
    ///
    /// # Errors
    /// Fails if the system has no CA certificates for an https endpoint, or if the exporter cannot be built from the `OTEL_*`
    /// variables. The collector need not be reachable.
    pub fn start(settings: &OtlpSettings, metrics: Arc<Metrics>) -> Result<Self, TracesError> {
        let rate = settings.sampling_rate_per_million;
        let root = match rate {
            0 => Sampler::AlwaysOff,
            rate => Sampler::TraceIdRatioBased(f64::from(rate) / 1_000_000.0),
        };
        let exporter = OtlpExporter::new(&settings.endpoint.0, metrics.clone())?;
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

    /// Begins the span of `request`; `None` if the request is not sampled. The request must have found its route: its path becomes
    /// an attribute.
    pub(crate) fn begin<B>(&self, request: &Request<B>) -> Option<RequestSpan> {
        let caller = self.propagator.extract_with_context(&Context::new(), &Headers(request.headers()));
        let parent = caller.span().span_context().clone();
        // The sampler would say the same, but of a span that was made for it.
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
            span.set_attribute(Attribute::text("user_agent.original", agent).0);
        }
        Some(RequestSpan(context))
    }

    /// Sends the queued spans, for `FLUSH_TIME` at most. Spans that end later are lost.
    pub async fn flush(self) {
        let (done, flushed) = tokio::sync::oneshot::channel();
        // A thread of its own: the end of the runtime would wait for one of the runtime's after a second signal.
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

/// The span of a sampled request.
pub(crate) struct RequestSpan(Context);

impl RequestSpan {
    /// Runs `work` with this as the current span.
    pub(crate) fn cover<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        work.with_context(self.0.clone())
    }

    pub(crate) fn end(self, status: StatusCode) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        // Of a server's span a 4xx is no error: it is the client's.
        if status.is_server_error() {
            span.set_attribute(KeyValue::new("error.type", status.as_u16().to_string()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// A key and a value for a span.
pub(crate) struct Attribute(KeyValue);

impl Attribute {
    /// Returns an attribute with one of a closed set of words.
    pub(crate) fn word(key: &'static str, value: &'static str) -> Self {
        Self(KeyValue::new(key, value))
    }

    /// Returns an attribute with text from outside, which is [`Sanitized`].
    pub(crate) fn text(key: &'static str, value: &str) -> Self {
        Self(KeyValue::new(key, Sanitized(value).to_string()))
    }

    /// Returns an attribute with a number of things.
    pub(crate) fn count(key: &'static str, value: usize) -> Self {
        Self(KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

/// Adds attributes to the current span. Does nothing, and does not call `attributes`, if there is no span or it is not sampled.
pub(crate) fn describe<const N: usize>(attributes: impl FnOnce() -> [Attribute; N]) {
    get_active_span(|span| {
        if span.is_recording() {
            span.set_attributes(attributes().map(|attribute| attribute.0));
        }
    });
}

/// Returns `work` to be done on another thread, with the current span as the current one there.
pub(crate) fn in_current_span<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Context::current();
    move || {
        let _entered = span.attach();
        work()
    }
}

/// Returns the attributes of this process; OTEL_RESOURCE_ATTRIBUTES adds to them.
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

/// Returns the name of a standard method, and `_OTHER` for any other.
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

/// A request's headers, for the propagator.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.to_str().ok()?;
        (key != "tracestate" || value.len() <= MAX_TRACE_STATE).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(header::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_tracestate_is_left_out() {
        let mut headers = HeaderMap::new();
        headers.insert("tracestate", format!("a={}", "b".repeat(510)).parse().unwrap());
        assert!(Headers(&headers).get("tracestate").is_some());
        headers.insert("tracestate", format!("a={}", "b".repeat(511)).parse().unwrap());
        assert_eq!(Headers(&headers).get("tracestate"), None);
    }
}
