//! Events, trimmed to the fields that this program reads.

use serde::Deserialize;

use crate::api::meta::{Metadata, or_default};

/// The fields of `Event` that this program reads, of `v1` and of `events.k8s.io/v1` alike.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// Standard object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// The object that the Event is about; `regarding` in `events.k8s.io/v1`.
    #[serde(alias = "regarding", deserialize_with = "or_default")]
    pub involved_object: ObjectReference,
    /// One word in CamelCase, such as `FailedScheduling`.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// A sentence for people; `note` in `events.k8s.io/v1`.
    #[serde(alias = "note", deserialize_with = "or_default")]
    pub message: String,
    /// The time of the last occurrence, in RFC 3339; `deprecatedLastTimestamp` in `events.k8s.io/v1`. Empty if the writer sets only
    /// `event_time`.
    #[serde(alias = "deprecatedLastTimestamp", deserialize_with = "or_default")]
    pub last_timestamp: String,
    /// The time of the first occurrence, in RFC 3339; empty in Events of older writers.
    #[serde(deserialize_with = "or_default")]
    pub event_time: String,
}

impl Event {
    /// Returns the time of the last occurrence, as the cluster writes it.
    pub fn last_time(&self) -> &str {
        if self.last_timestamp.is_empty() { &self.event_time } else { &self.last_timestamp }
    }
}

/// The part of `ObjectReference` that is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ObjectReference {
    /// The kind of the object, such as `DaemonSet`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Empty for kinds without namespaces.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// The name of the object.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Empty if the writer did not set it.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
}
