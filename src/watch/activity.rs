//! Records the activity of a watch.
//!
//! kube's watcher does not pass on bookmarks, nor that it has reconnected, so a watch of a kind that seldom changes would look
//! dead. Therefore a layer of the client records each response and each part of its body.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::MapFrame;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use tokio::time::timeout;
use tower::{Layer, Service};

use crate::telemetry::metrics::Metrics;
use crate::watch::watch_status::WatchStatus;

/// The time after which a request without a response counts as a failure. An apiserver that hangs behind a load balancer does not
/// respond until the request times out, and meanwhile the scheduler may be served by another.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The layer of a client that adds [`WatchActivity`].
#[derive(Clone)]
pub(super) struct WatchActivityLayer {
    pub(super) status: Arc<WatchStatus>,
    pub(super) metrics: Arc<Metrics>,
}

/// The service of a client that records the activity of one watch.
pub(super) struct WatchActivity<S> {
    inner: S,
    layer: WatchActivityLayer,
}

impl WatchActivityLayer {
    fn record(&self) {
        self.status.record_activity();
        self.metrics.cluster.record_watch_event(self.status.resource);
    }

    /// Awaits `response`. If that takes longer than `limit`, records a failure and goes on waiting.
    async fn time_response<T>(&self, limit: Duration, response: impl Future<Output = T>) -> T {
        let mut response = std::pin::pin!(response);
        if let Ok(response) = timeout(limit, &mut response).await {
            return response;
        }
        self.status.record_failure(Instant::now());
        response.await
    }
}

impl<S> Layer<S> for WatchActivityLayer {
    type Service = WatchActivity<S>;

    fn layer(&self, inner: S) -> WatchActivity<S> {
        WatchActivity { inner, layer: self.clone() }
    }
}

type OnFrame = Box<dyn FnMut(Frame<Bytes>) -> Frame<Bytes> + Send>;

impl<S, In, Out> Service<Request<In>> for WatchActivity<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
    Out: HttpBody<Data = Bytes>,
{
    type Response = Response<MapFrame<Out, OnFrame>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let response = self.inner.call(request);
        let layer = self.layer.clone();
        Box::pin(async move {
            let response = layer.time_response(RESPONSE_TIMEOUT, response).await?;
            let is_good = response.status().is_success();
            if is_good {
                layer.record();
            }
            let record = move |frame| {
                if is_good {
                    layer.record();
                }
                frame
            };
            Ok(response.map(|body| body.map_frame(Box::new(record) as OnFrame)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::freshness::STALE_AFTER;
    use crate::telemetry::metrics::WatchedResource;

    #[tokio::test]
    async fn silence_is_a_failure_until_there_is_an_answer() {
        let status = Arc::new(WatchStatus::new(WatchedResource::Nodes, true));
        let layer = WatchActivityLayer { status: status.clone(), metrics: Arc::default() };
        let is_stale = || status.health().is_stale(Instant::now() + STALE_AFTER);
        assert_eq!(layer.time_response(RESPONSE_TIMEOUT, std::future::ready(1)).await, 1);
        assert!(!is_stale());
        layer.time_response(Duration::from_millis(1), tokio::time::sleep(Duration::from_millis(20))).await;
        assert!(is_stale());
        layer.record();
        assert!(!is_stale());
    }
}
