//! The ports: opens them, accepts connections within limits, and drains them at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use super::connection::{self, Peer, drained};
use super::connection_state::{ConnectionState, HttpVersion};
use super::limits::{self, Limits};
use super::places::{ConnectionPlace, Places};
use super::workers::Workers;
use crate::telemetry::metrics::{CloseReason, Metrics, Port};
use crate::tls::Tls;
use crate::tls::client_certificate::ClientCertificate;

/// The secure port and the metrics port, open but not served yet.
#[derive(Debug)]
pub struct Ports {
    secure: TcpListener,
    metrics: TcpListener,
}

/// A port that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl Ports {
    /// Opens both ports. The kernel picks a free one for port 0.
    ///
    /// # Errors
    /// Fails if a port is in use, or an address is not one of this machine.
    pub fn bind(secure: SocketAddr, metrics: SocketAddr) -> Result<Self, BindError> {
        Ok(Self { secure: bind(secure)?, metrics: bind(metrics)? })
    }

    /// Returns the addresses of the secure port and of the metrics port.
    ///
    /// # Errors
    /// Fails if the kernel does not tell them.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.secure.local_addr()?, self.metrics.local_addr()?))
    }

    /// Serves until `drain` turns true, and then until all connections have ended or [`Limits::drain_time`] is over. Returns false
    /// if that time was over first, so that requests may be unanswered.
    ///
    /// # Errors
    /// The system gives no threads, or one of them has panicked.
    pub async fn serve(
        self,
        secure_routes: Router,
        metrics_routes: Router,
        tls: Arc<Tls>,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        drain: watch::Receiver<bool>,
    ) -> io::Result<bool> {
        let workers = Workers::start()?;
        let listener = |port, router, tls: Option<Arc<Tls>>| Listener {
            port,
            router,
            places: Places::new(
                &limits,
                tls.as_ref().is_some_and(|tls| tls.knows_certificates()),
                metrics.clone(),
            ),
            tls,
            limits: limits.clone(),
            metrics: metrics.clone(),
            workers: &workers,
        };
        let secure = listener(Port::Secure, secure_routes, Some(tls)).run(self.secure, drain.clone());
        let plain = listener(Port::Metrics, metrics_routes, None).run(self.metrics, drain);
        let (secure_ended, plain_ended) = tokio::select! {
            ended = async { tokio::join!(secure, plain) } => ended,
            () = workers.thread_lost() => return Err(io::Error::other("a thread of connections has panicked")),
        };
        // Joining the threads of the last connections takes no time, but a runtime's thread may not wait for it.
        drop(tokio::task::spawn_blocking(move || drop(workers)).await);
        Ok(secure_ended && plain_ended)
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Without it a restarted process could not listen while the kernel remembers connections of the one before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(limits::BACKLOG)
    };
    open().map_err(|source| BindError { address, source })
}

/// One port that is served.
struct Listener<'w> {
    port: Port,
    router: Router,
    tls: Option<Arc<Tls>>,
    places: Places,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    workers: &'w Workers,
}

