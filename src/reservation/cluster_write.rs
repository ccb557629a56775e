//! Writes to the cluster that a decision asks for, as data: the edge that called carries them out.

use std::sync::Arc;

use serde_json::{Value, json};

use super::hold::EndReason;

/// Something to be done outside, by the edge that called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterWrite {
    /// Room has been refused to somebody for the first time.
    HoldingRoom(HoldSubject),
    /// A hold is over.
    HoldEnded(HoldSubject, EndReason),
    /// A gate's time was up before the daemon pod was Ready.
    GateExpired(HoldSubject),
    /// The scheduler is to be told, or told no longer, that a daemon pod needs room on a node.
    Nominate(Nomination),
    /// Pods that were refused would sleep on: something about this node must change.
    Wake(Arc<str>),
    /// A pod of the DaemonSet with this UID was Ready on this node for the first time.
    RecordFirstReady {
        /// The node's name.
        node: Arc<str>,
        /// The DaemonSet's UID.
        daemon_set_uid: Arc<str>,
    },
}

/// Which DaemonSet and node a hold is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoldSubject {
    /// The node's name.
    pub node: Arc<str>,
    /// The Node's UID.
    pub node_uid: String,
    /// The DaemonSet's API version and group are those of its kind; this is its namespace.
    pub namespace: String,
    /// The DaemonSet's name.
    pub name: String,
    /// The DaemonSet's API version.
    pub api_version: String,
    /// The DaemonSet's kind.
    pub kind: String,
    /// The DaemonSet's UID.
    pub uid: Arc<str>,
    /// Whether anything was refused for it: only then is it worth an Event.
    pub has_refused: bool,
}

/// One write of `status.nominatedNodeName`, good for one version of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomination {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub name: Box<str>,
    /// The pod's UID.
    pub uid: Arc<str>,
    /// The version of the pod that was judged.
    pub resource_version: Box<str>,
    /// The node; `None` clears the nomination.
    pub node: Option<Arc<str>>,
}

impl Nomination {
    /// Returns the merge patch of the pod's status subresource. UID and version guard it: a pod that was bound, changed or replaced
    /// meanwhile is not patched, and the apiserver answers 409.
    pub fn patch(&self) -> Value {
        json!({
            "metadata": { "uid": self.uid, "resourceVersion": self.resource_version },
            "status": { "nominatedNodeName": self.node },
        })
    }
}
