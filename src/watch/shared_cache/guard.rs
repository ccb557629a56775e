//! The guard of the shared cache's lock: it hands on the changes, and measures the time.

use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use rustix::time::{ClockId, clock_gettime};

use super::SharedCacheInner;
use crate::reservation::View;

/// The processor's time after which a hold of the lock is logged, with the place in the code that took it: a bound of the program
/// is broken.
const LONG_HOLD: Duration = Duration::from_millis(5);

/// The locked cache. Dropping it hands the changes to the reservation, and what is to be written to `enqueue`. Before the first
/// sync, nothing is written.
pub struct CacheGuard<'s> {
    view: MutexGuard<'s, View>,
    inner: &'s SharedCacheInner,
    since: Instant,
    cpu_since: Duration,
    locked_by: &'static Location<'static>,
}

impl<'s> CacheGuard<'s> {
    /// Locks the cache for the caller of the caller. The times run from here.
    #[track_caller]
    pub(super) fn lock(inner: &'s SharedCacheInner) -> Self {
        let view = inner.view.lock();
        let locked_by = Location::caller();
        Self { view, inner, since: Instant::now(), cpu_since: thread_cpu_time(), locked_by }
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
        // Another panic would end the process at once. The next holder of the lock hands on what is left here.
        if std::thread::panicking() {
            return;
        }
        self.view.observe(Instant::now());
        let unjudged = self.view.reservation.take_unjudged();
        let waits = self.view.reservation.take_waits();
        self.inner.metrics.bind.record_bound(unjudged, &waits);
        let writes = self.view.reservation.take_writes();
        // The writes of an incomplete cache may be wrong; gates ask again.
        if !writes.is_empty() && *self.inner.synced.borrow() {
            for write in writes {
                self.inner.metrics.cluster.record_decision(&write);
                (self.inner.enqueue)(write);
            }
        }
        // The lock is given back right after this.
        let cpu = thread_cpu_time().saturating_sub(self.cpu_since);
        self.inner.metrics.cluster.record_lock(self.since.elapsed(), cpu);
        if cpu > LONG_HOLD {
            let cpu_us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
            tracing::info!(by = %self.locked_by, cpu_us, "the cache was locked for long");
        }
    }
}

/// Returns the processor's time of this thread. Costs a call of the kernel, a quarter of a microsecond.
fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
