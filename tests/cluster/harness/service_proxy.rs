//! A Service's ClusterIP whose endpoints follow its EndpointSlices, as kube-proxy does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::task::JoinHandle;

use super::cluster_ip::ClusterIp;

/// The interval between two reads of the EndpointSlices. kube-proxy is no faster.
const INTERVAL: Duration = Duration::from_millis(100);

/// Serves the ClusterIP until it is dropped.
pub(crate) struct ServiceProxy {
    follower: JoinHandle<()>,
}

impl ServiceProxy {
    /// Starts for a Service that exists.
    pub(crate) async fn start(client: &Client, namespace: &str, service: &str) -> Self {
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let spec = services.get(service).await.expect("the Service").spec.unwrap_or_default();
        let address: Ipv4Addr = spec.cluster_ip.expect("a ClusterIP").parse().expect("an IPv4 address");
        let port = spec.ports.unwrap_or_default().first().expect("a port").port;
        let cluster_ip = ClusterIp::start(address, port.try_into().expect("a port"));
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let follower = tokio::spawn(async move {
            loop {
                if let Ok(list) = slices.list(&of_service).await {
                    cluster_ip.set(endpoints(&list.items));
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { follower }
    }
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Returns the endpoints that kube-proxy uses: the ready ones, or else those that end and still serve.
fn endpoints(slices: &[EndpointSlice]) -> Vec<SocketAddr> {
    let (mut ready, mut ending) = (Vec::new(), Vec::new());
    for slice in slices {
        let port = slice.ports.iter().flatten().find_map(|port| port.port).unwrap_or_default();
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let address = endpoint.addresses.first().and_then(|address| address.parse::<Ipv4Addr>().ok());
            let Some(address) = address else { continue };
            let address = SocketAddr::from((address, port.try_into().expect("a port")));
            if conditions.ready.unwrap_or(true) {
                ready.push(address);
            } else if conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false) {
                ending.push(address);
            }
        }
    }
    if ready.is_empty() { ending } else { ready }
}
