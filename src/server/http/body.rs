//! Reads the body of a request within its limits: size, time, and the places and memory that all bodies share.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::oneshot;

use super::budget::{BodyBudget, BodyPermit};
use super::connection_state::ConnectionState;
use super::response::{self, ErrorResponse};
use crate::api::extender_v1::verdicts::EchoedBody;
use crate::telemetry::metrics::{CloseReason, Metrics, ShedReason};

/// The length, in bytes, from which on a body has a mapping of its own: it grows without being copied, and goes back to the kernel
/// whole. On the heap, large bodies that come and go in any order leave holes, which are memory too.
const LARGE: usize = 1024 * 1024;
/// A capacity, in bytes, for which glibc's and musl's allocators always make a mapping. glibc raises its threshold up to 32 MiB by
/// itself when smaller mappings are freed (mallopt(3), `M_MMAP_THRESHOLD`).
const ALWAYS_MAPPED: usize = 33 * 1024 * 1024;

/// The limits within which [`read`] reads a body.
pub(crate) struct BodyLimits<'a> {
    /// The largest body, in bytes.
    pub(crate) size: usize,
    /// The bytes of each body, and of each response, that the budget does not count.
    pub(crate) free: usize,
    /// The places and the memory that all bodies of this kind share.
    pub(crate) budget: &'a BodyBudget,
    /// The time from the request's head to the body's last byte.
    pub(crate) time: Duration,
    /// The length, in bytes, from which the start of a body that is not read to its end is kept, because it is enough for an
    /// answer;
    /// `None` to keep none.
    pub(crate) start_from: Option<usize>,
}

/// A body that was not read to its end.
pub(crate) struct UnreadBody {
    /// The response that says so.
    pub(crate) response: ErrorResponse,
    /// The first bytes, [`BodyLimits::free`] at most, of a body that is large: see [`BodyLimits::start_from`]. Empty for any other.
    pub(crate) start: Vec<u8>,
}

/// From this length on, in bytes, a body that is not read is answered by its start, and so is one that becomes so much. No DaemonSet is so
/// large, and no daemon pod: a smaller body of a good client can be refused because others take the memory, and then it must not count
/// as too large.
pub(crate) const LARGE_START: usize = 1024 * 1024;

/// A whole body in memory, with its share of the budget.
pub(crate) struct BufferedBody {
    bytes: Vec<u8>,
    /// The time of the last byte.
    arrived: Instant,
    free: usize,
    permit: BodyPermit,
    /// The connection that the response goes to. `None` where a test calls the router without one.
    connection: Option<Arc<ConnectionState>>,
}

impl Deref for BufferedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BufferedBody {
    /// Returns the time at which the last byte came.
    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Holds `bytes` for the decoded form besides those of the body, never fewer than before. Returns false if they are not to be had.
    pub(crate) fn hold_decoded(&self, bytes: usize, metrics: &Metrics) -> bool {
        let evicted =
            self.permit.hold_in_work(self.bytes.len().saturating_sub(self.free).saturating_add(bytes));
        match evicted {
            Some(evicted) => count_evicted(evicted, ShedReason::Memory, metrics),
            None => metrics.record_shed(ShedReason::Memory),
        }
        evicted.is_some()
    }

    /// Answers with JSON, which takes over the body's share of the budget: a client that does not read its response holds no
    /// memory that is not counted.
    pub(crate) fn respond(self, json: Vec<u8>, metrics: &Metrics) -> Response {
        let Self { bytes, free, permit, connection, .. } = self;
        drop(bytes);
        let beyond = json.len().saturating_sub(free);
        respond_with_permit(json, permit, beyond, connection, metrics, response::json)
    }

