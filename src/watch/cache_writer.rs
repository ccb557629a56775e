//! Writes the events of one kind to the cluster, and deletes what a list did not bring.

use std::time::Instant;

use hashbrown::HashSet;
use kube::discovery::ApiResource;

use super::kinds::WatchedKind;
use crate::watch::shared_cache::SharedCache;

/// Takes the events of one kind to the cluster.
pub(super) struct CacheWriter<T: WatchedKind> {
    kind: ApiResource,
    cluster: SharedCache,
    /// During a list: what was known before and has not come yet.
    unseen: HashSet<T::Key>,
}

impl<T: WatchedKind> CacheWriter<T> {
    pub(super) fn new(kind: ApiResource, cluster: SharedCache) -> Self {
        Self { kind, cluster, unseen: HashSet::new() }
    }

    pub(super) fn begin(&mut self) {
        self.unseen = T::known(&self.cluster.lock(), &self.kind);
    }

    pub(super) fn listed(&mut self, object: T) {
        // Empty at the first list: a key costs something to make.
        if !self.unseen.is_empty() {
            self.unseen.remove(&object.key());
        }
        self.apply(object);
    }

    pub(super) fn end(&mut self) {
        for key in std::mem::take(&mut self.unseen) {
            T::forget(&key, &mut self.cluster.lock(), Instant::now());
            self.cluster.refresh_changed();
        }
    }

    pub(super) fn apply(&self, object: T) {
        object.apply(&mut self.cluster.lock(), &self.kind, Instant::now());
        self.cluster.refresh_changed();
    }

    pub(super) fn delete(&self, object: &T) {
        T::forget(&object.key(), &mut self.cluster.lock(), Instant::now());
        self.cluster.refresh_changed();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::node::Node;
    use crate::api::pod::Pod;
    use crate::cache::Cache;
    use crate::policy::Policy;
    use crate::watch::kinds::builtin;

    fn shared() -> SharedCache {
        let cluster = Cache::new(Arc::new(Policy::default()), None);
        SharedCache::new(cluster, Vec::new(), Arc::default(), |_| {})
    }

    fn pod(uid: &str) -> Pod {
        let text = format!(
            r#"{{"metadata":{{"uid":"{uid}","name":"{uid}","namespace":"n"}},"spec":{{"nodeName":"n1","containers":[{{"resources":{{"requests":{{"cpu":"1"}}}}}}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_a_relist_does_not_bring_is_gone() {
        let cluster = shared();
        let mut pods = CacheWriter::<Pod>::new(builtin("", "v1", "Pod"), cluster.clone());
        let mut nodes = CacheWriter::<Node>::new(builtin("", "v1", "Node"), cluster.clone());
        let node = serde_json::from_str::<Node>(r#"{"metadata":{"name":"n1","uid":"1"}}"#).unwrap();
        nodes.begin();
        nodes.listed(node);
        nodes.end();
        pods.begin();
        pods.listed(pod("a"));
        pods.listed(pod("b"));
        pods.end();
        pods.apply(pod("c"));
        assert_eq!(cluster.lock().node("n1").unwrap().1.used.milli_cpu, 3000);

        // A list that is cut off deletes nothing; the next one starts anew.
        pods.begin();
        pods.listed(pod("a"));
        pods.begin();
        pods.listed(pod("c"));
        pods.listed(pod("d"));
        pods.end();
        let mut uids = cluster.lock().pod_uids();
        uids.sort();
        assert_eq!(uids, ["c".into(), "d".into()]);
        assert_eq!(cluster.lock().node("n1").unwrap().1.used.milli_cpu, 2000);
        pods.delete(&pod("c"));
        pods.delete(&pod("c"));
        nodes.begin();
        nodes.end();
        assert!(cluster.lock().node_names().is_empty() && cluster.lock().pod("d").is_some());
    }
}
