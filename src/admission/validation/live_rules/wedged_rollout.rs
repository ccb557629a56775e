//! `wedged-rollout`: a rolling update whose budget is used up before it begins.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{LiveData, LiveRule, nodes};
use crate::api::daemonset::ON_DELETE;
use crate::api::field::{Error, Path};
use crate::cache::DaemonSetId;
use crate::cache::node_info::NodeInfo;
use crate::daemonset::update_strategy::scaled;
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "wedged-rollout",
    default: Level::Warn,
    what: "an update with maxUnavailable not above the number of nodes where the DaemonSet is down already",
    why: "Nodes without a Ready pod count against maxUnavailable, so no pod that runs is replaced and the rollout never ends while those nodes are down. Raise maxUnavailable, or mend the nodes first.",
    source: "pkg/controller/daemon/update.go (`rollingUpdate`, `updatedDesiredNodeCounts`)",
    check,
};

fn check(live: &LiveData<'_>) -> Vec<Error> {
    let Some((id, known)) = live.known else { return Vec::new() };
    let strategy = live.daemon_set.spec.update_strategy().unwrap_or_default();
    // Only a new template is rolled out, and a surge does not wait for the old pods.
    let rolls = strategy.kind != ON_DELETE
        && !live.daemon_set.spec.uses_surge()
        && known.daemon_set.spec.template != live.daemon_set.spec.template;
    if !rolls {
        return Vec::new();
    }
    let desired = live.matching.len();
    let max_unavailable = strategy.rolling_update.and_then(|rolling_update| rolling_update.max_unavailable);
    let max_unavailable = max_unavailable.unwrap_or(IntOrString::Int(1));
    let budget = scaled(&max_unavailable, desired);
    let down = live.matching.iter().filter(|(state, _)| !is_up(live, state, id)).count();
    // Where it is down everywhere, every pod is replaced at once.
    if down < budget || down == 0 || down == desired {
        return Vec::new();
    }
    let detail = format!(
        "the DaemonSet is down on {down} of {} already, which uses it up: no pod that runs would be updated",
        nodes(desired)
    );
    vec![Error::invalid(
        Path::new("spec.updateStrategy.rollingUpdate.maxUnavailable"),
        &max_unavailable,
        detail,
    )]
}

fn is_up(live: &LiveData<'_>, state: &NodeInfo, id: DaemonSetId) -> bool {
    state.daemon_pods.iter().map(|pod| live.cluster.pod_by_id(*pod)).any(|pod| {
        let owner = pod.daemon.as_ref().and_then(|daemon| daemon.daemon_set);
        owner == Some(id) && pod.is_ready && pod.is_live() && !pod.is_terminating && pod.node.is_some()
    })
}
