//! Events on the Node and on the DaemonSet: few, and counted up rather than written anew.
//!
//! kube's recorder merges Events that say the same of the same object into one with a count. What is said of a DaemonSet
//! therefore names no node: a rollout over 5,000 nodes is one Event with a count, and each Node tells its own part.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{WRITE_TIME, WriteError};
use crate::reservation::cluster_write::{ClusterWrite, HoldSubject};
use crate::reservation::token_bucket::TokenBucket;
use crate::telemetry::logs::chain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::cluster::{WriteKind, WriteOutcome};

/// How many Events can be written at once, and how many a second after that.
const BURST: u32 = 50;
const PER_SECOND: u32 = 5;
/// How often the same is said of the same DaemonSet: Events are for people, metrics count.
const REPEAT: Duration = Duration::from_secs(10);
/// How many DaemonSets that is remembered for; beyond, all of it is forgotten and said once more.
const REMEMBERED: usize = 1_024;

/// Something that is told about a DaemonSet and a node.
#[derive(Debug)]
pub(super) struct EventWrite {
    about: HoldSubject,
    reason: &'static str,
    action: &'static str,
    why: &'static str,
    kind: EventType,
}

impl EventWrite {
    /// What is to be told of an effect, if anything.
    pub(super) fn of(effect: ClusterWrite) -> Option<Self> {
        let (about, reason, action, why, kind) = match effect {
            ClusterWrite::HoldingRoom(about) => (about, "HoldingRoom", "Hold", "", EventType::Normal),
            ClusterWrite::HoldEnded(about, end) => {
                (about, "HoldEnded", end.as_str(), end.message(), EventType::Normal)
            }
            ClusterWrite::GateExpired(about) => (about, "GateExpired", "Open", "", EventType::Warning),
            ClusterWrite::Wake(_) | ClusterWrite::RecordFirstReady { .. } | ClusterWrite::Nominate(_) => {
                return None;
            }
        };
        about.has_refused.then_some(Self { about, reason, action, why, kind })
    }

    /// On the Node, which names the DaemonSet.
    fn on_node(&self) -> (Event, ObjectReference) {
        let HoldSubject { namespace, name, .. } = &self.about;
        let text = match self.reason {
            "HoldingRoom" => format!("keeping room for the missing pod of DaemonSet {namespace}/{name}"),
            "HoldEnded" => {
                format!("no longer keeping room for the pod of DaemonSet {namespace}/{name}: {}", self.why)
            }
            _ => format!(
                "no longer waiting for the pod of DaemonSet {namespace}/{name} to be Ready: its time is up"
            ),
        };
        (self.event(text, Some(self.daemon_set())), self.node())
    }

    /// On the DaemonSet, in words that are the same for every node.
    fn on_daemon_set(&self) -> (Event, ObjectReference) {
        let text = match self.reason {
            "HoldingRoom" => "keeping room on nodes that miss a pod of this DaemonSet".to_owned(),
            "HoldEnded" => format!("no longer keeping room on a node: {}", self.why),
            _ => "ordinary pods no longer wait on a node for the pod of this DaemonSet to be Ready: its time is up".to_owned(),
        };
        (self.event(text, None), self.daemon_set())
    }

    fn event(&self, text: String, secondary: Option<ObjectReference>) -> Event {
        Event {
            type_: self.kind,
            reason: self.reason.to_owned(),
            note: Some(text),
            // Part of what the recorder tells Events apart by; the text is not.
            action: self.action.to_owned(),
            secondary,
        }
    }

    fn node(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.about.node.to_string()),
            uid: Some(self.about.node_uid.clone()),
            ..ObjectReference::default()
        }
    }

    fn daemon_set(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.about.api_version.clone()),
            kind: Some(self.about.kind.clone()),
            namespace: Some(self.about.namespace.clone()),
            name: Some(self.about.name.clone()),
            uid: Some(self.about.uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

/// Writes notes as they come.
pub(super) async fn run(
    client: Client,
    instance: Option<String>,
    mut notes: mpsc::Receiver<EventWrite>,
    metrics: Arc<Metrics>,
) {
    let reporter = Reporter { controller: super::FIELD_MANAGER.to_owned(), instance };
    let recorder = Recorder::new(client, reporter);
    let mut limiter = EventLimiter::new();
    let mut is_failing = false;
    while let Some(note) = notes.recv().await {
        let mut events = vec![note.on_node()];
        let key = (note.about.uid.clone(), note.reason, note.action);
        if limiter.is_due(key, Instant::now()) {
            events.push(note.on_daemon_set());
        }
        for (event, object) in events {
            if !limiter.bucket.take(1, Instant::now()) {
                metrics.cluster.record_write(WriteKind::Event, WriteOutcome::Dropped);
                continue;
            }
            let written = timeout(WRITE_TIME, recorder.publish(&event, &object)).await;
            match written.map_err(WriteError::from).and_then(|written| Ok(written?)) {
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
                        tracing::warn!("failed to write an Event{hint}: {}", chain(&error));
                    }
                }
            }
        }
    }
}

/// How many Events may be written.
#[derive(Debug)]
struct EventLimiter {
    bucket: TokenBucket,
    said: HashMap<(Arc<str>, &'static str, &'static str), Instant>,
}

impl EventLimiter {
    fn new() -> Self {
        Self { bucket: TokenBucket::new(BURST, PER_SECOND), said: HashMap::new() }
    }

    /// Whether it has not been said for a while.
    fn is_due(&mut self, what: (Arc<str>, &'static str, &'static str), now: Instant) -> bool {
        if self.said.get(&what).is_some_and(|at| now.saturating_duration_since(*at) < REPEAT) {
            return false;
        }
        if self.said.len() >= REMEMBERED {
            self.said.clear();
        }
        self.said.insert(what, now);
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
        let note = |node: &str| {
            let about = HoldSubject { node: node.into(), ..hold(true) };
            EventWrite::of(ClusterWrite::HoldEnded(about, EndReason::Landed)).unwrap()
        };
        let (one, on_one) = note("n1").on_daemon_set();
        let (other, on_other) = note("n2").on_daemon_set();
        assert_eq!((one.note, &on_one), (other.note, &on_other));
        assert_eq!(
            (on_one.kind.as_deref(), on_one.namespace.as_deref()),
            (Some("DaemonSet"), Some("kube-system"))
        );
        let (event, node) = note("n1").on_node();
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
    fn few() {
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
        assert!(limiter.said.len() <= REMEMBERED);
    }
}
