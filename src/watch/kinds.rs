//! What is watched, and how each kind reaches the cluster.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use kube::discovery::ApiResource;
use serde::de::DeserializeOwned;

use crate::api::daemonset::DaemonSet;
use crate::api::meta::Metadata;
use crate::api::node::Node;
use crate::api::pod::Pod;
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};
use crate::cache::Cache;
use crate::reservation::gate::FIRST_READY_PREFIX;

/// A kind that is watched.
pub trait WatchedKind: DeserializeOwned + Clone + Debug + Send + 'static {
    /// What tells one object from another.
    type Key: Eq + Hash + Debug + Send + 'static;

    /// Its metadata.
    fn metadata(&mut self) -> &mut Metadata;

    /// Drops what was decoded and is not read of an object of the cluster.
    fn slim(&mut self) {
        self.metadata().annotations.clear();
    }

    /// True if the object's version is kept: only where something may be written over that very version.
    fn keeps_version(&self) -> bool {
        false
    }

    /// Its key.
    fn key(&self) -> Self::Key;

    /// The keys of all objects of the kind that are known: what a relist did not bring is gone.
    fn known(cluster: &Cache, kind: &ApiResource) -> HashSet<Self::Key>;

    /// It was added or changed.
    fn apply(self, cluster: &mut Cache, kind: &ApiResource, now: Instant);

    /// It is gone.
    fn forget(key: &Self::Key, cluster: &mut Cache, now: Instant);
}

/// A built-in kind.
pub fn builtin(group: &str, version: &str, kind: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let plural = match kind {
        "PriorityClass" => "priorityclasses".to_owned(),
        "RuntimeClass" => "runtimeclasses".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    ApiResource { group: group.into(), version: version.into(), api_version, kind: kind.into(), plural }
}

impl WatchedKind for Node {
    type Key = String;

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn slim(&mut self) {
        self.metadata.annotations.retain(|key, _| key.starts_with(FIRST_READY_PREFIX));
        self.metadata.finalizers = Vec::new();
        self.metadata.owner_references = Vec::new();
        if !self.status.allocatable.is_empty() {
            self.status.capacity.clear();
        }
    }

    fn key(&self) -> String {
        self.metadata.name.clone()
    }

    fn known(cluster: &Cache, _: &ApiResource) -> HashSet<String> {
        cluster.node_names().into_iter().collect()
    }

    fn apply(self, cluster: &mut Cache, _: &ApiResource, now: Instant) {
        cluster.apply_node(self, now);
    }

    fn forget(name: &String, cluster: &mut Cache, now: Instant) {
        cluster.delete_node(name, now);
    }
}

impl WatchedKind for Pod {
    type Key = Arc<str>;

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn keeps_version(&self) -> bool {
        self.has_failed_scheduling()
    }

    fn key(&self) -> Arc<str> {
        self.metadata.uid.as_str().into()
    }

    fn known(cluster: &Cache, _: &ApiResource) -> HashSet<Arc<str>> {
        cluster.pod_uids().into_iter().collect()
    }

    fn apply(self, cluster: &mut Cache, _: &ApiResource, now: Instant) {
        cluster.apply_pod(&self, now);
    }

    fn forget(uid: &Arc<str>, cluster: &mut Cache, now: Instant) {
        cluster.delete_pod(uid, now);
    }
}

impl WatchedKind for DaemonSet {
    type Key = Arc<str>;

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    // Its annotations ask for things; kubectl's copy of the whole object does not.
    fn slim(&mut self) {
        self.metadata.annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }

    fn key(&self) -> Arc<str> {
        self.metadata.uid.as_str().into()
    }

    fn known(cluster: &Cache, kind: &ApiResource) -> HashSet<Arc<str>> {
        cluster.daemon_set_uids(&kind.group, &kind.kind).into_iter().collect()
    }

    fn apply(mut self, cluster: &mut Cache, kind: &ApiResource, _: Instant) {
        // The items of a list do not say what they are.
        self.api_version.clone_from(&kind.api_version);
        self.kind.clone_from(&kind.kind);
        cluster.apply_daemon_set(&kind.group, self);
    }

    fn forget(uid: &Arc<str>, cluster: &mut Cache, now: Instant) {
        cluster.delete_daemon_set(uid, now);
    }
}

impl WatchedKind for Namespace {
    type Key = String;

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    // Node selectors are annotations.
    fn slim(&mut self) {
        self.metadata.annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }

    fn key(&self) -> String {
        self.metadata.name.clone()
    }

    fn known(cluster: &Cache, _: &ApiResource) -> HashSet<String> {
        cluster.namespace_names().cloned().collect()
    }

    fn apply(self, cluster: &mut Cache, _: &ApiResource, _: Instant) {
        cluster.apply_namespace(self);
    }

    fn forget(name: &String, cluster: &mut Cache, _: Instant) {
        cluster.delete_namespace(name);
    }
}

/// The rest differ in names only.
macro_rules! watched {
    ($kind:ty, $key:ty, $get:expr, $known:ident, $apply:ident, $forget:expr) => {
        impl WatchedKind for $kind {
            type Key = $key;

            fn metadata(&mut self) -> &mut Metadata {
                &mut self.metadata
            }

            fn key(&self) -> $key {
                $get(&self.metadata)
            }

            fn known(cluster: &Cache, _: &ApiResource) -> HashSet<$key> {
                cluster.$known().cloned().collect()
            }

            fn apply(self, cluster: &mut Cache, _: &ApiResource, _: Instant) {
                cluster.$apply(self);
            }

            fn forget(key: &$key, cluster: &mut Cache, _: Instant) {
                $forget(cluster, key);
            }
        }
    };
}

watched!(
    PriorityClass,
    String,
    name,
    priority_class_names,
    apply_priority_class,
    |cluster: &mut Cache, name: &String| { cluster.delete_priority_class(name) }
);
watched!(
    RuntimeClass,
    String,
    name,
    runtime_class_names,
    apply_runtime_class,
    |cluster: &mut Cache, name: &String| { cluster.delete_runtime_class(name) }
);
watched!(LimitRange, (String, String), names, limit_range_names, apply_limit_range, |cluster: &mut Cache,
                                                                                     names: &(
    String,
    String
)| cluster
    .delete_limit_range(&names.0, &names.1));
watched!(
    ResourceQuota,
    (String, String),
    names,
    resource_quota_names,
    apply_resource_quota,
    |cluster: &mut Cache, names: &(String, String)| cluster.delete_resource_quota(&names.0, &names.1)
);

fn name(metadata: &Metadata) -> String {
    metadata.name.clone()
}

fn names(metadata: &Metadata) -> (String, String) {
    (metadata.namespace.clone(), metadata.name.clone())
}
