//! Sending batches of spans to the collector, and saying when that fails.

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

/// How long an attempt may take.
const ATTEMPT_TIME: Duration = Duration::from_secs(3);
/// How long after a batch's first attempt another one may begin. What is lost is lost: spans are no audit log.
const BATCH_TIME: Duration = Duration::from_secs(5);
/// How often the log says that spans are lost.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Sends batches by OTLP, and counts what becomes of them.
#[derive(Debug)]
pub(super) struct Exporter {
    otlp: Otlp,
    fault: LastFault,
    told: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// Why the last attempt failed: the exporter says "network error" of everything.
type LastFault = Arc<Mutex<String>>;

impl Exporter {
    /// For the receiver at this URL. To be called in a runtime.
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
            .with_http_client(Client { client, runtime: Handle::current(), fault: fault.clone() })
            .with_endpoint(endpoint.to_string())
            .with_timeout(BATCH_TIME)
            .build()?;
        Ok(Self { otlp, fault, told: Mutex::default(), metrics })
    }

    /// Says that spans are lost, once in a while, and that it is over.
    fn tell(&self, lost: bool, spans: usize) {
        let mut told = self.told.lock();
        if !lost {
            if told.take().is_some() {
                tracing::info!("traces are exported again");
            }
        } else if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            let fault = self.fault.lock();
            tracing::warn!(error = %Sanitized(&fault), spans, "failed to export traces; nothing waits for them");
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.otlp.export(batch).await;
        self.metrics
            .record_spans(if result.is_ok() { SpanOutcome::Exported } else { SpanOutcome::Failed }, spans);
        self.tell(result.is_err(), spans);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// Sends requests from the thread of the batches, which has no runtime, in the one that has.
#[derive(Debug)]
struct Client {
    client: Arc<dyn HttpClient>,
    runtime: Handle,
    fault: LastFault,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move { client.send_bytes(request).await }).await;
        // The runtime ends before this thread does.
        let answer = answer.unwrap_or_else(|error| Err(error.into()));
        match &answer {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => *self.fault.lock() = format!("the collector answered {}", answer.status()),
            Err(error) => *self.fault.lock() = chain(&**error),
        }
        answer
    }
}
