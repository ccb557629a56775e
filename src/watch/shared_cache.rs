//! The cache as the tasks share it: one lock around the plain struct, and its freshness.
//!
//! ```text
//! watch ──▶ lock ──▶ Cache ──▶ Reservation ──▶ ClusterWrite ──▶ writes      watches ──▶ CacheFreshness ──▶ synced, fresh ──▶ server
//! ```
//! The lock is held for microseconds and never across an await. Dropping the guard hands on what is to be written to the apiserver.
//!
//! Two questions. *Synced*: has every kind been listed once? `/readyz` waits for that, once: a replica that loses the apiserver
//! later still answers admission in full, and taking all replicas out of service for it would make it worse. *Fresh*: may a
//! refusal be based on the cache? See [`CacheFreshness`].

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::cache::freshness::{CacheFreshness, STALE_AFTER, WatchHealth};
use crate::reservation::View;
use crate::reservation::cluster_write::ClusterWrite;
use crate::telemetry::metrics::Metrics;
use crate::watch::watch_status::WatchStatus;

/// The number of nodes that are refreshed before the lock is given to others. They take tens of microseconds.
const BATCH: usize = 16;

/// The shared cache; cheap to clone.
#[derive(Clone)]
pub struct SharedCache(Arc<SharedCacheInner>);

struct SharedCacheInner {
    view: Mutex<View>,
    watches: Vec<Arc<WatchStatus>>,
    synced: watch::Sender<bool>,
    is_fresh: AtomicBool,
    enqueue: Box<dyn Fn(ClusterWrite) + Send + Sync>,
    metrics: Arc<Metrics>,
}

/// The locked cache. Dropping it hands the changes to the reservation, and what is to be written to `enqueue`. Before the first
/// sync, nothing is written.
pub struct CacheGuard<'s> {
    view: MutexGuard<'s, View>,
    inner: &'s SharedCacheInner,
}

impl SharedCache {
    /// Shares a cache that `watches` will fill. `enqueue` takes what is to be written to the apiserver and must not wait.
    pub fn new(
        view: View,
        watches: Vec<Arc<WatchStatus>>,
        metrics: Arc<Metrics>,
        enqueue: impl Fn(ClusterWrite) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(SharedCacheInner {
            view: Mutex::new(view),
            watches,
            synced: watch::Sender::new(false),
            is_fresh: AtomicBool::new(false),
            enqueue: Box::new(enqueue),
            metrics,
        }))
    }

    /// Locks the cache, fresh or not. Never hold the guard across an await.
    pub fn lock(&self) -> CacheGuard<'_> {
        CacheGuard { view: self.0.view.lock(), inner: &self.0 }
    }

    /// Locks the cache if a refusal may be based on it, by [`CacheFreshness::may_refuse`] at the last tick or loss of a required
    /// watch. Returns `None`, without the lock, if not, as before the first sync.
    pub fn fresh(&self) -> Option<CacheGuard<'_>> {
        self.0.is_fresh.load(Ordering::Acquire).then(|| self.lock())
    }

    /// Returns true once every kind has been listed or found absent, and from then on. Takes no lock of the cache.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until every kind has been listed once or found absent.
    pub async fn wait_until_synced(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Returns a copy of the labels of a namespace, from the cache as it is, fresh or not; `None` if the namespace is not cached.
    /// Locks the cache.
    pub fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        self.lock().cache.namespace(name).map(|namespace| namespace.metadata.labels.clone())
    }

    /// Refreshes the changed nodes, and locks the cache anew for every few of them. Does nothing before the first sync, when most
    /// pods are missing.
    pub fn refresh_changed(&self) {
        if self.is_synced() {
            self.refresh_in_batches();
        }
    }

    /// Updates the freshness at once. Call it when the watch of a required kind has just reported some trouble. Locks the cache;
    /// does nothing before the first sync.
    pub fn mark_watch_lost(&self, now: Instant) {
        if self.is_synced() {
            self.update_freshness(&mut self.lock(), now);
        }
    }

    /// Ends what has timed out, updates the freshness and decides nominations. Before the first sync it only looks if that has
    /// come. Call it a few times a second; it locks the cache several times.
    pub fn tick(&self, now: Instant) {
        if !self.is_synced() {
            if CacheFreshness::of(&self.health(), now) == CacheFreshness::Unsynced {
                return;
            }
            self.refresh_in_batches();
            self.0.synced.send_replace(true);
            let counts = self.lock().cache.stats();
            tracing::info!(
                nodes = counts.nodes,
                pods = counts.pods,
                daemonsets = counts.daemon_sets,
                "synced with the cluster"
            );
        }
        // In batches first, so that the tick itself has little to refresh under the lock.
        self.refresh_in_batches();
        let mut view = self.lock();
        self.update_freshness(&mut view, now);
        let View { cache, reservation } = &mut *view;
        reservation.tick(cache, now);
        drop(view);
        let dropped = self.fresh().map_or(0, |mut view| {
            let View { cache, reservation } = &mut *view;
            reservation.nominate(cache, now)
        });
        self.0.metrics.cluster.nominations_dropped(dropped);
    }

    /// Updates the metrics. It visits every node under the lock, so call it at most once a second.
    pub fn update_metrics(&self) {
        let view = self.lock();
        let (cache, reservation) = (view.cache.stats(), view.reservation.stats());
        drop(view);
        self.0.metrics.cluster.record_stats(&cache, &reservation);
        for status in &self.0.watches {
            // Groups of DaemonSets other than apps share a label.
            let of_label = |other: &&Arc<WatchStatus>| other.resource == status.resource;
            let listed = self.0.watches.iter().filter(of_label).all(|status| status.health().is_listed());
            self.0.metrics.cluster.synced(status.resource, listed);
        }
    }

    fn refresh_in_batches(&self) {
        let refresh =
            |View { cache, reservation }: &mut View| reservation.refresh_some(cache, BATCH, Instant::now());
        while refresh(&mut self.lock()) {}
    }

    fn health(&self) -> Vec<WatchHealth> {
        self.0.watches.iter().map(|status| status.health()).collect()
    }

    /// Sets the freshness by the health of the watches. The health is read under the lock: a watch reports its trouble before it
    /// takes the lock, so an older state cannot overwrite a newer one.
    fn update_freshness(&self, View { cache, reservation }: &mut View, now: Instant) {
        let health = self.health();
        let freshness = CacheFreshness::of(&health, now);
        reservation.observe_freshness(cache, freshness);
        let is_fresh = freshness.may_refuse(now);
        self.0.metrics.cluster.cache_fresh.set(i64::from(is_fresh));
        if self.0.is_fresh.swap(is_fresh, Ordering::AcqRel) == is_fresh {
            return;
        }
        if is_fresh {
            tracing::info!("reserving room: the cache is fresh");
        } else {
            let failing = health.iter().position(|watch| watch.is_stale(now));
            tracing::warn!(
                resource = failing.map(|watch| self.0.watches[watch].resource.as_str()),
                "the watch has failed for {}s: no room is reserved until it works again",
                STALE_AFTER.as_secs()
            );
        }
    }
}

