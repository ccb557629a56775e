//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::AppState;
use crate::telemetry::metrics::Metrics;

/// The state that `/readyz` reports. It is ready once the process can answer, and until a signal ends the process.
#[derive(Debug)]
pub struct Readiness {
    ready: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Readiness {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { ready: AtomicBool::new(false), metrics }
    }

    /// Sets the answer of `/readyz` and the metric.
    pub fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
        self.metrics.ready.set(i64::from(ready));
    }

    /// Returns true if `/readyz` answers 200.
    pub fn get(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// Returns the routes of both ports: the kubelet and a load balancer each know only one port.
pub(super) fn probes() -> Router<AppState> {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz))
}

/// Returns the routes that only the metrics port has.
pub(super) fn metrics_routes() -> Router<AppState> {
    Router::new().route("/metrics", get(metrics))
}

/// Answers 200 in every state: with a condition on the cluster, the kubelet would restart the pod for a broken cluster.
async fn livez() -> &'static str {
    "ok"
}

async fn readyz(State(state): State<AppState>) -> (StatusCode, &'static str) {
    if state.readiness.get() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

async fn metrics(State(state): State<AppState>) -> Response {
    let mut response = state.metrics.text().into_response();
    let text_format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text_format);
    response
}
