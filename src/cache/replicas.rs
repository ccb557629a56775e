//! The Pods beside which this process runs: those of its own namespace that carry the labels of a release. One of them judges
//! bindings, and its label says so.

use std::collections::BTreeMap;

use crate::api::pod::Pod;

/// The label that the Service of `/bind` selects; the value `true` makes its Pod the one that is asked.
pub const ACTIVE_LABEL: &str = "daemonset-warden.io/active";
/// The annotation that a replica writes into its own Pod before it judges: its token comes back by the watch of pods, behind all
/// earlier bindings.
pub const JUDGING_SINCE_ANNOTATION: &str = "daemonset-warden.io/judging-since";
/// The labels that tell releases apart, as Helm charts set them. The component keeps the extender's Pods out, which never judge.
const RELEASE_LABELS: [&str; 3] =
    ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"];
/// The value of `app.kubernetes.io/name` by which replicas are found while the own Pod is unknown.
const PROGRAM: &str = "daemonset-warden";
/// The longest token that is read, in bytes. The tokens of this program have a hundred.
const MAX_TOKEN: usize = 512;

/// Returns true for a label of a Pod that [`Replicas`] reads.
pub fn is_replica_label(key: &str) -> bool {
    key == ACTIVE_LABEL || RELEASE_LABELS.contains(&key)
}

/// Returns true for an annotation of a Pod that [`Replicas`] reads.
pub fn is_replica_annotation(key: &str, value: &str) -> bool {
    key == JUDGING_SINCE_ANNOTATION && value.len() <= MAX_TOKEN
}

/// A Pod of a release.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replica {
    /// The UID.
    pub uid: String,
    /// The name.
    pub name: String,
    /// The values of the labels that tell releases apart; empty where there is none.
    pub release: [String; 3],
    /// True once the Pod is being deleted.
    pub is_terminating: bool,
    /// True if the Pod carries [`ACTIVE_LABEL`].
    pub is_active: bool,
    /// The value of [`JUDGING_SINCE_ANNOTATION`]; empty without one.
    pub token: String,
}

/// The Pods of the own namespace that have the labels of a release and have not ended, by UID.
#[derive(Debug, Default)]
pub struct Replicas {
    own_namespace: Option<String>,
    by_uid: BTreeMap<String, Replica>,
}

impl Replicas {
    /// Sets the namespace that the process runs in. Without one there are no replicas. Call it before any event.
    pub(super) fn set_own_namespace(&mut self, namespace: Option<String>) {
        self.own_namespace = namespace;
    }

    /// Adds a Pod, replaces it, or removes it once it has ended.
    pub(super) fn apply(&mut self, pod: &Pod) {
        let metadata = &pod.metadata;
        if self.own_namespace.as_deref() != Some(metadata.namespace.as_str()) {
            return;
        }
        let label = |key: &str| metadata.labels.get(key).cloned().unwrap_or_default();
        let replica = Replica {
            uid: metadata.uid.clone(),
            name: metadata.name.clone(),
            release: RELEASE_LABELS.map(label),
            is_terminating: metadata.is_deleting(),
            is_active: label(ACTIVE_LABEL) == "true",
            token: metadata.annotations.get(JUDGING_SINCE_ANNOTATION).cloned().unwrap_or_default(),
        };
        // Failed Pods stay for long, and hundreds of them may.
        if pod.is_terminal() || replica.release[0].is_empty() {
            self.by_uid.remove(&replica.uid);
        } else {
            self.by_uid.insert(replica.uid.clone(), replica);
        }
    }

    /// Removes the Pod with this UID, if it is there.
    pub(super) fn remove(&mut self, uid: &str) {
        self.by_uid.remove(uid);
    }

