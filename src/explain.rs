//! One row for every DaemonSet and node: if the DaemonSet's pod should run there, if it does, and the reason.
//!
//! The DaemonSet controller's own rules decide if a pod should run ([`crate::daemonset::placement`]), without the exceptions of the
//! reservation. Rows are computed one by one as the iterator advances: a large cluster has too many of them to hold.
//!
//! ```
//! use std::sync::Arc;
//!
//! use daemonset_warden::api::meta::TypeMeta;
//! use daemonset_warden::explain::inventory::Inventory;
//! use daemonset_warden::explain::{DaemonPodState, RowFilter, explain};
//! use daemonset_warden::policy::Policy;
//!
//! let mut inventory = Inventory::new(Arc::new(Policy::default()));
//! let node = TypeMeta { api_version: "v1".into(), kind: "Node".into() };
//! let taints = r#"[{"key": "gpu", "effect": "NoSchedule"}]"#;
//! inventory.apply(&node, &format!(r#"{{"metadata": {{"name": "worker-1"}}, "spec": {{"taints": {taints}}}}}"#))?;
//! let daemon_set = TypeMeta { api_version: "apps/v1".into(), kind: "DaemonSet".into() };
//! inventory.apply(&daemon_set, r#"{"metadata": {"name": "agent"}}"#)?;
//!
//! let mut rows = explain(&inventory.cluster, &inventory.failures, &RowFilter::default());
//! let row = rows.next().expect("one DaemonSet on one node");
//! assert_eq!((row.daemon_set.as_str(), row.node), ("default/agent", "worker-1"));
//! assert_eq!(row.state, DaemonPodState::NotWanted);
//! assert!(row.reason.contains("gpu"));
//! # Ok::<(), serde_json::Error>(())
//! ```

pub mod create_failures;
pub mod inventory;
pub mod reason;

use serde::Serialize;

use self::create_failures::CreateFailures;
use crate::cache::daemonset_info::DaemonSetInfo;
use crate::cache::node_info::NodeInfo;
use crate::cache::pod_info::{PodInfo, PodPhase};
use crate::cache::{Cache, DaemonSetId};
use crate::daemonset::placement::{Placement, place};

/// A DaemonSet on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row<'c> {
    /// The DaemonSet's API group.
    pub api_group: &'c str,
    /// The DaemonSet, as `namespace/name`.
    pub daemon_set: String,
    /// The node's name.
    pub node: &'c str,
    /// True if the DaemonSet controller creates a pod there.
    pub should_run: bool,
    /// True if the DaemonSet controller leaves a pod there that already runs.
    pub should_continue_running: bool,
    /// The state of the DaemonSet's pod there.
    pub state: DaemonPodState,
    /// The name of the pod that the state is about; `None` if there is none.
    pub pod: Option<&'c str>,
    /// The reason for the state, for people.
    pub reason: String,
}

/// The state of a DaemonSet's pod on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum DaemonPodState {
    /// A pod is bound to the node and may stay; it need not be Ready.
    Running,
    /// A pod is meant for the node and not bound yet.
    Pending,
    /// A pod should run, and there is none, or only pods that have ended or are being deleted.
    Missing,
    /// No pod should run, and there is none, or only pods that have ended or are being deleted.
    NotWanted,
    /// A pod is there that should not continue to run: its controller will delete it.
    Misplaced,
}

impl DaemonPodState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Pending, Self::Missing, Self::NotWanted, Self::Misplaced];

    /// Returns the name of the state in every output.
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

/// A selection of rows; the default selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowFilter {
    /// Namespace and name of the only DaemonSet; `None` for every DaemonSet.
    pub daemon_set: Option<(String, String)>,
    /// The name of the only node; `None` for every node.
    pub node: Option<String>,
}

