//! One watched kind: the health that its watch reports, shared by the tasks that report it.

use std::time::Instant;

use parking_lot::Mutex;

use crate::cache::freshness::WatchHealth;
use crate::telemetry::metrics::WatchedResource;

/// One watched kind.
#[derive(Debug)]
pub struct WatchStatus {
    /// The kind, as metrics name it.
    pub resource: WatchedResource,
    health: Mutex<WatchHealth>,
}

impl WatchStatus {
    /// A watch that has reported nothing yet.
    pub fn new(resource: WatchedResource, is_required: bool) -> Self {
        Self { resource, health: Mutex::new(WatchHealth::new(is_required)) }
    }

    /// A copy of the health as it is now.
    pub fn health(&self) -> WatchHealth {
        *self.health.lock()
    }

    /// See [`WatchHealth::mark_listed`].
    pub fn mark_listed(&self) {
        self.health.lock().mark_listed(Instant::now());
    }

    /// See [`WatchHealth::mark_relisting`].
    pub fn mark_relisting(&self) {
        self.health.lock().mark_relisting();
    }

    /// See [`WatchHealth::mark_absent`].
    pub fn mark_absent(&self) {
        self.health.lock().mark_absent(Instant::now());
    }

    /// See [`WatchHealth::record_activity`].
    pub fn record_activity(&self) {
        self.health.lock().record_activity(Instant::now());
    }

    /// See [`WatchHealth::record_failure`].
    pub fn record_failure(&self, now: Instant) {
        self.health.lock().record_failure(now);
    }
}
