//! How room is kept: which missing daemon pods can have it, and whether another pod would take it.
//!
//! This knows nothing of the extender's wire: what is missing on a node, and what that needs, is plain data, from which other edges
//! may keep room by other means.

use super::missing::MissingDaemonPod;
use crate::scheduling::host_ports::{HostPort, any_conflict};
use crate::scheduling::resources::Resources;

/// A pod that is bound to the node.
#[derive(Debug)]
pub struct BoundPod<'a> {
    /// Its priority.
    pub priority: i32,
    /// What it holds.
    pub requests: &'a Resources,
    /// Ports of the host that it takes.
    pub host_ports: &'a [HostPort],
    /// Whether it is about to leave by itself.
    pub is_terminating: bool,
}

/// What can become of a missing daemon pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feasibility {
    /// Whether it fits beside the more important missing ones if every pod of its own or lower priority left.
    pub can_fit: bool,
    /// Whether it fits right now, beside the more important missing ones.
    pub suffices: bool,
}

/// What can become of each of `missing`, the most important first; those that cannot fit take nothing from the next.
pub fn feasibility(
    allocatable: &Resources,
    bound: &[BoundPod<'_>],
    missing: &[&MissingDaemonPod],
) -> Vec<Feasibility> {
    let mut used = Resources::default();
    for pod in bound {
        used.add(pod.requests);
    }
    let mut feasibility = Vec::with_capacity(missing.len());
    let mut taken: Vec<&MissingDaemonPod> = Vec::with_capacity(missing.len());
    for daemon in missing {
        // What is left if every pod of its own or lower priority left, and those that are leaving anyway.
        let mut best = allocatable.clone();
        let stays = |pod: &&BoundPod<'_>| pod.priority > daemon.priority && !pod.is_terminating;
        for pod in bound.iter().filter(stays) {
            best.subtract(pod.requests);
        }
        let mut now = allocatable.clone();
        now.subtract(&used);
        for other in &taken {
            best.subtract(&other.need);
            now.subtract(&other.reserved);
        }
        let port_taken = taken.iter().any(|other| any_conflict(&other.host_ports, &daemon.host_ports));
        let port_held_above =
            bound.iter().filter(stays).any(|pod| any_conflict(pod.host_ports, &daemon.host_ports));
        let port_held =
            bound.iter().any(|pod| !pod.is_terminating && any_conflict(pod.host_ports, &daemon.host_ports));
        let can_fit = best.lacks(&daemon.need).is_none() && !port_taken && !port_held_above;
        let suffices = can_fit && now.lacks(&daemon.reserved).is_none() && !port_held;
        feasibility.push(Feasibility { can_fit, suffices });
        if can_fit {
            taken.push(daemon);
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

    fn outlook(bound: &[(i32, i64, bool)], missing: &[(i32, i64)]) -> Vec<(bool, bool)> {
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
        let outlooks = feasibility(&allocatable, &bound, &missing.iter().collect::<Vec<_>>());
        outlooks.into_iter().map(|outlook| (outlook.can_fit, outlook.suffices)).collect()
    }

    #[test]
    fn three_that_fit_singly_but_not_together() {
        assert_eq!(
            outlook(&[], &[(3, 600), (2, 600), (1, 400)]),
            [(true, true), (false, false), (true, true)]
        );
    }

    #[test]
    fn only_more_important_pods_stand_in_the_way_for_good() {
        assert_eq!(outlook(&[(0, 900, false)], &[(0, 300)]), [(true, false)]);
        assert_eq!(outlook(&[(1, 900, false)], &[(0, 300)]), [(false, false)]);
        assert_eq!(outlook(&[(1, 900, true)], &[(0, 300)]), [(true, false)]);
        assert_eq!(outlook(&[], &[(0, 1001)]), [(false, false)]);
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
            let outlooks = feasibility(&allocatable, bound, &missing.iter().collect::<Vec<_>>());
            outlooks.into_iter().map(|outlook| (outlook.can_fit, outlook.suffices)).collect::<Vec<_>>()
        };
        assert_eq!(see(&[holder(5)], &[missing(4)]), [(false, false)]);
        assert_eq!(see(&[holder(4)], &[missing(4)]), [(true, false)]);
        assert_eq!(see(&[], &[missing(4), missing(3)]), [(true, true), (false, false)]);
    }
}
