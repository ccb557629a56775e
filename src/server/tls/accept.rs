//! One handshake: which version of HTTP is spoken is decided by who calls.
//!
//! Schedulers call an address, apiservers a name. A scheduler asks for one thing at a time, and when the node of the replica that
//! it asks is lost, HTTP/2 keeps it there: Go's client gives a connection up after 45 s in which nothing comes (kubernetes v1.36.3
//! staging/src/k8s.io/apimachinery/pkg/util/net/http.go `SetTransportDefaults`), and every pod meanwhile goes unasked. With
//! HTTP/1.1 a request without an answer is the last on its connection.

use std::io;
use std::sync::Arc;

use rustls::server::{Acceptor, ClientHello, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

const HTTP1: &[u8] = b"http/1.1";

/// Takes handshakes.
pub(in crate::server) struct TlsAcceptor(Arc<ServerConfig>);

impl From<Arc<ServerConfig>> for TlsAcceptor {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self(config)
    }
}

impl TlsAcceptor {
    /// One handshake.
    ///
    /// # Errors
    /// When it fails.
    pub(in crate::server) async fn accept<S>(self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = if is_better_served_by_http1(&begun.client_hello()) {
            let mut config = ServerConfig::clone(&self.0);
            config.alpn_protocols = vec![HTTP1.to_vec()];
            Arc::new(config)
        } else {
            self.0
        };
        begun.into_stream(config).await
    }
}

/// A client that calls an address names no server.
fn is_better_served_by_http1(hello: &ClientHello<'_>) -> bool {
    hello.server_name().is_none()
        && hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == HTTP1))
}
