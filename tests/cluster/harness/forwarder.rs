//! One address in front of two replicas; a test chooses the replica that gets new connections.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::{TcpListener, TcpStream};

/// Chooses a replica for each connection, as a Service does, not for each request: open connections stay.
pub(crate) struct Forwarder {
    pub(crate) port: u16,
    to: Arc<AtomicU16>,
}

impl Forwarder {
    /// Forwards until the test's runtime ends.
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let to = Arc::new(AtomicU16::new(to));
        let target = to.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let to = target.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    // A connection that the replica refuses is closed here: the caller sees that the server is gone.
                    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { port, to }
    }

    /// Sends new connections to another port of 127.0.0.1.
    pub(crate) fn switch(&self, to: u16) {
        self.to.store(to, Ordering::Relaxed);
    }
}
