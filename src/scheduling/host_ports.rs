//! The ports of a node that pods take, and conflicts between them.
//!
//! After kubernetes v1.36.3 pkg/scheduler/util/utils.go (`GetHostPorts`) and
//! staging/src/k8s.io/kube-scheduler/framework/types.go (`HostPortInfo.CheckConflict`).

use crate::api::pod::{Container, PodSpec};

/// A port of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The number, 1 to 65535.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// The node's address; `0.0.0.0` for all addresses.
    pub ip: Box<str>,
}

impl HostPort {
    /// Returns true if one node cannot give both ports: number and protocol are equal, and so are the addresses, or one of them is
    /// `0.0.0.0`.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || &*self.ip == ALL_ADDRESSES || &*other.ip == ALL_ADDRESSES)
    }
}

const ALL_ADDRESSES: &str = "0.0.0.0";

/// Returns the ports of the node that the containers and sidecars of a pod take. Ports without a `hostPort` are left out: call
/// [`super::resources::default_pod_spec`] first on a template, which the apiserver has not defaulted.
pub fn host_ports(spec: &PodSpec) -> Box<[HostPort]> {
    let sidecars = spec.init_containers.iter().filter(|container| Container::is_sidecar(container));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let taken = ports.filter(|port| port.host_port > 0).map(|port| HostPort {
        port: port.host_port,
        protocol: non_empty_or(&port.protocol, "TCP"),
        ip: non_empty_or(&port.host_ip, ALL_ADDRESSES),
    });
    taken.collect()
}

fn non_empty_or(text: &str, default: &str) -> Box<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

/// Returns true if any port of `a` conflicts with any port of `b`.
pub fn any_conflict(a: &[HostPort], b: &[HostPort]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.conflicts(b)))
}
