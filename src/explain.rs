//! For every DaemonSet and node: whether its pod should run there, whether it does, and if not, why.
//!
//! Whether it should is upstream's own rule ([`crate::daemonset::placement`]), without what keeping room leaves out of it. The rows are
//! worked out one by one as they are asked for: a large cluster has more of them than anybody should hold.

pub mod create_failures;
pub mod inventory;
mod reason;

use serde::Serialize;

use self::create_failures::CreateFailures;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::node_info::NodeInfo;
use crate::cache::pod_info::{PodInfo, PodPhase};
use crate::cache::{Cache, DaemonSetId};
use crate::daemonset::placement::{Placement, place};

/// What there is to say about one DaemonSet on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row<'c> {
    /// The DaemonSet's API group.
    pub api_group: &'c str,
    /// The DaemonSet, as `namespace/name`.
    pub daemon_set: String,
    /// The node's name.
    pub node: &'c str,
    /// Whether the controller creates a pod there.
    pub should_run: bool,
    /// Whether it leaves a pod there that already runs.
    pub should_continue_running: bool,
    /// What there is.
    pub state: DaemonPodState,
    /// The pod that the state is about.
    pub pod: Option<&'c str>,
    /// Why.
    pub reason: String,
}

/// What there is of a DaemonSet on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum DaemonPodState {
    /// A pod is bound to the node and may stay; it need not be Ready.
    Running,
    /// A pod is meant for the node and not bound yet.
    Pending,
    /// There should be a pod and there is none that has not ended, nor is being deleted.
    Missing,
    /// There should be no pod, and there is none.
    NotWanted,
    /// There is a pod and its controller will delete it: it should not continue to run.
    Misplaced,
}

impl DaemonPodState {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Pending, Self::Missing, Self::NotWanted, Self::Misplaced];

    /// As it stands in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Pending => "Pending",
            Self::Missing => "Missing",
            Self::NotWanted => "NotWanted",
            Self::Misplaced => "Misplaced",
        }
    }
}

/// Which rows are asked for; all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowFilter {
    /// Namespace and name of a DaemonSet.
    pub daemon_set: Option<(String, String)>,
    /// The name of a node.
    pub node: Option<String>,
}

/// One row a pair, ordered by namespace, name and group of the DaemonSet, then by node.
pub fn explain<'c>(
    cluster: &'c Cache,
    failures: &'c CreateFailures,
    filter: &RowFilter,
) -> impl Iterator<Item = Row<'c>> + use<'c> {
    let is_asked = |info: &DaemonSetInfo| {
        let metadata = &info.daemon_set.metadata;
        filter
            .daemon_set
            .as_ref()
            .is_none_or(|(namespace, name)| *namespace == metadata.namespace && *name == metadata.name)
    };
    let mut daemon_sets: Vec<_> = cluster.daemon_sets().filter(|(_, info)| is_asked(info)).collect();
    daemon_sets.sort_by(|(_, a), (_, b)| key(a).cmp(&key(b)));
    let nodes = cluster.nodes().filter(|(_, state)| state.node.is_some());
    let mut nodes: Vec<_> = nodes
        .filter(|(_, state)| filter.node.as_deref().is_none_or(|name| *name == *state.name))
        .map(|(_, state)| state)
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    daemon_sets.into_iter().flat_map(move |(id, info)| {
        let nodes = nodes.clone();
        nodes.into_iter().filter_map(move |state| Subject { cluster, failures, id, info, state }.row())
    })
}

fn key(info: &DaemonSetInfo) -> (&str, &str, &str) {
    (&info.daemon_set.metadata.namespace, &info.daemon_set.metadata.name, &info.group)
}

/// One DaemonSet on one node.
struct Subject<'c> {
    cluster: &'c Cache,
    failures: &'c CreateFailures,
    id: DaemonSetId,
    info: &'c DaemonSetInfo,
    state: &'c NodeInfo,
}

impl<'c> Subject<'c> {
    fn row(&self) -> Option<Row<'c>> {
        let node = self.state.node.as_ref()?;
        let placement = place(&self.info.daemon_set.spec.template.spec, &self.info.tolerations, node);
        let pod = self.pod();
        let state = state_of(&placement, pod);
        let pod = pod.filter(|pod| state != DaemonPodState::NotWanted || pod.is_terminating);
        Some(Row {
            api_group: &self.info.group,
            daemon_set: self.info.name(),
            node: &self.state.name,
            should_run: placement.should_run,
            should_continue_running: placement.should_continue_running,
            state,
            pod: pod.map(|pod| &*pod.name),
            reason: self.why(&placement, state, pod),
        })
    }

    /// The pod that counts: one that is here to stay before one that is being deleted, that before one that has ended.
    ///
    /// Of several, with surge the newest; else as the controller would choose: bound before unbound, the oldest first
    /// (kubernetes v1.36.3 pkg/controller/daemon/daemon_controller.go `podByCreationTimestampAndPhase`).
    fn pod(&self) -> Option<&'c PodInfo> {
        let pods = self.state.daemon_pods.iter().map(|id| self.cluster.pod_by_id(*id));
        let own = pods.filter(|pod| pod.is_of(self.id));
        own.min_by(|a, b| {
            let standing = |pod: &PodInfo| match (pod.is_live(), pod.is_terminating) {
                (true, false) => 0,
                (true, true) => 1,
                (false, _) => 2,
            };
            let created = |pod: &'c PodInfo| pod.daemon.as_ref().map_or("", |daemon| &*daemon.created);
            let order = if self.info.uses_surge || standing(a) == 2 {
                created(b).cmp(created(a))
            } else {
                b.node.is_some().cmp(&a.node.is_some()).then_with(|| created(a).cmp(created(b)))
            };
            standing(a).cmp(&standing(b)).then(order).then_with(|| a.name.cmp(&b.name))
        })
    }
}

fn state_of(placement: &Placement<'_>, pod: Option<&PodInfo>) -> DaemonPodState {
    let Some(pod) = pod.filter(|pod| pod.is_live() && !pod.is_terminating) else {
        return if placement.should_run { DaemonPodState::Missing } else { DaemonPodState::NotWanted };
    };
    debug_assert_eq!(pod.phase, PodPhase::Unfinished);
    if !placement.should_continue_running {
        DaemonPodState::Misplaced
    } else if pod.node.is_some() {
        DaemonPodState::Running
    } else {
        DaemonPodState::Pending
    }
}

#[cfg(test)]
mod tests;
