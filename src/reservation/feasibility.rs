//! Feasibility: which missing daemon pods can have room on a node, and which of them fit at once.
//!
//! This file does not use the extender's protocol, so room can also be reserved by other means.

use std::fmt;

use super::missing::MissingDaemonPod;
use super::packing::PackingOrder;
use crate::scheduling::host_ports::{HostPort, TakenPorts};
use crate::scheduling::resources::Resources;
use crate::scheduling::shortage::{amount_of, shortages};

/// A pod that is bound to the node.
#[derive(Debug)]
pub struct BoundPod<'a> {
    /// The pod's place.
    pub order: PackingOrder<'a>,
    /// True if it is a daemon pod.
    pub is_daemon_pod: bool,
    /// The amounts that the pod holds.
    pub requests: &'a Resources,
    /// Ports of the host that the pod takes.
    pub host_ports: &'a [HostPort],
    /// True once the pod is being deleted.
    pub is_terminating: bool,
}

/// The feasibility of one missing daemon pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feasibility {
    /// True if the pod fits beside the daemon pods that go first, were every pod of its own or lower priority gone.
    pub eventually: bool,
    /// True if the pod fits right now, beside the missing ones that go first.
    pub now: bool,
    /// The shortage of a node that is too small for its daemon pods up to this one, with no other pod on it.
    pub too_small: Option<DaemonShortage>,
}

/// The first resource of which the daemon pods of a node ask for more than it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonShortage {
    /// The name of the resource.
    pub resource: String,
    /// The sum of their requests, as Kubernetes writes amounts.
    pub asked: String,
    /// The allocatable amount.
    pub allocatable: String,
}

impl DaemonShortage {
    /// Returns the shortage of a node for the `daemons` that go first and a pod that needs `need`, with no other pod on it. `None`
    /// if the node is large enough for them.
    pub fn of(allocatable: &Resources, daemons: &Resources, need: &Resources) -> Option<Self> {
        let mut asked = need.clone();
        asked.add(daemons);
        let shortages = shortages(&asked, allocatable, allocatable);
        // A resource that this pod does not ask for does not keep it off.
        let shortage = shortages.iter().find(|shortage| amount_of(need, shortage.resource) > 0)?;
        Some(Self {
            resource: shortage.resource.to_owned(),
            asked: shortage.amount(shortage.asked),
            allocatable: shortage.amount(shortage.all),
        })
    }
}

impl fmt::Display for DaemonShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, asked, allocatable } = self;
        write!(f, "this node is too small for its daemons: {asked} of {allocatable} {resource}")
    }
}

