//! The cache as the tasks share it: one lock around the plain struct, and its freshness.
//!
//! ```text
//! watch ──▶ lock ──▶ Cache ──▶ Reservation ──▶ ClusterWrite ──▶ writes      watches ──▶ CacheFreshness ──▶ synced, fresh ──▶ server
//! ```
//! The lock is held for a millisecond at most, and never across an await; each hold is measured. Dropping the guard hands on what
//! is to be written to the apiserver.
//!
//! Two questions. *Synced*: has every kind been listed once? `/readyz` waits for that, once: a replica that loses the apiserver
//! later still answers admission in full, and taking all replicas out of service for it would make it worse. *Fresh*: may a refusal
//! be based on the cache? See [`CacheFreshness`]. It is not, either, while the ticks do not come, or after a task that feeds the
//! cache has ended: nothing would end a refusal then.

pub mod guard;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use self::guard::CacheGuard;

use crate::cache::freshness::{CacheFreshness, STALE_AFTER, WatchHealth};
use crate::reservation::View;
use crate::reservation::cluster_write::ClusterWrite;
use crate::telemetry::metrics::{Metrics, WatchedResource};
use crate::watch::watch_status::WatchStatus;

/// The number of nodes that are refreshed before the lock is given to others, fewer of those with many DaemonSets. They take tens
/// of microseconds.
const BATCH: usize = 8;
/// The batches of a tick: all nodes of a large cluster with many DaemonSets once. A tick has to end, or nothing is refused.
const MAX_BATCHES: usize = 32_768;
/// The time for which a call refreshes changed nodes before it begins, those that it does not name too. It refreshes the others
/// that it names while it judges them.
const REFRESH_BEFORE_CALL: Duration = Duration::from_millis(20);

/// The shared cache; cheap to clone.
#[derive(Clone)]
pub struct SharedCache(Arc<SharedCacheInner>);

