//! Applies the events of one kind to the cache, and removes the objects that a list did not bring.

use hashbrown::HashSet;
use kube::discovery::ApiResource;

use super::kinds::WatchedKind;
use crate::watch::shared_cache::SharedCache;

/// Applies the events of one kind to the cache.
pub(super) struct CacheWriter<T: WatchedKind> {
    kind: ApiResource,
    cache: SharedCache,
    /// During a list: the keys that were cached before it and have not come yet.
    unseen: HashSet<T::Key>,
}

impl<T: WatchedKind> CacheWriter<T> {
    pub(super) fn new(kind: ApiResource, cache: SharedCache) -> Self {
        Self { kind, cache, unseen: HashSet::new() }
    }

    pub(super) fn begin(&mut self) {
        let known = T::known(&self.cache.lock().cache, &self.kind);
        self.unseen = known.into_iter().collect();
    }

    pub(super) fn listed(&mut self, object: T) {
        // Empty at the first list, where the keys need not be made.
        if !self.unseen.is_empty() {
            self.unseen.remove(&object.key());
        }
        self.apply(object);
    }

    pub(super) fn end(&mut self) {
        for key in std::mem::take(&mut self.unseen) {
            T::remove(&key, &mut self.cache.lock().cache);
            self.cache.refresh_changed();
        }
    }

    pub(super) fn apply(&self, object: T) {
        object.apply(&mut self.cache.lock().cache, &self.kind);
        self.cache.refresh_changed();
    }

    pub(super) fn delete(&self, object: &T) {
        T::remove(&object.key(), &mut self.cache.lock().cache);
        self.cache.refresh_changed();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::node::Node;
    use crate::api::pod::Pod;
    use crate::policy::Policy;
    use crate::reservation::View;

    fn shared() -> SharedCache {
        let view = View::new(Arc::new(Policy::default()), None);
        SharedCache::new(view, Vec::new(), Arc::default(), |_| {})
    }

    fn pod(uid: &str) -> Pod {
        let text = format!(
            r#"{{"metadata":{{"uid":"{uid}","name":"{uid}","namespace":"n"}},"spec":{{"nodeName":"n1","containers":[{{"resources":{{"requests":{{"cpu":"1"}}}}}}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn objects_that_a_relist_does_not_bring_are_removed() {
        let cache = shared();
        let mut pods = CacheWriter::<Pod>::new(
            ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()),
            cache.clone(),
        );
        let mut nodes = CacheWriter::<Node>::new(
            ApiResource::erase::<k8s_openapi::api::core::v1::Node>(&()),
            cache.clone(),
        );
        let node = serde_json::from_str::<Node>(r#"{"metadata":{"name":"n1","uid":"1"}}"#).unwrap();
        nodes.begin();
        nodes.listed(node);
        nodes.end();
        pods.begin();
        pods.listed(pod("a"));
        pods.listed(pod("b"));
        pods.end();
        pods.apply(pod("c"));
        assert_eq!(cache.lock().cache.node("n1").unwrap().1.requested.milli_cpu, 3000);

        // A list that is cut off deletes nothing; the next one starts anew.
        pods.begin();
        pods.listed(pod("a"));
        pods.begin();
        pods.listed(pod("c"));
        pods.listed(pod("d"));
        pods.end();
        let mut uids = cache.lock().cache.pod_uids();
        uids.sort();
        assert_eq!(uids, ["c".into(), "d".into()]);
        assert_eq!(cache.lock().cache.node("n1").unwrap().1.requested.milli_cpu, 2000);
        pods.delete(&pod("c"));
        pods.delete(&pod("c"));
        nodes.begin();
        nodes.end();
        assert!(cache.lock().cache.node_names().is_empty() && cache.lock().cache.pod("d").is_some());
    }
}