impl Listener<'_> {
    async fn run(self, socket: TcpListener, drain: watch::Receiver<bool>) -> bool {
        let mut connections = JoinSet::new();
        let mut draining = drain.clone();
        // Those that have to give way end within microseconds. Until then newcomers wait, so that no flood of them is without bound.
        let most = self.limits.connections
            + self.limits.surplus_connections
            + self.tls.as_ref().map_or(0, |_| self.limits.handshakes);
        loop {
            tokio::select! {
                () = drained(&mut draining) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = socket.accept(), if connections.len() <= most => match accepted {
                    Ok((stream, from)) => self.accept(stream, from, &mut connections, &drain),
                    Err(error) => self.not_accepted(&error).await,
                },
            }
            self.metrics.connections(self.port).set(connections.len() as i64);
        }
        drop(socket);
        let end = Instant::now() + self.limits.drain_time;
        let all = async { while connections.join_next().await.is_some() {} };
        let answered = timeout_at(end, all).await.is_ok();
        self.metrics.connections(self.port).set(0);
        answered
    }

    fn accept(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        connections: &mut JoinSet<()>,
        drain: &watch::Receiver<bool>,
    ) {
        // Responses are written whole, so that Nagle's algorithm would only delay them.
        let stream = match stream.set_nodelay(true).and_then(|()| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, %from, "connection was gone before it was served");
                return;
            }
        };
        // One client has one address, also where it comes as IPv4 to a socket of IPv6.
        let address = from.ip().to_canonical();
        let (limits, metrics) = (self.limits.clone(), self.metrics.clone());
        let (router, drain) = (self.router.clone(), drain.clone());
        let Some(tls) = self.tls.clone() else {
            let Some((place, surplus)) = self.places.open_plain(address) else { return };
            self.workers.spawn(connections, async move {
                let Some(stream) = registered(stream) else { return };
                let (state, peer) =
                    (ConnectionState::new(HttpVersion::Http1, place), Peer { certificate: None, surplus });
                connection::serve(stream, state, peer, router, &limits, &metrics, drain).await;
            });
            return;
        };
        let Some(place) = self.places.open(address) else { return };
        self.workers.spawn(connections, async move {
            let Some(stream) = registered(stream) else { return };
            let stream = match shake_hands(&tls, stream, &place, limits.handshake_time).await {
                Ok(stream) => stream,
                Err(reason) => {
                    tracing::debug!(reason = reason.as_str(), %from, "closed a connection before its TLS handshake ended");
                    metrics.record_close(reason);
                    return;
                }
            };
            let session = stream.get_ref().1;
            let version =
                if session.alpn_protocol() == Some(b"h2") { HttpVersion::Http2 } else { HttpVersion::Http1 };
            let chain = session.peer_certificates();
            let certificate = chain.and_then(|chain| ClientCertificate::of(&tls, chain));
            let Some(surplus) = place.handshaken(certificate.is_some()) else { return };
            let (state, peer) = (ConnectionState::new(version, place), Peer { certificate, surplus });
            connection::serve(stream, state, peer, router, &limits, &metrics, drain).await;
        });
    }

    /// Logs a failure to accept, and waits: without file descriptors the next attempt would fail at once. Does nothing if only the
    /// client has gone.
    async fn not_accepted(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        self.metrics.accept_errors.inc();
        tracing::error!(%error, port = self.port.as_str(), "failed to accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// The bytes that are read from a socket at once, and the memory that each connection has for them all the time. rustls asks for 4
/// KiB at a time: for the names of 5,000 nodes that is 57 calls of the kernel.
const READ_AHEAD: usize = 8 * 1024;

/// Completes a TLS handshake with the certificate now in use. It has [`Limits::handshake_time`], and gives way to newer ones.
///
/// # Errors
/// The reason for which the connection has to close.
async fn shake_hands(
    tls: &Tls,
    stream: TcpStream,
    place: &ConnectionPlace,
    time: Duration,
) -> Result<TlsStream<BufReader<TcpStream>>, CloseReason> {
    let handshake = tls.acceptor().accept(BufReader::with_capacity(READ_AHEAD, stream));
    tokio::select! {
        biased;
        ended = timeout(time, handshake) => match ended {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                // A port scan would fill the log; the metric counts them.
                tracing::debug!(%error, "TLS handshake failed");
                Err(CloseReason::HandshakeFailed)
            }
            Err(_) => Err(CloseReason::HandshakeTime),
        },
        () = place.leaving() => Err(CloseReason::GaveWay),
    }
}

/// Registers the connection with the runtime of this thread.
fn registered(stream: std::net::TcpStream) -> Option<TcpStream> {
    TcpStream::from_std(stream)
        .inspect_err(|error| tracing::error!(%error, "failed to take over a connection"))
        .ok()
}

/// The pause after a failure to accept: long enough not to use a whole core or flood the log, short enough that no probe fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
