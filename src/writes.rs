//! EDGE out: what the cluster wants done outside: Events, Node wake-ups, Node annotations that remember, and nominations of pods.
//!
//! ```text
//! WriteQueue ──┬─▶ wake (the last one asked for wins) ──▶ patch of a Node, one a second at most
//!          ├─▶ remember (bounded)                 ──▶ patch of a Node, ten a second at most
//!          ├─▶ nominations (bounded)              ──▶ patch of a pod's status, 25 a second at most after a burst of 50
//!          └─▶ notes (bounded)                    ──▶ Events, five a second at most
//! ```
//! Nothing here ever waits on behalf of the caller: what does not fit is dropped and counted. A wake-up is never dropped, only
//! merged with others: waking one refused pod wakes all (kubernetes v1.36.3 pkg/scheduler/framework/types.go, the events of the pseudo plugin "Extender").

mod events;
mod first_ready;
mod nomination;
mod wake;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::events::EventWrite;
pub use self::nomination::{NominationReporter, NominationResult};
use crate::reservation::cluster_write::ClusterWrite;
use crate::reservation::nomination::{NOMINATED_AT_ONCE, Nomination};
use crate::telemetry::FIELD_MANAGER;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::cluster::{WriteKind, WriteOutcome};

/// How long the apiserver may take for one write.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// How many of each wait at most.
const QUEUE: usize = 1_024;
/// The same of nominations: those that may be under way, and as many that are taken back.
const NOMINATION_QUEUE: usize = 2 * NOMINATED_AT_ONCE;

/// Takes what is to be done; never waits.
pub struct WriteQueue {
    wake: watch::Sender<Option<Arc<str>>>,
    remember: mpsc::Sender<(Arc<str>, Arc<str>)>,
    nominations: mpsc::Sender<Nomination>,
    notes: mpsc::Sender<EventWrite>,
    metrics: Arc<Metrics>,
}

/// Does what comes through the [`WriteQueue`].
pub struct ClusterWriter {
    wake: watch::Receiver<Option<Arc<str>>>,
    remember: mpsc::Receiver<(Arc<str>, Arc<str>)>,
    nominations: mpsc::Receiver<Nomination>,
    notes: mpsc::Receiver<EventWrite>,
    metrics: Arc<Metrics>,
}

/// An outbox and whoever empties it.
pub fn outbox(metrics: Arc<Metrics>) -> (WriteQueue, ClusterWriter) {
    let (wake, wake_receiver) = watch::channel(None);
    let (remember, remember_receiver) = mpsc::channel(QUEUE);
    let (nominations, nominations_receiver) = mpsc::channel(NOMINATION_QUEUE);
    let (notes, notes_receiver) = mpsc::channel(QUEUE);
    let outbox = WriteQueue { wake, remember, nominations, notes, metrics: metrics.clone() };
    let deeds = ClusterWriter {
        wake: wake_receiver,
        remember: remember_receiver,
        nominations: nominations_receiver,
        notes: notes_receiver,
        metrics,
    };
    (outbox, deeds)
}

impl WriteQueue {
    /// Takes one thing to be done.
    pub fn post(&self, effect: ClusterWrite) {
        let (deed, fits) = match effect {
            ClusterWrite::Wake(node) => {
                self.wake.send_replace(Some(node));
                return;
            }
            ClusterWrite::RecordFirstReady { node, daemon_set_uid } => {
                (WriteKind::FirstReady, self.remember.try_send((node, daemon_set_uid)).is_ok())
            }
            ClusterWrite::Nominate(nomination) => {
                (WriteKind::of(&nomination), self.nominations.try_send(nomination).is_ok())
            }
            effect => match EventWrite::of(effect) {
                Some(note) => (WriteKind::Event, self.notes.try_send(note).is_ok()),
                // A hold that kept nobody off is no news.
                None => return,
            },
        };
        if !fits {
            self.metrics.cluster.record_write(deed, WriteOutcome::Dropped);
        }
    }
}

impl ClusterWriter {
    /// Does them, until what is returned is dropped. `instance` tells replicas apart in Events. `report` takes the answer to each
    /// nomination; without one no pod is nominated.
    pub fn start(
        self,
        client: Client,
        instance: Option<String>,
        report: Option<NominationReporter>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if let Some(report) = report {
            tasks.spawn(nomination::run(client.clone(), self.nominations, report, self.metrics.clone()));
        }
        tasks.spawn(wake::run(client.clone(), self.wake, self.metrics.clone()));
        tasks.spawn(first_ready::run(client.clone(), self.remember, self.metrics.clone()));
        tasks.spawn(events::run(client, instance, self.notes, self.metrics));
        tasks
    }
}

/// Why a write did not come about.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The apiserver refused or could not be reached.
    #[error("failed to write to the apiserver")]
    Api(#[from] kube::Error),
    /// It took too long.
    #[error("failed to write to the apiserver: no answer")]
    Time(#[from] tokio::time::error::Elapsed),
}

impl WriteError {
    /// Whether trying again is of no use: the object is gone, or we may not.
    fn is_final(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 422))
    }

    /// Whether the permission is missing.
    fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 403)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reservation::cluster_write::HoldSubject;
    use crate::reservation::hold::EndReason;

    pub(super) fn hold(has_refused: bool) -> HoldSubject {
        HoldSubject {
            node: "n1".into(),
            node_uid: "node-uid".into(),
            namespace: "kube-system".into(),
            name: "cni".into(),
            api_version: "apps/v1".into(),
            kind: "DaemonSet".into(),
            uid: "uid".into(),
            has_refused,
        }
    }

    #[test]
    fn nothing_waits_and_nothing_grows() {
        let metrics = Arc::new(Metrics::default());
        let (outbox, mut deeds) = outbox(metrics.clone());
        for _ in 0..QUEUE + 7 {
            outbox.post(ClusterWrite::HoldingRoom(hold(true)));
            outbox.post(ClusterWrite::HoldEnded(hold(false), EndReason::Landed));
            outbox.post(ClusterWrite::Wake("n1".into()));
            outbox.post(ClusterWrite::Wake("n2".into()));
        }
        assert_eq!(deeds.notes.len(), QUEUE);
        assert_eq!(deeds.wake.borrow_and_update().as_deref(), Some("n2"));
        let text = String::from_utf8(metrics.text()).unwrap();
        let dropped = r#"daemonset_warden_cluster_writes_total{kind="event",outcome="dropped"} 7"#;
        assert!(text.contains(dropped), "{text}");
    }
}
