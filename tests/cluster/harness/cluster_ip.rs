//! A Service's ClusterIP: forwards connections to endpoints, as kube-proxy does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Listens on the ClusterIP until it is dropped.
///
/// As kube-proxy does, it chooses an endpoint for each connection. The connection stays with that endpoint even when the
/// endpoint is removed from the list. Without an endpoint it closes the connection at once.
pub(crate) struct ClusterIp {
    address: SocketAddr,
    endpoints: Arc<Mutex<Vec<SocketAddr>>>,
    connections: Arc<Mutex<u64>>,
    _stop: oneshot::Sender<()>,
}

impl ClusterIp {
    pub(crate) fn start(address: Ipv4Addr, port: u16) -> Self {
        let listener = std::net::TcpListener::bind((address, port)).expect("the ClusterIP is on loopback");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let endpoints = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (_stop, stopped) = oneshot::channel();
        let (known, counted) = (endpoints.clone(), connections.clone());
        // Its own thread: when a test blocks its runtime, the network must go on.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tokio::select! {
                    () = forward(listener, known, counted) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: (address, port).into(), endpoints, connections, _stop }
    }

    /// Adds an endpoint for new connections.
    pub(crate) fn add(&self, endpoint: SocketAddr) {
        self.endpoints.lock().unwrap().push(endpoint);
    }

    /// Removes an endpoint; connections that it has stay open.
    pub(crate) fn remove(&self, endpoint: SocketAddr) {
        self.endpoints.lock().unwrap().retain(|other| *other != endpoint);
    }

    /// Replaces the endpoints for new connections.
    pub(super) fn set(&self, endpoints: Vec<SocketAddr>) {
        *self.endpoints.lock().unwrap() = endpoints;
    }

    /// Returns `https://CLUSTER_IP:PORT/path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }

    /// Returns the number of connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        *self.connections.lock().unwrap()
    }
}

async fn forward(
    listener: std::net::TcpListener,
    endpoints: Arc<Mutex<Vec<SocketAddr>>>,
    connections: Arc<Mutex<u64>>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    for turn in 0.. {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        *connections.lock().unwrap() += 1;
        let endpoint = {
            let endpoints = endpoints.lock().unwrap();
            endpoints.get(turn % endpoints.len().max(1)).copied()
        };
        let Some(endpoint) = endpoint else { continue };
        tokio::spawn(async move {
            // If the endpoint refuses the connection, the client must see it: some tests check this.
            if let Ok(mut server) = TcpStream::connect(endpoint).await {
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
