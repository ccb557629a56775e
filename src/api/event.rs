//! Events, reduced to the fields that are read.

use serde::Deserialize;

use crate::api::meta::{Metadata, or_default};

/// The part of `Event` that is read, of `v1` and of `events.k8s.io/v1`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What it is about.
    #[serde(alias = "regarding", deserialize_with = "or_default")]
    pub involved_object: ObjectReference,
    /// A word for what happened.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// What happened.
    #[serde(alias = "note", deserialize_with = "or_default")]
    pub message: String,
    /// When it happened last.
    #[serde(alias = "deprecatedLastTimestamp", deserialize_with = "or_default")]
    pub last_timestamp: String,
    /// When it happened first, in Events of the newer kind.
    #[serde(deserialize_with = "or_default")]
    pub event_time: String,
}

/// The part of `ObjectReference` that is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ObjectReference {
    /// Such as `DaemonSet`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// The object's namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// The object's name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The object's UID.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
}
