//! The cache and the reservation, side by side.

use std::sync::Arc;
use std::time::Instant;

use super::Reservation;
use crate::cache::Cache;
use crate::policy::Policy;

/// The objects of the cluster, and the room that is reserved on it. Both are behind one lock. The fields are public so that a
/// caller can borrow them apart.
#[derive(Debug)]
pub struct View {
    /// The objects of the cluster.
    pub cache: Cache,
    /// The reservation of room on the nodes.
    pub reservation: Reservation,
}

impl View {
    /// Returns an empty view. `own_namespace` is the namespace that the warden runs in.
    pub fn new(policy: Arc<Policy>, own_namespace: Option<String>) -> Self {
        let mut cache = Cache::new(policy.clone());
        cache.set_own_namespace(own_namespace.clone());
        Self { cache, reservation: Reservation::new(policy, own_namespace) }
    }

    /// Hands the changes of the cache to the reservation. Call it after each event.
    pub fn observe(&mut self, now: Instant) {
        // Also without changes: an event may have given out the id of a node that is only named yet.
        let changes = self.cache.take_changes();
        self.reservation.observe(&self.cache, changes, now);
        for id in self.reservation.take_forgotten() {
            self.cache.forget_daemon_set(id);
        }
    }
}
