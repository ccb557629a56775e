//! Reading a request's body within its limits: size, time, and places and memory shared with all others.

use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::task::Poll;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::answer::{self, ErrorAnswer, Pieces};
use super::arrivals::{Arrivals, Charge};
use super::{AppState, Shared, workers};
use crate::daemonset::extender::Echo;
use crate::metrics::{Metrics, Shed};

/// What a body may cost.
#[derive(Debug)]
pub(crate) struct Allowance<'a> {
    /// The largest body.
    pub(crate) size: usize,
    /// Bytes that nobody counts.
    pub(crate) free: usize,
    /// What is shared: places, and bytes beyond the free ones.
    pub(crate) shared: &'a Arrivals,
    /// From the head to the last byte.
    pub(crate) time: std::time::Duration,
}

/// A whole body; what it holds of what is shared is given back with it.
#[derive(Debug)]
pub(crate) struct HeldBody {
    bytes: Vec<u8>,
    free: usize,
    charge: Charge,
}

impl Deref for HeldBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HeldBody {
    /// Answers with JSON that takes over what the body holds: a client that does not read may not have us hold more.
    pub(crate) fn answer(self, json: Vec<u8>, metrics: &Metrics) -> Response {
        let Self { bytes, free, charge } = self;
        drop(bytes);
        let length = json.len();
        hold(json, charge, length.saturating_sub(free), metrics, answer::json)
    }

    /// Answers with JSON that repeats a part of this body, which is not copied.
    pub(crate) fn echo(self, Echo { before, sent, after }: Echo, metrics: &Metrics) -> Response {
        if sent.is_empty() {
            return self.answer([before, after].concat(), metrics);
        }
        let Self { bytes, free, charge } = self;
        let length = bytes.len() + before.len() + after.len();
        hold(bytes, charge, length.saturating_sub(free), metrics, |body| {
            answer::json(Pieces::from([before.into(), body.slice(sent), after.into()]))
        })
    }
}

/// Makes an answer of `bytes`, for which `beyond` more than the free ones are to be held; if they are to be had.
fn hold(
    bytes: impl Deref<Target = [u8]> + Send + 'static,
    charge: Charge,
    beyond: usize,
    metrics: &Metrics,
    respond: impl FnOnce(Bytes) -> Response,
) -> Response {
    // Most answers: whoever may have them uncounted asks nobody.
    if beyond == 0 {
        return respond(Bytes::from_owner(Held { bytes, _charge: None }));
    }
    let Some(displaced) = charge.answers(beyond) else {
        metrics.shed(Shed::Memory);
        return ErrorAnswer::overloaded("too many large answers at once").into_response();
    };
    gave_way(displaced, Shed::Memory, metrics);
    let handle = charge.handle();
    let mut response = respond(Bytes::from_owner(Held { bytes, _charge: Some(charge) }));
    response.extensions_mut().insert(handle);
    response
}

/// Counts those who gave way.
fn gave_way(displaced: usize, reason: Shed, metrics: &Metrics) {
    (0..displaced).for_each(|_| metrics.shed(reason));
}

/// Bytes of an answer; the charge is given back when the last of them is on its way.
struct Held<T> {
    bytes: T,
    _charge: Option<Charge>,
}

impl<T: Deref<Target = [u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the body of `request` and lets `answer` answer it; or says why not.
pub(crate) async fn handle(
    state: AppState,
    request: Request,
    allowance: impl FnOnce(&Shared) -> Allowance<'_>,
    answer: impl FnOnce(&AppState, HeldBody) -> Response + Send + 'static,
) -> Response {
    match read(request, allowance(&state), &state.metrics).await {
        Ok(body) => workers::work(body.len(), move || answer(&state, body)).await,
        Err(error) => error.into_response(),
    }
}

/// Reads the whole body of `request`, or says why not.
async fn read(
    request: Request,
    allowance: Allowance<'_>,
    metrics: &Metrics,
) -> Result<HeldBody, ErrorAnswer> {
    // Nobody in a cluster compresses requests; a decompressed bomb would pass every limit here.
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(ErrorAnswer::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a compressed body is not understood; send it without Content-Encoding",
        )
        .and_close());
    }
    let time = allowance.time;
    match tokio::time::timeout(time, collect(request.into_body(), allowance, metrics)).await {
        Ok(result) => result,
        Err(_) => Err(ErrorAnswer::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", time.as_secs_f64()),
        )
        .and_close()),
    }
}