    /// Returns a response as [`Self::respond`] does, with JSON that repeats a part of this body. The part is not copied.
    pub(crate) fn echo(self, EchoedBody { before, sent, after }: EchoedBody, metrics: &Metrics) -> Response {
        if sent.is_empty() {
            return self.respond([before, after].concat(), metrics);
        }
        let Self { bytes, free, permit, connection, .. } = self;
        let beyond = (bytes.len() + before.len() + after.len()).saturating_sub(free);
        respond_with_permit(bytes, permit, beyond, connection, metrics, |body| {
            response::json_pieces([before.into(), body.slice(sent), after.into()])
        })
    }
}

/// Makes a response of `bytes`, of which the budget counts `beyond`. Returns a 503 if the budget lacks the memory.
fn respond_with_permit(
    bytes: Vec<u8>,
    mut permit: BodyPermit,
    beyond: usize,
    connection: Option<Arc<ConnectionState>>,
    metrics: &Metrics,
    make_response: impl FnOnce(Bytes) -> Response,
) -> Response {
    // Most responses: nothing of them is counted, so they need no permit and never give way.
    if beyond == 0 {
        return make_response(bytes.into());
    }
    let end_connection = move || {
        if let Some(connection) = connection {
            connection.end(CloseReason::WriteTime);
        }
    };
    let Some(evicted) = permit.respond(beyond, Box::new(end_connection)) else {
        metrics.record_shed(ShedReason::Memory);
        return ErrorResponse::overloaded("too many large answers at once").into_response();
    };
    count_evicted(evicted, ShedReason::Memory, metrics);
    make_response(Bytes::from_owner(HeldBytes { bytes, _permit: permit }))
}

fn count_evicted(evicted: usize, reason: ShedReason, metrics: &Metrics) {
    (0..evicted).for_each(|_| metrics.record_shed(reason));
}

/// The bytes of a response. The permit is given back once the connection has taken all of them.
struct HeldBytes {
    bytes: Vec<u8>,
    _permit: BodyPermit,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the whole body of `request`.
///
/// # Errors
/// Returns an error response: 415 for a compressed body, 413 for one that is too large, 400 for one that breaks off, 408 if it
/// takes too long, and 503 if the budget lacks the memory or a newer body took its place.
pub(crate) async fn read(
    request: Request,
    limits: BodyLimits<'_>,
    metrics: &Metrics,
) -> Result<BufferedBody, UnreadBody> {
    // No client in a cluster compresses requests, and a small compressed body could grow past every limit here.
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let response = ErrorResponse::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a compressed body is not understood; send it without Content-Encoding",
        );
        return Err(response.and_close().into());
    }
    let time = limits.time;
    match tokio::time::timeout(time, collect(request, limits, metrics)).await {
        Ok(result) => result,
        Err(_) => Err(ErrorResponse::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", time.as_secs_f64()),
        )
        .and_close()
        .into()),
    }
}

impl From<ErrorResponse> for UnreadBody {
    fn from(response: ErrorResponse) -> Self {
        Self { response, start: Vec::new() }
    }
}