impl Deref for CacheGuard<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl DerefMut for CacheGuard<'_> {
    fn deref_mut(&mut self) -> &mut View {
        &mut self.view
    }
}

impl Drop for CacheGuard<'_> {
    fn drop(&mut self) {
        self.view.observe(Instant::now());
        let writes = self.view.reservation.take_writes();
        // The writes of an incomplete cache may be wrong; gates ask again.
        if writes.is_empty() || !*self.inner.synced.borrow() {
            return;
        }
        for write in writes {
            self.inner.metrics.cluster.record_decision(&write);
            (self.inner.enqueue)(write);
        }
    }
}

impl std::fmt::Debug for SharedCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedCache").field("synced", &self.is_synced()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::telemetry::metrics::WatchedResource;

    #[test]
    fn fresh_only_while_every_watch_works() {
        let watches = vec![
            Arc::new(WatchStatus::new(WatchedResource::Nodes, true)),
            Arc::new(WatchStatus::new(WatchedResource::RuntimeClasses, false)),
        ];
        let metrics = Arc::new(Metrics::default());
        let view = View::new(Arc::new(Policy::default()), None);
        let shared = SharedCache::new(view, watches.clone(), metrics, |_| {});
        let now = Instant::now();
        shared.tick(now);
        assert!(!shared.is_synced() && shared.fresh().is_none());
        watches[0].mark_listed();
        watches[1].mark_absent();
        shared.tick(now);
        assert!(shared.is_synced() && shared.fresh().is_some());
        watches[0].record_failure(now);
        shared.tick(now + STALE_AFTER / 2);
        assert!(shared.fresh().is_some());
        watches[0].record_failure(now + STALE_AFTER);
        shared.tick(now + STALE_AFTER);
        assert!(shared.is_synced() && shared.fresh().is_none());
        watches[0].record_activity();
        shared.tick(now + STALE_AFTER);
        assert!(shared.fresh().is_some());
    }

    /// Daemon pods would be lost in the first seconds after a long outage.
    #[test]
    fn fresh_again_as_soon_as_the_first_watch_is_back() {
        let names = [WatchedResource::Nodes, WatchedResource::Pods];
        let watches = names.map(|name| Arc::new(WatchStatus::new(name, true)));
        let view = View::new(Arc::new(Policy::default()), None);
        let shared = SharedCache::new(view, watches.to_vec(), Arc::default(), |_| {});
        watches.iter().for_each(|watch| watch.mark_listed());
        let begun = Instant::now();
        shared.tick(begun);
        watches.iter().for_each(|watch| watch.record_failure(begun));
        let later = begun + STALE_AFTER;
        shared.tick(later);
        assert!(shared.fresh().is_none());
        watches[0].mark_relisting();
        watches[0].record_activity();
        shared.tick(later);
        assert!(shared.fresh().is_some(), "pods wait, for a bounded time");
        watches[0].mark_listed();
        shared.tick(later);
        assert!(shared.fresh().is_none(), "the other is still away");
    }
}