    /// Returns the Pods with the release's labels of the Pod `own`, that one included. Without `own`, or while it is not cached,
    /// returns the Pods with the name of this program.
    pub fn of_release(&self, own: Option<&str>) -> Vec<Replica> {
        let own = own.and_then(|own| self.by_uid.values().find(|replica| replica.name == own));
        let is_of_release = |replica: &&Replica| match own {
            Some(own) => replica.release == own.release,
            None => replica.release[0] == PROGRAM,
        };
        self.by_uid.values().filter(is_of_release).cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::cache::Cache;
    use crate::policy::Policy;

    fn cache() -> Cache {
        let mut cache = Cache::new(Arc::new(Policy::default()));
        cache.set_own_namespace(Some("warden".to_owned()));
        cache
    }

    fn pod(name: &str, changes: Value) -> Value {
        let mut pod = json!({
            "metadata": {
                "name": name, "namespace": "warden", "uid": format!("uid-{name}"),
                "labels": { "app.kubernetes.io/name": "daemonset-warden", "app.kubernetes.io/instance": "a" },
            },
            "spec": { "nodeName": "n1" },
        });
        json_patch::merge(&mut pod, &changes);
        pod
    }

    fn apply(cache: &mut Cache, pod: Value) {
        cache.apply_pod(&serde_json::from_value(pod).unwrap());
    }

    fn names(cache: &Cache, own: Option<&str>) -> Vec<String> {
        cache.replicas().of_release(own).into_iter().map(|replica| replica.name).collect()
    }

    #[test]
    fn replicas_are_the_unfinished_pods_of_the_own_namespace_and_release() {
        let mut cache = cache();
        apply(&mut cache, pod("a-1", json!({})));
        apply(&mut cache, pod("a-2", json!({})));
        let other = json!({ "metadata": { "labels": { "app.kubernetes.io/instance": "b" } } });
        apply(&mut cache, pod("b-1", other));
        let extender = json!({ "metadata": { "labels": { "app.kubernetes.io/component": "extender" } } });
        apply(&mut cache, pod("extender", extender));
        apply(&mut cache, pod("elsewhere", json!({ "metadata": { "namespace": "default" } })));
        let stranger = json!({ "metadata": { "labels": { "app.kubernetes.io/name": null } } });
        apply(&mut cache, pod("stranger", stranger));
        apply(&mut cache, pod("failed", json!({ "status": { "phase": "Failed" } })));
        assert_eq!(names(&cache, Some("a-1")), ["a-1", "a-2"]);
        assert_eq!(names(&cache, Some("b-1")), ["b-1"]);
        assert_eq!(names(&cache, None), ["a-1", "a-2", "b-1", "extender"], "by the program's name");
        assert_eq!(names(&cache, Some("unknown")), ["a-1", "a-2", "b-1", "extender"]);
        apply(&mut cache, pod("a-2", json!({ "status": { "phase": "Succeeded" } })));
        cache.delete_pod("uid-b-1");
        assert_eq!(names(&cache, Some("a-1")), ["a-1"]);
        assert_eq!(names(&cache, None), ["a-1", "extender"]);
    }

    /// The chart's nameOverride changes the label.
    #[test]
    fn a_release_with_another_name_is_found_by_its_own_pod() {
        let mut cache = cache();
        let named = json!({ "metadata": { "labels": { "app.kubernetes.io/name": "other" } } });
        apply(&mut cache, pod("a-1", named.clone()));
        apply(&mut cache, pod("a-2", named));
        assert_eq!(names(&cache, Some("a-1")), ["a-1", "a-2"]);
        assert!(names(&cache, None).is_empty());
    }

    #[test]
    fn labels_tokens_and_deletions_are_seen_even_if_nothing_else_changes() {
        let mut cache = cache();
        apply(&mut cache, pod("a-1", json!({})));
        let own = |cache: &Cache| cache.replicas().of_release(Some("a-1")).remove(0);
        assert!(!own(&cache).is_active && own(&cache).token.is_empty() && !own(&cache).is_terminating);
        let marked = json!({ "metadata": {
            "labels": { "daemonset-warden.io/active": "true" },
            "annotations": { "daemonset-warden.io/judging-since": "token" },
        } });
        apply(&mut cache, pod("a-1", marked));
        assert!(own(&cache).is_active);
        assert_eq!(own(&cache).token, "token");
        let denied = json!({ "metadata": {
            "labels": { "daemonset-warden.io/active": "false" }, "deletionTimestamp": "2026-01-01T00:00:00Z",
        } });
        apply(&mut cache, pod("a-1", denied));
        assert!(!own(&cache).is_active && own(&cache).is_terminating);
        cache.delete_pod("uid-a-1");
        assert!(cache.replicas().is_empty());
    }

    #[test]
    fn without_a_namespace_there_are_no_replicas() {
        let mut cache = Cache::new(Arc::new(Policy::default()));
        apply(&mut cache, pod("a-1", json!({})));
        apply(&mut cache, pod("a-2", json!({ "metadata": { "namespace": "" } })));
        assert!(cache.replicas().is_empty());
    }
}
