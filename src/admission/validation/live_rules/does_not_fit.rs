//! `does-not-fit`: daemon pods that will not fit on some of their nodes.

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
    default_level: Level::Warn,
    finds: "pods that request more than is free on some of their nodes, even if all pods of lower priority left",
    rationale: "The pods stay Pending on those nodes until other pods leave: autoscalers do not add nodes for daemon pods. Request less, or use a priority class above those of the other pods.",
    source: "pkg/scheduler/framework/plugins/noderesources/fit.go (`fitsRequest`), pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go",
    check,
};

/// A resource that is short on `count` nodes, with the node that lacks the most of it.
struct WorstShortage<'c> {
    count: usize,
    node: &'c str,
    text: String,
    missing: i64,
}

fn check(data: &LiveData<'_>) -> Vec<Error> {
    let demand = data.cluster.template_demand(data.daemon_set);
    let mut worst: BTreeMap<&str, WorstShortage<'_>> = BTreeMap::new();
    let mut count = 0;
    for (info, node) in &data.matching {
        // The kubelet of a node without allocatable is about to report it.
        if info.allocatable.has_room_beside(&info.requested, &demand.requests)
            || node.allocatable().is_empty()
        {
            continue;
        }
        let free = free_for(data, info, &demand);
        let shortages = shortages(&demand.requests, &free, &info.allocatable);
        count += usize::from(!shortages.is_empty());
        for shortage in &shortages {
            count_shortage(&mut worst, shortage, &info.name);
        }
    }
    if count == 0 {
        return Vec::new();
    }
    let each = worst
        .values()
        .map(|worst| format!("{} (on {}, worst {})", worst.text, nodes(worst.count), worst.node));
    let each = each.collect::<Vec<_>>().join(", ");
    let detail = format!("will not fit on {count} of {}: {each}", nodes(data.matching.len()));
    vec![Error::forbidden(Path::new("spec.template.spec.containers"), detail)]
}

/// Returns the resources that are free on a node once pods of lower priority have left. The DaemonSet's own pods count as gone too,
/// unless its updates surge.
fn free_for(data: &LiveData<'_>, info: &NodeInfo, demand: &PodDemand) -> Resources {
    let mut free = info.allocatable.clone();
    let surges = data.daemon_set.spec.uses_surge();
    for pod in info.pods.iter().map(|id| data.cluster.pod_by_id(*id)) {
        let is_own = data.known.is_some_and(|(id, _)| pod.is_of(id));
        let leaves = if is_own { !surges } else { pod.priority < demand.priority };
        if !leaves {
            free.subtract(&pod.requests);
        }
    }
    free
}

/// Adds a node's shortage of one resource to `worst`. Among nodes that lack equally much, the first by name is named.
fn count_shortage<'r, 'c>(
    worst: &mut BTreeMap<&'r str, WorstShortage<'c>>,
    shortage: &Shortage<'r>,
    node: &'c str,
) {
    let new = || WorstShortage { count: 0, node, text: shortage.to_string(), missing: shortage.missing() };
    let worst = worst.entry(shortage.resource).or_insert_with(new);
    worst.count += 1;
    let is_worse =
        shortage.missing() > worst.missing || shortage.missing() == worst.missing && node < worst.node;
    if is_worse {
        (worst.node, worst.text, worst.missing) = (node, shortage.to_string(), shortage.missing());
    }
}
