//! `does-not-fit`: daemon pods that will not fit on nodes that they are for.

use std::collections::BTreeMap;

use super::{LiveData, LiveRule, nodes};
use crate::api::field::{Error, Path};
use crate::cache::daemonset_info::PodDemand;
use crate::cache::node_info::NodeInfo;
use crate::policy::Level;
use crate::scheduling::resources::Resources;
use crate::scheduling::shortage::{Shortage, shortages};

pub(super) const RULE: LiveRule = LiveRule {
    id: "does-not-fit",
    default: Level::Warn,
    what: "pods that ask for more than is left on nodes that they are for, even if all pods of lower priority made room",
    why: "The pods stay Pending on those nodes until others leave: autoscalers do not add nodes for daemon pods. Ask for less, or name a priority class above the pods that hold the room.",
    source: "pkg/scheduler/framework/plugins/noderesources/fit.go (`fitsRequest`), pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go",
    check,
};

/// How often a resource is short, and where most.
struct WorstShortage<'c> {
    count: usize,
    node: &'c str,
    text: String,
    missing: i64,
}

fn check(live: &LiveData<'_>) -> Vec<Error> {
    let weight = live.cluster.template_weight(live.daemon_set);
    let mut worst: BTreeMap<&str, WorstShortage<'_>> = BTreeMap::new();
    let mut count = 0;
    for (state, node) in &live.matching {
        // A node that has not said what it has is about to.
        if state.allocatable.has_room_beside(&state.used, &weight.requests) || node.allocatable().is_empty() {
            continue;
        }
        let free = free_for(live, state, &weight);
        let shortages = shortages(&weight.requests, &free, &state.allocatable);
        count += usize::from(!shortages.is_empty());
        for shortage in &shortages {
            note(&mut worst, shortage, &state.name);
        }
    }
    if count == 0 {
        return Vec::new();
    }
    let each = worst
        .values()
        .map(|worst| format!("{} (on {}, worst {})", worst.text, nodes(worst.count), worst.node));
    let each = each.collect::<Vec<_>>().join(", ");
    let detail = format!("will not fit on {count} of {}: {each}", nodes(live.matching.len()));
    vec![Error::forbidden(Path::new("spec.template.spec.containers"), detail)]
}

/// What is free on a node once the pods of lower priority have left, and the DaemonSet's own unless updates surge.
fn free_for(live: &LiveData<'_>, state: &NodeInfo, weight: &PodDemand) -> Resources {
    let mut free = state.allocatable.clone();
    let surges = live.daemon_set.spec.uses_surge();
    for pod in state.pods.iter().map(|id| live.cluster.pod_by_id(*id)) {
        let owner = pod.daemon.as_ref().and_then(|daemon| daemon.daemon_set);
        let is_own = live.known.is_some_and(|(id, _)| owner == Some(id));
        let leaves = if is_own { !surges } else { pod.priority < weight.priority };
        if !leaves {
            free.subtract(&pod.requests);
        }
    }
    free
}

fn note<'r, 'c>(worst: &mut BTreeMap<&'r str, WorstShortage<'c>>, shortage: &Shortage<'r>, node: &'c str) {
    let new = || WorstShortage { count: 0, node, text: shortage.to_string(), missing: shortage.missing() };
    let worst = worst.entry(shortage.resource).or_insert_with(new);
    worst.count += 1;
    let is_worse =
        shortage.missing() > worst.missing || shortage.missing() == worst.missing && node < worst.node;
    if is_worse {
        (worst.node, worst.text, worst.missing) = (node, shortage.to_string(), shortage.missing());
    }
}
