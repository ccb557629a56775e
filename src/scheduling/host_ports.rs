//! Ports of a node that pods take.
//!
//! After kubernetes v1.36.3 pkg/scheduler/util/utils.go (`GetHostPorts`) and
//! staging/src/k8s.io/kube-scheduler/framework/types.go (`HostPortInfo.CheckConflict`).

use hashbrown::{HashMap, HashSet};

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

/// Returns the ports of the host that the containers and sidecars of a pod take, [`MAX_HOST_PORTS`] of them at most.
pub fn host_ports(spec: &PodSpec) -> Box<[HostPort]> {
    let sidecars = spec.init_containers.iter().filter(|container| Container::is_sidecar(container));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let taken = ports.filter(|port| port.host_port > 0).take(MAX_HOST_PORTS).map(|port| HostPort {
        port: port.host_port,
        protocol: non_empty_or(&port.protocol, "TCP"),
        ip: non_empty_or(&port.host_ip, ALL_ADDRESSES),
    });
    taken.collect()
}

fn non_empty_or(text: &str, default: &str) -> Box<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

/// The most host ports that are read of a pod. A node has 65,535 for each protocol, and pods that take more than a few are rare.
pub const MAX_HOST_PORTS: usize = 256;

/// Returns true if any of `a` conflicts with any of `b`.
pub fn any_conflict(a: &[HostPort], b: &[HostPort]) -> bool {
    if a.is_empty() || b.is_empty() {
        return false;
    }
    if a.len().saturating_mul(b.len()) <= FEW_PAIRS {
        return a.iter().any(|a| b.iter().any(|b| a.conflicts(b)));
    }
    let mut taken = TakenPorts::default();
    taken.add(a);
    taken.conflicts(b)
}

/// The number of pairs up to which comparing them all takes less time than a table.
const FEW_PAIRS: usize = 64;

/// The ports of a host that several pods take, in a table: adding and looking up take constant time for each port.
#[derive(Debug, Default)]
pub struct TakenPorts<'p> {
    addresses: HashMap<(i32, &'p str), HashSet<&'p str>>,
}

impl<'p> TakenPorts<'p> {
    /// Adds the ports of a pod.
    pub fn add(&mut self, ports: &'p [HostPort]) {
        for port in ports {
            self.addresses.entry((port.port, &*port.protocol)).or_default().insert(&*port.ip);
        }
    }

    /// Returns true if any of `ports` conflicts with a taken one.
    pub fn conflicts(&self, ports: &[HostPort]) -> bool {
        ports.iter().any(|port| {
            self.addresses.get(&(port.port, &*port.protocol)).is_some_and(|addresses| {
                &*port.ip == ALL_ADDRESSES
                    || addresses.contains(ALL_ADDRESSES)
                    || addresses.contains(&*port.ip)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_table_agrees_with_all_pairs(ports in prop::collection::vec((1..4_i32, 0..2_usize, 0..3_usize), 0..12), at in 0..12_usize) {
            let of = |&(port, protocol, ip): &(i32, usize, usize)| HostPort {
                port,
                protocol: ["TCP", "UDP"][protocol].into(),
                ip: [ALL_ADDRESSES, "10.0.0.1", "10.0.0.2"][ip].into(),
            };
            let ports: Vec<HostPort> = ports.iter().map(of).collect();
            let (a, b) = ports.split_at(at.min(ports.len()));
            let mut taken = TakenPorts::default();
            taken.add(a);
            prop_assert_eq!(taken.conflicts(b), a.iter().any(|a| b.iter().any(|b| a.conflicts(b))));
            prop_assert_eq!(any_conflict(a, b), taken.conflicts(b));
        }
    }

    #[test]
    fn many_ports_are_compared_in_linear_time() {
        let port = |port| HostPort { port, protocol: "TCP".into(), ip: ALL_ADDRESSES.into() };
        let (low, high): (Vec<_>, Vec<_>) =
            ((1..60_000).map(port).collect(), (60_000..65_000).map(port).collect());
        assert!(!any_conflict(&low, &high), "all pairs would be 300 million comparisons");
    }
}