async fn collect(
    mut body: Body,
    allowance: Allowance<'_>,
    metrics: &Metrics,
) -> Result<HeldBody, ErrorAnswer> {
    let Allowance { size, free, shared, .. } = allowance;
    let expected = body.size_hint().exact().map(|exact| usize::try_from(exact).unwrap_or(usize::MAX));
    if expected.is_some_and(|expected| expected > size) {
        return Err(too_large(size));
    }
    let (charge, displaced) = shared.begin();
    gave_way(displaced, Shed::Requests, metrics);
    let mut bytes = Vec::with_capacity(expected.unwrap_or(free).min(free));
    loop {
        let received = bytes.len();
        // Whoever gives way has been counted by whom it gave way to.
        let next = poll_fn(|context| match Pin::new(&mut body).poll_frame(context) {
            Poll::Pending if !charge.may_wait(received, context) => Poll::Ready(Err(too_slow())),
            poll => poll.map(Ok),
        });
        let Some(frame) = next.await? else { break };
        let frame = frame.map_err(|error| {
            ErrorAnswer::bad_request(format!("the body could not be read to its end: {error}")).and_close()
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let needed = bytes.len() + data.len();
        if needed > size {
            return Err(too_large(size));
        }
        if needed > free {
            let Some(displaced) = charge.extend_to(needed - free) else {
                metrics.shed(Shed::Memory);
                return Err(too_many_bytes());
            };
            gave_way(displaced, Shed::Memory, metrics);
            // The kernel gives memory only for what is written, so a body costs what has come of it and not what its
            // Content-Length announces. A Vec that cannot grow must not end the process, hence no `reserve`.
            let capacity = expected.unwrap_or(needed).max(needed);
            if bytes.try_reserve(capacity - bytes.len()).is_err() {
                metrics.shed(Shed::Memory);
                return Err(too_many_bytes());
            }
        }
        bytes.extend_from_slice(&data);
    }
    if charge.arrived() { Ok(HeldBody { bytes, free, charge }) } else { Err(too_slow()) }
}

fn too_large(size: usize) -> ErrorAnswer {
    ErrorAnswer::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {size} bytes"))
        .and_close()
}

fn too_many_bytes() -> ErrorAnswer {
    ErrorAnswer::overloaded("too many large bodies at once").and_close()
}

fn too_slow() -> ErrorAnswer {
    ErrorAnswer::overloaded("too many requests at once, and the body of this one was the slowest").and_close()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn allowance(shared: &Arrivals) -> Allowance<'_> {
        Allowance { size: 1_000, free: 10, shared, time: Duration::from_millis(20) }
    }

    async fn read_text(body: Body, shared: &Arrivals) -> Result<usize, StatusCode> {
        let read = read(Request::new(body), allowance(shared), &Metrics::default()).await;
        read.map(|body| body.len()).map_err(|answer| answer.into_response().status())
    }

    fn chunks(chunks: Vec<Vec<u8>>) -> Body {
        Body::from_stream(futures::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
    }

    #[tokio::test]
    async fn bodies_end_at_their_limits() {
        let shared = Arrivals::new(1, 500);
        assert_eq!(read_text(Body::from("1234"), &shared).await, Ok(4));
        assert_eq!(read_text(Body::from(vec![0; 500]), &shared).await, Ok(500));
        assert_eq!(read_text(Body::from(vec![0; 511]), &shared).await, Err(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(read_text(Body::from(vec![0; 1_001]), &shared).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(read_text(chunks(vec![vec![0; 100]; 2]), &shared).await, Ok(200));
        assert_eq!(
            read_text(chunks(vec![vec![0; 100]; 6]), &shared).await,
            Err(StatusCode::SERVICE_UNAVAILABLE)
        );
        let stuck = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        assert_eq!(read_text(stuck, &shared).await, Err(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(read_text(Body::from(vec![0; 500]), &shared).await, Ok(500), "everything is given back");
    }

    #[tokio::test]
    async fn an_answer_holds_memory_until_it_is_taken() {
        let shared = Arrivals::new(1, 500);
        let metrics = Metrics::default();
        let answer = async |size| {
            let body = read(Request::new(Body::from(vec![0; 300])), allowance(&shared), &metrics).await;
            body.unwrap_or_else(|_| panic!("there is room for the body")).answer(vec![b' '; size], &metrics)
        };
        assert_eq!(answer(600).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let first = answer(200).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(answer(350).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert_eq!(answer(350).await.status(), StatusCode::OK);
    }
}
