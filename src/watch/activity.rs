//! Notes every sign of life of a watch.
//!
//! kube's watcher keeps bookmarks to itself, and says nothing when it has reconnected: a watch of a quiet kind would look dead.
//! So the bytes are listened to, below it.

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

/// How long an apiserver may take to begin its answer before its silence counts as a failure: one that hangs behind a load
/// balancer says nothing for as long as the request may take, and others tell the scheduler meanwhile.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Adds [`WatchActivity`] to a client.
#[derive(Clone)]
pub(super) struct WatchActivityLayer {
    pub(super) source: Arc<WatchStatus>,
    pub(super) metrics: Arc<Metrics>,
}

/// A client's service that notes what comes.
pub(super) struct WatchActivity<S> {
    inner: S,
    layer: WatchActivityLayer,
}

impl WatchActivityLayer {
    fn record(&self) {
        self.source.record_activity();
        self.metrics.cluster.record_watch_event(self.source.resource);
    }

    /// The same as `answering`; if it takes longer than `silence`, that is noted.
    async fn time_response<T>(&self, limit: Duration, answering: impl Future<Output = T>) -> T {
        let mut answering = std::pin::pin!(answering);
        if let Ok(answer) = timeout(limit, &mut answering).await {
            return answer;
        }
        self.source.record_failure(Instant::now());
        answering.await
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
        let answering = self.inner.call(request);
        let layer = self.layer.clone();
        Box::pin(async move {
            let response = layer.time_response(RESPONSE_TIMEOUT, answering).await?;
            let is_good = response.status().is_success();
            if is_good {
                layer.record();
            }
            let listen = move |frame| {
                if is_good {
                    layer.record();
                }
                frame
            };
            Ok(response.map(|body| body.map_frame(Box::new(listen) as OnFrame)))
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
        let source = Arc::new(WatchStatus::new(WatchedResource::Nodes, true));
        let layer = WatchActivityLayer { source: source.clone(), metrics: Arc::default() };
        let is_stale = || source.health().is_stale(Instant::now() + STALE_AFTER);
        assert_eq!(layer.time_response(RESPONSE_TIMEOUT, std::future::ready(1)).await, 1);
        assert!(!is_stale());
        layer.time_response(Duration::from_millis(1), tokio::time::sleep(Duration::from_millis(20))).await;
        assert!(is_stale());
        layer.record();
        assert!(!is_stale());
    }
}
