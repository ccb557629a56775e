//! The queue between requests and the collector. It is bounded, no request waits for it, and spans that do not fit are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};

use crate::telemetry::metrics::{Metrics, SpanOutcome};

/// The most spans that wait or are being sent; OpenTelemetry's own default. One has 2 KiB, or 10 KiB if every text in it is as long
/// as it may be: 20 MiB.
const QUEUE: usize = 2_048;

/// The SDK's processor of batches, with a count of the spans inside: the SDK does not tell how many it drops.
#[derive(Debug)]
pub(super) struct CountingSpanProcessor {
    batches: BatchSpanProcessor,
    inside: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl CountingSpanProcessor {
    /// Starts the thread that sends the spans.
    pub(super) fn new(exporter: impl SpanExporter + 'static, metrics: Arc<Metrics>) -> Self {
        let inside = Arc::new(AtomicUsize::new(0));
        let exporter = CountingExporter { exporter, inside: inside.clone() };
        // The SDK's queue is as long as ours, so that it is never full.
        let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        Self { batches, inside, metrics }
    }
}

impl SpanProcessor for CountingSpanProcessor {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.inside.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.inside.fetch_sub(1, Ordering::Relaxed);
            self.metrics.record_spans(SpanOutcome::Dropped, 1);
        } else {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// The exporter of the batches, which counts the spans that leave the queue.
#[derive(Debug)]
struct CountingExporter<E> {
    exporter: E,
    inside: Arc<AtomicUsize>,
}

impl<E: SpanExporter> SpanExporter for CountingExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.inside.fetch_sub(spans, Ordering::Relaxed);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
