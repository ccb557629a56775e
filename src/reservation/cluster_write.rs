//! Writes to the cluster that a decision asks for, as data: the edge that called carries them out.

use std::sync::Arc;

use super::hold::EndReason;
use super::nomination::Nomination;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
