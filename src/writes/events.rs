//! Events on the Node and on the DaemonSet.
//!
//! kube's recorder merges equal Events on one object into a series with a count. The text on a DaemonSet therefore names no node: a
//! rollout over 5,000 nodes is one Event with a count, and the Event on each Node names the DaemonSet.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use super::in_time;
use crate::api::daemonset::{MAX_ELEMENTS, MAX_PLACEMENT_ELEMENTS};
use crate::api::meta::FIELD_MANAGER;
use crate::reservation::cluster_write::{ClusterWrite, DaemonSetReference, HoldSubject};
use crate::reservation::token_bucket::TokenBucket;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::cluster::{WriteKind, WriteOutcome};

/// The number of Events that can be written at once.
const BURST: u32 = 50;
/// The number of Events a second after a burst.
const PER_SECOND: u32 = 5;
/// The shortest time between two equal Events on one DaemonSet: Events are for people, the metrics count.
const REPEAT: Duration = Duration::from_secs(10);
/// The most entries of [`EventLimiter::written`]. Beyond, all of them are dropped, and some Events are written early.
const MAX_WRITTEN: usize = 1_024;

/// The action of the Event of a gate that bindings do not wait for any longer.
const OPEN_FOR_BINDINGS: &str = "OpenForBindings";

/// An Event about a DaemonSet and a node, to be written on both.
#[derive(Debug)]
pub(super) struct EventWrite {
    subject: HoldSubject,
    reason: &'static str,
    action: &'static str,
    reason_text: Cow<'static, str>,
    type_: EventType,
}

impl EventWrite {
    /// Returns the Event for a write; `None` if it is another kind of write, or if no pod was refused because of the hold or gate.
    pub(super) fn of(write: ClusterWrite) -> Option<Self> {
        let (subject, reason, action, reason_text, type_) = match write {
            ClusterWrite::HoldingRoom(subject) => {
                (subject, "HoldingRoom", "Hold", "".into(), EventType::Normal)
            }
            ClusterWrite::HoldEnded(subject, end) => {
                (subject, "HoldEnded", end.as_str(), end.message().into(), EventType::Normal)
            }
            ClusterWrite::NodeTooSmall(subject, shortage) => {
                (subject, "NodeTooSmall", "Pack", shortage.to_string().into(), EventType::Warning)
            }
            ClusterWrite::TooLarge(subject) => (subject, "TooLarge", "Hold", "".into(), EventType::Warning),
            ClusterWrite::GateExpired(subject) => {
                (subject, "GateExpired", "Open", "".into(), EventType::Warning)
            }
            ClusterWrite::GateExpiredForBindings(subject) => {
                (subject, "GateExpired", OPEN_FOR_BINDINGS, "".into(), EventType::Warning)
            }
            ClusterWrite::Wake(_)
            | ClusterWrite::RecordFirstReady { .. }
            | ClusterWrite::RemoveFirstReady { .. }
            | ClusterWrite::Nominate(_) => return None,
        };
        subject.has_refused.then_some(Self { subject, reason, action, reason_text, type_ })
    }

    /// The Event on the Node, whose text names the DaemonSet; `None` if the write is about no node.
    fn on_node(&self) -> Option<(Event, ObjectReference)> {
        if self.subject.node.is_empty() {
            return None;
        }
        let DaemonSetReference { namespace, name, .. } = &*self.subject.daemon_set;
        let text = match self.reason {
            "HoldingRoom" => format!("keeping room for the missing pod of DaemonSet {namespace}/{name}"),
            "HoldEnded" => {
                format!(
                    "no longer keeping room for the pod of DaemonSet {namespace}/{name}: {}",
                    self.reason_text
                )
            }
            "NodeTooSmall" => {
                format!("no room for the pod of DaemonSet {namespace}/{name}: {}", self.reason_text)
            }
            _ => format!(
                "{} waiting for the pod of DaemonSet {namespace}/{name} to be Ready: its time is up",
                if self.action == OPEN_FOR_BINDINGS { "bindings are no longer" } else { "no longer" }
            ),
        };
        Some((self.event(text, Some(self.daemon_set())), self.node()))
    }

    /// Returns the Event on the DaemonSet, with the same text for every node.
    fn on_daemon_set(&self) -> (Event, ObjectReference) {
        let text = match self.reason {
            "HoldingRoom" => "keeping room on nodes that miss a pod of this DaemonSet".to_owned(),
            "HoldEnded" => format!("no longer keeping room on a node: {}", self.reason_text),
            "NodeTooSmall" => "a node is too small for its daemons, and the pod of this DaemonSet does not fit beside those that go first: a higher priority or an older DaemonSet".to_owned(),
            "TooLarge" => format!("no room is reserved for the pods of this DaemonSet: its selector and template have more than {MAX_ELEMENTS} elements, or the node selector, node affinity and tolerations in it more than {MAX_PLACEMENT_ELEMENTS}"),
            _ if self.action == OPEN_FOR_BINDINGS => "bindings no longer wait on a node for the pod of this DaemonSet to be Ready: readinessGates.bindTimeout is up; the scheduler's extender, if there is one, still steers pods elsewhere".to_owned(),
            _ => "ordinary pods no longer wait on a node for the pod of this DaemonSet to be Ready: its time is up".to_owned(),
        };
        (self.event(text, None), self.daemon_set())
    }

