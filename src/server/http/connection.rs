//! HTTP/1.1 or HTTP/2 on one connection, and its timer.
//!
//! hyper's own `header_read_timeout` also runs while a kept-alive connection is idle, so that it cannot limit a head to 5 s and
//! idleness to 120 s. Here the stream records bytes, the service records requests, and one timer a connection follows both:
//!
//! ```text
//! idle --first byte--> head --request--> in work --answer--> idle      (HTTP/2 has no `head`: its frames are no heads)
//! ```

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::connection_state::{ConnectionState, HttpVersion, RequestInFlight};
use super::limits::{self, Limits};
use super::response::is_error;
use crate::telemetry::metrics::{CloseReason, Metrics};
use crate::tls::client_certificate::ClientCertificate;

/// The client of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientInfo {
    /// The client showed a certificate that the client CA has signed, and that is still good.
    pub certificate: bool,
    /// True if the connection is one of [`Limits::surplus_connections`]: its requests are shed.
    pub surplus: bool,
}

/// The client of a connection.
pub(crate) struct Peer {
    pub(crate) certificate: Option<ClientCertificate>,
    pub(crate) surplus: bool,
}

/// A stream that gives access to its TCP connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn tcp(&mut self) -> &mut TcpStream;
}

impl Peer {
    /// Returns the client of a request. The connection ends with this request if the client's certificate is no longer good.
    fn info(&self, activity: &ConnectionState) -> ClientInfo {
        let certificate = self.certificate.as_ref().is_some_and(ClientCertificate::is_good);
        if self.certificate.is_some() && !certificate {
            activity.end(CloseReason::ClientCertificate);
        }
        ClientInfo { certificate, surplus: self.surplus }
    }
}

impl Transport for TcpStream {
    fn tcp(&mut self) -> &mut TcpStream {
        self
    }
}

impl Transport for TlsStream<BufReader<TcpStream>> {
    fn tcp(&mut self) -> &mut TcpStream {
        self.get_mut().0.get_mut()
    }
}

/// Serves requests on `stream` until the client ends it or the server cuts it off. Once `drain` turns true, ends it gracefully.
pub(crate) async fn serve(
    stream: impl Transport,
    activity: ConnectionState,
    peer: Peer,
    router: Router,
    limits: &Limits,
    metrics: &Metrics,
    drain: watch::Receiver<bool>,
) {
    let (version, activity) = (activity.version, Arc::new(activity));
    let io = TokioIo::new(TimedStream {
        stream,
        activity: activity.clone(),
        linger_time: limits.linger_time,
        linger: None,
    });
    let service_activity = activity.clone();
    let ending = drain.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // In work from here on, although HTTP/2 polls the response later, and until its head is ready; for the rest there is the
        // write timer.
        let in_work = RequestInFlight::of(service_activity.clone());
        respond(router.clone(), request, peer.info(&service_activity), in_work, ending.clone())
    });
    let cut = match version {
        HttpVersion::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                // It also bounds what a connection buffers of a body; a TLS record is no longer than that.
                .max_buf_size(limits::HEAD)
                .serve_connection(io, service);
            follow(connection, &activity, limits, drain).await
        }
        HttpVersion::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits::STREAMS)
                .max_header_list_size(limits::HEAD as u32)
                .initial_stream_window_size(limits::STREAM_WINDOW)
                .initial_connection_window_size(limits::CONNECTION_WINDOW)
                .max_pending_accept_reset_streams(limits::PENDING_RESETS)
                .max_local_error_reset_streams(limits::LOCAL_RESETS)
                .serve_connection(io, service);
            follow(connection, &activity, limits, drain).await
        }
    };
    if let Some(reason) = cut {
        metrics.record_close(reason);
    }
}

/// Returns the router's response to a request. The request counts as in work until the head of the response is ready.
async fn respond(
    router: Router,
    request: Request<Incoming>,
    client: ClientInfo,
    in_work: RequestInFlight,
    ending: watch::Receiver<bool>,
) -> Result<Response<Body>, Infallible> {
    let activity = in_work.connection();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(client);
    // A large response that gives way ends the connection.
    request.extensions_mut().insert(activity.clone());
    let mut response = router.oneshot(request).await?;
    if is_error(response.status()) {
        activity.mark_error_sent();
    }
    if activity.version == HttpVersion::Http1 && *ending.borrow() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Drives a connection to its end. Returns the reason if the server ended it because of a limit, else `None`.
async fn follow(
    connection: impl GracefulConnection<Error = hyper::Error>,
    activity: &ConnectionState,
    limits: &Limits,
    mut drain: watch::Receiver<bool>,
) -> Option<CloseReason> {
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(Instant::now() + limits.idle_time));
    let mut last_call = pin!(sleep_until(Instant::now() + limits.idle_time));
    let (mut draining, mut ending) = (false, false);
    let mut cut = None;
    loop {
        tokio::select! {
            // The connection first: the timer depends on what it has just read.
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended with an error");
                }
                return cut;
            }
            reason = poll_fn(|context| activity.poll_late(timer.as_mut(), limits, context)) => {
                cut = Some(reason);
                if reason != CloseReason::Idle || ending {
                    return cut;
                }
                ending = true;
                activity.begin_close();
                connection.as_mut().graceful_shutdown();
            }
            reason = activity.ended() => {
                cut = Some(reason);
                if reason == CloseReason::WriteTime {
                    return cut;
                }
                ending = true;
                activity.begin_close();
                connection.as_mut().graceful_shutdown();
                // What is to be said for a good end is written at once or not at all: a newer connection has the place.
                if reason == CloseReason::GaveWay
                    && (futures::poll!(connection.as_mut()).is_ready() || activity.gives_way())
                {
                    return cut;
                }
            }
            () = drained(&mut drain), if !draining && !ending => {
                draining = true;
                // HTTP/2 tells the client which requests it has not taken, and a response in work says `connection: close`.
                let wait = if activity.is_idle_http1() { limits.last_call_time } else { Duration::ZERO };
                last_call.as_mut().reset(Instant::now() + wait);
            }
            () = last_call.as_mut(), if draining && !ending => {
                ending = true;
                activity.begin_close();
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits until `drain` turns true or its sender is dropped.
pub(crate) async fn drained(drain: &mut watch::Receiver<bool>) {
    // The guard of the value must not be held across an await.
    drop(drain.wait_for(|drain| *drain).await);
}

/// A stream that records its reads and writes in `activity`.
struct TimedStream<T> {
    stream: T,
    activity: Arc<ConnectionState>,
    linger_time: Duration,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<T: Transport> AsyncRead for TimedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.record_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for TimedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.record_write(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.activity.record_write(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.activity.record_write(result.is_pending());
        result
    }

    /// Ends the stream. After an error response it first throws away what still comes for [`Limits::linger_time`], without
    /// decrypting it: closing a TCP connection with unread bytes resets it, and the client may lose the response.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.activity.has_error_sent() {
                return Poll::Ready(Ok(()));
            }
        }
        let until =
            this.linger.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + this.linger_time)));
        if until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut thrown_away = [0; 16 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            ready!(Pin::new(this.stream.tcp()).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
