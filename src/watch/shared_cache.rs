//! The live cluster as the edges share it: one lock around the plain struct, and whether it may be believed.
//!
//! ```text
//! watch ──▶ lock ──▶ Cache ──▶ ClusterWrite ──▶ events      sources ──▶ synced, believed ──▶ server
//! ```
//! The lock is held for microseconds and never across an await. Whoever lets go of it hands on what is to be done outside,
//! so that nobody can forget to.
//!
//! Two questions, because they have different answers. *Synced*: has every kind been listed once? That is what `/readyz` waits
//! for, once: a replica that loses the cluster later still answers admission in full, and taking all replicas away because the
//! apiserver is gone for a minute would make it worse. *Believed*: is it synced, and has every watch worked within the last
//! [`PATIENCE`]? Nothing is refused for a cluster that is not believed.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::cache::Cache;
use crate::reservation::cluster_write::ClusterWrite;
use crate::telemetry::metrics::Metrics;
use crate::watch::watch_status::{PATIENCE, WatchStatus};

/// For how long every watch must have worked again before we believe our eyes: what was missed comes after the connection.
const SETTLING: Duration = Duration::from_secs(1);
/// For how long one watch may work again before the others do: they are tried every two seconds.
const RETURNING: Duration = Duration::from_secs(3);
/// How many nodes are worked out before the lock is given to others: tens of microseconds.
const BATCH: usize = 16;

/// The live cluster; cheap to clone.
#[derive(Clone)]
pub struct SharedCache(Arc<SharedCacheInner>);

struct SharedCacheInner {
    cluster: Mutex<Cache>,
    sources: Vec<Arc<WatchStatus>>,
    synced: watch::Sender<bool>,
    believed: AtomicBool,
    outbox: Box<dyn Fn(ClusterWrite) + Send + Sync>,
    metrics: Arc<Metrics>,
}

/// The cluster, locked; what is to be done outside is handed on when it is dropped.
pub struct CacheGuard<'s> {
    cluster: MutexGuard<'s, Cache>,
    inner: &'s SharedCacheInner,
}

impl SharedCache {
    /// A cluster that `sources` will tell of. `outbox` takes what is to be done outside and never waits.
    pub fn new(
        cluster: Cache,
        sources: Vec<Arc<WatchStatus>>,
        metrics: Arc<Metrics>,
        outbox: impl Fn(ClusterWrite) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(SharedCacheInner {
            cluster: Mutex::new(cluster),
            sources,
            synced: watch::Sender::new(false),
            believed: AtomicBool::new(false),
            outbox: Box::new(outbox),
            metrics,
        }))
    }

    /// The cluster, whatever it is worth.
    pub fn lock(&self) -> CacheGuard<'_> {
        CacheGuard { cluster: self.0.cluster.lock(), inner: &self.0 }
    }

    /// The cluster, if something may be refused because of it.
    pub fn believed(&self) -> Option<CacheGuard<'_>> {
        self.0.believed.load(Ordering::Acquire).then(|| self.lock())
    }

    /// Whether every kind has been listed once.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until every kind has been listed once.
    pub async fn wait_until_synced(&self) {
        // Fails only once the sender is gone, and we hold it.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The labels of a namespace, if it is known.
    pub fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        self.lock().namespace(name).map(|namespace| namespace.metadata.labels.clone())
    }

    /// Works out what has changed, a few nodes at a time. Before the first sync there is no point: most pods are missing.
    pub fn settle(&self) {
        if self.is_synced() {
            self.work_out();
        }
    }

    /// Time passes; call it a few times a second.
    pub fn tick(&self, now: Instant) {
        if !self.is_synced() {
            if !self.0.sources.iter().all(|source| source.is_settled()) {
                return;
            }
            self.work_out();
            self.0.synced.send_replace(true);
            let census = self.lock().census();
            tracing::info!(
                nodes = census.nodes,
                pods = census.pods,
                daemonsets = census.daemon_sets,
                "synced with the cluster"
            );
        }
        // In batches first, so that the tick itself has little to work out under the lock.
        self.work_out();
        let mut cluster = self.lock();
        // Under the lock: a source first notes its trouble and then takes the sight, so it cannot be given back in between.
        if self.required().all(|source| source.is_well_for(SETTLING, now)) {
            cluster.regain_sight();
        } else if self.required().any(|source| !source.is_well_for(Duration::ZERO, now)) {
            // Also of what is noted where nobody has the cluster: a request that is not answered.
            cluster.lose_sight();
            if self.is_returning(now) {
                cluster.sight_returns();
            }
        }
        cluster.tick(now);
        drop(cluster);
        self.decide_belief(now);
        let dropped = self.believed().map_or(0, |mut cluster| cluster.nominate(now));
        self.0.metrics.cluster.nominations_dropped(dropped);
    }

    /// Writes what there is into the metrics; the cluster is counted through, so once a second is enough.
    pub fn count(&self) {
        let census = self.lock().census();
        self.0.metrics.cluster.census(&census);
        for source in &self.0.sources {
            // Groups of DaemonSets other than apps share a label.
            let of_label = |other: &&Arc<WatchStatus>| other.resource == source.resource;
            let listed = self.0.sources.iter().filter(of_label).all(|source| source.is_listed());
            self.0.metrics.cluster.synced(source.resource, listed);
        }
    }

    fn work_out(&self) {
        while self.lock().refresh_some(BATCH, Instant::now()) {}
    }

    fn required(&self) -> impl Iterator<Item = &Arc<WatchStatus>> {
        self.0.sources.iter().filter(|source| source.is_required)
    }

    /// Whether the apiserver is back after some trouble, as far as one watch can tell, and not all that we missed has come.
    fn is_returning(&self, now: Instant) -> bool {
        self.required().any(|source| source.is_returning(RETURNING, now))
    }

    fn decide_belief(&self, now: Instant) {
        let failing = self.0.sources.iter().find(|source| source.fails_for_long(now));
        // Back after long is as after a moment: pods wait for a short time, because the next seconds are when they could take
        // what we have not seen.
        let believed = failing.is_none() || self.is_returning(now);
        let before = self.0.believed.swap(believed, Ordering::AcqRel);
        self.0.metrics.cluster.believed.set(i64::from(believed));
        match failing {
            Some(source) if before => tracing::warn!(
                resource = source.resource.as_str(),
                "the watch has failed for {}s: no room is kept until it works again",
                PATIENCE.as_secs()
            ),
            None if !before => tracing::info!("keeping room: the view of the cluster is up to date"),
            _ => {}
        }
    }
}