/// Returns the feasibility of each of `missing`, which are in their order. Pods that cannot fit take nothing from the next ones. It
/// takes time in proportion to the pods and their ports.
pub fn feasibility(
    allocatable: &Resources,
    bound: &[BoundPod<'_>],
    missing: &[(PackingOrder<'_>, &MissingDaemonPod)],
) -> Vec<Feasibility> {
    let counts_ports = missing.iter().any(|(_, daemon)| !daemon.host_ports().is_empty());
    let mut free_now = allocatable.clone();
    let mut taken_now = TakenPorts::default();
    for pod in bound {
        free_now.subtract(pod.requests);
        if counts_ports && !pod.is_terminating {
            taken_now.add(pod.host_ports);
        }
    }
    // The pods that stay for a daemon pod stay for all behind it, so they are taken off once.
    let mut staying: Vec<&BoundPod<'_>> = bound.iter().filter(|pod| !pod.is_terminating).collect();
    staying.sort_unstable_by_key(|pod| pod.order);
    let mut staying = staying.into_iter().peekable();
    let mut free_eventually = allocatable.clone();
    let mut taken_eventually = TakenPorts::default();
    let mut daemons = Resources::default();
    let mut feasibility = Vec::with_capacity(missing.len());
    for (order, daemon) in missing {
        while let Some(pod) = staying.next_if(|pod| pod.order < *order) {
            free_eventually.subtract(pod.requests);
            if counts_ports {
                taken_eventually.add(pod.host_ports);
            }
            if pod.is_daemon_pod {
                daemons.add(pod.requests);
            }
        }
        let lacks_ports = taken_eventually.conflicts(daemon.host_ports());
        let eventually = free_eventually.lacks(daemon.need()).is_none() && !lacks_ports;
        let now = eventually
            && free_now.lacks(daemon.reserved()).is_none()
            && !taken_now.conflicts(daemon.host_ports());
        let too_small =
            if eventually { None } else { DaemonShortage::of(allocatable, &daemons, daemon.need()) };
        feasibility.push(Feasibility { eventually, now, too_small });
        if eventually {
            free_eventually.subtract(daemon.need());
            free_now.subtract(daemon.reserved());
            taken_eventually.add(daemon.host_ports());
            daemons.add(daemon.need());
        }
    }
    feasibility
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::daemonset_info::PodDemand;

    fn cpu(milli_cpu: i64) -> Resources {
        Resources { milli_cpu, pods: 1, ..Resources::default() }
    }

    fn missing_pod(priority: i32, need: &Resources, host_ports: &[HostPort]) -> MissingDaemonPod {
        let demand = PodDemand { priority, requests: need.clone(), host_ports: host_ports.into() };
        MissingDaemonPod::new(0, None, demand.into(), &Resources::default())
    }

    /// Returns the places of missing pods, older by their position.
    fn in_order(missing: &[MissingDaemonPod]) -> Vec<(PackingOrder<'static>, &MissingDaemonPod)> {
        let ages = ["1", "2", "3", "4"];
        missing.iter().zip(ages).map(|(pod, age)| (PackingOrder::at(pod.demand.priority, age), pod)).collect()
    }

    fn found(bound: &[(i32, i64, bool)], missing: &[(i32, i64)]) -> Vec<(bool, bool)> {
        let allocatable = Resources { milli_cpu: 1000, pods: 10, ..Resources::default() };
        let amounts: Vec<Resources> = bound.iter().map(|(_, amount, _)| cpu(*amount)).collect();
        let needs: Vec<Resources> = missing.iter().map(|(_, amount)| cpu(*amount)).collect();
        let bound: Vec<BoundPod<'_>> = bound
            .iter()
            .zip(&amounts)
            .map(|(&(priority, _, is_terminating), requests)| BoundPod {
                order: PackingOrder::of_ordinary(priority),
                is_daemon_pod: false,
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
        let found = feasibility(&allocatable, &bound, &in_order(&missing));
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
        let holder = |priority| BoundPod {
            order: PackingOrder::of_ordinary(priority),
            is_daemon_pod: false,
            requests: &need,
            host_ports: &ports,
            is_terminating: false,
        };
        let allocatable = Resources { milli_cpu: 1000, pods: 10, ..Resources::default() };
        let see = |bound: &[BoundPod<'_>], missing: &[MissingDaemonPod]| {
            let found = feasibility(&allocatable, bound, &in_order(missing));
            found.into_iter().map(|found| (found.eventually, found.now)).collect::<Vec<_>>()
        };
        assert_eq!(see(&[holder(5)], &[missing(4)]), [(false, false)]);
        assert_eq!(see(&[holder(4)], &[missing(4)]), [(true, false)]);
        assert_eq!(see(&[], &[missing(4), missing(3)]), [(true, true), (false, false)]);
    }

    #[test]
    fn equal_daemons_are_packed_in_one_order_and_no_exempt_pod_is_thought_away() {
        let allocatable = Resources { milli_cpu: 300, pods: 10, ..Resources::default() };
        let (landed, waits) = (cpu(250), missing_pod(0, &cpu(100), &[]));
        let see = |order: PackingOrder<'_>, is_daemon_pod: bool, is_terminating: bool| {
            let bound = BoundPod { order, is_daemon_pod, requests: &landed, host_ports: &[], is_terminating };
            let found = feasibility(&allocatable, &[bound], &[(PackingOrder::at(0, "2026-02"), &waits)]);
            let text = found[0].too_small.as_ref().map(ToString::to_string);
            assert!(
                text.is_none_or(|text| text == "this node is too small for its daemons: 350m of 300m cpu")
            );
            (found[0].eventually, found[0].too_small.is_some())
        };
        let (older, younger) = (PackingOrder::at(0, "2026-01"), PackingOrder::at(0, "2026-03"));
        let (ordinary, exempt) = (PackingOrder::of_ordinary(0), PackingOrder::of_exempt(0));
        let cases = [
            ("an ordinary pod may leave", (ordinary, false, false), (true, false)),
            ("an exempt one cannot be kept off", (exempt, false, false), (false, false)),
            ("an exempt one that leaves", (exempt, false, true), (true, false)),
            ("the older daemon goes first", (older, true, false), (false, true)),
            ("the older daemon leaves", (older, true, true), (true, false)),
            ("the younger daemon does not go first", (younger, true, false), (true, false)),
        ];
        for (what, (order, is_daemon_pod, is_terminating), expected) in cases {
            assert_eq!(see(order, is_daemon_pod, is_terminating), expected, "{what}");
        }
    }
}
