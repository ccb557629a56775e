//! Gates: ordinary pods are kept off a node until a daemon pod on it is Ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::door::Door;
use super::refusal_clock::RefusalClock;
use crate::api::daemonset::DaemonSet;
use crate::cache::DaemonSetId;

/// The DaemonSet annotation that asks for a gate.
pub const GATE_ANNOTATION: &str = "daemonset-warden.io/ready-before-pods";

/// The time for which ordinary pods wait for a daemon pod to be Ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateKind {
    /// Until a pod of the DaemonSet is Ready on the node for the first time.
    FirstReady,
    /// Whenever the pod on the node is not Ready.
    Always,
}

/// Returns the gate that the annotation of `daemon_set` asks for; `None` without the annotation, or if its value is unknown.
pub fn gate_of(daemon_set: &DaemonSet) -> Option<GateKind> {
    match daemon_set.metadata.annotations.get(GATE_ANNOTATION)?.as_str() {
        "FirstReady" => Some(GateKind::FirstReady),
        "Always" => Some(GateKind::Always),
        _ => None,
    }
}

/// The prefix of the Node annotations that record the DaemonSets of which a pod was Ready once. The DaemonSet's UID follows.
pub const FIRST_READY_PREFIX: &str = "first-ready.daemonset-warden.io/";

/// Returns the key of the Node annotation that records that a pod of this DaemonSet was Ready once.
pub fn first_ready_annotation(daemon_set_uid: &str) -> String {
    format!("{FIRST_READY_PREFIX}{daemon_set_uid}")
}

/// The gate of one DaemonSet on one node.
#[derive(Debug)]
pub struct Gate {
    /// The DaemonSet of the pod.
    pub daemon_set: DaemonSetId,
    /// The DaemonSet's UID, for ids are given out again.
    pub daemon_set_uid: Arc<str>,
    /// True while ordinary pods are refused.
    pub is_closed: bool,
    /// True once the timeout was over before the pod was Ready. The gate then stays open until the pod has been Ready.
    pub is_expired: bool,
    /// True once a pod was Ready here, even if the watch has not brought the Node's annotation yet.
    pub was_ready: bool,
    clock: RefusalClock,
    /// The time in which pods waited that a review of their binding refused.
    bind_clock: RefusalClock,
    /// True once the end of the wait of bindings was told.
    is_end_for_bindings_told: bool,
    first_ready_asked_at: Option<Instant>,
    /// True if the Node had the annotation when it was last looked at.
    is_first_ready_recorded: bool,
    first_ready_removals: u8,
}

/// The removals of the annotation after which it is not written again. A person may remove one, and a replica that does not know
/// the DaemonSet's kind removes it every time.
const MAX_REMOVALS: u8 = 2;
/// The time after which a write of the annotation counts as lost.
const RECORD_AGAIN: Duration = Duration::from_secs(60);

impl Gate {
    /// Returns an open gate.
    pub fn new(daemon_set: DaemonSetId, daemon_set_uid: Arc<str>) -> Self {
        Self {
            daemon_set,
            daemon_set_uid,
            is_closed: false,
            is_expired: false,
            was_ready: false,
            clock: RefusalClock::default(),
            bind_clock: RefusalClock::default(),
            is_end_for_bindings_told: false,
            first_ready_asked_at: None,
            is_first_ready_recorded: false,
            first_ready_removals: 0,
        }
    }

    /// Notes if the Node has the annotation. Returns true if it has not, and may get it.
    pub fn may_record_first_ready(&mut self, is_recorded: bool) -> bool {
        if std::mem::replace(&mut self.is_first_ready_recorded, is_recorded) && !is_recorded {
            self.first_ready_removals = self.first_ready_removals.saturating_add(1);
        }
        !is_recorded && self.first_ready_removals < MAX_REMOVALS
    }

    /// Returns true if the annotation should be written now; false for a while after that.
    pub fn should_record_first_ready(&mut self, now: Instant) -> bool {
        let lately = |at: Instant| now.saturating_duration_since(at) < RECORD_AGAIN;
        if self.first_ready_asked_at.is_some_and(lately) {
            return false;
        }
        self.first_ready_asked_at = Some(now);
        true
    }

    /// Records that a pod was refused at a door, which starts the clock.
    pub fn record_refusal(&mut self, uid: &Arc<str>, door: Door, now: Instant) {
        self.clock.record_refusal(uid, now);
        if door == Door::Bind {
            self.bind_clock.record_refusal(uid, now);
        }
    }

    /// Returns true once bindings have waited for `timeout`. A scheduler that nobody tells of the gate tries the node again and
    /// again, so pods wait for it that could run elsewhere.
    pub fn is_over_for_bindings(&self, timeout: Duration) -> bool {
        self.bind_clock.spent() >= timeout
    }

    /// Opens the gate until the next refresh closes it. The spent time is kept.
    pub fn suspend(&mut self, now: Instant) {
        self.is_closed = false;
        self.clock.stop(now);
        self.bind_clock.stop(now);
    }

    /// Returns true if the record can be dropped without loss.
    pub fn is_blank(&self) -> bool {
        !self.is_expired && !self.was_ready && self.clock.spent().is_zero()
    }

    /// Opens the gate, and sets the spent time to zero. Call it when the daemon pod is Ready or, for [`GateKind::FirstReady`], has
    /// been Ready on this node once. [`Self::suspend`] keeps the spent time.
    pub fn open(&mut self) {
        self.is_closed = false;
        self.is_expired = false;
        self.clock = RefusalClock::default();
        self.bind_clock = RefusalClock::default();
        self.is_end_for_bindings_told = false;
    }

    /// Returns true once, when bindings have waited for `timeout`.
    pub fn ends_for_bindings(&mut self, timeout: Duration) -> bool {
        let is_news = self.is_over_for_bindings(timeout) && !self.is_end_for_bindings_told;
        self.is_end_for_bindings_told |= is_news;
        is_news
    }

    /// Returns the time in which pods waited at any door, and that in which bindings waited.
    pub(super) fn spent(&self) -> (Duration, Duration) {
        (self.clock.spent(), self.bind_clock.spent())
    }

    /// Takes over the time that another replica has counted, and the end that it has come to.
    pub(super) fn restore_spent(
        &mut self,
        (all, bindings): (Duration, Duration),
        is_expired: bool,
        now: Instant,
    ) {
        self.clock.restore_spent(all);
        self.bind_clock.restore_spent(bindings);
        if is_expired {
            self.suspend(now);
            self.is_expired = true;
        }
    }

    /// Counts the time until `now`. If a closed gate has spent `timeout`, opens it, marks it as expired and returns true.
    /// `is_waiting` is that of [`RefusalClock::tick`].
    pub fn tick(
        &mut self,
        now: Instant,
        timeout: Duration,
        is_waiting: impl Fn(&str) -> Option<bool>,
    ) -> bool {
        self.clock.tick(now, &is_waiting);
        self.bind_clock.tick(now, is_waiting);
        if self.is_closed && self.clock.spent() >= timeout {
            self.suspend(now);
            self.is_expired = true;
            return true;
        }
        false
    }

    /// Returns true while the clock runs: a pod that the gate refused waits.
    pub fn is_running(&self) -> bool {
        self.clock.is_running()
    }
}
