//! Writes to the apiserver that a decision asks for, as data; `writes/` sends them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::feasibility::DaemonShortage;
use super::hold::EndReason;

/// One write to the apiserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterWrite {
    /// An Event: a hold has refused a pod for the first time.
    HoldingRoom(HoldSubject),
    /// An Event: a hold has ended, for this reason.
    HoldEnded(HoldSubject, EndReason),
    /// An Event: the node is too small for its daemon pods.
    NodeTooSmall(HoldSubject, DaemonShortage),
    /// An Event on the DaemonSet alone: it has too many elements, and no room is reserved for it.
    TooLarge(HoldSubject),
    /// An Event: the time of a gate was up before the daemon pod was Ready.
    GateExpired(HoldSubject),
    /// Bindings do not wait any longer for a daemon pod to be Ready; the scheduler's extender goes on to steer pods elsewhere.
    GateExpiredForBindings(HoldSubject),
    /// A nomination of a daemon pod to its node, or the end of one.
    Nominate(Nomination),
    /// A change of this node's annotation, so that the scheduler tries the refused pods again.
    Wake(Arc<str>),
    /// An annotation of the node: a pod of the DaemonSet was Ready there for the first time.
    RecordFirstReady {
        /// The node's name.
        node: Arc<str>,
        /// The DaemonSet's UID.
        daemon_set_uid: Arc<str>,
    },
    /// The removal of such annotations of DaemonSets that are gone.
    RemoveFirstReady {
        /// The node's name.
        node: Arc<str>,
        /// The DaemonSets' UIDs.
        daemon_set_uids: Vec<Arc<str>>,
    },
}

/// The DaemonSet and the node of a hold or gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoldSubject {
    /// The node's name.
    pub node: Arc<str>,
    /// The Node's UID.
    pub node_uid: String,
    /// The DaemonSet.
    pub daemon_set: Arc<DaemonSetReference>,
    /// True if a pod was refused because of the hold or gate; an Event is written only then.
    pub has_refused: bool,
}

/// The names of a DaemonSet, as an Event refers to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonSetReference {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The API version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The UID.
    pub uid: Arc<str>,
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
    /// The resource version of the pod that was decided on.
    pub resource_version: Box<str>,
    /// The node's name; `None` clears the nomination.
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
