//! The watched kinds, and the way each reaches the cache.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use kube::discovery::ApiResource;
use serde::de::DeserializeOwned;

use crate::api::daemonset::DaemonSet;
use crate::api::event::Event;
use crate::api::meta::Metadata;
use crate::api::node::Node;
use crate::api::pod::{Pod, PodSpec};
use crate::api::policy_objects::{LimitRange, Namespace, PriorityClass, ResourceQuota, RuntimeClass};
use crate::cache::Cache;
use crate::cache::replicas::{is_replica_annotation, is_replica_label};
use crate::daemonset::daemon_pod::GENERATION_ANNOTATION;
use crate::policy::opt_out::OPT_OUT_LABEL;
use crate::reservation::first_ready::MAX_FIRST_READY_READ;
use crate::reservation::gate::{FIRST_READY_PREFIX, GATE_ANNOTATION};

/// The host ports that are read of a pod; fewer are kept.
const MAX_PORTS_READ: usize = 1_024;
/// The labels of a pod that are kept, the first by name. A selector that asks for others does not match it.
const MAX_LABELS: usize = 64;

/// A kind that is watched and cached.
pub trait WatchedKind: DeserializeOwned + Clone + Debug + Send + 'static {
    /// The key of an object in the cache: its UID, or its names where the cache looks it up by them.
    type Key: Eq + Hash + Debug + Send + 'static;

    /// The fields that select the objects of the watch; empty for all.
    const FIELDS: &'static str = "";

    /// Returns the metadata, for trim and for the resource version.
    fn metadata(&mut self) -> &mut Metadata;

    /// Drops the decoded fields that nothing reads of a cached object. Called once, before [`Self::apply`].
    fn trim(&mut self) {
        self.metadata().annotations.clear();
    }

    /// Returns true if the resource version of this object is cached, because a write may name it. It is dropped otherwise, so that
    /// objects with the same content are equal.
    fn keeps_version(&self) -> bool {
        false
    }

    /// Returns the key of this object in the cache.
    fn key(&self) -> Self::Key;

    /// Returns the keys of all cached objects of the kind; at the end of a relist, those that did not come are removed. Called
    /// under the lock, so the caller makes a set of them.
    fn known(cache: &Cache, kind: &ApiResource) -> Vec<Self::Key>;

    /// Adds this object to the cache, or replaces the one with its key.
    fn apply(self, cache: &mut Cache, kind: &ApiResource);

    /// Removes the object with this key from the cache, if it is there.
    fn remove(key: &Self::Key, cache: &mut Cache);
}

impl WatchedKind for Node {
    type Key = String;

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn trim(&mut self) {
        // A right to patch the Node is a right to write as many as its annotations hold.
        let mut read = 0..MAX_FIRST_READY_READ;
        self.metadata
            .annotations
            .retain(|key, _| key.starts_with(FIRST_READY_PREFIX) && read.next().is_some());
        self.metadata.finalizers = Vec::new();
        self.metadata.owner_references = Vec::new();
        if !self.status.allocatable.is_empty() {
            self.status.capacity.clear();
        }
    }

    fn key(&self) -> String {
        self.metadata.name.clone()
    }

    fn known(cache: &Cache, _: &ApiResource) -> Vec<String> {
        cache.node_names()
    }

    fn apply(self, cache: &mut Cache, _: &ApiResource) {
        cache.apply_node(self);
    }

    fn remove(name: &String, cache: &mut Cache) {
        cache.delete_node(name);
    }
}

impl WatchedKind for Pod {
    type Key = Arc<str>;

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    // Ports and labels are counted under the lock, and the labels of daemon pods are kept.
    fn trim(&mut self) {
        self.metadata.annotations.retain(|key, value| is_replica_annotation(key, value));
        let mut kept = 0..MAX_LABELS;
        let is_read = |key: &str| key == OPT_OUT_LABEL || is_replica_label(key);
        self.metadata.labels.retain(|key, _| is_read(key) || kept.next().is_some());
        keep_host_ports(&mut self.spec, MAX_PORTS_READ);
    }

    fn keeps_version(&self) -> bool {
        self.has_failed_scheduling()
    }

    fn key(&self) -> Arc<str> {
        self.metadata.uid.as_str().into()
    }

    fn known(cache: &Cache, _: &ApiResource) -> Vec<Arc<str>> {
        cache.pod_uids()
    }

    fn apply(self, cache: &mut Cache, _: &ApiResource) {
        cache.apply_pod(&self);
    }

    fn remove(uid: &Arc<str>, cache: &mut Cache) {
        cache.delete_pod(uid);
    }
}

