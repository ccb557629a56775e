//! The cache and the reservation, side by side.

use std::sync::Arc;
use std::time::Instant;

use super::Reservation;
use crate::cache::Cache;
use crate::policy::Policy;

/// The cluster as the warden sees it, and the room that is kept on it. Both are behind one lock; the fields are public so that a call
/// borrows them apart.
#[derive(Debug)]
pub struct View {
    /// The objects of the cluster.
    pub cache: Cache,
    /// The room that is kept.
    pub reservation: Reservation,
}

impl View {
    /// Returns a view of a cluster of which nothing is known yet. `own_namespace` is the one that the warden runs in.
    pub fn new(policy: Arc<Policy>, own_namespace: Option<String>) -> Self {
        Self { cache: Cache::new(policy.clone()), reservation: Reservation::new(policy, own_namespace) }
    }

    /// Lets the reservation take up what events have changed in the cache. Call it after each event.
    pub fn observe(&mut self, now: Instant) {
        let changes = self.cache.take_changes();
        self.reservation.observe(&self.cache, changes, now);
    }
}
