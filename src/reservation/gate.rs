//! A node that ordinary pods stay off until a daemon pod on it is Ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::refusal_clock::RefusalClock;
use crate::api::daemonset::DaemonSet;
use crate::cache::DaemonSetId;

/// The annotation by which a DaemonSet keeps ordinary pods off a node until its own pod there is Ready.
pub const GATE_ANNOTATION: &str = "daemonset-warden.io/ready-before-pods";

/// The time for which ordinary pods wait for a daemon pod to be Ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateKind {
    /// Until it is so for the first time on the node.
    FirstReady,
    /// Whenever it is not.
    Always,
}

/// Returns the gate that the annotation of `daemon_set` asks for.
pub fn gate_of(daemon_set: &DaemonSet) -> Option<GateKind> {
    match daemon_set.metadata.annotations.get(GATE_ANNOTATION)?.as_str() {
        "FirstReady" => Some(GateKind::FirstReady),
        "Always" => Some(GateKind::Always),
        _ => None,
    }
}

/// The prefix of the Node annotations that remember of which DaemonSets a pod was Ready once; the name is the UID.
pub const FIRST_READY_PREFIX: &str = "first-ready.daemonset-warden.io/";

/// The key of the Node annotation that remembers that a pod of this DaemonSet was Ready once.
pub fn first_ready_annotation(daemon_set_uid: &str) -> String {
    format!("{FIRST_READY_PREFIX}{daemon_set_uid}")
}

/// One daemon that ordinary pods wait for on a node.
#[derive(Debug)]
pub struct Gate {
    /// Whose pod.
    pub daemon_set: DaemonSetId,
    /// The UID of the DaemonSet: ids are used again.
    pub daemon_set_uid: Arc<str>,
    /// The template that the time was spent on.
    pub template_version: u64,
    /// Whether ordinary pods wait now.
    pub is_closed: bool,
    /// Whether its time was up before the pod was Ready.
    pub is_expired: bool,
    /// Whether the pod was Ready here once: `FirstReady` need not wait for the Node's annotation to come back.
    pub was_ready: bool,
    clock: RefusalClock,
    first_ready_asked_at: Option<Instant>,
}

/// After this long a request to remember something is taken for lost.
const RECORD_AGAIN: Duration = Duration::from_secs(60);

impl Gate {
    /// An open gate.
    pub fn new(daemon_set: DaemonSetId, daemon_set_uid: Arc<str>, template_version: u64) -> Self {
        Self {
            daemon_set,
            daemon_set_uid,
            template_version,
            is_closed: false,
            is_expired: false,
            was_ready: false,
            clock: RefusalClock::default(),
            first_ready_asked_at: None,
        }
    }

    /// Whether it is time to ask that the Node remember that the pod was Ready.
    pub fn should_record_first_ready(&mut self, now: Instant) -> bool {
        let lately = |at: Instant| now.saturating_duration_since(at) < RECORD_AGAIN;
        if self.first_ready_asked_at.is_some_and(lately) {
            return false;
        }
        self.first_ready_asked_at = Some(now);
        true
    }

    /// A pod was refused for it.
    pub fn record_refusal(&mut self, uid: &Arc<str>, now: Instant) {
        self.clock.record_refusal(uid, now);
    }

    /// Nothing waits for it for now; what was spent stays spent.
    pub fn suspend(&mut self, now: Instant) {
        self.is_closed = false;
        self.clock.stop(now);
    }

    /// The template has changed: all the time is given again.
    pub fn reset_for_template(&mut self, template_version: u64, now: Instant) {
        self.template_version = template_version;
        self.is_expired = false;
        self.clock.reset_spent(now);
    }

    /// Whether nothing would be lost by forgetting it.
    pub fn is_blank(&self) -> bool {
        !self.is_expired && !self.was_ready && self.clock.spent().is_zero()
    }

    /// The daemon pod is Ready: the time starts anew when it is not again.
    pub fn open(&mut self) {
        self.is_closed = false;
        self.is_expired = false;
        self.clock = RefusalClock::default();
    }

    /// Counts the time until `now`; whether it has just been up.
    pub fn tick(
        &mut self,
        now: Instant,
        timeout: Duration,
        is_waiting: impl Fn(&str) -> Option<bool>,
    ) -> bool {
        self.clock.tick(now, is_waiting);
        if self.is_closed && self.clock.spent() >= timeout {
            self.suspend(now);
            self.is_expired = true;
            return true;
        }
        false
    }

    /// Whether its time runs.
    pub fn is_running(&self) -> bool {
        self.clock.is_running()
    }
}
