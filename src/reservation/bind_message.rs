//! The message of a refused binding, as `kubectl describe pod` shows it: one line with the node, the DaemonSets and the amounts.

use std::fmt::Write;

use super::Reservation;
use super::filter::FilterCall;
use super::filter_reason::FilterReason;
use super::incoming_pod::Remaining;
use crate::api::binding::Binding;
use crate::cache::{DaemonSetId, NodeId};
use crate::scheduling::shortage::shortages;

/// The DaemonSets that a message names; the others are counted.
const NAMED: usize = 3;

/// The knowledge that the cache lacks of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindLack {
    /// It does not have the pod.
    Pod,
    /// It does not have the node.
    Node,
    /// Its pod may not run on its node.
    Agreement,
    /// It lacks events.
    Events,
}

/// The refusal of a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindRefusal {
    /// The reason, for metrics.
    pub reason: FilterReason,
    /// The text for people.
    pub message: String,
}

impl BindRefusal {
    /// Returns the refusal of a binding that cannot be judged yet.
    pub(super) fn unknown(binding: &Binding<'_>, lack: BindLack) -> Self {
        let Binding { pod, node, .. } = binding;
        let lack = match lack {
            BindLack::Pod => format!("pod {pod:?} has not been seen yet"),
            BindLack::Node => format!("node {node:?} has not been seen yet"),
            BindLack::Agreement => {
                format!(
                    "the node selector or affinity of pod {pod:?} excludes node {node:?} as it was last seen"
                )
            }
            BindLack::Events => "events of the apiserver are awaited".to_owned(),
        };
        let message = format!(
            "{lack}, and node {node:?} may have to reserve room for a missing daemon pod: the binding is tried again"
        );
        Self { reason: FilterReason::StaleCache, message }
    }
}

/// Returns the refusal of the pod of `call` on a node.
pub(super) fn refusal(call: &FilterCall<'_>, id: NodeId, reason: FilterReason) -> BindRefusal {
    let node = &call.cache.node_by_id(id).name;
    let message = match reason {
        FilterReason::Reserved => reserved(call, id),
        FilterReason::DaemonPodNotReady => {
            let gates = call.reservation.nodes[id].gates.iter();
            let gates = gates.filter(|gate| call.waits_for_gate(gate)).map(|gate| (gate.daemon_set, None));
            format!("node {node:?} waits until daemon pods are ready: {}", list(call.reservation, gates))
        }
        FilterReason::StaleCache => {
            format!("the state of node {node:?} is not known yet: events of the apiserver are awaited")
        }
        FilterReason::NotTarget | FilterReason::NodeSelector | FilterReason::Taint => {
            reason.message().to_owned()
        }
    };
    BindRefusal { reason, message }
}

fn reserved(call: &FilterCall<'_>, id: NodeId) -> String {
    let FilterCall { pod, reservation, cache, .. } = call;
    let node = cache.node_by_id(id);
    let head = format!("node {:?} reserves", node.name);
    let holds = || reservation.nodes[id].holds.iter().filter(|hold| pod.is_held_by(cache, id, hold));
    // The pod was refused for a hold, so there is one; the assumed pods may be the cause beside it.
    let Some(Remaining { free, .. }) = call.remaining(id) else { return head };
    let short = shortages(&pod.requests, &free, &node.allocatable);
    let Some(short) = short.first() else {
        let names = list(reservation, holds().map(|hold| (hold.pod.daemon_set, None)));
        return format!(
            "{head} ports of the host for daemon pods that have not landed yet: {names}; this pod asks for one of them"
        );
    };
    let amount = |amount: i64| format!("{} {}", short.amount(amount), short.resource);
    let reserving = holds().filter(|hold| hold.pod.reserved().amount(short.resource) > 0);
    let reserving =
        reserving.map(|hold| (hold.pod.daemon_set, Some(amount(hold.pod.reserved().amount(short.resource)))));
    let mut names = list(reservation, reserving);
    // All of it is reserved by others: predecessors that leave, or assumed pods.
    if names.is_empty() {
        names = list(reservation, holds().map(|hold| (hold.pod.daemon_set, None)));
    }
    let left = short.amount(short.free.max(0));
    format!(
        "{head} room for daemon pods that have not landed yet: {names}; this pod asks {}, and {left} is left beside them",
        amount(short.asked)
    )
}

/// Returns the names of the first DaemonSets with their amounts, and the number of the others.
fn list(
    reservation: &Reservation,
    daemon_sets: impl Iterator<Item = (DaemonSetId, Option<String>)>,
) -> String {
    let mut text = String::new();
    let mut more = 0;
    for (at, (id, amount)) in daemon_sets.enumerate() {
        if at >= NAMED {
            more += 1;
            continue;
        }
        let separator = if at == 0 { "" } else { ", " };
        let reference = &reservation.daemon_sets[id].reference;
        let amount = amount.map(|amount| format!(" ({amount})")).unwrap_or_default();
        // Writing to a String does not fail.
        let _ = write!(text, "{separator}{}/{}{amount}", reference.namespace, reference.name);
    }
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}
