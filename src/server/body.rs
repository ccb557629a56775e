//! Reading a request's body within its limits: size, time, and memory shared with all others.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use http_body_util::BodyExt;

use super::answer::ErrorAnswer;
use crate::metrics::{Metrics, Shed};

/// What a body may cost.
#[derive(Debug)]
pub(crate) struct Allowance<'a> {
    /// The largest body.
    pub(crate) size: usize,
    /// Bytes that nobody counts.
    pub(crate) free: usize,
    /// What is shared beyond them.
    pub(crate) memory: &'a Budget,
    /// From the head to the last byte.
    pub(crate) time: std::time::Duration,
}

/// Bytes that all bodies of a kind may hold together.
#[derive(Debug)]
pub(crate) struct Budget(Arc<AtomicUsize>);

/// A whole body; what it holds of the budget is given back with it.
#[derive(Debug)]
pub(crate) struct HeldBody {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl HeldBody {
    /// The same, of which parts may be sent back uncopied; the budget waits for the last of them.
    pub(crate) fn share(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for HeldBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Reads the whole body of `request`, or says why not.
pub(crate) async fn read(
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
    let Allowance { size, free, memory, .. } = allowance;
    let expected = body.size_hint().exact().map(|exact| usize::try_from(exact).unwrap_or(usize::MAX));
    if expected.is_some_and(|expected| expected > size) {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(expected.unwrap_or(free).min(free));
    let mut charge = memory.charge();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ErrorAnswer::bad_request(format!("the body could not be read to its end: {error}")).and_close()
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let needed = bytes.len() + data.len();
        if needed > size {
            return Err(too_large(size));
        }
        if needed > bytes.capacity() {
            // What has come is doubled, not what was announced: an announcement costs nothing. An eighth of it is earnest.
            let announced = expected.filter(|expected| bytes.capacity() >= expected / 8);
            let capacity =
                announced.unwrap_or(bytes.capacity() * 2).min(expected.unwrap_or(size)).max(needed);
            // To grow may be to copy: then both are there for a moment.
            if !charge.extend_to((bytes.capacity() + capacity).saturating_sub(free)) {
                metrics.shed(Shed::Memory);
                return Err(ErrorAnswer::overloaded("too many large bodies at once").and_close());
            }
            bytes.reserve_exact(capacity - bytes.len());
            charge.shrink_to(capacity.saturating_sub(free));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(HeldBody { bytes, _charge: charge })
}

fn too_large(size: usize) -> ErrorAnswer {
    ErrorAnswer::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {size} bytes"))
        .and_close()
}

impl Budget {
    /// A budget of which nothing is used.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    fn charge(&self) -> Charge {
        Charge { left: self.0.clone(), held: 0 }
    }
}

/// What one body holds of a budget.
#[derive(Debug)]
struct Charge {
    left: Arc<AtomicUsize>,
    held: usize,
}

impl Charge {
    /// Holds `bytes` in all, or what it held if they are not to be had.
    fn extend_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.held);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more))
            .is_ok();
        if taken {
            self.held += more;
        }
        taken
    }

    /// Gives back what is held beyond `bytes`.
    fn shrink_to(&mut self, bytes: usize) {
        let less = self.held.saturating_sub(bytes);
        self.left.fetch_add(less, Ordering::Relaxed);
        self.held -= less;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.left.fetch_add(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn read_text(body: Body, memory: &Budget) -> Result<usize, StatusCode> {
        let allowance = Allowance { size: 1_000, free: 10, memory, time: Duration::from_millis(20) };
        let read = read(Request::new(body), allowance, &Metrics::default()).await;
        read.map(|body| body.len())
            .map_err(|answer| axum::response::IntoResponse::into_response(answer).status())
    }

    fn chunks(chunks: Vec<Vec<u8>>) -> Body {
        Body::from_stream(futures::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
    }

    #[tokio::test]
    async fn bodies_end_at_their_limits() {
        let memory = Budget::new(500);
        assert_eq!(read_text(Body::from("1234"), &memory).await, Ok(4));
        assert_eq!(read_text(Body::from(vec![0; 500]), &memory).await, Ok(500));
        assert_eq!(read_text(Body::from(vec![0; 511]), &memory).await, Err(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(read_text(Body::from(vec![0; 1_001]), &memory).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(read_text(chunks(vec![vec![0; 100]; 2]), &memory).await, Ok(200));
        assert_eq!(
            read_text(chunks(vec![vec![0; 100]; 6]), &memory).await,
            Err(StatusCode::SERVICE_UNAVAILABLE)
        );
        let stuck = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        assert_eq!(read_text(stuck, &memory).await, Err(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(memory.0.load(Ordering::Relaxed), 500, "everything is given back");
    }
}
