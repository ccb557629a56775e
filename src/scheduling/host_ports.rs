//! The ports of a node that pods take, and conflicts between them.
//!
//! After kubernetes v1.36.3 pkg/scheduler/util/utils.go (`GetHostPorts`) and
//! staging/src/k8s.io/kube-scheduler/framework/types.go (`HostPortInfo.CheckConflict`).

use hashbrown::{HashMap, HashSet};

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

/// Returns the ports of the host that the containers and sidecars of a pod take, in order, each once.
pub fn host_ports(spec: &PodSpec) -> Box<[HostPort]> {
    let sidecars = spec.init_containers.iter().filter(|container| Container::is_sidecar(container));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let taken = ports.filter(|port| port.host_port > 0).map(|port| HostPort {
        port: port.host_port,
        protocol: non_empty_or(&port.protocol, "TCP"),
        ip: non_empty_or(&port.host_ip, ALL_ADDRESSES),
    });
    let mut taken: Vec<HostPort> = taken.collect();
    taken.sort_unstable();
    taken.dedup();
    taken.into()
}

fn non_empty_or(text: &str, default: &str) -> Box<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

/// The most host ports that are kept of a pod. A node has 65,535 for each protocol, and pods that take more than a few are rare.
pub const MAX_HOST_PORTS: usize = 64;

/// Returns the first [`MAX_HOST_PORTS`] of [`host_ports`], for objects that are kept.
pub fn kept_host_ports(spec: &PodSpec) -> Box<[HostPort]> {
    let mut ports = host_ports(spec).into_vec();
    ports.truncate(MAX_HOST_PORTS);
    ports.into()
}

/// Returns true if any of `a` conflicts with any of `b`. Both are in the order of [`host_ports`]: for each of the fewer ports, the
/// same number is searched among the others.
pub fn any_conflict(a: &[HostPort], b: &[HostPort]) -> bool {
    let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    few.iter().any(|one| {
        let first = many.partition_point(|other| other.port < one.port);
        let same = many[first..].iter().take_while(|other| other.port == one.port);
        same.into_iter().any(|other| one.conflicts(other))
    })
}

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
            let mut ports: Vec<HostPort> = ports.iter().map(of).collect();
            let at = at.min(ports.len());
            ports[..at].sort_unstable();
            ports[at..].sort_unstable();
            let (a, b) = ports.split_at(at);
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

    fn ports(ports: &[(i32, &str)]) -> Box<[HostPort]> {
        let ports = ports.iter().map(|(port, ip)| format!(r#"{{"hostPort":{port},"hostIP":"{ip}"}}"#));
        let ports = ports.collect::<Vec<_>>().join(",");
        let spec = format!(r#"{{"containers":[{{"ports":[{ports}]}}]}}"#);
        host_ports(&serde_json::from_str(&spec).unwrap())
    }

    #[test]
    fn ports_conflict_by_number_and_address() {
        let taken = ports(&[(443, ""), (80, "10.0.0.1"), (80, "10.0.0.2"), (443, "")]);
        assert_eq!(taken.len(), 3);
        let cases = [
            (vec![(79, ""), (81, "")], false),
            (vec![(80, "10.0.0.2")], true),
            (vec![(80, "10.0.0.3")], false),
            (vec![(80, "")], true),
            (vec![(1, ""), (2, ""), (3, ""), (4, ""), (443, "10.0.0.9")], true),
            (vec![], false),
        ];
        for (asked, expected) in cases {
            let asked = ports(&asked);
            assert_eq!((any_conflict(&asked, &taken), any_conflict(&taken, &asked)), (expected, expected));
        }
    }
}