async fn collect(
    request: Request,
    limits: BodyLimits<'_>,
    metrics: &Metrics,
) -> Result<BufferedBody, UnreadBody> {
    let BodyLimits { size, free, budget, start_from, .. } = limits;
    let connection = request.extensions().get::<Arc<ConnectionState>>().cloned();
    let mut body: Body = request.into_body();
    let announced = body.size_hint().exact().map(|exact| usize::try_from(exact).unwrap_or(usize::MAX));
    let is_too_large = announced.is_some_and(|announced| announced > size);
    if is_too_large && start_from.is_none() {
        return Err(too_large(size).into());
    }
    // Of a body that is too large only the start is read.
    let read = if is_too_large { free } else { size };
    let unread = |response: ErrorResponse, bytes: Vec<u8>, needed: usize| {
        let is_large = start_from.is_some_and(|from| announced.unwrap_or(needed) >= from);
        let start = if is_large { bytes } else { Vec::new() };
        if let Some(connection) = connection.as_ref().filter(|_| !start.is_empty()) {
            // The rest of the body comes after a response that may be no error.
            connection.mark_error_sent();
        }
        UnreadBody { response, start }
    };
    let (evict, mut evicted) = oneshot::channel();
    let on_evict = Box::new(move || {
        // An error means that the reader has ended meanwhile.
        let _ = evict.send(());
    });
    let (permit, others) = budget.acquire(on_evict);
    count_evicted(others, ShedReason::Requests, metrics);
    let mut bytes = Vec::with_capacity(announced.unwrap_or(free).min(free));
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            // The newer body that needed the place or the memory has counted it.
            _ = &mut evicted => {
                let needed = bytes.len();
                return Err(unread(too_old(), shortened(bytes, free), needed));
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            ErrorResponse::bad_request(format!("the body could not be read to its end: {error}")).and_close()
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let needed = bytes.len() + data.len();
        if needed > read {
            let missing = free.saturating_sub(bytes.len()).min(data.len());
            bytes.extend_from_slice(&data[..missing]);
            return Err(unread(too_large(size), shortened(bytes, free), needed));
        }
        if needed > free {
            let Some(others) = permit.hold(needed - free) else {
                metrics.record_shed(ShedReason::Memory);
                return Err(unread(too_many_bytes(), shortened(bytes, free), needed));
            };
            count_evicted(others, ShedReason::Memory, metrics);
        }
        if needed > bytes.capacity() {
            let capacity = capacity(needed, announced, size);
            // A Vec that cannot grow must not end the process, hence no `reserve`.
            if bytes.try_reserve_exact(capacity - bytes.len()).is_err() {
                metrics.record_shed(ShedReason::Memory);
                return Err(unread(too_many_bytes(), shortened(bytes, free), needed));
            }
        }
        bytes.extend_from_slice(&data);
    }
    if permit.complete() {
        Ok(BufferedBody { bytes, arrived: Instant::now(), free, permit, connection })
    } else {
        let needed = bytes.len();
        Err(unread(too_old(), shortened(bytes, free), needed))
    }
}

/// Returns the first `length` bytes, in as much memory.
fn shortened(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    if bytes.len() > length {
        bytes = bytes[..length].to_vec();
    }
    bytes
}

/// Returns the capacity, in bytes, for a body of which `needed` bytes are here or come next. `announced` is its Content-Length, and
/// `size` the largest that is allowed. The kernel gives memory only for what is written, so a capacity that is not used costs
/// nothing.
fn capacity(needed: usize, announced: Option<usize>, size: usize) -> usize {
    if announced.unwrap_or(needed) > LARGE {
        announced.unwrap_or(size).max(ALWAYS_MAPPED)
    } else {
        announced.unwrap_or(2 * needed).max(needed)
    }
}

fn too_large(size: usize) -> ErrorResponse {
    ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {size} bytes"))
        .and_close()
}

fn too_many_bytes() -> ErrorResponse {
    ErrorResponse::overloaded("too many large bodies at once").and_close()
}

