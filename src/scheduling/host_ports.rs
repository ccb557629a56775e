//! Ports of a node that pods take.
//!
//! After kubernetes v1.36.3 pkg/scheduler/util/utils.go (`GetHostPorts`) and
//! staging/src/k8s.io/kube-scheduler/framework/types.go (`HostPortInfo.CheckConflict`).

use crate::api::pod::{Container, PodSpec};

/// A port of a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// 1 to 65535.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// `0.0.0.0` for all addresses.
    pub ip: Box<str>,
}

impl HostPort {
    /// Returns true if one node cannot give both: same port and protocol, and the same address or one that stands for all
    /// addresses.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || &*self.ip == ALL_ADDRESSES || &*other.ip == ALL_ADDRESSES)
    }
}

const ALL_ADDRESSES: &str = "0.0.0.0";

/// Returns the ports of the host that the containers and sidecars of a pod take.
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

/// Returns true if any of `a` conflicts with any of `b`.
pub fn any_conflict(a: &[HostPort], b: &[HostPort]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.conflicts(b)))
}
