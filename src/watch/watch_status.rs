//! One kind that is watched: how far it is, and whether it still tells us anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::telemetry::metrics::WatchedResource;

/// For how long a watch may fail before what it told is not believed any more.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One kind that is watched.
#[derive(Debug)]
pub struct WatchStatus {
    /// What is watched.
    pub resource: WatchedResource,
    /// Whether nothing can be decided without it. The others degrade: without them defaults hold, or less is wanted.
    pub is_required: bool,
    listed: AtomicBool,
    absent: AtomicBool,
    health: Mutex<WatchHealth>,
}

/// How a watch does.
#[derive(Debug, Default)]
struct WatchHealth {
    failing_since: Option<Instant>,
    /// Whether what was missed is too old to be told one by one, and everything has to come anew.
    relists: bool,
    /// When the last trouble was over.
    well_since: Option<Instant>,
}

impl WatchHealth {
    /// Ends the trouble that `trouble` takes away, and notes when the last of it was over.
    fn recover(&mut self, trouble: impl FnOnce(&mut Self)) {
        let was_well = self.is_well();
        trouble(self);
        if !was_well && self.is_well() {
            self.well_since = Some(Instant::now());
        }
    }

    fn is_well(&self) -> bool {
        self.failing_since.is_none() && !self.relists
    }
}

impl WatchStatus {
    /// A kind that nothing is known of yet.
    pub fn new(resource: WatchedResource, is_required: bool) -> Self {
        Self {
            resource,
            is_required,
            listed: AtomicBool::new(false),
            absent: AtomicBool::new(false),
            health: Mutex::default(),
        }
    }

    /// Every object that there is has come.
    pub fn listed(&self) {
        self.listed.store(true, Ordering::Release);
        self.absent.store(false, Ordering::Release);
        self.health.lock().recover(|health| health.relists = false);
    }

    /// What is known is about to be listed anew: until all of it has come, some of it is no longer true.
    pub fn relists(&self) {
        self.health.lock().relists = true;
    }

    /// The server has no such kind, or does not show it to us: nobody waits for it. It may still come.
    pub fn absent(&self) {
        self.absent.store(true, Ordering::Release);
        self.heard();
    }

    /// The server has answered or told something.
    pub fn heard(&self) {
        self.health.lock().recover(|health| health.failing_since = None);
    }

    /// The server could not be asked, or answered with an error.
    pub fn failed(&self, now: Instant) {
        self.health.lock().failing_since.get_or_insert(now);
    }

    /// Whether every object has come once.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Whether there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.is_listed() || self.absent.load(Ordering::Acquire)
    }

    /// Whether it has brought everything for at least `time`.
    pub fn is_well_for(&self, time: Duration, now: Instant) -> bool {
        let health = self.health.lock();
        let is_over = |since: Instant| now.saturating_duration_since(since) >= time;
        health.is_well() && health.well_since.is_none_or(is_over)
    }

    /// Whether it answers again after some trouble, and has not brought everything for at least `time` yet.
    pub fn is_returning(&self, time: Duration, now: Instant) -> bool {
        self.health.lock().failing_since.is_none() && !self.is_well_for(time, now)
    }

    /// Whether it has failed for so long that what it told is not believed any more.
    pub fn fails_for_long(&self, now: Instant) -> bool {
        let failing_since = self.health.lock().failing_since;
        failing_since.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_does_not_end_a_relist() {
        let source = WatchStatus::new(WatchedResource::Pods, true);
        let at_once = Duration::ZERO;
        assert!(source.is_well_for(PATIENCE, Instant::now()), "nothing was ever wrong");
        source.failed(Instant::now());
        assert!(!source.is_well_for(at_once, Instant::now()));
        assert!(!source.is_returning(PATIENCE, Instant::now()));
        source.relists();
        source.heard();
        assert!(source.is_returning(PATIENCE, Instant::now()));
        assert!(!source.is_well_for(at_once, Instant::now()), "the server answers that it has forgotten");
        source.listed();
        assert!(source.is_well_for(at_once, Instant::now()) && source.is_returning(PATIENCE, Instant::now()));
        assert!(!source.is_well_for(PATIENCE, Instant::now()));
        assert!(source.is_well_for(PATIENCE, Instant::now() + PATIENCE));
    }
}
