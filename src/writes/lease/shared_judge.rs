//! The judge as the tasks share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::reservation::judge::{Judge, JudgeState, JudgeTurn};

/// The shared judge; cheap to clone. Its lock is held for microseconds, never across an await. A task that holds the cache may
/// take it; one that holds it takes no other lock.
#[derive(Clone)]
pub struct SharedJudge(Arc<SharedJudgeInner>);

struct SharedJudgeInner {
    judge: Mutex<Judge>,
    handed_over: watch::Sender<bool>,
    serves: AtomicBool,
}

impl SharedJudge {
    /// Shares a judge. [`super::run`] moves it.
    pub fn new(judge: Judge) -> Self {
        Self(Arc::new(SharedJudgeInner {
            judge: Mutex::new(judge),
            handed_over: watch::Sender::new(false),
            serves: AtomicBool::new(false),
        }))
    }

    /// Records that the process serves, with a certificate that the apiserver trusts. Until then it does not stand for the Lease.
    pub fn begin_to_stand(&self) {
        self.0.serves.store(true, Ordering::Relaxed);
    }

    /// Returns true after [`Self::begin_to_stand`].
    pub(super) fn may_stand(&self) -> bool {
        self.0.serves.load(Ordering::Relaxed)
    }

    /// Returns the answer to a binding at `now`. Ask while the cache is locked, so that a hand-over waits for every binding that
    /// was let through: it counts them under the lock after the last [`JudgeTurn::Judges`].
    pub fn turn(&self, now: Instant) -> JudgeTurn {
        let mut judge = self.0.judge.lock();
        judge.notice(now);
        judge.turn(now)
    }

    /// Returns the state, for logs and tests.
    pub fn state(&self) -> JudgeState {
        self.0.judge.lock().state()
    }

    /// Begins the hand-over, from which on this replica never judges again. For SIGTERM.
    pub fn begin_hand_over(&self, now: Instant) {
        self.0.judge.lock().end(now);
    }

    /// Waits until the process may stop to serve: the apiserver asks another replica, or there is none to wait for. Takes as long
    /// as the hand-over and a lease duration at most, while the task runs. Call [`Self::begin_hand_over`] before.
    pub async fn wait_until_handed_over(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.0.handed_over.subscribe().wait_for(|is_handed_over| *is_handed_over).await;
    }

    /// Calls `act` with the judge, under the lock.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Judge) -> T) -> T {
        act(&mut self.0.judge.lock())
    }

    /// Ends [`Self::wait_until_handed_over`].
    pub(super) fn report_handed_over(&self) {
        self.0.handed_over.send_if_modified(|is_handed_over| !std::mem::replace(is_handed_over, true));
    }
}

impl std::fmt::Debug for SharedJudge {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("SharedJudge").field(&self.state()).finish()
    }
}
