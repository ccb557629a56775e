//! `wedged-rollout`: a rolling update whose budget is used up before it begins.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{LiveData, LiveRule, nodes};
use crate::api::daemonset::{DaemonSet, ON_DELETE};
use crate::api::field::{Error, ErrorList, Path};
use crate::cache::node_info::NodeInfo;
use crate::cache::{Cache, DaemonSetId};
use crate::daemonset::update_strategy::scaled;
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "wedged-rollout",
    default_level: Level::Warn,
    finds: "an update with maxUnavailable not above the number of nodes where the DaemonSet is down already",
    rationale: "Nodes without a Ready pod count against maxUnavailable, so the controller replaces no running pod, and the rollout does not end while those nodes are down. Raise maxUnavailable, or repair the nodes first.",
    source: "pkg/controller/daemon/update.go (`rollingUpdate`, `updatedDesiredNodeCounts`)",
    check,
};

/// The rollout that an update begins.
#[derive(Debug)]
pub(super) struct Rollout {
    id: DaemonSetId,
    max_unavailable: IntOrString,
    /// The DaemonSet's nodes without a Ready pod of it.
    down: usize,
}

impl Rollout {
    /// Returns `None` if the update of `known` to `daemon_set` replaces no pods, or does not wait for the old ones.
    pub(super) fn new(id: DaemonSetId, known: &DaemonSet, daemon_set: &DaemonSet) -> Option<Self> {
        let strategy = daemon_set.spec.update_strategy().unwrap_or_default();
        // The controller rolls out new templates only, and a surge does not wait for the old pods.
        let rolls_out = strategy.kind != ON_DELETE
            && !daemon_set.spec.uses_surge()
            && known.spec.template != daemon_set.spec.template;
        let max_unavailable = strategy.rolling_update.and_then(|update| update.max_unavailable);
        let max_unavailable = max_unavailable.unwrap_or(IntOrString::Int(1));
        rolls_out.then_some(Self { id, max_unavailable, down: 0 })
    }

    /// Counts one of the DaemonSet's nodes.
    pub(super) fn add(&mut self, cluster: &Cache, info: &NodeInfo) {
        let mut pods = info.daemon_pods.iter().map(|pod| cluster.pod_by_id(*pod));
        self.down += usize::from(!pods.any(|pod| pod.has_landed_for(self.id) && pod.is_ready));
    }
}

fn check(data: &LiveData<'_>) -> ErrorList {
    let Some(Rollout { max_unavailable, down, .. }) = &data.rollout else { return ErrorList::new() };
    let (down, desired) = (*down, data.matching);
    // A DaemonSet that is down on every node has every pod replaced at once.
    if down < scaled(max_unavailable, desired) || down == 0 || down == desired {
        return ErrorList::new();
    }
    let path = Path::new("spec.updateStrategy.rollingUpdate.maxUnavailable");
    let detail = format!(
        "the DaemonSet is down on {down} of {} already, which uses it up: no pod that runs would be updated",
        nodes(desired)
    );
    Error::invalid(path, max_unavailable, detail).into()
}