/// Returns a row for each DaemonSet and node that `filter` selects, ordered by namespace, name and group of the DaemonSet, then by
/// node. The call sorts the DaemonSets and nodes; each row is computed when the iterator reaches it.
pub fn explain<'c>(
    cluster: &'c Cache,
    failures: &'c CreateFailures,
    filter: &RowFilter,
) -> impl Iterator<Item = Row<'c>> + use<'c> {
    let is_selected = |info: &DaemonSetInfo| {
        let metadata = &info.daemon_set.metadata;
        filter
            .daemon_set
            .as_ref()
            .is_none_or(|(namespace, name)| *namespace == metadata.namespace && *name == metadata.name)
    };
    let mut daemon_sets: Vec<_> = cluster.daemon_sets().filter(|(_, info)| is_selected(info)).collect();
    daemon_sets.sort_by(|(_, a), (_, b)| sort_key(a).cmp(&sort_key(b)));
    let nodes = cluster.nodes().filter(|(_, info)| info.node.is_some());
    let mut nodes: Vec<_> = nodes
        .filter(|(_, info)| filter.node.as_deref().is_none_or(|name| *name == *info.name))
        .map(|(_, info)| info)
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    daemon_sets.into_iter().flat_map(move |(id, info)| {
        let nodes = nodes.clone();
        nodes
            .into_iter()
            .filter_map(move |node_info| Subject { cluster, failures, id, info, node_info }.row())
    })
}

fn sort_key(info: &DaemonSetInfo) -> (&str, &str, &str) {
    (&info.daemon_set.metadata.namespace, &info.daemon_set.metadata.name, &info.group)
}

/// The DaemonSet and the node of a row.
struct Subject<'c> {
    cluster: &'c Cache,
    failures: &'c CreateFailures,
    id: DaemonSetId,
    info: &'c DaemonSetInfo,
    node_info: &'c NodeInfo,
}

impl<'c> Subject<'c> {
    fn row(&self) -> Option<Row<'c>> {
        let node = self.node_info.node.as_ref()?;
        let placement = place(&self.info.daemon_set.spec.template.spec, &self.info.tolerations, node);
        let pod = self.pod();
        let state = state_of(&placement, pod);
        let pod = pod.filter(|pod| state != DaemonPodState::NotWanted || pod.is_terminating);
        Some(Row {
            api_group: &self.info.group,
            daemon_set: self.info.name(),
            node: &self.node_info.name,
            should_run: placement.should_run,
            should_continue_running: placement.should_continue_running,
            state,
            pod: pod.map(|pod| &*pod.name),
            reason: self.reason(&placement, state, pod),
        })
    }

    /// Returns the pod that the row is about, or `None` if the DaemonSet has no pod for the node. A pod that is being deleted is
    /// chosen only if there is no other unfinished pod, and a pod that has ended only if there is no unfinished pod.
    ///
    /// Among several equal pods, the newest is chosen with surge, and among pods that have ended. Otherwise the choice is the
    /// controller's: bound before unbound, the oldest first (kubernetes v1.36.3 pkg/controller/daemon/daemon_controller.go
    /// `podByCreationTimestampAndPhase`).
    fn pod(&self) -> Option<&'c PodInfo> {
        let pods = self.node_info.daemon_pods.iter().map(|id| self.cluster.pod_by_id(*id));
        let own = pods.filter(|pod| pod.is_of(self.id));
        own.min_by(|a, b| {
            let rank = |pod: &PodInfo| match (pod.is_unfinished(), pod.is_terminating) {
                (true, false) => 0,
                (true, true) => 1,
                (false, _) => 2,
            };
            let created = |pod: &'c PodInfo| pod.daemon.as_ref().map_or("", |daemon| &*daemon.created);
            let order = if self.info.uses_surge || rank(a) == 2 {
                created(b).cmp(created(a))
            } else {
                b.node.is_some().cmp(&a.node.is_some()).then_with(|| created(a).cmp(created(b)))
            };
            rank(a).cmp(&rank(b)).then(order).then_with(|| a.name.cmp(&b.name))
        })
    }
}

fn state_of(placement: &Placement<'_>, pod: Option<&PodInfo>) -> DaemonPodState {
    let Some(pod) = pod.filter(|pod| pod.is_unfinished() && !pod.is_terminating) else {
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