fn too_old() -> ErrorResponse {
    ErrorResponse::overloaded("too many requests at once, and the body of this one is the oldest").and_close()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(budget: &BodyBudget) -> BodyLimits<'_> {
        BodyLimits { size: 1_000, free: 10, budget, time: Duration::from_millis(20), start_from: None }
    }

    async fn read_text(body: Body, budget: &BodyBudget) -> Result<usize, StatusCode> {
        let read = read(Request::new(body), limits(budget), &Metrics::default()).await;
        read.map(|body| body.len()).map_err(|unread| unread.response.into_response().status())
    }

    fn chunks(chunks: Vec<Vec<u8>>) -> Body {
        Body::from_stream(futures::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
    }

    #[tokio::test]
    async fn bodies_end_at_their_limits() {
        let budget = BodyBudget::new(1, 500);
        assert_eq!(read_text(Body::from("1234"), &budget).await, Ok(4));
        assert_eq!(read_text(Body::from(vec![0; 500]), &budget).await, Ok(500));
        assert_eq!(read_text(Body::from(vec![0; 511]), &budget).await, Err(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(read_text(Body::from(vec![0; 1_001]), &budget).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(read_text(chunks(vec![vec![0; 100]; 2]), &budget).await, Ok(200));
        assert_eq!(
            read_text(chunks(vec![vec![0; 100]; 6]), &budget).await,
            Err(StatusCode::SERVICE_UNAVAILABLE)
        );
        let stuck = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        assert_eq!(read_text(stuck, &budget).await, Err(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(read_text(Body::from(vec![0; 500]), &budget).await, Ok(500), "everything is given back");
    }

    #[tokio::test]
    async fn the_start_of_a_large_body_is_kept() {
        let budget = BodyBudget::new(1, LARGE_START);
        let start = async |size: usize, body: Body| {
            let limits = BodyLimits { size, start_from: Some(LARGE_START), ..limits(&budget) };
            let unread = read(Request::new(body), limits, &Metrics::default()).await.err();
            unread.map(|unread| (unread.response.into_response().status(), unread.start.len()))
        };
        let large = 2 * LARGE_START;
        let too_large = Some((StatusCode::PAYLOAD_TOO_LARGE, 10));
        assert_eq!(start(1_000, Body::from(vec![0; large])).await, too_large);
        assert_eq!(start(LARGE_START, chunks(vec![vec![0; 9]; large / 9])).await, too_large);
        let no_memory = Some((StatusCode::SERVICE_UNAVAILABLE, 10));
        assert_eq!(start(2 * large, chunks(vec![vec![0; 1_000]; large / 1_000])).await, no_memory);
        assert_eq!(start(1_000, Body::from(vec![0; 1_001])).await, Some((StatusCode::PAYLOAD_TOO_LARGE, 0)));
        assert_eq!(start(large, Body::from(vec![0; 1_000])).await, None);
    }

    #[tokio::test]
    async fn the_decoded_form_is_held_beside_the_body() {
        let budget = BodyBudget::new(1, 500);
        let metrics = Metrics::default();
        let read = async || {
            let body = read(Request::new(Body::from(vec![0; 110])), limits(&budget), &metrics).await;
            body.unwrap_or_else(|_| panic!("there is room for the body"))
        };
        let body = read().await;
        assert!(body.hold_decoded(400, &metrics) && body.hold_decoded(300, &metrics));
        assert!(!body.hold_decoded(401, &metrics));
        drop(body);
        assert!(read().await.hold_decoded(400, &metrics), "everything is given back");
    }

    #[test]
    fn a_large_body_is_never_copied_and_a_small_one_reserves_what_it_announces() {
        let size = 64 * LARGE;
        assert_eq!(capacity(40_000, Some(100_000), size), 100_000);
        assert_eq!(capacity(40_000, None, size), 80_000);
        assert_eq!(capacity(40_000, Some(4 * LARGE), size), ALWAYS_MAPPED);
        assert_eq!(capacity(LARGE + 1, None, size), size);
        assert_eq!(capacity(40_000, Some(size), size), size);
    }

    #[tokio::test]
    async fn an_answer_holds_memory_until_it_is_taken() {
        let budget = BodyBudget::new(1, 500);
        let metrics = Metrics::default();
        let respond = async |size| {
            let body = read(Request::new(Body::from(vec![0; 300])), limits(&budget), &metrics).await;
            body.unwrap_or_else(|_| panic!("there is room for the body")).respond(vec![b' '; size], &metrics)
        };
        assert_eq!(respond(600).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let first = respond(200).await;
        assert_eq!(first.status(), StatusCode::OK);
        let second = respond(350).await;
        assert_eq!(second.status(), StatusCode::OK, "the first gives way, because it is older");
        assert_eq!(respond(500).await.status(), StatusCode::OK, "and so does the second");
        drop((first, second));
        assert_eq!(respond(500).await.status(), StatusCode::OK, "everything is given back");
    }
}
