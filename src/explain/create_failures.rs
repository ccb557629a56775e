//! What the DaemonSet controller said when it could not create a pod: a quota, a webhook or a limit refused it.
//!
//! Only Events tell; they name the DaemonSet, not the node, and the last one of each is kept.

use std::collections::BTreeMap;

use crate::api::event::{Event, ObjectReference};

/// What the controller calls such an Event (kubernetes v1.36.3 pkg/controller/controller_utils.go `FailedCreatePodReason`).
pub const FAILED_CREATE: &str = "FailedCreate";

/// The last failure of each DaemonSet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateFailures {
    by_daemon_set: BTreeMap<(String, String), CreateFailure>,
}

/// A failure to create a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateFailure {
    /// The DaemonSet's UID.
    pub uid: String,
    /// When, as the cluster writes it.
    pub time: String,
    /// Why, in the controller's words.
    pub message: String,
}

impl CreateFailures {
    /// Takes note of an Event, if it is about such a failure and no older than what is known.
    pub fn apply(&mut self, event: Event) {
        if event.reason != FAILED_CREATE || event.involved_object.kind != "DaemonSet" {
            return;
        }
        let time = if event.last_timestamp.is_empty() { event.event_time } else { event.last_timestamp };
        let ObjectReference { namespace, name, uid, .. } = event.involved_object;
        let failure = CreateFailure { uid, time, message: event.message };
        let known = self.by_daemon_set.entry((namespace, name)).or_insert_with(|| failure.clone());
        if known.time <= failure.time {
            *known = failure;
        }
    }

    /// The last failure of the DaemonSet of this namespace, name and UID.
    pub fn of(&self, namespace: &str, name: &str, uid: &str) -> Option<&CreateFailure> {
        let failure = self.by_daemon_set.get(&(namespace.to_owned(), name.to_owned()))?;
        // One of the same name that has been deleted since is another; a manifest has no UID.
        Some(failure).filter(|failure| failure.uid.is_empty() || failure.uid == uid)
    }
}
