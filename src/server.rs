//! EDGE: HTTPS for the apiserver and the scheduler, plain HTTP for metrics and health.
//!
//! ```text
//! listener -> connection (TLS, timers) -> router -> guard (limits, panics) -> admission | bind | extender -> pure function
//! ```

pub mod admission;
pub mod bind;
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

use crate::api::decode_budget::DecodeBudget;
use crate::policy::Policy;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::Traces;
use crate::watch::shared_cache::SharedCache;

use self::health::Readiness;
use self::http::body::{BodyLimits, BufferedBody, LARGE_START, UnreadBody};
use self::http::budget::BodyBudget;
pub use self::http::connection::ClientInfo;
use self::http::limits::Limits;
use self::http::listener::Ports;
use self::http::response::ErrorResponse;
use self::http::workers::{LONG, LONG_REVIEW, LongReviews, work_long};
use crate::tls::Tls;
use crate::writes::lease::SharedJudge;

/// The state that every request reads; cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<ServerState>);

/// The policy, the cluster, the metrics and the limits of a server, which all requests share.
pub struct ServerState {
    /// The operator's configuration.
    pub policy: Policy,
    /// The cluster. `None` if the server runs standalone.
    pub cluster: Option<SharedCache>,
    /// Says if this replica judges bindings. `None` without `--leader-elect`: then it always does.
    pub judge: Option<SharedJudge>,
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
    bind_budget: BodyBudget,
    long_reviews: LongReviews,
}

impl AppState {
    /// Returns the state of a server without a cluster and without traces.
    pub fn new(policy: Policy, limits: Limits, scheduler_needs_certificate: bool) -> Self {
        Self::with_cluster(policy, limits, scheduler_needs_certificate, Arc::default(), None, None, None)
    }

    /// Returns the state of a server that looks at `cluster`, judges bindings if `judge` lets it, and sends spans to `traces`,
    /// where they are given.
    pub fn with_cluster(
        policy: Policy,
        limits: Limits,
        scheduler_needs_certificate: bool,
        metrics: Arc<Metrics>,
        cluster: Option<SharedCache>,
        judge: Option<SharedJudge>,
        traces: Option<Traces>,
    ) -> Self {
        Self(Arc::new(ServerState {
            policy,
            cluster,
            judge,
            admission_budget: BodyBudget::new(limits.requests, limits.admission_memory),
            scheduler_budget: BodyBudget::new(limits.requests, limits.scheduler_memory),
            bind_budget: BodyBudget::new(limits.requests, limits.bind_memory),
            long_reviews: LongReviews::new(),
            traces,
            readiness: Readiness::new(metrics.clone()),
            metrics,
            limits,
            scheduler_needs_certificate,
        }))
    }
}

/// The routes that share limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteKind {
    /// `/validate` and `/mutate`.
    Admission,
    /// `/scheduler/*`.
    Scheduler,
    /// `/bind`.
    Bind,
}

impl RouteKind {
    /// Returns true if the handling of a body of this length would keep the other connections of its thread waiting.
    fn is_long(self, length: usize) -> bool {
        let long = match self {
            Self::Admission => LONG_REVIEW,
            // A binding is never long.
            Self::Scheduler | Self::Bind => LONG,
        };
        length >= long
    }
}

impl ServerState {
    /// Returns the limits of the body of a request.
    fn body_limits(&self, kind: RouteKind) -> BodyLimits<'_> {
        let Limits { admission_body, scheduler_body, bind_body, free_body: free, body_time: time, .. } =
            self.limits;
        let (size, budget) = match kind {
            RouteKind::Admission => (admission_body, &self.admission_budget),
            RouteKind::Scheduler => (scheduler_body, &self.scheduler_budget),
            RouteKind::Bind => (bind_body, &self.bind_budget),
        };
        // The apiserver admits an object when the webhook refuses the review, so a review is answered even if it is not read.
        let start_from = match kind {
            RouteKind::Admission => Some(LARGE_START),
            RouteKind::Bind => Some(bind_body),
            RouteKind::Scheduler => None,
        };
        BodyLimits { size, free, budget, time, start_from }
    }

    /// Calls `work` with the budget of what `body` becomes when it is decoded. The first bytes are free for bodies that are worked
    /// on by the threads of connections, which are as many as there are cores. There may be hundreds of long ones.
    fn with_decode_budget<T>(
        &self,
        body: &BufferedBody,
        kind: RouteKind,
        work: impl FnOnce(&DecodeBudget<'_>) -> T,
    ) -> T {
        let Limits { free_decoded, admission_decoded, scheduler_decoded, .. } = self.limits;
        let free = if kind.is_long(body.len()) { 0 } else { free_decoded };
        let limit = match kind {
            RouteKind::Admission => admission_decoded,
            // A binding is borrowed from its body.
            RouteKind::Scheduler | RouteKind::Bind => scheduler_decoded,
        };
        let grant = |bytes: usize| body.hold_decoded(bytes.saturating_sub(free), &self.metrics);
        work(&DecodeBudget::shared(limit, free, &grant))
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
    let webhooks = Router::new()
        .route("/validate", post(admission::validate))
        .route("/mutate", post(admission::mutate))
        .route("/bind", post(bind::bind));
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

/// The thread that a request is answered on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerOn {
    /// The one of its connection, which others wait for. The answer may be that it takes too long there.
    Connection,
    /// The one of its connection, because too many wait for other threads: a long check is left out.
    ConnectionOnly,
    /// One for long work.
    LongWork,
}

/// Reads the body of `request` and calls `answer` with it, which returns the body if it is to be answered on a thread for long
/// work. If the body cannot be read, answers with an error, or by `answer_start` from its first bytes.
async fn handle(
    state: AppState,
    request: Request,
    kind: RouteKind,
    answer: impl Fn(&AppState, BufferedBody, AnswerOn) -> Result<Response, BufferedBody> + Send + 'static,
    answer_start: impl FnOnce(&AppState, &[u8]) -> Option<Response>,
) -> Response {
    match http::body::read(request, state.body_limits(kind), &state.metrics).await {
        Ok(body) => {
            let is_long = kind.is_long(body.len());
            let deferred = if is_long { Err(body) } else { answer(&state, body, AnswerOn::Connection) };
            let answered = match deferred {
                Ok(response) => Ok(response),
                Err(body) => answer_long(state, kind, body, answer).await,
            };
            answered.unwrap_or_else(|_| ErrorResponse::overloaded("too much work at once").into_response())
        }
        Err(UnreadBody { response, start }) => {
            let by_start = if start.is_empty() { None } else { answer_start(&state, &start) };
            by_start.unwrap_or_else(|| response.into_response())
        }
    }
}

/// Answers on a thread for long work, if there is a place for the request.
async fn answer_long(
    state: AppState,
    kind: RouteKind,
    body: BufferedBody,
    answer: impl Fn(&AppState, BufferedBody, AnswerOn) -> Result<Response, BufferedBody> + Send + 'static,
) -> Result<Response, BufferedBody> {
    if kind != RouteKind::Admission {
        return work_long(move || answer(&state, body, AnswerOn::LongWork)).await;
    }
    // The memory of a long body is counted, and so bounds their number.
    let place = if kind.is_long(body.len()) { None } else { state.long_reviews.place_for_short() };
    if place.is_none() && !kind.is_long(body.len()) {
        return answer(&state, body, AnswerOn::ConnectionOnly);
    }
    let shared = state.clone();
    let work = move || {
        let _place = place;
        answer(&state, body, AnswerOn::LongWork)
    };
    shared.long_reviews.work(work).await
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