    fn event(&self, text: String, secondary: Option<ObjectReference>) -> Event {
        Event {
            type_: self.type_,
            reason: self.reason.to_owned(),
            note: Some(text),
            // The recorder merges Events of equal action; it does not compare the text.
            action: self.action.to_owned(),
            secondary,
        }
    }

    fn node(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.subject.node.to_string()),
            uid: Some(self.subject.node_uid.clone()),
            ..ObjectReference::default()
        }
    }

    fn daemon_set(&self) -> ObjectReference {
        let DaemonSetReference { namespace, name, api_version, kind, uid } = &*self.subject.daemon_set;
        ObjectReference {
            api_version: Some(api_version.clone()),
            kind: Some(kind.clone()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

/// Writes the Events of the queue, on the Node and on the DaemonSet, until the queue is closed. Events that fail or are over the
/// limits are not tried again.
pub(super) async fn run(
    client: Client,
    instance: Option<String>,
    mut writes: mpsc::Receiver<EventWrite>,
    metrics: Arc<Metrics>,
) {
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance };
    let recorder = Recorder::new(client, reporter);
    let mut limiter = EventLimiter::new();
    let mut is_failing = false;
    while let Some(write) = writes.recv().await {
        let mut events = Vec::from_iter(write.on_node());
        let key = (write.subject.daemon_set.uid.clone(), write.reason, write.action);
        if limiter.is_due(key, Instant::now()) {
            events.push(write.on_daemon_set());
        }
        for (event, object) in events {
            if !limiter.bucket.take(1, Instant::now()) {
                metrics.cluster.record_write(WriteKind::Event, WriteOutcome::Dropped);
                continue;
            }
            match in_time(recorder.publish(&event, &object)).await {
                Ok(()) => {
                    is_failing = false;
                    metrics.cluster.record_write(WriteKind::Event, WriteOutcome::Done);
                }
                Err(error) => {
                    metrics.cluster.record_write(WriteKind::Event, WriteOutcome::Failed);
                    if !std::mem::replace(&mut is_failing, true) {
                        let forbidden = error.is_forbidden();
                        let hint =
                            if forbidden { ": grant create and patch on events.k8s.io events" } else { "" };
                        tracing::warn!("failed to write an Event{hint}: {}", Sanitized(&chain(&error)));
                    }
                }
            }
        }
    }
}

/// The limits of Events: their rate, and repetitions on one DaemonSet.
#[derive(Debug)]
struct EventLimiter {
    bucket: TokenBucket,
    written: HashMap<(Arc<str>, &'static str, &'static str), Instant>,
}

impl EventLimiter {
    fn new() -> Self {
        Self { bucket: TokenBucket::new(BURST, PER_SECOND), written: HashMap::new() }
    }

    /// Returns true if no equal Event was written within [`REPEAT`], and then records this one as written.
    fn is_due(&mut self, key: (Arc<str>, &'static str, &'static str), now: Instant) -> bool {
        if self.written.get(&key).is_some_and(|at| now.saturating_duration_since(*at) < REPEAT) {
            return false;
        }
        if self.written.len() >= MAX_WRITTEN {
            self.written.clear();
        }
        self.written.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::hold;
    use super::*;
    use crate::reservation::hold::EndReason;

    #[test]
    fn a_daemon_sets_events_are_the_same_for_every_node() {
        let write = |node: &str| {
            let subject = HoldSubject { node: node.into(), ..hold(true) };
            EventWrite::of(ClusterWrite::HoldEnded(subject, EndReason::Landed)).unwrap()
        };
        let (one, on_one) = write("n1").on_daemon_set();
        let (other, on_other) = write("n2").on_daemon_set();
        assert_eq!((one.note, &on_one), (other.note, &on_other));
        assert_eq!(
            (on_one.kind.as_deref(), on_one.namespace.as_deref()),
            (Some("DaemonSet"), Some("kube-system"))
        );
        let (event, node) = write("n1").on_node().unwrap();
        assert_eq!(
            event.note.as_deref(),
            Some(
                "no longer keeping room for the pod of DaemonSet kube-system/cni: the daemon pod is bound to the node"
            )
        );
        assert_eq!((node.namespace, node.uid.as_deref()), (None, Some("node-uid")));
        assert!(EventWrite::of(ClusterWrite::HoldEnded(hold(false), EndReason::Landed)).is_none());
    }

    #[test]
    fn events_are_limited_in_rate_and_repetition() {
        let now = Instant::now();
        let mut limiter = EventLimiter::new();
        let burst = (0..100).filter(|_| limiter.bucket.take(1, now)).count();
        let second = (0..100).filter(|_| limiter.bucket.take(1, now + Duration::from_secs(1))).count();
        assert_eq!((burst, second), (BURST as usize, PER_SECOND as usize));
        let key = || ("uid".into(), "HoldingRoom", "Hold");
        assert!(limiter.is_due(key(), now) && !limiter.is_due(key(), now));
        assert!(limiter.is_due(key(), now + REPEAT));
        for other in 0..5_000 {
            limiter.is_due((format!("{other}").into(), "HoldingRoom", "Hold"), now);
        }
        assert!(limiter.written.len() <= MAX_WRITTEN);
    }
}
