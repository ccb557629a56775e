//! EDGE: HTTPS for the apiserver and the scheduler, plain HTTP for metrics and health.
//!
//! ```text
//! listener -> connection (TLS, timers) -> router -> guard (limits, panics) -> admission | extender -> pure function
//! ```

pub mod admission;
pub mod extender;
pub mod guard;
pub mod health;
pub mod http;
pub mod span;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::watch;
use tower::util::MapResponseLayer;

use crate::policy::Policy;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::Traces;
use crate::watch::shared_cache::SharedCache;

use self::health::Readiness;
use self::http::body::{BodyLimits, BufferedBody};
use self::http::budget::BodyBudget;
pub use self::http::connection::ClientInfo;
use self::http::limits::Limits;
use self::http::listener::Ports;
use crate::tls::Tls;

/// The state that every request reads; cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<ServerState>);

/// The policy, the cluster, the metrics and the limits of a server, which all requests share.
pub struct ServerState {
    /// The operator's configuration.
    pub policy: Policy,
    /// The cluster. `None` if the server runs standalone.
    pub cluster: Option<SharedCache>,
    /// The exporter of spans. `None` without `--tracing-endpoint`.
    pub traces: Option<Traces>,
    /// The metrics of the whole process.
    pub metrics: Arc<Metrics>,
    /// The limits of requests and connections.
    pub limits: Limits,
    /// The state that `/readyz` reports.
    pub readiness: Readiness,
    /// True if `/scheduler/*` refuses clients without a certificate.
    pub scheduler_needs_certificate: bool,
    admission_budget: BodyBudget,
    scheduler_budget: BodyBudget,
}

impl AppState {
    /// Returns the state of a server without a cluster and without traces.
    pub fn new(policy: Policy, limits: Limits, scheduler_needs_certificate: bool) -> Self {
        Self::with_cluster(policy, limits, scheduler_needs_certificate, Arc::default(), None, None)
    }

    /// Returns the state of a server that looks at `cluster` and sends spans to `traces`, where they are given.
    pub fn with_cluster(
        policy: Policy,
        limits: Limits,
        scheduler_needs_certificate: bool,
        metrics: Arc<Metrics>,
        cluster: Option<SharedCache>,
        traces: Option<Traces>,
    ) -> Self {
        Self(Arc::new(ServerState {
            policy,
            cluster,
            admission_budget: BodyBudget::new(limits.requests, limits.admission_memory),
            scheduler_budget: BodyBudget::new(limits.requests, limits.scheduler_memory),
            traces,
            readiness: Readiness::new(metrics.clone()),
            metrics,
            limits,
            scheduler_needs_certificate,
        }))
    }
}

impl ServerState {
    /// Returns the limits within which the body of an admission review is read.
    fn admission_limits(&self) -> BodyLimits<'_> {
        let Limits { admission_body: size, free_body: free, body_time: time, .. } = self.limits;
        BodyLimits { size, free, budget: &self.admission_budget, time }
    }

    /// Returns the limits within which the body of a call by the scheduler is read.
    fn scheduler_limits(&self) -> BodyLimits<'_> {
        let Limits { scheduler_body: size, free_body: free, body_time: time, .. } = self.limits;
        BodyLimits { size, free, budget: &self.scheduler_budget, time }
    }
}

impl std::ops::Deref for AppState {
    type Target = ServerState;

    fn deref(&self) -> &ServerState {
        &self.0
    }
}

/// Serves both ports with their routes until `drain` turns true, and then drains them as [`Ports::serve`] says. Returns true if
/// every request was answered.
///
/// # Errors
/// Fails if the system gives no threads.
pub async fn serve(
    state: AppState,
    ports: Ports,
    tls: Arc<Tls>,
    drain: watch::Receiver<bool>,
) -> io::Result<bool> {
    let (limits, metrics) = (Arc::new(state.limits.clone()), state.metrics.clone());
    ports.serve(router(state.clone()), metrics_router(state), tls, limits, metrics, drain).await
}

/// Returns the routes of the secure port.
pub fn router(state: AppState) -> Router {
    let webhooks =
        Router::new().route("/validate", post(admission::validate)).route("/mutate", post(admission::mutate));
    let scheduler = Router::new()
        .route("/scheduler/filter", post(extender::filter))
        .route("/scheduler/preempt", post(extender::preempt))
        .route_layer(from_fn_with_state(state.clone(), guard::require_certificate));
    let guarded = webhooks.merge(scheduler).route_layer(from_fn_with_state(state.clone(), guard::guard));
    // Outermost, so that a request which the guard sheds has a span too.
    let traced = match &state.traces {
        Some(traces) => guarded.route_layer(from_fn_with_state(traces.clone(), span::span)),
        None => guarded,
    };
    finish(traced.merge(health::probes()), state)
}

/// Returns the routes of the metrics port.
pub fn metrics_router(state: AppState) -> Router {
    finish(health::metrics_routes().merge(health::probes()), state)
}

/// Returns the response that `answer` makes of the body of `request`, or an error response if the body cannot be read within
/// `limits`. A long body is answered on another thread, see [`http::workers::work`].
async fn handle(
    state: AppState,
    request: Request,
    limits: impl FnOnce(&ServerState) -> BodyLimits<'_>,
    answer: impl FnOnce(&AppState, BufferedBody) -> Response + Send + 'static,
) -> Response {
    match http::body::read(request, limits(&state), &state.metrics).await {
        Ok(body) => http::workers::work(body.len(), move || answer(&state, body)).await,
        Err(error) => error.into_response(),
    }
}

/// Adds JSON answers where there is no route, and counts responses that are errors.
fn finish(routes: Router<AppState>, state: AppState) -> Router {
    routes
        .fallback(http::response::not_found)
        .method_not_allowed_fallback(http::response::method_not_allowed)
        .layer(MapResponseLayer::new({
            let state = state.clone();
            move |response| guard::count_error(&state, response)
        }))
        .with_state(state)
}
