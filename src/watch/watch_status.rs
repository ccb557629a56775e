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
    /// Returns the status of a watch that has reported nothing yet.
    pub fn new(resource: WatchedResource, is_required: bool) -> Self {
        Self { resource, health: Mutex::new(WatchHealth::new(is_required)) }
    }

    /// Returns a copy of the health as it is now.
    pub fn health(&self) -> WatchHealth {
        *self.health.lock()
    }

    /// Records that every object of the kind has come ([`WatchHealth::mark_listed`]).
    pub fn mark_listed(&self) {
        self.health.lock().mark_listed(Instant::now());
    }

    /// Records that a list begins anew ([`WatchHealth::mark_relisting`]).
    pub fn mark_relisting(&self) {
        self.health.lock().mark_relisting();
    }

    /// Records that the apiserver does not have or show the kind ([`WatchHealth::mark_absent`]).
    pub fn mark_absent(&self) {
        self.health.lock().mark_absent(Instant::now());
    }

    /// Records that the apiserver has answered the watch with success, or has sent data on it ([`WatchHealth::record_activity`]).
    pub fn record_activity(&self) {
        self.health.lock().record_activity(Instant::now());
    }

    /// Records that the apiserver could not be asked, or answered with an error ([`WatchHealth::record_failure`]).
    pub fn record_failure(&self, now: Instant) {
        self.health.lock().record_failure(now);
    }
}