impl Deref for CacheGuard<'_> {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        &self.cluster
    }
}

impl DerefMut for CacheGuard<'_> {
    fn deref_mut(&mut self) -> &mut Cache {
        &mut self.cluster
    }
}

impl Drop for CacheGuard<'_> {
    fn drop(&mut self) {
        let effects = self.cluster.take_effects();
        // What a half-known cluster says is not worth telling; gates ask again.
        if effects.is_empty() || !*self.inner.synced.borrow() {
            return;
        }
        for effect in effects {
            self.inner.metrics.cluster.effect(&effect);
            (self.inner.outbox)(effect);
        }
    }
}

impl std::fmt::Debug for SharedCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedCluster").field("synced", &self.is_synced()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::telemetry::metrics::WatchedResource;

    #[test]
    fn believed_only_while_every_source_works() {
        let sources = vec![
            Arc::new(WatchStatus::new(WatchedResource::Nodes, true)),
            Arc::new(WatchStatus::new(WatchedResource::RuntimeClasses, false)),
        ];
        let metrics = Arc::new(Metrics::default());
        let cluster = Cache::new(Arc::new(Policy::default()), None);
        let shared = SharedCache::new(cluster, sources.clone(), metrics, |_| {});
        let now = Instant::now();
        shared.tick(now);
        assert!(!shared.is_synced() && shared.believed().is_none());
        sources[0].listed();
        sources[1].absent();
        shared.tick(now);
        assert!(shared.is_synced() && shared.believed().is_some());
        sources[0].failed(now);
        shared.tick(now + PATIENCE / 2);
        assert!(shared.believed().is_some());
        sources[0].failed(now + PATIENCE);
        shared.tick(now + PATIENCE);
        assert!(shared.is_synced() && shared.believed().is_none());
        sources[0].heard();
        shared.tick(now + PATIENCE);
        assert!(shared.believed().is_some());
    }

    /// What happens in the first seconds after a long outage is what daemon pods are lost by.
    #[test]
    fn believed_again_as_soon_as_the_first_watch_is_back() {
        let names = [WatchedResource::Nodes, WatchedResource::Pods];
        let sources = names.map(|name| Arc::new(WatchStatus::new(name, true)));
        let cluster = Cache::new(Arc::new(Policy::default()), None);
        let shared = SharedCache::new(cluster, sources.to_vec(), Arc::default(), |_| {});
        sources.iter().for_each(|source| source.listed());
        let begun = Instant::now();
        shared.tick(begun);
        sources.iter().for_each(|source| source.failed(begun));
        let later = begun + PATIENCE;
        shared.tick(later);
        assert!(shared.believed().is_none());
        sources[0].relists();
        sources[0].heard();
        shared.tick(later);
        assert!(shared.believed().is_some(), "pods wait, for a bounded time");
        sources[0].listed();
        shared.tick(later);
        assert!(shared.believed().is_none(), "the other is still away");
    }
}
