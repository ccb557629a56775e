//! Sends batches of spans to the collector, and logs when that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::http::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::TracesError;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::{Metrics, SpanOutcome};

/// The time limit of one attempt to send a batch.
const ATTEMPT_TIME: Duration = Duration::from_secs(3);
/// The time after a batch's first attempt in which another one may begin. After it the batch's spans are lost: they are no audit
/// log.
const BATCH_TIME: Duration = Duration::from_secs(5);
/// The shortest time between two log lines that say that spans are lost.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Sends batches by OTLP, and counts their spans by outcome.
#[derive(Debug)]
pub(super) struct OtlpExporter {
    otlp: Otlp,
    fault: LastFault,
    /// The time of the last log line that says that spans are lost; `None` while they are exported.
    logged_at: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// The reason for which the last attempt failed. It is recorded here because the exporter's own error is "network error" for all of
/// them.
type LastFault = Arc<Mutex<String>>;

impl OtlpExporter {
    /// Makes an exporter to the receiver at this URL. Call it inside the tokio runtime, which then sends the requests. Fails as
    /// [`super::Traces::start`] does.
    pub(super) fn new(endpoint: &Uri, metrics: Arc<Metrics>) -> Result<Self, TracesError> {
        let client: Arc<dyn HttpClient> = if endpoint.scheme_str() == Some("https") {
            let roots = HttpsConnectorBuilder::new().with_native_roots().map_err(TracesError::Roots)?;
            Arc::new(HyperClient::new(roots.https_only().enable_http1().build(), ATTEMPT_TIME, None))
        } else {
            Arc::new(HyperClient::with_default_connector(ATTEMPT_TIME, None))
        };
        let fault = LastFault::default();
        let otlp = Otlp::builder()
            .with_http()
            .with_http_client(RuntimeHttpClient { client, runtime: Handle::current(), fault: fault.clone() })
            .with_endpoint(endpoint.to_string())
            .with_timeout(BATCH_TIME)
            .build()?;
        Ok(Self { otlp, fault, logged_at: Mutex::default(), metrics })
    }

    /// Logs that spans are lost, once in [`LOG_INTERVAL`], and that they are exported again.
    fn log(&self, lost: bool, spans: usize) {
        let mut logged_at = self.logged_at.lock();
        if !lost {
            if logged_at.take().is_some() {
                tracing::info!("traces are exported again");
            }
        } else if logged_at.is_none_or(|logged_at| logged_at.elapsed() >= LOG_INTERVAL) {
            *logged_at = Some(Instant::now());
            let fault = self.fault.lock();
            tracing::warn!(error = %Sanitized(&fault), spans, "failed to export traces; no request waits for them");
        }
    }
}

impl SpanExporter for OtlpExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.otlp.export(batch).await;
        self.metrics
            .record_spans(if result.is_ok() { SpanOutcome::Exported } else { SpanOutcome::Failed }, spans);
        self.log(result.is_err(), spans);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// Sends the requests of the batches' thread, which has no runtime, in the runtime.
#[derive(Debug)]
struct RuntimeHttpClient {
    client: Arc<dyn HttpClient>,
    runtime: Handle,
    fault: LastFault,
}

#[async_trait]
impl HttpClient for RuntimeHttpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let response = self.runtime.spawn(async move { client.send_bytes(request).await }).await;
        // The runtime ends before this thread does.
        let response = response.unwrap_or_else(|error| Err(error.into()));
        match &response {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => *self.fault.lock() = format!("the collector answered {}", response.status()),
            Err(error) => *self.fault.lock() = chain(&**error),
        }
        response
    }
}
