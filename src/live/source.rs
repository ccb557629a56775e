//! One kind that is watched: how far it is, and whether it still tells us anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::PATIENCE;
use crate::metrics::Resource;

/// One kind that is watched.
#[derive(Debug)]
pub struct Source {
    /// What is watched.
    pub resource: Resource,
    /// Whether nothing can be decided without it. The others degrade: without them defaults hold, or less is wanted.
    pub is_required: bool,
    listed: AtomicBool,
    absent: AtomicBool,
    failing_since: Mutex<Option<Instant>>,
}

impl Source {
    /// A kind that nothing is known of yet.
    pub fn new(resource: Resource, is_required: bool) -> Self {
        Self {
            resource,
            is_required,
            listed: AtomicBool::new(false),
            absent: AtomicBool::new(false),
            failing_since: Mutex::new(None),
        }
    }

    /// Every object that there is has come.
    pub fn listed(&self) {
        self.listed.store(true, Ordering::Release);
        self.absent.store(false, Ordering::Release);
    }

    /// The server has no such kind, or does not show it to us: nobody waits for it. It may still come.
    pub fn absent(&self) {
        self.absent.store(true, Ordering::Release);
        *self.failing_since.lock() = None;
    }

    /// The server has answered or told something.
    pub fn heard(&self) {
        *self.failing_since.lock() = None;
    }

    /// The server could not be asked, or answered with an error.
    pub fn failed(&self, now: Instant) {
        self.failing_since.lock().get_or_insert(now);
    }

    /// Whether every object has come once.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Whether there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.is_listed() || self.absent.load(Ordering::Acquire)
    }

    /// Whether it does not work right now.
    pub fn fails(&self) -> bool {
        self.failing_since.lock().is_some()
    }

    /// Whether it has failed for so long that what it told is not believed any more.
    pub fn fails_for_long(&self, now: Instant) -> bool {
        self.failing_since.lock().is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE)
    }
}
