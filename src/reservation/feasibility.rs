//! Feasibility: which missing daemon pods can have room on a node, and which of them fit at once.
//!
//! This file does not use the extender's protocol, so room can also be reserved by other means.

use super::missing::MissingDaemonPod;
use crate::scheduling::host_ports::{HostPort, any_conflict};
use crate::scheduling::resources::Resources;

/// A pod that is bound to the node.
#[derive(Debug)]
pub struct BoundPod<'a> {
    /// The pod's priority.
    pub priority: i32,
    /// The amounts that the pod holds.
    pub requests: &'a Resources,
    /// Ports of the host that the pod takes.
    pub host_ports: &'a [HostPort],
    /// True once the pod is being deleted.
    pub is_terminating: bool,
}

/// The feasibility of one missing daemon pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feasibility {
    /// True if the pod would fit beside the more important missing ones once every terminating pod, and every pod of its own or
    /// lower priority, had left.
    pub eventually: bool,
    /// True if the pod fits right now, beside the bound pods and the more important missing ones. Only pods that fit eventually fit
    /// now.
    pub now: bool,
}

/// Returns the feasibility of each of `missing`, in the same order. Give them in order, the most important first. Pods that cannot
/// fit take no room from the next ones.
pub fn feasibility(
    allocatable: &Resources,
    bound: &[BoundPod<'_>],
    missing: &[&MissingDaemonPod],
) -> Vec<Feasibility> {
    let mut requested = Resources::default();
    for pod in bound {
        requested.add(pod.requests);
    }
    let mut feasibility = Vec::with_capacity(missing.len());
    let mut placed: Vec<&MissingDaemonPod> = Vec::with_capacity(missing.len());
    for daemon in missing {
        let stays = |pod: &&BoundPod<'_>| pod.priority > daemon.priority && !pod.is_terminating;
        let mut free_eventually = allocatable.clone();
        for pod in bound.iter().filter(stays) {
            free_eventually.subtract(pod.requests);
        }
        let mut free_now = allocatable.clone();
        free_now.subtract(&requested);
        for other in &placed {
            free_eventually.subtract(&other.need);
            free_now.subtract(&other.reserved);
        }
        let takes_port_of = |host_ports: &[HostPort]| any_conflict(host_ports, &daemon.host_ports);
        let is_port_promised = placed.iter().any(|other| takes_port_of(&other.host_ports));
        let is_port_kept = bound.iter().filter(stays).any(|pod| takes_port_of(pod.host_ports));
        let is_port_taken = bound.iter().any(|pod| !pod.is_terminating && takes_port_of(pod.host_ports));
        let eventually = free_eventually.lacks(&daemon.need).is_none() && !is_port_promised && !is_port_kept;
        let now = eventually && free_now.lacks(&daemon.reserved).is_none() && !is_port_taken;
        feasibility.push(Feasibility { eventually, now });
        if eventually {
            placed.push(daemon);
        }
    }
    feasibility
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(milli_cpu: i64) -> Resources {
        Resources { milli_cpu, pods: 1, ..Resources::default() }
    }

    fn missing_pod(priority: i32, need: &Resources, host_ports: &[HostPort]) -> MissingDaemonPod {
        let (need, reserved) = (need.clone(), need.clone());
        MissingDaemonPod {
            daemon_set: 0,
            pending: None,
            priority,
            need,
            reserved,
            host_ports: host_ports.into(),
        }
    }

    fn found(bound: &[(i32, i64, bool)], missing: &[(i32, i64)]) -> Vec<(bool, bool)> {
        let allocatable = Resources { milli_cpu: 1000, pods: 10, ..Resources::default() };
        let amounts: Vec<Resources> = bound.iter().map(|(_, amount, _)| cpu(*amount)).collect();
        let needs: Vec<Resources> = missing.iter().map(|(_, amount)| cpu(*amount)).collect();
        let bound: Vec<BoundPod<'_>> = bound
            .iter()
            .zip(&amounts)
            .map(|(&(priority, _, is_terminating), requests)| BoundPod {
                priority,
                requests,
                host_ports: &[],
                is_terminating,
            })
            .collect();
        let missing: Vec<MissingDaemonPod> = missing
            .iter()
            .zip(&needs)
            .map(|(&(priority, _), need)| missing_pod(priority, need, &[]))
            .collect();
        let found = feasibility(&allocatable, &bound, &missing.iter().collect::<Vec<_>>());
        found.into_iter().map(|found| (found.eventually, found.now)).collect()
    }

    #[test]
    fn three_that_fit_singly_but_not_together() {
        assert_eq!(found(&[], &[(3, 600), (2, 600), (1, 400)]), [(true, true), (false, false), (true, true)]);
    }

    #[test]
    fn only_more_important_pods_stand_in_the_way_for_good() {
        assert_eq!(found(&[(0, 900, false)], &[(0, 300)]), [(true, false)]);
        assert_eq!(found(&[(1, 900, false)], &[(0, 300)]), [(false, false)]);
        assert_eq!(found(&[(1, 900, true)], &[(0, 300)]), [(true, false)]);
        assert_eq!(found(&[], &[(0, 1001)]), [(false, false)]);
    }

    #[test]
    fn ports_exclude_as_resources_do() {
        let port = |port: i32| HostPort { port, protocol: "TCP".into(), ip: "0.0.0.0".into() };
        let (need, ports) = (cpu(1), [port(9100)]);
        let missing = |priority| missing_pod(priority, &need, &ports);
        let holder =
            |priority| BoundPod { priority, requests: &need, host_ports: &ports, is_terminating: false };
        let allocatable = Resources { milli_cpu: 1000, pods: 10, ..Resources::default() };
        let see = |bound: &[BoundPod<'_>], missing: &[MissingDaemonPod]| {
            let found = feasibility(&allocatable, bound, &missing.iter().collect::<Vec<_>>());
            found.into_iter().map(|found| (found.eventually, found.now)).collect::<Vec<_>>()
        };
        assert_eq!(see(&[holder(5)], &[missing(4)]), [(false, false)]);
        assert_eq!(see(&[holder(4)], &[missing(4)]), [(true, false)]);
        assert_eq!(see(&[], &[missing(4), missing(3)]), [(true, true), (false, false)]);
    }
}
