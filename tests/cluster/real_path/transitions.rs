//! The ways in which the replica that judges bindings ends.

use crate::harness::{Kubectl, Kubelet, RELEASE, node_of};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

/// An end of the active replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    /// Its Pod is deleted: preStop, then SIGTERM.
    Deleted,
    /// `kubectl rollout restart`: both Pods are replaced.
    Restarted,
    /// `kubectl drain` of its node.
    Drained,
    /// Its process gets SIGTERM, and its container is started again.
    Terminated,
    /// Its process gets SIGKILL, and its container is started again.
    Killed,
    /// Its process gets SIGKILL, and nothing is started, as when a node is lost.
    Lost,
    /// Its process gets SIGSTOP, and SIGCONT when another replica judges.
    Frozen,
}

impl Transition {
    pub(super) const ALL: [Self; 7] = [
        Self::Deleted,
        Self::Restarted,
        Self::Drained,
        Self::Terminated,
        Self::Killed,
        Self::Frozen,
        Self::Lost,
    ];

    /// Returns true if the replica is told of its end, and can hand over.
    pub(super) fn is_handed_over(self) -> bool {
        !matches!(self, Self::Killed | Self::Lost | Self::Frozen)
    }

    /// Ends the active replica.
    pub(super) async fn begin(self, active: &str, client: &Client, kubectl: &Kubectl, kubelet: &Kubelet) {
        match self {
            Self::Deleted => {
                kubectl.succeed(&["delete", "pod", active, "--wait=false"]).await;
            }
            Self::Restarted => {
                kubectl.succeed(&["rollout", "restart", "deployment", RELEASE]).await;
            }
            Self::Drained => {
                let pod = Api::<Pod>::namespaced(client.clone(), RELEASE).get(active).await.expect("the Pod");
                let node = node_of(&pod).expect("it is bound").to_owned();
                // It waits for the end of the Pod, and the join must go on.
                let kubectl = kubectl.clone();
                tokio::spawn(async move { kubectl.run(&["drain", &node, "--ignore-daemonsets"]).await });
            }
            Self::Terminated => kubelet.terminate(active).await,
            Self::Killed => kubelet.kill(active, true).await,
            Self::Lost => kubelet.kill(active, false).await,
            Self::Frozen => kubelet.freeze(active).await,
        }
    }
}