impl WatchedKind for DaemonSet {
    type Key = Arc<str>;

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn trim(&mut self) {
        self.metadata
            .annotations
            .retain(|key, _| [GENERATION_ANNOTATION, GATE_ANNOTATION].contains(&key.as_str()));
        self.metadata.labels.retain(|key, _| key == OPT_OUT_LABEL);
        self.metadata.finalizers = Vec::new();
        self.metadata.owner_references = Vec::new();
        self.drop_if_too_large();
        keep_host_ports(&mut self.spec.template.spec, usize::MAX);
    }

    fn key(&self) -> Arc<str> {
        self.metadata.uid.as_str().into()
    }

    fn known(cache: &Cache, kind: &ApiResource) -> Vec<Arc<str>> {
        cache.daemon_set_uids(&kind.group, &kind.kind)
    }

    fn apply(mut self, cache: &mut Cache, kind: &ApiResource) {
        // The items of a list have no apiVersion and no kind.
        self.api_version.clone_from(&kind.api_version);
        self.kind.clone_from(&kind.kind);
        cache.apply_daemon_set(&kind.group, self);
    }

    fn remove(uid: &Arc<str>, cache: &mut Cache) {
        cache.delete_daemon_set(uid);
    }
}

impl WatchedKind for Namespace {
    type Key = String;

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    // Node selectors are annotations; kubectl's copy of the whole object is not read.
    fn trim(&mut self) {
        self.metadata.annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }

    fn key(&self) -> String {
        self.metadata.name.clone()
    }

    fn known(cache: &Cache, _: &ApiResource) -> Vec<String> {
        cache.namespace_names().cloned().collect()
    }

    fn apply(self, cache: &mut Cache, _: &ApiResource) {
        cache.apply_namespace(self);
    }

    fn remove(name: &String, cache: &mut Cache) {
        cache.delete_namespace(name);
    }
}

/// The Events of the DaemonSet controller's failures to create a pod. Only the time of the last one is cached, with its DaemonSet.
impl WatchedKind for Event {
    type Key = ();

    // Events are not proof: an author with the right to a namespace can write one about any DaemonSet there. The apiserver does not
    // compare UIDs.
    const FIELDS: &'static str = "reason=FailedCreate,involvedObject.kind=DaemonSet";

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn key(&self) {}

    fn known(_: &Cache, _: &ApiResource) -> Vec<()> {
        Vec::new()
    }

    fn apply(self, cache: &mut Cache, _: &ApiResource) {
        cache.apply_creation_failure(&self);
    }

    fn remove((): &(), _: &mut Cache) {}
}

/// The kinds that are cached as they are decoded; they differ in names only.
macro_rules! watched_kind {
    ($kind:ty, $key:ty, $get:ident, $known:ident, $apply:ident, $remove:expr) => {
        impl WatchedKind for $kind {
            type Key = $key;

            fn metadata(&mut self) -> &mut Metadata {
                &mut self.metadata
            }

            fn key(&self) -> $key {
                $get(&self.metadata)
            }

            fn known(cache: &Cache, _: &ApiResource) -> Vec<$key> {
                cache.$known().cloned().collect()
            }

            fn apply(self, cache: &mut Cache, _: &ApiResource) {
                cache.$apply(self);
            }

            fn remove(key: &$key, cache: &mut Cache) {
                let remove: fn(&mut Cache, &$key) = $remove;
                remove(cache, key);
            }
        }
    };
}

watched_kind!(PriorityClass, String, name, priority_class_names, apply_priority_class, |cache, name| {
    cache.delete_priority_class(name);
});
watched_kind!(RuntimeClass, String, name, runtime_class_names, apply_runtime_class, |cache, name| {
    cache.delete_runtime_class(name);
});
watched_kind!(LimitRange, (String, String), names, limit_range_names, apply_limit_range, |cache, key| {
    cache.delete_limit_range(&key.0, &key.1);
});
watched_kind!(
    ResourceQuota,
    (String, String),
    names,
    resource_quota_names,
    apply_resource_quota,
    |cache, key| {
        cache.delete_resource_quota(&key.0, &key.1);
    }
);

/// Drops the ports that are none of the host, and those beyond `limit`.
fn keep_host_ports(spec: &mut PodSpec, limit: usize) {
    let mut read = 0..limit;
    for container in spec.containers.iter_mut().chain(&mut spec.init_containers) {
        container.ports.retain(|port| port.host_port > 0 && read.next().is_some());
    }
}

fn name(metadata: &Metadata) -> String {
    metadata.name.clone()
}

fn names(metadata: &Metadata) -> (String, String) {
    (metadata.namespace.clone(), metadata.name.clone())
}
