//! `does-not-fit`: daemon pods that will not fit on some of their nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LiveData, LiveRule, nodes};
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::api::node::Node;
use crate::cache::daemonset_info::PodDemand;
use crate::cache::node_info::NodeInfo;
use crate::cache::{Cache, DaemonSetId};
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

/// The shortages of the DaemonSet's nodes.
#[derive(Debug)]
pub(super) struct Fit {
    demand: PodDemand,
    known: Option<DaemonSetId>,
    surges: bool,
    /// The nodes where something is short.
    count: usize,
    worst: BTreeMap<String, WorstShortage>,
}

/// A resource that is short on `count` nodes, and the node that lacks most of it.
#[derive(Debug)]
struct WorstShortage {
    count: usize,
    node: Arc<str>,
    text: String,
    missing: i64,
}

fn check(data: &LiveData<'_>) -> ErrorList {
    let Fit { count, worst, .. } = &data.fit;
    if *count == 0 {
        return ErrorList::new();
    }
    let each = worst
        .values()
        .map(|worst| format!("{} (on {}, worst {})", worst.text, nodes(worst.count), worst.node));
    let each = each.collect::<Vec<_>>().join(", ");
    let detail = format!("will not fit on {count} of {}: {each}", nodes(data.matching));
    Error::forbidden(Path::new("spec.template.spec.containers"), detail).into()
}

impl Fit {
    /// `known` is the DaemonSet in the cache, unless it is new.
    pub(super) fn new(cluster: &Cache, daemon_set: &DaemonSet, known: Option<DaemonSetId>) -> Self {
        let mut demand = cluster.template_demand(daemon_set);
        demand.requests.limit_scalars();
        Self { demand, known, surges: daemon_set.spec.uses_surge(), count: 0, worst: BTreeMap::new() }
    }

    /// Adds the shortages of one of the DaemonSet's nodes.
    pub(super) fn add(&mut self, cluster: &Cache, info: &NodeInfo, node: &Node) {
        // The kubelet of a node without allocatable is about to report it.
        if info.allocatable.has_room_beside(&info.requested, &self.demand.requests)
            || node.allocatable().is_empty()
        {
            return;
        }
        let free = self.free_for(cluster, info);
        let shortages = shortages(&self.demand.requests, &free, &info.allocatable);
        self.count += usize::from(!shortages.is_empty());
        for shortage in &shortages {
            add_shortage(&mut self.worst, shortage, &info.name);
        }
    }

    /// Returns the resources that are free on a node once pods of lower priority have left, and the DaemonSet's own pods too unless its
    /// updates surge.
    fn free_for(&self, cluster: &Cache, info: &NodeInfo) -> Resources {
        let mut free = info.allocatable.clone();
        for pod in info.pods.iter().map(|id| cluster.pod_by_id(*id)) {
            let is_own = self.known.is_some_and(|id| pod.is_of(id));
            let leaves = if is_own { !self.surges } else { pod.priority < self.demand.priority };
            if !leaves {
                free.subtract(&pod.requests);
            }
        }
        free
    }
}

/// Adds a node's shortage of one resource to `worst`.
fn add_shortage(worst: &mut BTreeMap<String, WorstShortage>, shortage: &Shortage<'_>, node: &Arc<str>) {
    let new = || WorstShortage {
        count: 0,
        node: node.clone(),
        text: shortage.to_string(),
        missing: shortage.missing(),
    };
    let worst = worst.entry(shortage.resource.to_owned()).or_insert_with(new);
    worst.count += 1;
    let is_worse =
        shortage.missing() > worst.missing || shortage.missing() == worst.missing && **node < *worst.node;
    if is_worse {
        (worst.node, worst.text, worst.missing) = (node.clone(), shortage.to_string(), shortage.missing());
    }
}
