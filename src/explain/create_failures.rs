//! Failures of the DaemonSet controller to create a pod because a quota, a webhook or a limit refused it.
//!
//! Such failures come from Events, which name the DaemonSet and not the node. The last failure of each DaemonSet is kept.

use std::collections::BTreeMap;

use crate::api::event::{Event, ObjectReference};

/// The `reason` of the Events that report such a failure (kubernetes v1.36.3 pkg/controller/controller_utils.go
/// `FailedCreatePodReason`).
pub const FAILED_CREATE: &str = "FailedCreate";

/// The last failure to create a pod, for each DaemonSet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateFailures {
    by_daemon_set: BTreeMap<(String, String), CreateFailure>,
}

/// A failure to create a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateFailure {
    /// The DaemonSet's UID; empty if the Event has none.
    pub uid: String,
    /// The time of the Event in RFC 3339, as the cluster writes it; empty if the Event has none.
    pub time: String,
    /// The failure, in the controller's words.
    pub message: String,
}

impl CreateFailures {
    /// Records the failure that an Event reports. Ignores an Event of another reason or kind, and one that is older than the
    /// recorded failure.
    pub fn apply(&mut self, event: Event) {
        if event.reason != FAILED_CREATE || event.involved_object.kind != "DaemonSet" {
            return;
        }
        let time = event.last_time().to_owned();
        let ObjectReference { namespace, name, uid, .. } = event.involved_object;
        let failure = CreateFailure { uid, time, message: event.message };
        let known = self.by_daemon_set.entry((namespace, name)).or_insert_with(|| failure.clone());
        if known.time <= failure.time {
            *known = failure;
        }
    }

    /// Returns the last failure of the DaemonSet of this namespace, name and UID. Returns `None` if there was none, or only one of
    /// an earlier DaemonSet of the same name.
    pub fn of(&self, namespace: &str, name: &str, uid: &str) -> Option<&CreateFailure> {
        let failure = self.by_daemon_set.get(&(namespace.to_owned(), name.to_owned()))?;
        // A deleted DaemonSet of the same name has another UID; a manifest has none.
        Some(failure).filter(|failure| failure.uid.is_empty() || failure.uid == uid)
    }
}