struct SharedCacheInner {
    view: Mutex<View>,
    watches: Vec<Arc<WatchStatus>>,
    synced: watch::Sender<bool>,
    is_fresh: AtomicBool,
    has_changed_nodes: Notify,
    /// True once the cache is fed no longer.
    is_distrusted: AtomicBool,
    /// The time of the last tick, in milliseconds since `begin`.
    ticked_at: AtomicU64,
    begin: Instant,
    enqueue: Box<dyn Fn(ClusterWrite) + Send + Sync>,
    metrics: Arc<Metrics>,
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
            has_changed_nodes: Notify::new(),
            is_distrusted: AtomicBool::new(false),
            ticked_at: AtomicU64::new(0),
            begin: Instant::now(),
            enqueue: Box::new(enqueue),
            metrics,
        }))
    }

    /// Locks the cache, fresh or not. Never hold the guard across an await.
    #[track_caller]
    pub fn lock(&self) -> CacheGuard<'_> {
        CacheGuard::lock(&self.0)
    }

    /// Locks the cache if a refusal may be based on it at `now`, see [`CacheFreshness::may_refuse`].
    #[track_caller]
    pub fn fresh(&self, now: Instant) -> Option<CacheGuard<'_>> {
        // No closure: it would count as the caller.
        if self.may_refuse(now) { Some(self.lock()) } else { None }
    }

    /// Returns true if a refusal may be based on the cache at `now`. Takes no lock.
    pub fn may_refuse(&self, now: Instant) -> bool {
        let Self(inner) = self;
        // A watch that fails is believed as long.
        let ticks = || inner.millis(now).saturating_sub(inner.ticked_at.load(Ordering::Acquire));
        inner.is_fresh.load(Ordering::Acquire)
            && !inner.is_distrusted.load(Ordering::Acquire)
            && u128::from(ticks()) < STALE_AFTER.as_millis()
    }

    /// Ends all refusals for good, without the lock: a task that feeds the cache, or ends its holds, has ended.
    pub fn distrust(&self) {
        self.0.is_distrusted.store(true, Ordering::Release);
        self.0.metrics.cluster.cache_fresh.set(0);
    }

    /// Returns true while events of a required watch may be missing at `now`, as during a relist. Takes no lock of the cache.
    pub fn lacks_events(&self, now: Instant) -> bool {
        CacheFreshness::of(&self.health(), now).lacks_events()
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

    /// Refreshes a few changed nodes; [`Self::run_refresh`] does the others. Does nothing before the first sync, when most pods are
    /// missing.
    pub fn refresh_changed(&self) {
        if self.is_synced() && self.refresh_batch() {
            self.0.has_changed_nodes.notify_one();
        }
    }

    /// Refreshes changed nodes until the task is dropped, and lets other tasks run in between: one event can change every node.
    pub async fn run_refresh(&self) {
        loop {
            self.0.has_changed_nodes.notified().await;
            while self.refresh_batch() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Refreshes the changed nodes in batches if there are many, so that a call that names them holds the lock for a short time.
    pub fn refresh_before_call(&self) {
        let begin = Instant::now();
        while begin.elapsed() < REFRESH_BEFORE_CALL {
            if self.lock().reservation.is_nearly_refreshed(BATCH) || !self.refresh_batch() {
                return;
            }
        }
    }

    /// Updates the freshness at once. Call it when the watch of a required kind has just reported some trouble. Locks the cache;
    /// does nothing before the first sync.
    pub fn mark_watch_lost(&self, now: Instant) {
        if self.is_synced() {
            self.update_freshness(&mut self.lock(), now);
        }
    }

    /// Ticks without letting other tasks run, see [`Self::run_tick`].
    pub fn tick(&self, now: Instant) {
        // It is ready at once.
        let _ = self.tick_with_pauses(now, || std::future::ready(())).now_or_never();
    }

    /// Ends what has timed out, updates the freshness and decides nominations. Before the first sync it only looks if that has
    /// come. Call it a few times a second; it locks the cache several times, and lets other tasks run in between.
    pub async fn run_tick(&self, now: Instant) {
        self.tick_with_pauses(now, tokio::task::yield_now).await;
    }

    async fn tick_with_pauses<P: Future<Output = ()>>(&self, now: Instant, pause: impl Fn() -> P) {
        self.0.ticked_at.store(self.0.millis(now), Ordering::Release);
        if !self.is_synced() {
            if CacheFreshness::of(&self.health(), now) == CacheFreshness::Unsynced {
                return;
            }
            {
                let View { cache, reservation } = &mut *self.lock();
                reservation.begin_start(cache, now);
            }
            self.refresh_all(&pause).await;
            self.lock().reservation.finish_start();
            self.0.synced.send_replace(true);
            let counts = self.lock().cache.stats();
            tracing::info!(
                nodes = counts.nodes,
                pods = counts.pods,
                daemonsets = counts.daemon_sets,
                "synced with the cluster"
            );
        }
        {
            let mut view = self.lock();
            self.update_freshness(&mut view, now);
            let View { cache, reservation } = &mut *view;
            reservation.begin_tick(cache, now);
            reservation.sweep_first_ready(cache, self.lists_all_daemon_sets(now), now);
        }
        let tick = |View { cache, reservation }: &mut View| reservation.tick_some(cache, BATCH, now);
        while tick(&mut self.lock()) {
            pause().await;
        }
        self.refresh_all(&pause).await;
        let dropped = self.fresh(now).map_or(0, |mut view| {
            let View { cache, reservation } = &mut *view;
            reservation.nominate(cache, now)
        });
        self.0.metrics.cluster.nominations_dropped(dropped);
    }

    /// Refreshes the changed nodes. Events that come meanwhile change others, so it ends after [`MAX_BATCHES`].
    async fn refresh_all<P: Future<Output = ()>>(&self, pause: &impl Fn() -> P) {
        for _ in 0..MAX_BATCHES {
            if !self.refresh_batch() {
                return;
            }
            pause().await;
        }
        self.0.has_changed_nodes.notify_one();
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

    /// Refreshes a few changed nodes. Returns true if any are left.
    fn refresh_batch(&self) -> bool {
        let mut view = self.lock();
        let View { cache, reservation } = &mut *view;
        reservation.refresh_some(cache, BATCH, Instant::now())
    }

    /// Returns true if the DaemonSets of every configured kind have been listed, and no watch of them has failed for long.
    fn lists_all_daemon_sets(&self, now: Instant) -> bool {
        let of_daemon_sets = |status: &&Arc<WatchStatus>| {
            matches!(status.resource, WatchedResource::DaemonSets | WatchedResource::OtherDaemonSets)
        };
        let mut healths = self.0.watches.iter().filter(of_daemon_sets).map(|status| status.health());
        healths.all(|health| health.is_listed() && !health.is_stale(now))
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
        let is_fresh = freshness.may_refuse(now) && !self.0.is_distrusted.load(Ordering::Acquire);
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

impl SharedCacheInner {
    /// Returns the milliseconds from the start to `now`.
    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begin).as_millis()).unwrap_or(u64::MAX)
    }
}

impl std::fmt::Debug for SharedCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedCache").field("synced", &self.is_synced()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::Policy;

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
        assert!(!shared.is_synced() && shared.fresh(now).is_none());
        watches[0].mark_listed();
        watches[1].mark_absent();
        shared.tick(now);
        assert!(shared.is_synced() && shared.fresh(now).is_some());
        watches[0].record_failure(now);
        let later = now + STALE_AFTER / 2;
        shared.tick(later);
        assert!(shared.fresh(later).is_some());
        let later = now + STALE_AFTER;
        watches[0].record_failure(later);
        shared.tick(later);
        assert!(shared.is_synced() && shared.fresh(later).is_none());
        watches[0].record_activity();
        shared.tick(later);
        assert!(shared.fresh(later).is_some());
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
        assert!(shared.fresh(later).is_none());
        watches[0].mark_relisting();
        watches[0].record_activity();
        shared.tick(later);
        assert!(shared.fresh(later).is_some(), "pods wait, for a bounded time");
        watches[0].mark_listed();
        shared.tick(later);
        assert!(shared.fresh(later).is_none(), "the other is still away");
    }

    fn fresh_cache() -> (SharedCache, Instant) {
        let watch = Arc::new(WatchStatus::new(WatchedResource::Nodes, true));
        let view = View::new(Arc::new(Policy::default()), None);
        let shared = SharedCache::new(view, vec![watch.clone()], Arc::default(), |_| {});
        watch.mark_listed();
        let now = Instant::now();
        shared.tick(now);
        assert!(shared.fresh(now).is_some());
        (shared, now)
    }

    #[test]
    fn nothing_is_refused_by_a_cache_that_nobody_feeds() {
        let (shared, now) = fresh_cache();
        shared.distrust();
        assert!(shared.fresh(now).is_none());
        shared.tick(now);
        assert!(shared.fresh(now).is_none(), "a tick does not bring the trust back");
    }

    #[test]
    fn nothing_is_refused_while_the_ticks_do_not_come() {
        let (shared, now) = fresh_cache();
        let later = now + STALE_AFTER;
        assert!(shared.fresh(later - Duration::from_secs(1)).is_some() && shared.fresh(later).is_none());
        shared.tick(later);
        assert!(shared.fresh(later).is_some());
    }

    /// A panic during the unwinding of another would end the process at once, with every request that is in flight.
    #[test]
    fn a_panic_under_the_lock_leaves_the_changes_to_the_next_holder() {
        let (shared, _) = fresh_cache();
        let panics = || {
            let node = r#"{"metadata":{"name":"n1","uid":"1"}}"#;
            shared.lock().cache.apply_node(serde_json::from_str(node).unwrap());
            let mut view = shared.lock();
            view.cache.delete_node("n1");
            panic!("a test");
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(!shared.0.view.lock().cache.take_changes().is_empty());
        drop(shared.lock());
    }
}
